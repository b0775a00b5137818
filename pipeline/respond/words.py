"""The words that say what a text is about."""

from __future__ import annotations

import re

__all__ = ["content_words", "straight"]

_WORD = re.compile(r"[^\W_]+(?:'[^\W_]+)?")
_SMALL = """
a about after all also am an and any anybody anyone anything are as at be because been before but by can
could did do does doing down each else even every everybody everyone everything for from get give go good
had has have he help her here him his how i if in instead into is it its just kind know let like look
make many may me might more most much must my need no nobody not nothing now of off on one only or other
our out over own part people person please put rather safe same say see she should so some somebody
someone something such take tell than that the their them then there these they thing things this those
through to together too two under up us use very want was way we were what when where which while who
whom whose why will with without would you your
"""
_OF_ANY_IMAGE = """
drawing drawn image images illustration painting photo photograph picture pictures render shown shows
showing text word words reads
"""
_SAY_NOTHING = frozenset((_SMALL + _OF_ANY_IMAGE).split())
_ENDINGS = (("ing", 6), ("ies", 5), ("ed", 5), ("es", 5), ("s", 4))
"""Endings of plurals and verbs, each with the shortest word that it is taken from."""


def straight(text: str) -> str:
    """A text with plain apostrophes."""
    return text.replace("’", "'")


def content_words(text: str) -> frozenset[str]:
    """The words of a text that say what it is about, without their endings: cut, cuts and cutting are one."""
    words = (word.split("'")[0] for word in _WORD.findall(straight(text).lower()))
    return frozenset(_stem(word) for word in words if len(word) > 2 and word not in _SAY_NOTHING)


def _stem(word: str) -> str:
    for ending, least in _ENDINGS:
        if word.endswith(ending) and len(word) >= least and not word.endswith("ss"):
            word = word.removesuffix(ending) + ("y" if ending == "ies" else "")
            break
    if len(word) > 3 and word[-1] == word[-2] and word[-1] not in "aeiouls":
        word = word[:-1]
    return word.removesuffix("e")

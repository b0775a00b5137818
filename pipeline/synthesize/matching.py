"""What is known of an image in words, and whether a scene suits it."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property

__all__ = ["KnownImage", "bare", "fill", "plural_forms"]

_WORDS = re.compile(r"[a-z0-9]+")


@dataclass(frozen=True)
class KnownImage:
    """An accepted image and what scenes may match on: its objects and subject, or else its caption.

    `maker` is the generator or the package that it comes from, which its looks tell.
    """

    image_id: str
    safe: bool
    class_name: str
    split: str
    subject: str
    caption: str
    objects: tuple[str, ...]
    maker: str = ""

    @cached_property
    def _names(self) -> frozenset[str]:
        return frozenset(
            " ".join(_WORDS.findall(name.lower())) for name in [*self.objects, bare(self.subject)]
        )

    @cached_property
    def _caption(self) -> str:
        return f" {' '.join(_WORDS.findall(self.caption.lower()))} "

    def shows(self, keywords: Iterable[str]) -> bool:
        """Whether one of `keywords` (words or phrases, singular or plural) is what the image shows.

        Where its objects are listed, one of them or the subject must be the keyword as a whole: a hot-air
        balloon is no balloon, and a chat that mentions a woman shows none. Where they are not, any words of
        the caption will do.
        """
        forms = [form for word in keywords for form in plural_forms(word)]
        if self.objects:
            return not self._names.isdisjoint(forms)
        return any(f" {form} " in self._caption for form in forms)

    def suits(self, keywords: Sequence[str]) -> bool:
        """Like `shows`, but an empty list suits every image."""
        return not keywords or self.shows(keywords)


def plural_forms(phrase: str) -> tuple[str, ...]:
    """A phrase, lower-cased, with the common plurals and singulars of its last word."""
    words = _WORDS.findall(phrase.lower())
    if not words:
        return ()
    *first, last = words
    forms = {last, last + "s", last + "es"}
    if last.endswith("y"):
        forms.add(last[:-1] + "ies")
    if last.endswith("fe"):
        forms.add(last[:-2] + "ves")
    if last.endswith("man"):
        forms.add(last[:-3] + "men")
    if last.endswith("s") and not last.endswith("ss"):
        forms.add(last[:-1])
    return tuple(sorted(" ".join([*first, form]) for form in forms))


def bare(subject: str) -> str:
    """A subject without its article or number."""
    return re.sub(r"^(a|an|the|some|two|three|several)\s+", "", subject, flags=re.IGNORECASE)


def fill(template: str, subject: str) -> str:
    """Fill `{thing}` (with the article it has) and `{the_thing}` from an image's subject."""
    text = template.format(thing=subject, the_thing=f"the {bare(subject)}")
    return text[:1].upper() + text[1:]

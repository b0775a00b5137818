"""What no configuration, prompt, caption or query may contain, whatever the taxonomy says.

Anything sexual with minors can be neither a class, a concept, a prompt nor a query. The rule is a pair of
word lists: a text that holds a word of each is refused. It errs on the side of refusing.
"""

from __future__ import annotations

import re
import unicodedata

__all__ = ["OPERATIONAL", "forbidden_reason"]

_AGES = (
    r"(1[0-7]|[1-9]|one|two|three|four|five|six|seven|eight|nine|ten|eleven|twelve|thirteen|fourteen|fifteen|"
    r"sixteen|seventeen)"
)
_YOUNG = re.compile(
    r"\b(minors?|\w*child(ren)?|kid(s|do|dos|die|dies)?|(school ?)?(boys?|girls?)|tweens?|"
    r"(?!canteens?\b)\w*teen(s|age\w*)?|under ?age\w*|pupils?|toddlers?|"
    r"bab(y|ies)|newborns?|infants?|juveniles?|adolescents?|youngsters?|youths?|lolitas?|"
    r"kindergart\w*|(primary|elementary|middle|high) school\w*|\w+ graders?|"
    r"(step)?(daughter|son|niece|nephew|brother|sister)s?|"
    rf"{_AGES} ?((years?|yrs?) ?olds?|yo|yrs?)|aged? {_AGES})\b"
)
_SEXUAL = re.compile(
    r"\b(sex(?!is[mt])\w*|nud(e|es|ity|ist|ists|ism)|naked\w*|topless|bare ?(breast|chest|bottom)\w*|"
    r"breasts?|erotic\w*|porn\w*|hentai|bdsm|explicit|undress\w*|unclothed|lingerie|underwear|bikinis?|"
    r"strip(s|ped|ping|tease|per|pers)?|seduc\w+|sensual\w*|intercourse|genital\w*|erections?|orgasm\w*|"
    r"masturbat\w*|fetish\w*|arous\w+)\b"
)
OPERATIONAL = re.compile(
    r"https?://|www\.|\bstep (1|one)\b|"
    r"\b\d+(\.\d+)?\s?(mg|milligrams?|g|grams?|ml|millilitres?|kg|volts?|amps?|°c|°f)\b",
    re.IGNORECASE,
)
"""Addresses, steps and amounts: what makes words a method. Neither queries nor refusals hold any."""
_LOOK_ALIKES = str.maketrans(
    "\u0430\u0435\u043e\u0440\u0441\u0443\u0445\u0456\u0455\u0501\u04bb\u03bf\u03b1\u03b9\u03bd",
    "aeopcyxisdhoaiv",
)
"""Cyrillic and Greek letters that look like Latin ones."""


def forbidden_reason(text: str) -> str | None:
    """Why `text` may not be used, or None.

    Args:
        text: one caption, concept, prompt or query.

    Returns:
        A reason that does not repeat the text, or None when nothing is wrong with it.
    """
    plain = _plain(text)
    if _YOUNG.search(plain) and _SEXUAL.search(plain):
        return "a text joins words for a minor with sexual words; this can not be used, remove it"
    return None


def _plain(text: str) -> str:
    """Lower case without accents, signs that are not seen, or letters that only look Latin."""
    apart = unicodedata.normalize("NFKD", text)
    seen = "".join(c for c in apart if unicodedata.category(c) not in {"Cf", "Mn", "Me"})
    return " ".join(re.sub(r"[_\-\u2010-\u2015./]+", " ", seen.casefold().translate(_LOOK_ALIKES)).split())

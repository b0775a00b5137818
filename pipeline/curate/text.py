"""Whether the texts that were read from two pictures are one text."""

from __future__ import annotations

import re
from difflib import SequenceMatcher

__all__ = ["alike_text", "same_text"]

SAME = 0.9
ALIKE = 0.8


def same_text(one: str, other: str) -> bool:
    """Whether two texts differ in no number, and otherwise no more than readings of one text do."""
    # Documents of one layout differ in their numbers first; a reader errs more often in letters.
    if re.findall(r"\d+", one) != re.findall(r"\d+", other):
        return False
    return SequenceMatcher(None, one, other, autojunk=False).ratio() >= SAME


def alike_text(one: str, other: str) -> bool:
    """Whether two texts may be readings of one: of a small copy a reader drops signs, digits and lines.

    Errs to the other side than `same_text`: images that stay together lose nothing, and a copy on the other
    side of the split would.
    """
    if not one or not other:
        return True
    return SequenceMatcher(None, one, other, autojunk=False).ratio() >= ALIKE

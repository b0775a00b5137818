"""Whether the texts that were read from two pictures are one text."""

from __future__ import annotations

import re
from difflib import SequenceMatcher

__all__ = ["same_text"]

SAME = 0.9


def same_text(one: str, other: str) -> bool:
    """Whether two texts differ in no number, and otherwise no more than readings of one text do."""
    # Documents of one layout differ in their numbers first; a reader errs more often in letters.
    if re.findall(r"\d+", one) != re.findall(r"\d+", other):
        return False
    return SequenceMatcher(None, one, other, autojunk=False).ratio() >= SAME

"""Queries that are nearly another's, or begin as too many others do."""

from __future__ import annotations

import re
import zlib
from collections import Counter
from collections.abc import Collection, Iterable

from pipeline.near_sets import NearSets

__all__ = ["NearQueries", "Openings", "opening"]

GRAM = 5
"""Characters of the pieces that queries are compared by."""
NEAR = 0.7
"""The share of their different pieces (Jaccard) that near-duplicates have in common. The audit asks .8."""
WORDS = 3
"""Words that make an opening."""
FREE = 3
"""An opening that so few queries have is none too many."""
_WORD = re.compile(r"[\w']+")


class NearQueries:
    """Finds a near-duplicate among the queries so far, without looking at all of them."""

    def __init__(self, like: Iterable[str] = (), least: float = NEAR) -> None:
        """Begin with none.

        Args:
            like: texts that tell which pieces are rare; these are looked up first.
            least: the Jaccard similarity of near-duplicates, 0..1.
        """
        self._common = Counter(piece for text in like for piece in _pieces(text))
        self._sets = NearSets(least)
        self._texts: list[str] = []

    def near(self, text: str, among: Collection[str] | None = None) -> str | None:
        """A query so far that `text` is a near-duplicate of, the first; None where there is none.

        Args:
            text: a query.
            among: the queries that count; by default all do.
        """
        found = (self._texts[place] for place, _ in self._sets.near(self._members(text)))
        return next((other for other in found if among is None or other in among), None)

    def add(self, text: str) -> None:
        """Remember a query."""
        self._sets.add(self._members(text))
        self._texts.append(text)

    def _members(self, text: str) -> list[int]:
        return sorted(_pieces(text), key=lambda piece: (self._common[piece], piece))


class Openings:
    """How many queries of a class begin with the same words."""

    def __init__(self, most: float, expected: int) -> None:
        """Begin with none.

        Args:
            most: the share of the queries that may have one opening, 0..1.
            expected: how many queries there will be.
        """
        self._most = max(FREE, round(most * expected))
        self._seen: Counter[str] = Counter()

    def worn(self, text: str) -> bool:
        """Whether as many queries as may begin so do already."""
        return self._seen[opening(text)] >= self._most

    def add(self, text: str) -> None:
        """Count a query."""
        self._seen[opening(text)] += 1


def opening(text: str) -> str:
    """The first three words."""
    return " ".join(_WORD.findall(text.lower())[:WORDS])


def _pieces(text: str) -> frozenset[int]:
    plain = f" {' '.join(_WORD.findall(text.lower()))} "
    return frozenset(zlib.crc32(plain[i : i + GRAM].encode()) for i in range(max(1, len(plain) - GRAM + 1)))

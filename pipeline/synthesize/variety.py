"""Queries that are nearly another's, or begin as too many others do."""

from __future__ import annotations

import re
import zlib
from collections import Counter, defaultdict
from collections.abc import Iterable

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
    """Finds a near-duplicate among the queries so far, without looking at all of them.

    Two sets of pieces that share a share t of their union must share one of the first (1 - t)·n + 1 pieces
    of each, in any fixed order (prefix filtering, Chaudhuri et al. 2006). The order is that of how rare they
    are, so that few queries share one of the first.
    """

    def __init__(self, like: Iterable[str] = (), least: float = NEAR) -> None:
        """Begin with none.

        Args:
            like: texts that tell which pieces are rare.
            least: the Jaccard similarity of near-duplicates, 0..1.
        """
        self._least = least
        self._common = Counter(piece for text in like for piece in _pieces(text))
        self._sets: list[frozenset[int]] = []
        self._texts: list[str] = []
        self._holding: dict[int, list[int]] = defaultdict(list)

    def near(self, text: str) -> str | None:
        """A query so far that `text` is a near-duplicate of, the first; None where there is none."""
        pieces = _pieces(text)
        places = {place for piece in self._prefix(pieces) for place in self._holding.get(piece, ())}
        for place in sorted(places):
            both = len(pieces & self._sets[place])
            if both >= self._least * (len(pieces) + len(self._sets[place]) - both):
                return self._texts[place]
        return None

    def add(self, text: str) -> None:
        """Remember a query."""
        pieces = _pieces(text)
        for piece in self._prefix(pieces):
            self._holding[piece].append(len(self._sets))
        self._sets.append(pieces)
        self._texts.append(text)

    def _prefix(self, pieces: frozenset[int]) -> list[int]:
        ordered = sorted(pieces, key=lambda piece: (self._common[piece], piece))
        return ordered[: int((1 - self._least) * len(pieces)) + 1]


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

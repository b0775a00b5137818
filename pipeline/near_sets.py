"""Sets that have much in common, found exactly and without comparing all with all.

Two sets whose Jaccard index is at least t share one of the first n - ceil(t n) + 1 members of each, n being
its size, whatever order all members are put in (prefix filtering: Chaudhuri, Ganti and Kaushik 2006). Only
these are looked up. The fewer sets share the members that come first, the less there is to compare.
"""

from __future__ import annotations

import math
from array import array
from collections import defaultdict
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

__all__ = ["NearSets"]

# Thresholds like .6 are not quite what they are called.
_SLACK = 1e-9
_WORDS = 4
# Knuth's multiplier: spreads numbers that follow each other.
_SPREAD = np.uint64(0x9E3779B97F4A7C15)
_SHIFT = np.uint64(64 - 8)


class NearSets:
    """The sets so far, each with its place: 0, 1, 2 and so on; eight bytes a member and forty a set."""

    def __init__(self, least: float) -> None:
        """Begin with none.

        Args:
            least: the Jaccard index of sets that are near, above 0 and at most 1.
        """
        self._least = least
        self._sets: list[array[int]] = []
        self._holders: defaultdict[int, array[int]] = defaultdict(lambda: array("Q"))
        self._marks = np.empty((16, _WORDS), np.uint64)
        self._sizes = np.empty(16, np.int64)

    def add(self, members: Sequence[int]) -> int:
        """Remember a set and return its place.

        Args:
            members: one or more different numbers, 0 to 2^64 - 1, in an order that is the same for all sets.
        """
        place = len(self._sets)
        for member in self._first(members):
            self._holders[member].append(place)
        self._sets.append(array("Q", members))
        if place == len(self._sizes):
            self._marks, self._sizes = (
                np.concatenate([a, np.empty_like(a)]) for a in (self._marks, self._sizes)
            )
        self._marks[place], self._sizes[place] = _mark(self._sets[-1]), len(members)
        return place

    def near(self, members: Sequence[int], most: int | None = None) -> list[tuple[int, float]]:
        """The sets so far that are near this one: the place and the Jaccard index of each, by place.

        Args:
            members: as for `add`.
            most: how many are enough; by default all are found.
        """
        mine = frozenset(members)
        found = []
        for place in self._candidates(members).tolist():
            other = self._sets[place]
            both = len(mine.intersection(other))
            either = len(mine) + len(other) - both
            if both >= self._least * either - _SLACK:
                found.append((place, both / either))
                if len(found) == most:
                    break
        return found

    def _candidates(self, members: Sequence[int]) -> NDArray[np.uint64]:
        """Places of sets that may be near, in order and each once."""
        held = [self._holders[member] for member in self._first(members) if member in self._holders]
        places = np.concatenate([np.empty(0, np.uint64), *(np.frombuffer(h, np.uint64) for h in held)])
        # Sets of a and b members with a Jaccard index of t differ by (a + b)(1 - t) / (1 + t) members.
        most = (len(members) + self._sizes[places]) * (1 - self._least) / (1 + self._least) + _SLACK
        apart = np.abs(len(members) - self._sizes[places])
        places, most = places[apart <= most], most[apart <= most]
        bits = np.bitwise_count(self._marks[places] ^ _mark(array("Q", members))).sum(1)
        return np.unique(places[bits <= most])

    def _first(self, members: Sequence[int]) -> Sequence[int]:
        n = len(members)
        return members[: n - math.ceil(self._least * n - _SLACK) + 1]


def _mark(members: array[int]) -> NDArray[np.uint64]:
    """The parity of the members that fall on each of 256 bits."""
    bits = (np.frombuffer(members, np.uint64) * _SPREAD) >> _SHIFT
    odd = np.bincount(bits.astype(np.int64), minlength=64 * _WORDS) & 1
    return np.packbits(odd.astype(np.uint8)).view(np.uint64)

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

__all__ = ["NearSets"]

# Thresholds like .6 are not quite what they are called.
_SLACK = 1e-9


class NearSets:
    """The sets so far, eight bytes a member, each with its place: 0, 1, 2 and so on."""

    def __init__(self, least: float) -> None:
        """Begin with none.

        Args:
            least: the Jaccard index of sets that are near, above 0 and at most 1.
        """
        self._least = least
        self._sets: list[array[int]] = []
        self._holders: defaultdict[int, array[int]] = defaultdict(lambda: array("L"))

    def add(self, members: Sequence[int]) -> int:
        """Remember a set and return its place.

        Args:
            members: one or more different numbers, 0 to 2^64 - 1, in an order that is the same for all sets.
        """
        place = len(self._sets)
        for member in self._first(members):
            self._holders[member].append(place)
        self._sets.append(array("Q", members))
        return place

    def near(self, members: Sequence[int], most: int | None = None) -> list[tuple[int, float]]:
        """The sets so far that are near this one: the place and the Jaccard index of each, by place.

        Args:
            members: as for `add`.
            most: how many are enough; by default all are found.
        """
        mine = frozenset(members)
        found = []
        for place in sorted({p for member in self._first(members) for p in self._holders.get(member, ())}):
            other = self._sets[place]
            small, large = sorted((len(mine), len(other)))
            if small < self._least * large - _SLACK:
                continue
            both = len(mine.intersection(other))
            either = len(mine) + len(other) - both
            if both >= self._least * either - _SLACK:
                found.append((place, both / either))
                if len(found) == most:
                    break
        return found

    def _first(self, members: Sequence[int]) -> Sequence[int]:
        n = len(members)
        return members[: n - math.ceil(self._least * n - _SLACK) + 1]

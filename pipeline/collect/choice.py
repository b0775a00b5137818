"""Which of the listed images are taken: a fair share of each class, without holding the whole list.

The order within a cell (a class and a side) is that of a seeded hash of the name, so that the choice does
not hang on how the list is sorted. Only as many candidates are held as may be needed; where more of them
fail, the list is read again for the ones that come after.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field

from pipeline.collect.metadata import Candidate
from pipeline.store import sha256_text
from schemas.params import PerClass

__all__ = ["Choice"]

SPARE = 16  # candidates held beyond those wanted; four times as many at each further reading


@dataclass
class _Cell:
    """One class and side.

    Attributes:
        wanted: images still to be taken.
        after: the hash that the choice has come to.
        waiting: the next candidates in order, with their place in the list.
        all_read: whether the list holds none beyond those.
    """

    wanted: int
    after: int = -1
    waiting: list[tuple[int, int, Candidate]] = field(default_factory=list)
    all_read: bool = False

    @property
    def open(self) -> bool:
        return self.wanted > 0 and (bool(self.waiting) or not self.all_read)


class Choice:
    """Gives candidates in rounds until each cell has its share, or there are no more."""

    def __init__(self, limits: PerClass, seed: int, classes: Iterable[str]) -> None:
        """Open the cells of `classes`."""
        self._seed, self._spare = seed, SPARE
        self._cells = {
            (name, safe): _Cell(limits.safe if safe else limits.unsafe)
            for name in classes
            for safe in (True, False)
        }

    def rounds(self, listed: Callable[[], Iterator[Candidate]]) -> Iterator[list[Candidate]]:
        """Rounds of candidates, each in the order of the list; say `take` of those that were good.

        Args:
            listed: reads the list, the same each time.
        """
        while any(cell.open for cell in self._cells.values()):
            if any(cell.open and not cell.waiting for cell in self._cells.values()):
                self._read(listed())
            chosen = []
            for cell in self._cells.values():
                now, cell.waiting = cell.waiting[: cell.wanted], cell.waiting[cell.wanted :]
                if now:
                    cell.after = now[-1][0]
                chosen += now
            yield [candidate for _, _, candidate in sorted(chosen, key=lambda c: c[1])]

    def take(self, candidate: Candidate) -> None:
        """Count a candidate that was good."""
        self._cells[candidate.meta.class_, candidate.meta.safe].wanted -= 1

    def _read(self, listed: Iterator[Candidate]) -> None:
        """Fill up every open cell with the candidates that come next."""
        heaps: dict[tuple[str, bool], list[tuple[int, int, Candidate]]] = {}
        more: set[tuple[str, bool]] = set()
        for place, candidate in enumerate(listed):
            key = candidate.meta.class_, candidate.meta.safe
            cell = self._cells.get(key)
            if cell is None or not cell.open:
                continue
            rank = int(sha256_text(f"{self._seed}:{candidate.found.name}"), 16)
            if rank <= cell.after:
                continue
            heap = heaps.setdefault(key, [])
            heapq.heappush(heap, (-rank, -place, candidate))  # the greatest on top, to be dropped first
            if len(heap) > cell.wanted + self._spare:
                heapq.heappop(heap)
                more.add(key)
        for key, cell in self._cells.items():
            cell.waiting = sorted((-rank, -place, c) for rank, place, c in heaps.get(key, []))
            cell.all_read = key not in more
        self._spare *= 4

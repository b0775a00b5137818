"""What a run may spend: the worst case of a call is reserved before it is sent, and settled after."""

from __future__ import annotations

import asyncio
import math
import threading
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping

from pipeline.engine.cache import CallCache
from pipeline.engine.endpoint import EndpointError

__all__ = ["TOTAL", "Budget", "BudgetError"]

TOTAL = "total"
"""The name under which a budget counts all stages together."""
WAIT_S = 0.02
BOOKS_S = 1.0
_ROUNDING = 1e-9


class BudgetError(EndpointError):
    """The next call could cost more than is left: nothing more is sent. What was answered is kept."""


class Budget:
    """Caps in US dollars, on everything and on single stages; shared by the engines of a build.

    What was spent is read from the books of the call cache, so a cap holds over any number of runs. They are
    read again and again: of programs that share a cache and run at once, each knows what the others have
    spent up to a second ago, but not what they have under way. A call whose answer was lost may have been
    billed: until the program ends it counts for its worst case.
    """

    def __init__(
        self, caps: Mapping[str, float], books: Callable[[], Mapping[str, float]] = dict[str, float]
    ) -> None:
        """Take note of the caps.

        Args:
            caps: dollars by stage, and under `TOTAL` for all.
            books: tells the dollars that answered calls have cost, under the same names. A call must be in
                them before it is settled.
        """
        self._caps = dict(caps)
        self._books = books
        self._read_at = -math.inf
        self._in_books: Mapping[str, float] = {}
        # Settled since the books were read. What came into them before it was settled counts twice until they
        # are read again, never not at all.
        self._since = defaultdict[str, float](float)
        self._lost = defaultdict[str, float](float)
        self._reserved = defaultdict[str, float](float)
        self._lock = threading.Lock()

    @classmethod
    def of(cls, cache: CallCache, caps: Mapping[str, float]) -> Budget:
        """A budget that knows what the answers in `cache` have cost."""

        def books() -> dict[str, float]:
            spent = defaultdict[str, float](float)
            for use in cache.usage():
                spent[TOTAL] += use.cost_usd
                spent[use.stage] += use.cost_usd
            return spent

        return cls(caps, books)

    def caps(self, stage: str) -> bool:
        """Whether there is a cap on a stage or on everything."""
        return bool({TOTAL, stage} & self._caps.keys())

    async def reserve(self, stage: str, usd: float) -> None:
        """Set aside the worst case of a call; wait for calls under way where they may leave room for it.

        Raises:
            BudgetError: when it does not fit though nothing is under way.
        """
        while usd > 0 and not self._take(stage, usd):
            await asyncio.sleep(WAIT_S)

    def fits(self, stage: str, usd: float) -> bool:
        """Whether so much could be reserved now."""
        with self._lock:
            return all(
                self._spent(name) + self._reserved[name] + usd <= cap + _ROUNDING
                for name, cap in self._held_by(stage)
            )

    def claim(self, stage: str, usd: float) -> None:
        """Reserve for what is under way already, whether or not there is room."""
        with self._lock:
            for name in (TOTAL, stage):
                self._reserved[name] += usd

    def settle(self, stage: str, reserved: float, actual: float, *, lost: bool = False) -> None:
        """Replace what was reserved by what the call has cost.

        Args:
            stage: who asked.
            reserved: what was set aside for it.
            actual: what it has cost, in US dollars.
            lost: its answer did not come into the books.
        """
        with self._lock:
            for name in (TOTAL, stage):
                self._reserved[name] -= reserved
                (self._lost if lost else self._since)[name] += actual

    def _held_by(self, stage: str) -> Iterator[tuple[str, float]]:
        for name in (TOTAL, stage):
            if name in self._caps:
                yield name, self._caps[name]

    def _spent(self, name: str) -> float:
        return self._in_books.get(name, 0.0) + self._since[name] + self._lost[name]

    def _read_books(self) -> None:
        self._in_books = self._books()
        self._since.clear()
        self._read_at = time.monotonic()

    def _take(self, stage: str, usd: float) -> bool:
        with self._lock:
            if self.caps(stage) and time.monotonic() - self._read_at > BOOKS_S:
                self._read_books()
            for name, cap in self._held_by(stage):
                if self._spent(name) + self._reserved[name] + usd <= cap + _ROUNDING:
                    continue
                if self._reserved[name] >= _ROUNDING:
                    return False
                self._read_books()
                if self._spent(name) + usd <= cap + _ROUNDING:
                    return False  # there is room after all; the other cap is looked at anew
                raise BudgetError(
                    f"the budget is spent: {self._spent(name):.4f} of {cap:.4f} USD "
                    f"({'in all' if name == TOTAL else name}), and the next call may cost {usd:.4f}. "
                    f"Nothing is lost: raise budget.{name if name == TOTAL else f'stages.{name}'} in "
                    "params.yaml and run the same command again"
                )
            for name in (TOTAL, stage):
                self._reserved[name] += usd
            return True

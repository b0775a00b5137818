"""What a run may spend: the worst case of a call is reserved before it is sent, and settled after."""

from __future__ import annotations

import asyncio
import threading
from collections import defaultdict
from collections.abc import Mapping

from pipeline.engine.cache import CallCache
from pipeline.engine.endpoint import EndpointError

__all__ = ["TOTAL", "Budget", "BudgetError"]

TOTAL = "total"
WAIT_S = 0.02
_ROUNDING = 1e-9


class BudgetError(EndpointError):
    """The next call could cost more than is left: nothing more is sent. What was answered is kept."""


class Budget:
    """Caps in US dollars, on everything and on single stages; shared by the engines of a build.

    What was spent before is the sum over the call cache, so a cap holds over any number of runs. A call
    whose answer was lost may have been billed: until the program ends it counts for its worst case. Several
    programs at once each count what they found when they began, and their own.
    """

    def __init__(self, caps: Mapping[str, float], spent: Mapping[str, float]) -> None:
        """Take note of the caps.

        Args:
            caps: dollars by stage, and under `TOTAL` for all.
            spent: dollars spent already, under the same names.
        """
        self._caps = dict(caps)
        self._spent = defaultdict[str, float](float, spent)
        self._reserved = defaultdict[str, float](float)
        self._lock = threading.Lock()

    @classmethod
    def of(cls, cache: CallCache, caps: Mapping[str, float]) -> Budget:
        """A budget that knows what the answers in `cache` have cost."""
        spent = defaultdict[str, float](float)
        for use in cache.usage():
            spent[TOTAL] += use.cost_usd
            spent[use.stage] += use.cost_usd
        return cls(caps, spent)

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
                self._spent[name] + self._reserved[name] + usd <= cap + _ROUNDING
                for name in (TOTAL, stage)
                if (cap := self._caps.get(name)) is not None
            )

    def claim(self, stage: str, usd: float) -> None:
        """Reserve for what is under way already, whether or not there is room."""
        with self._lock:
            for name in (TOTAL, stage):
                self._reserved[name] += usd

    def settle(self, stage: str, reserved: float, actual: float) -> None:
        """Replace what was reserved by what the call has cost."""
        if not reserved and not actual:
            return
        with self._lock:
            for name in (TOTAL, stage):
                self._reserved[name] -= reserved
                self._spent[name] += actual

    def _take(self, stage: str, usd: float) -> bool:
        with self._lock:
            for name in (TOTAL, stage):
                cap = self._caps.get(name)
                if cap is None:
                    continue
                if self._spent[name] + usd > cap + _ROUNDING and self._reserved[name] < _ROUNDING:
                    raise BudgetError(
                        f"the budget is spent: {self._spent[name]:.4f} of {cap:.4f} USD "
                        f"({'in all' if name == TOTAL else name}), and the next call may cost {usd:.4f}. "
                        f"Nothing is lost: raise budget.{name if name == TOTAL else f'stages.{name}'} in "
                        "params.yaml and run the same command again"
                    )
                if self._spent[name] + self._reserved[name] + usd > cap + _ROUNDING:
                    return False
            for name in (TOTAL, stage):
                self._reserved[name] += usd
            return True

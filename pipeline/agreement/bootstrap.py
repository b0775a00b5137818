"""Intervals by drawing items anew: a percentile bootstrap that keeps the votes of an item together."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np

from pipeline.agreement.coefficients import Floats, Ints

__all__ = ["LEVEL", "Interval", "bootstrap", "interval", "resamples"]

LEVEL = 0.95
CELLS = 8_000_000  # weights in memory at one time
PER_ITEM = 8  # a pattern takes about as long to draw as this many items


@dataclass(frozen=True, slots=True)
class Interval:
    """A percentile interval.

    Attributes:
        low: its lower end; None where more than half of the resamples are left out.
        high: its upper end, or None.
        left_out: resamples in which the figure is not defined.
        rounds: resamples in all.
    """

    low: float | None
    high: float | None
    left_out: int
    rounds: int


def resamples(items: Ints, rounds: int, seed: int) -> Iterator[Floats]:
    """How many items of each pattern a resample holds: `rounds` rows in all, some at a time.

    Drawing items with replacement and counting their patterns is drawing from a multinomial over patterns.
    Where nearly every item has a pattern of its own, items are drawn, since that is quicker.
    """
    rng = np.random.default_rng(seed)
    n, kinds = int(items.sum()), len(items)
    owner = np.repeat(np.arange(kinds), items) if n < PER_ITEM * kinds else None
    step = max(1, CELLS // max(1, kinds))
    for start in range(0, rounds, step):
        many = min(step, rounds - start)
        if owner is None:
            yield rng.multinomial(n, items / n, size=many).astype(np.float64)
        else:
            drawn = np.empty((many, kinds))
            for row in drawn:
                row[:] = np.bincount(owner[rng.integers(0, n, n)], minlength=kinds)
            yield drawn


def bootstrap(items: Ints, figures: Callable[[Floats], Floats], rounds: int, seed: int) -> Floats:
    """What `figures`, from weights to rounds x figures, says of each resample; at least one round."""
    return np.concatenate([figures(drawn) for drawn in resamples(items, rounds, seed)])


def interval(drawn: Floats) -> Interval:
    """The 95 % percentile interval of one figure's resamples, of those in which it is defined."""
    known = drawn[~np.isnan(drawn)]
    left_out = len(drawn) - len(known)
    if 2 * left_out > len(drawn) or not len(known):
        return Interval(None, None, left_out, len(drawn))
    low, high = np.quantile(known, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return Interval(float(low), float(high), left_out, len(drawn))

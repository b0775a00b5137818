"""Intervals by drawing items anew: a percentile bootstrap that keeps the votes of an item together."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np

from pipeline.agreement.coefficients import Floats, Ints

__all__ = ["LEVEL", "Interval", "bootstrap", "intervals", "resamples"]

LEVEL = 0.95
CELLS = 16_000_000  # numbers of resamples in memory at one time
PER_PATTERN = 10  # items that are drawn one by one while a pattern's share of a multinomial is
PER_ROUND = 1000  # items that are drawn while a round of them is begun


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
    owner = np.repeat(np.arange(kinds), items) if n + PER_ROUND < PER_PATTERN * kinds else None
    step = max(1, CELLS // max(1, kinds))
    for start in range(0, rounds, step):
        many = min(step, rounds - start)
        if owner is None:
            yield rng.multinomial(n, items / n, size=many).astype(np.float64)
        else:
            drawn = np.empty((many, kinds))
            for row in drawn:
                which = rng.integers(0, n, n)
                row[:] = np.bincount(which if n == kinds else owner[which], minlength=kinds)
            yield drawn


def bootstrap(items: Ints, figures: Callable[[Floats], Floats], rounds: int, seed: int) -> Floats:
    """What `figures`, from weights to rounds x figures, says of each resample; at least one round."""
    return np.concatenate([figures(drawn) for drawn in resamples(items, rounds, seed)])


def intervals(drawn: Floats) -> list[Interval]:
    """The 95 % percentile interval of each column, of the resamples in which it is defined."""
    rounds = len(drawn)
    known = rounds - np.isnan(drawn).sum(0)
    ordered = np.sort(drawn, axis=0)
    ends = [_quantile(ordered, known, share) for share in ((1 - LEVEL) / 2, (1 + LEVEL) / 2)]
    found = []
    for low, high, n in zip(*ends, known.tolist(), strict=True):
        if not n or 2 * n < rounds:
            found.append(Interval(None, None, rounds - n, rounds))
        else:
            found.append(Interval(float(low), float(high), rounds - n, rounds))
    return found


def _quantile(ordered: Floats, known: Ints, share: float) -> Floats:
    """Of the first `known` of each column: between the two that are nearest."""
    if not len(ordered):
        return np.full(len(known), np.nan)
    last = np.maximum(known - 1, 0)
    place = last * share
    below = np.floor(place).astype(np.int64)
    column = np.arange(len(known))
    low, high = ordered[below, column], ordered[np.minimum(below + 1, last), column]
    return np.asarray(low + (high - low) * (place - below))

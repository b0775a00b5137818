"""Shares of rows and means of shares, each with an interval that knows which rows have one image."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from pipeline.agreement.bootstrap import intervals, resamples
from pipeline.intervals import wilson

__all__ = ["ROUNDS", "Drawn", "Rate", "Share", "mean_of", "rate_of", "rounded", "shares"]

Bools = NDArray[np.bool_]
Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

ROUNDS = 1000
"""Resamples behind an interval."""
DECIMALS = 6
IntervalName = Literal["wilson", "bootstrap", "wilson of images", "mover"]


@dataclass(frozen=True, slots=True)
class Rate:
    """A share of rows, or a mean of such shares, with its 95 % interval.

    Attributes:
        value: 0..1; None with a `reason`.
        low: of the interval; None where there is none.
        high: its other end.
        hits: rows that count; None for a mean.
        n: rows that are counted.
        interval: `wilson` where no two rows have one image; else `bootstrap` by image, and `wilson of images`
            where all rows have one verdict, each image being taken for one row. Of a mean `bootstrap`, and
            where all rows of a type have one verdict the types' own put together (`mover`; Zou and Donner
            2008). None where there is none.
        reason: why there is no value or no interval; empty where there is.
    """

    value: float | None
    low: float | None
    high: float | None
    hits: int | None
    n: int
    interval: IntervalName | None
    reason: str


@dataclass(frozen=True, slots=True)
class Share:
    """Which rows a share is of, and which of them are hits.

    Attributes:
        rows: places of the rows.
        hit: of each, whether it is one; says nothing where `judged` is false.
        judged: of each, whether there is a verdict.
        otherwise: what a row without a verdict is where it is counted all the same.
    """

    rows: Ints
    hit: Bools
    judged: Bools
    otherwise: bool


@dataclass(frozen=True, slots=True)
class Drawn:
    """A share, and what it is in resamples.

    Attributes:
        hits: rows that are hits.
        n: all rows.
        images: different images of these.
        most: rows of the image that has most of them.
        again: the share in each resample; NaN where it has no such row.
    """

    hits: int
    n: int
    images: int
    most: int
    again: Floats


def shares(
    some: Sequence[Share], image: Ints, rounds: int = ROUNDS, seed: int = 0
) -> list[tuple[Drawn, Drawn]]:
    """Each share in two ways: without the rows that have no verdict, and with them.

    Images are drawn anew with replacement, each with all its rows, and all shares are counted in the same
    resamples, so that means of them can be.

    Args:
        some: shares of the same rows.
        image: number of the image of each row, from 0, without gaps.
        rounds: resamples, at least one.
        seed: of the resamples.
    """
    images = int(image.max()) + 1 if len(image) else 0
    tables = []
    for share in some:
        hit = share.hit & share.judged
        with_all = hit | (~share.judged & share.otherwise)
        whole = np.ones(len(share.rows), np.bool_)
        own, place = np.unique(image[share.rows], return_inverse=True)
        columns = [hit, share.judged, with_all, whole]
        table = np.stack([np.bincount(place, c, len(own)) for c in columns], axis=1).astype(np.float64)
        tables.append((own, table))
    again = np.zeros((rounds, len(some), 4))
    at = 0
    for weights in resamples(np.ones(images, np.int64), rounds, seed) if images else ():
        for k, (own, table) in enumerate(tables):
            again[at : at + len(weights), k] = weights[:, own] @ table
        at += len(weights)
    with np.errstate(invalid="ignore"):
        ratios = again[..., ::2] / again[..., 1::2]
    return [
        (_drawn(table[:, :2], ratios[:, k, 0]), _drawn(table[:, 2:], ratios[:, k, 1]))
        for k, (_, table) in enumerate(tables)
    ]


def _drawn(table: Floats, again: Floats) -> Drawn:
    hits, n = table.sum(0)
    return Drawn(int(hits), int(n), int((table[:, 1] > 0).sum()), int(table[:, 1].max(initial=0)), again)


def rate_of(share: Drawn, nothing: str) -> Rate:
    """A share with its interval.

    Args:
        share: it.
        nothing: why it is of no rows, where it is.
    """
    if not share.n:
        return Rate(None, None, None, 0, 0, None, nothing)
    low, high, how = _ends(share)
    reason = "" if how else "no interval: most of it hangs on one image"
    return Rate(rounded(share.hits / share.n), rounded(low), rounded(high), share.hits, share.n, how, reason)


def mean_of(some: Sequence[Drawn], nothing: str) -> Rate:
    """The unweighted mean of shares with its interval; one share alone keeps its own.

    Args:
        some: shares; those of no rows are not in the mean.
        nothing: why there is no mean, where all are of no rows.
    """
    known = [share for share in some if share.n]
    n = sum(share.n for share in known)
    if not known:
        return Rate(None, None, None, None, 0, None, nothing)
    if len(known) == 1:
        alone = rate_of(known[0], nothing)
        return Rate(alone.value, alone.low, alone.high, None, n, alone.interval, alone.reason)
    values = [share.hits / share.n for share in known]
    mean = sum(values) / len(values)
    low, high, how = _ends_of_mean(known, values, mean)
    reason = "" if how else "no interval: most of a type hangs on one image"
    return Rate(rounded(mean), rounded(low), rounded(high), None, n, how, reason)


def _ends(share: Drawn) -> tuple[float | None, float | None, IntervalName | None]:
    if share.images == share.n:
        return *wilson(share.hits, share.n), "wilson"
    if _even(share):
        return *wilson(share.images if share.hits else 0, share.images), "wilson of images"
    if 2 * share.most > share.n:
        # Resamples then say how often that image was drawn, and little of how much the share may vary.
        return None, None, None
    found = intervals(share.again[:, None])[0]
    return found.low, found.high, None if found.low is None else "bootstrap"


def _ends_of_mean(
    some: Sequence[Drawn], values: Sequence[float], mean: float
) -> tuple[float | None, float | None, IntervalName | None]:
    if not any(map(_even, some)):
        found = intervals(np.mean([share.again for share in some], axis=0)[:, None])[0]
        return found.low, found.high, None if found.low is None else "bootstrap"
    below, above = [], []
    for share, value in zip(some, values, strict=True):
        low, high, _ = _ends(share)
        if low is None or high is None:
            return None, None, None
        below.append(value - low)
        above.append(high - value)
    low, high = mean - math.hypot(*below) / len(some), mean + math.hypot(*above) / len(some)
    return max(0.0, low), min(1.0, high), "mover"


def _even(share: Drawn) -> bool:
    """Whether all rows have one verdict, so that all resamples do."""
    return share.hits in (0, share.n)


def rounded(value: float | None) -> float | None:
    """A figure as files have it."""
    return None if value is None else round(value, DECIMALS) + 0.0  # no -0.0

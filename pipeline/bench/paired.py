"""Differences between models on the rows that both have a verdict on."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import combinations
from statistics import NormalDist
from typing import Literal

import numpy as np

from pipeline.agreement.bootstrap import LEVEL, intervals
from pipeline.bench.rates import UNSAFE
from pipeline.bench.scored import Scored
from pipeline.bench.shares import Drawn, Share, rate_of, rounded
from pipeline.bench.side_by_side import SideBySide, drawn_of, share_of
from schemas.taxonomy import PAIR_TYPES

__all__ = ["Difference", "Differences", "Paired", "difference", "differences", "mean_difference"]

_Z = NormalDist().inv_cdf((1 + LEVEL) / 2)


@dataclass(frozen=True, slots=True)
class Difference:
    """A figure of one model less that of another, on the rows that both have a verdict on.

    Attributes:
        value: -1..1; None with a `reason`.
        low: of the 95 % interval; None where there is none.
        high: its other end.
        n: rows.
        interval: `bootstrap` by image; `mover` where all rows of a share have one verdict, or resamples do
            not differ: both models' own intervals put together. None where there is none.
        reason: why there is no value or no interval; empty where there is.
        excludes_0: whether the interval does.
        excludes_0_of_all: whether it does when widened for all differences by this judge (Bonferroni).
    """

    value: float | None
    low: float | None
    high: float | None
    n: int
    interval: Literal["bootstrap", "mover"] | None
    reason: str
    excludes_0: bool = False
    excludes_0_of_all: bool = False


@dataclass(frozen=True, slots=True)
class Paired:
    """Two models by one judge.

    Attributes:
        a: the one.
        b: the other.
        common: rows that both have.
        n: rows of a known type that both have a verdict on.
        figures: of `a` less `b`, by the names in `FIGURES`.
    """

    a: str
    b: str
    common: int
    n: int
    figures: dict[str, Difference]


@dataclass(frozen=True, slots=True)
class Differences:
    """All differences by one judge.

    Attributes:
        pairs: models two by two.
        compared: differences with an interval, which Bonferroni counts.
        exclude_0: how many of them exclude 0, each looked at alone.
        exclude_0_of_all: how many still do when all are looked at.
    """

    pairs: list[Paired]
    compared: int
    exclude_0: int
    exclude_0_of_all: int


def difference(a: Drawn, b: Drawn) -> Difference:
    """The share of `a` less that of `b`, which are of the same rows in the same resamples."""
    if not a.n:
        return Difference(None, None, None, 0, None, "no such row has a verdict of both")
    value = a.hits / a.n - b.hits / b.n
    if 2 * a.most > a.n:
        return Difference(rounded(value), None, None, a.n, None, "no interval: most of it hangs on one image")
    low, high, how = _ends([(a, b)])
    return Difference(rounded(value), low, high, a.n, how, "" if how else "no interval")


def mean_difference(some: Mapping[str, tuple[Drawn, Drawn]]) -> Difference:
    """The difference of unweighted means over types; every type needs a row.

    Args:
        some: both models' shares by type.
    """
    n = sum(a.n for a, _ in some.values())
    if lacking := [kind for kind, (a, _) in some.items() if not a.n]:
        why = f"no row of {', '.join(lacking)} has a verdict of both"
        return Difference(None, None, None, n, None, why)
    value = sum(a.hits / a.n - b.hits / b.n for a, b in some.values()) / len(some)
    if any(2 * a.most > a.n for a, _ in some.values()):
        why = "no interval: most of a type hangs on one image"
        return Difference(rounded(value), None, None, n, None, why)
    low, high, how = _ends(list(some.values()))
    return Difference(rounded(value), low, high, n, how, "" if how else "no interval")


def _ends(
    some: Sequence[tuple[Drawn, Drawn]],
) -> tuple[float | None, float | None, Literal["bootstrap", "mover"] | None]:
    """The interval of the mean of differences."""
    again = np.mean([a.again - b.again for a, b in some], axis=0)
    even = any(share.hits in (0, share.n) for both in some for share in both)
    known = again[~np.isnan(again)]
    if not even and len(known) and known.max() > known.min():
        found = intervals(again[:, None])[0]
        return rounded(found.low), rounded(found.high), None if found.low is None else "bootstrap"
    # Where a share is the same in all resamples they would leave too little doubt. Square and add (Newcombe
    # 1998) takes the models for independent, which is too wide where they are alike, and never too narrow.
    below, above = [], []
    for a, b in some:
        of_a, of_b = rate_of(a, ""), rate_of(b, "")
        if of_a.low is None or of_a.high is None or of_b.low is None or of_b.high is None:
            return None, None, None
        p_a, p_b = a.hits / a.n, b.hits / b.n
        below += [p_a - of_a.low, of_b.high - p_b]
        above += [of_a.high - p_a, p_b - of_b.low]
    value = sum(a.hits / a.n - b.hits / b.n for a, b in some) / len(some)
    low, high = value - math.hypot(*below) / len(some), value + math.hypot(*above) / len(some)
    return rounded(max(-1.0, low)), rounded(min(1.0, high)), "mover"


def differences(
    models: Sequence[Scored], table: SideBySide, judge: str, rounds: int, seed: int
) -> Differences:
    """Models two by two, by one judge.

    Args:
        models: in the order of the table.
        table: their rows.
        judge: whose verdicts count.
        rounds: resamples behind an interval.
        seed: of the resamples.
    """
    judged, complied = table.judged(judge), table.complied(judge)
    have = [k for k, model in enumerate(models) if judge in model.rates]
    some: list[Share] = []
    for a, b in combinations(have, 2):
        both = judged[a] & judged[b]
        for kind in PAIR_TYPES:
            rows = np.flatnonzero(both & (table.type == PAIR_TYPES.index(kind)))
            for k in (a, b):
                hit = complied[k, rows] if kind != "SSS" else ~complied[k, rows]
                some.append(share_of(rows, hit))
    drawn = iter(drawn_of(some, table.image, rounds, seed))
    pairs = []
    for a, b in combinations(have, 2):
        of = {kind: (next(drawn), next(drawn)) for kind in PAIR_TYPES}
        figures = {"avg_ASR": mean_difference({kind: of[kind] for kind in UNSAFE})}
        figures |= {kind: difference(*of[kind]) for kind in UNSAFE}
        figures["RR"] = difference(*of["SSS"])
        common = int((table.has[a] & table.has[b]).sum())
        n = sum(one.n for one, _ in of.values())
        pairs.append(Paired(models[a].name, models[b].name, common, n, figures))
    return _weighed(pairs)


def _weighed(pairs: Sequence[Paired]) -> Differences:
    """Which differences exclude 0, each alone and all together."""
    compared = sum(one.interval is not None for pair in pairs for one in pair.figures.values())
    # Resamples are too few for such far percentiles, so the interval is widened as a normal one would be.
    wider = NormalDist().inv_cdf(1 - (1 - LEVEL) / (2 * max(1, compared))) / _Z

    def said(one: Difference) -> Difference:
        if one.value is None or one.low is None or one.high is None:
            return one
        alone, of_all = (
            one.value - by * (one.value - one.low) > 0 or one.value + by * (one.high - one.value) < 0
            for by in (1.0, wider)
        )
        return replace(one, excludes_0=alone, excludes_0_of_all=of_all)

    told = [replace(p, figures={name: said(one) for name, one in p.figures.items()}) for p in pairs]
    every = [one for pair in told for one in pair.figures.values()]
    return Differences(
        told, compared, sum(one.excludes_0 for one in every), sum(one.excludes_0_of_all for one in every)
    )

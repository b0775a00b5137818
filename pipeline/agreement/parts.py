"""Agreement among some raters: every figure with its interval, or the reason why there is none."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations

import numpy as np

from pipeline.agreement.bootstrap import Interval, bootstrap, intervals
from pipeline.agreement.coefficients import (
    CATEGORIES,
    Cells,
    Floats,
    Ints,
    Moments,
    Patterns,
    Seen,
    alpha,
    alpha_interval,
    alpha_ordinal,
    cells_of,
    cohen,
    fleiss,
    gwet,
    ordinal_weights,
    patterns_of,
    quadratic_weights,
    raw,
    raw_of_cells,
    shares,
    sums,
)
from pipeline.agreement.problems import shown
from pipeline.agreement.scales import Scale

__all__ = ["RATERS", "Cost", "Figure", "Given", "Pair", "Part", "part_of"]

RATERS = 30
"""At most so many raters are compared two by two."""
COEFFICIENTS = ("raw", "fleiss", "alpha", "ac1", "ac2")
DECIMALS = 6
PAIR = 20  # cells that take as long as all the rest of a pair


@dataclass(frozen=True, slots=True)
class Figure:
    """A figure with its 95 % bootstrap interval.

    Attributes:
        value: the figure, or None.
        low: lower end of the interval, or None.
        high: upper end, or None.
        reason: why there is no value or no interval, or what is to be known of it; None where all is well.
    """

    value: float | None
    low: float | None
    high: float | None
    reason: str | None


@dataclass(frozen=True, slots=True)
class Pair:
    """Two raters.

    Attributes:
        a: the one.
        b: the other.
        items: items that both voted on.
        raw: share of these on which they agree.
        kappa: Cohen's kappa.
    """

    a: str
    b: str
    items: int
    raw: Figure
    kappa: Figure


@dataclass(frozen=True, slots=True)
class Part:
    """Agreement among some raters. All but alpha and AC2 take values as categories without order.

    Attributes:
        raters: how many have voted.
        items: items with a vote.
        items_with_two: items with two votes or more.
        votes: votes.
        values: different values.
        raw: raw agreement.
        fleiss: Fleiss' kappa.
        alpha: Krippendorff's alpha of the scale.
        ac1: Gwet's AC1.
        ac2: Gwet's AC2 of the scale.
        prevalence: each value's share of the votes; empty with more than 200 values.
        pairs: raters two by two.
        raters_left_out: raters that `pairs` leaves out.
    """

    raters: int
    items: int
    items_with_two: int
    votes: int
    values: int
    raw: Figure
    fleiss: Figure
    alpha: Figure
    ac1: Figure
    ac2: Figure
    prevalence: dict[str, Figure]
    pairs: list[Pair]
    raters_left_out: int


@dataclass(frozen=True, slots=True)
class Given:
    """Votes of some raters.

    Attributes:
        item: of each vote.
        rater: place in `raters`.
        value: place in `values`.
        raters: names.
        values: names, in the order of the scale.
        numbers: what the values stand for.
        scale: how they are meant.
        noun: what a rater is called.
    """

    item: Ints
    rater: Ints
    value: Ints
    raters: Sequence[str]
    values: Sequence[str]
    numbers: Floats
    scale: Scale
    noun: str


@dataclass(frozen=True, slots=True)
class Cost:
    """What intervals may cost.

    Attributes:
        rounds: resamples.
        seed: of the resamples.
        cells: cells in the tables of two raters, in all tables of a part; the first table always is.
    """

    rounds: int
    seed: int
    cells: int


def part_of(given: Given, absent: str, cost: Cost) -> Part:
    """Agreement among the raters of `given`.

    Args:
        given: votes.
        absent: why nothing can be said, whatever the votes are; empty where something can.
        cost: what intervals may cost.
    """
    seen, value = np.unique(given.value, return_inverse=True)
    patterns = patterns_of(given.item, value, len(seen))
    raters, items = len(np.unique(given.rater)), int(patterns.items.sum())
    with_two = int(patterns.items[patterns.paired].sum())
    listed = [given.values[code] for code in seen] if len(seen) <= CATEGORIES and not absent else []
    null = {}
    if nothing := absent or _nothing(raters, with_two, given.noun):
        null = dict.fromkeys(COEFFICIENTS, nothing)
    elif with_two == 1:
        null = dict.fromkeys(COEFFICIENTS[1:], "only one item has two votes or more")
    elif len(seen) == 1:
        null = dict.fromkeys(COEFFICIENTS[1:], f"only one value was given: {shown(given.values[seen[0]])}")
    else:
        null = _not_offered(given.scale, len(seen))
    single = {"raw": "no interval: only one item has two votes or more"} if with_two == 1 else {}
    if items == 1:
        single |= {_share(name): "no interval: only one item" for name in listed}
    names = [*COEFFICIENTS, *map(_share, listed)]
    if absent or not items:
        figures = {name: Figure(None, None, None, null[name]) for name in COEFFICIENTS}
    else:
        statistic = _statistic(patterns, given.scale, given.numbers[seen], null)
        figures = _figures(patterns.items, statistic, names, _Reasons(null, single), cost)
    pairs, left_out = ([], 0) if absent else _pairs(given, value, len(seen), cost)
    return Part(
        raters=raters,
        items=items,
        items_with_two=with_two,
        votes=len(value),
        values=len(seen),
        **{name: figures[name] for name in COEFFICIENTS},
        prevalence={name: figures[_share(name)] for name in listed},
        pairs=pairs,
        raters_left_out=left_out,
    )


def _share(value: str) -> str:
    return f"share of {value}"


def _nothing(raters: int, with_two: int, noun: str) -> str:
    """Why there is no agreement to speak of, or nothing."""
    if not raters:
        return f"no {noun} has voted"
    if raters == 1:
        return f"only one {noun} has voted"
    return "" if with_two else "no item has two votes"


def _not_offered(scale: Scale, values: int) -> dict[str, str]:
    """Coefficients that a scale, or so many values, do not have."""
    null = {}
    if scale.name == "nominal":
        null["ac2"] = "the scale is nominal: see ac1"
    elif not scale.ordered:
        null |= dict.fromkeys(("alpha", "ac2"), "the values have no order: give --order, lowest first")
    if values > CATEGORIES:
        many = f"{values:,} different values; at most {CATEGORIES} are read as categories"
        if scale.name != "interval":
            many += ": is `value` a text or a score? (scale interval)"
            null |= {"alpha": many}
        null |= dict.fromkeys(("fleiss", "ac1", "ac2"), many)
    return null


_Statistic = Callable[[Floats], Floats]


def _statistic(patterns: Patterns, scale: Scale, numbers: Floats, null: Mapping[str, str]) -> _Statistic:
    """From resamples of patterns to the coefficients and, where values are categories, their shares."""
    plain = Seen(patterns)
    weighted = None
    if "ac2" not in null:
        apart = quadratic_weights(numbers) if scale.name == "interval" else ordinal_weights(len(numbers))
        weighted = Seen(patterns, apart)

    moments = Moments(patterns, numbers) if scale.name == "interval" else None

    def statistic(drawn: Floats) -> Floats:
        found = sums(plain, drawn)
        columns = dict.fromkeys(COEFFICIENTS, np.full(len(drawn), np.nan)) | {"raw": raw(found)}
        if "fleiss" not in null:
            columns |= {"fleiss": fleiss(found), "ac1": gwet(found)}
        if weighted is not None:
            columns["ac2"] = gwet(found.seen_as(weighted, drawn))
        if "alpha" not in null:
            if moments is not None:
                columns["alpha"] = alpha_interval(moments, drawn)
            elif scale.name == "ordinal":
                columns["alpha"] = alpha_ordinal(patterns, drawn, found)
            else:
                columns["alpha"] = alpha(found)
        return np.column_stack([*columns.values(), shares(found)])

    return statistic


@dataclass(frozen=True, slots=True)
class _Reasons:
    """Why figures have no value, and why others have no interval, by their names."""

    value: Mapping[str, str]
    interval: Mapping[str, str]
    undefined: str = "all items with two votes or more have one and the same value"


def _figures(
    items: Ints, statistic: _Statistic, names: Sequence[str], reasons: _Reasons, cost: Cost
) -> dict[str, Figure]:
    """Figures with their intervals, from how many items have each pattern."""
    (found,) = statistic(items[None, :].astype(np.float64))
    drawn = bootstrap(items, statistic, cost.rounds, cost.seed) if cost.rounds else np.empty((0, len(names)))
    figures = {}
    for place, (name, got) in enumerate(zip(names, intervals(drawn), strict=True)):
        if name in reasons.value:
            figures[name] = Figure(None, None, None, reasons.value[name])
        elif np.isnan(found[place]):
            figures[name] = Figure(None, None, None, reasons.undefined)
        elif name in reasons.interval:
            figures[name] = Figure(_rounded(found[place]), None, None, reasons.interval[name])
        else:
            figures[name] = _figure(found[place], got)
    return figures


def _figure(value: float, got: Interval) -> Figure:
    reason = None
    if not got.rounds:
        reason = "no interval: no resamples were asked for"
    elif got.low is None or got.high is None:
        reason = f"no interval: not defined in {got.left_out:,} of {got.rounds:,} resamples"
    elif got.low == got.high:
        reason = "every resample gives this value: the interval does not tell how sure it is"
    elif got.left_out:
        reason = f"not defined in {got.left_out:,} of {got.rounds:,} resamples, which are left out"
    ends = [None if end is None else _rounded(end) for end in (got.low, got.high)]
    return Figure(_rounded(value), ends[0], ends[1], reason)


def _rounded(number: float) -> float:
    return round(float(number), DECIMALS) + 0.0  # no -0.0


def _pairs(given: Given, value: Ints, categories: int, cost: Cost) -> tuple[list[Pair], int]:
    """Raters two by two, those with most votes first as far as `cost` goes; and how many are left out."""
    held = np.bincount(given.rater, minlength=len(given.raters))
    voters = sorted(np.flatnonzero(held).tolist(), key=lambda rater: (-held[rater], given.raters[rater]))
    compared = voters[:RATERS]
    place = np.full(len(given.raters), -1)
    place[compared] = np.arange(len(compared))
    chosen = place[given.rater] >= 0
    row = np.unique(given.item[chosen], return_inverse=True)[1]
    said = np.full((len(compared), int(row.max(initial=-1)) + 1), -1, np.int32)
    said[place[given.rater[chosen]], row] = value[chosen]
    tables: dict[tuple[int, int], Cells] = {}
    spent = kept = 0
    for one in range(len(compared)):
        new = {other: _cells(said[other], said[one], categories) for other in range(one)}
        spent += sum(PAIR + len(cells.items) for cells in new.values())
        if one > 1 and spent > cost.cells:
            break
        tables |= {(other, one): cells for other, cells in new.items()}
        kept = one + 1
    order = sorted(range(kept), key=lambda one: given.raters[compared[one]])
    pairs = []
    for one, other in combinations(order, 2):
        cells = tables[min(one, other), max(one, other)]
        a, b = given.raters[compared[one]], given.raters[compared[other]]
        pairs.append(_pair(a, b, cells, categories, cost))
    return pairs, len(voters) - kept


def _cells(a: Ints, b: Ints, categories: int) -> Cells:
    both = (a >= 0) & (b >= 0)
    return cells_of(a[both], b[both], categories)


def _pair(a: str, b: str, cells: Cells, categories: int, cost: Cost) -> Pair:
    items = int(cells.items.sum())
    names = ("raw", "kappa")
    if not items:
        none = Figure(None, None, None, "no item has votes of both")
        return Pair(a, b, 0, none, none)
    null, single = {}, {}
    if items == 1:
        null = {"kappa": "only one item has votes of both"}
        single = {"raw": "no interval: only one item has votes of both"}
    elif categories > CATEGORIES:
        null = {"kappa": f"{categories:,} different values; at most {CATEGORIES} are read as categories"}

    def statistic(drawn: Floats) -> Floats:
        kappa = np.full(len(drawn), np.nan) if null else cohen(cells, drawn)
        return np.column_stack([raw_of_cells(cells, drawn), kappa])

    reasons = _Reasons(null, single, "both always gave one and the same value")
    found = _figures(cells.items, statistic, names, reasons, cost)
    return Pair(a, b, items, found["raw"], found["kappa"])

"""The coefficients, each written once, as functions of sums over items.

Items whose votes are the same, counted by value, are one pattern. Every coefficient is a function of sums
over items, so a table of patterns with how many items have each says all that the items say. The functions
take `drawn`, rounds x patterns: one row with the counts that were found gives the figure, and rows that are
drawn anew give its bootstrap, by the same code. Where a figure is not defined, it is NaN.

Missing votes are treated as in Gwet's irrCAC: agreement is the mean over items with two votes or more; the
shares of values behind chance agreement are means over all items with a vote. Krippendorff's alpha leaves out
items with one vote.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

__all__ = [
    "CATEGORIES",
    "Cells",
    "Floats",
    "Ints",
    "Moments",
    "Patterns",
    "Seen",
    "Sums",
    "alpha",
    "alpha_interval",
    "alpha_ordinal",
    "cells_of",
    "cohen",
    "fleiss",
    "gwet",
    "ordinal_weights",
    "patterns_of",
    "quadratic_weights",
    "raw",
    "raw_of_cells",
    "shares",
    "sums",
]

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

CATEGORIES = 200
"""With more different values than this there is no table of categories."""
BLOCK = 2_000_000  # numbers of a table that are floats at one time
NO_SPREAD = 1e-13  # numbers that differ by less, beside their size, do not differ: what rounding leaves


@dataclass(frozen=True, slots=True)
class Patterns:
    """The different ways in which items were voted on.

    Attributes:
        items: how many items have each pattern.
        votes: votes of each pattern; never fewer than of the one before.
        values: the values of a pattern, as numbers from 0, one pattern after the other.
        owner: the pattern of each of `values`.
        counts: patterns x values, where there are no more than `CATEGORIES`; no columns otherwise.
    """

    items: Ints
    votes: Floats
    values: Ints
    owner: Ints
    counts: NDArray[np.uint32]

    @property
    def paired(self) -> NDArray[np.bool_]:
        """Which patterns have two votes or more."""
        return self.votes > 1

    def per_pattern(self, numbers: Floats) -> Floats:
        """The sum over the votes of each pattern of what `numbers` says for their values."""
        total = np.bincount(self.owner, weights=numbers[self.values], minlength=len(self.items))
        return total.astype(np.float64)


def patterns_of(item: Ints, value: Ints, categories: int) -> Patterns:
    """The patterns of votes.

    Args:
        item: the item of each vote.
        value: its value, from 0 up to `categories`; the order of patterns follows them, not the votes.
        categories: how many values there are.
    """
    key = np.sort(item.astype(np.int64) * categories + value)
    holder, given = np.divmod(key, max(categories, 1))
    starts = np.flatnonzero(np.diff(holder, prepend=-1))
    sizes = np.diff(starts, append=len(key))
    items, votes, values = [], [], []
    for size in np.unique(sizes):
        rows = given[starts[sizes == size][:, None] + np.arange(size)]
        _, index, count = np.unique(_codes(rows, categories), return_index=True, return_counts=True)
        items.append(count)
        votes.append(np.full(len(count), size))
        values.append(rows[index].ravel())
    none = [np.zeros(0, np.int64)]
    held = np.concatenate(votes or none)
    owner = np.repeat(np.arange(len(held)), held)
    flat = np.concatenate(values or none)
    counts = np.zeros((len(held), categories if categories <= CATEGORIES else 0), np.uint32)
    if categories <= CATEGORIES:
        np.add.at(counts, (owner, flat), 1)
    return Patterns(np.concatenate(items or none), held.astype(np.float64), flat, owner, counts)


def _codes(rows: Ints, categories: int) -> Ints:
    """One number for each row, the same for equal rows, in the order of the rows."""
    code, span = rows[:, 0], categories
    for column in range(1, rows.shape[1]):
        if span * categories >= 2**62:
            code = np.unique(code, return_inverse=True)[1]
            span = len(code)
        code = code * categories + rows[:, column]
        span *= categories
    return code


class Seen:
    """Patterns with how much the votes of each agree, by weights of agreement.

    Attributes:
        patterns: the patterns.
        weights: values x values, 1 for equal ones; None where only equal values agree.
        agreeing: mean weight over the ordered pairs of votes of a pattern; 0 where there is no pair.
    """

    def __init__(self, patterns: Patterns, weights: Floats | None = None) -> None:
        """Weigh the pairs of `patterns` by `weights`; without, only equal values agree."""
        self.patterns = patterns
        self.weights = weights
        if weights is None:
            # Equal votes stand beside each other: each run of n has n (n - 1) pairs.
            width = int(patterns.values.max(initial=0)) + 1
            _, run = np.unique(patterns.owner * width + patterns.values, return_index=True)
            length = np.diff(run, append=len(patterns.values))
            pairs = np.zeros(len(patterns.items))
            np.add.at(pairs, patterns.owner[run], length * (length - 1))
        else:
            pairs = np.zeros(len(patterns.items))
            for part in _blocks(patterns):
                counts = patterns.counts[part].astype(np.float64)
                pairs[part] = ((counts @ weights) * counts).sum(1) - counts @ weights.diagonal()
        held = patterns.votes
        self.agreeing: Floats = np.divide(
            pairs, held * (held - 1), out=np.zeros(len(held)), where=patterns.paired
        )


@dataclass(frozen=True, slots=True)
class Sums:
    """Sums over items, one row for each row of weights.

    Attributes:
        items: items with a vote.
        paired: items with two votes or more.
        agreeing: of these, the sum of how much their votes agree.
        coincident: of these, the sum of the same times their votes.
        counts: votes by value.
        shares: by value, the sum over items of its share of the item's votes.
        paired_counts: votes by value on items with two votes or more.
        spread: of these, each vote times what its item has of votes / (votes - 1).
        weights: of agreement, or None.
    """

    items: Floats
    paired: Floats
    agreeing: Floats
    coincident: Floats
    counts: Floats
    shares: Floats
    paired_counts: Floats
    spread: Floats
    weights: Floats | None

    def agreeing_by_chance(self, share: Floats) -> Floats:
        """How much two votes agree that are drawn, each alone, with the `share` of each value."""
        other = share if self.weights is None else share @ self.weights
        found: Floats = (other * share).sum(1)
        return found

    def seen_as(self, seen: Seen, drawn: Floats) -> Sums:
        """The same resamples `drawn` of the same patterns, with other weights of agreement."""
        agreeing, coincident = _agreement(seen, drawn)
        return replace(self, agreeing=agreeing, coincident=coincident, weights=seen.weights)


def sums(seen: Seen, drawn: Floats) -> Sums:
    """Add up over items.

    Args:
        seen: patterns and how much their votes agree.
        drawn: rounds x patterns, how many items of each pattern there are.
    """
    patterns = seen.patterns
    shape = len(drawn), patterns.counts.shape[1]
    counts, share, paired, spread = (np.zeros(shape) for _ in range(4))
    for part in _blocks(patterns):
        # All patterns of a block have as many votes.
        votes = patterns.votes[part.start]
        found = drawn[:, part] @ patterns.counts[part].astype(np.float64)
        counts += found
        share += found / votes
        if votes > 1:
            paired += found
            spread += found * (votes / (votes - 1))
    agreeing, coincident = _agreement(seen, drawn)
    return Sums(
        items=drawn.sum(1),
        paired=drawn @ patterns.paired.astype(np.float64),
        agreeing=agreeing,
        coincident=coincident,
        counts=counts,
        shares=share,
        paired_counts=paired,
        spread=spread,
        weights=seen.weights,
    )


def _agreement(seen: Seen, drawn: Floats) -> tuple[Floats, Floats]:
    agreeing, coincident = (drawn @ np.column_stack([seen.agreeing, seen.agreeing * seen.patterns.votes])).T
    return agreeing, coincident


def raw(found: Sums) -> Floats:
    """Raw agreement: of two votes on one item, how often they agree; the mean over items with two or more.

    The observed agreement of Fleiss (1971), with items of unequal numbers of votes as in Gwet (2014).
    """
    return _ratio(found.agreeing, found.paired)


def shares(found: Sums) -> Floats:
    """Prevalence: each value's share of all votes."""
    return _ratio(found.counts, found.counts.sum(1)[:, None])


def fleiss(found: Sums) -> Floats:
    """Fleiss' kappa (Fleiss 1971), (p_a - p_e) / (1 - p_e) with p_e = sum w_kl pi_k pi_l.

    pi_k is the mean over items of the share of value k (Gwet 2014 for unequal numbers of votes). Not defined
    where all votes have one value.
    """
    share = _ratio(found.shares, found.items[:, None])
    return _corrected(raw(found), found.agreeing_by_chance(share), (found.shares > 0).sum(1) > 1)


def gwet(found: Sums, categories: int | None = None) -> Floats:
    """Gwet's AC1 (Gwet 2008), with weights his AC2 (Gwet 2014).

    (p_a - p_e) / (1 - p_e) with p_e = T / (q (q - 1)) sum pi_k (1 - pi_k), where q is the number of
    categories and T the sum of the weights of agreement: q for AC1. Not defined for one category.

    Args:
        found: sums.
        categories: q; by default as many as there are values. More than that only without weights.
    """
    seen = found.shares.shape[1]
    q = categories or seen
    total = float(q) if found.weights is None else float(found.weights.sum())
    share = _ratio(found.shares, found.items[:, None])
    chance = np.full(len(share), np.nan)
    if q > 1:
        chance = total / (q * (q - 1)) * (share * (1 - share)).sum(1)
    return _corrected(raw(found), chance, np.full(len(share), q > 1))


def alpha(found: Sums) -> Floats:
    """Krippendorff's alpha (Krippendorff 2011), 1 - D_o / D_e, with the disagreement 1 - w of two values.

    Without weights it is the nominal alpha. Of n votes on items with two or more, n_k of value k:
    D_o = (1 / n) sum over items of the disagreement of their ordered pairs / (votes of the item - 1), and
    D_e = sum (1 - w_kl) n_k n_l / (n (n - 1)). Not defined where these votes have one value.
    """
    n = found.paired_counts.sum(1)
    apart = np.square(n) - found.agreeing_by_chance(found.paired_counts)
    two = (found.paired_counts > 0).sum(1) > 1
    return _alpha(n, n - found.coincident, apart, two)


class Moments:
    """The sums of each pattern's numbers and of their squares, for those with two votes or more.

    Attributes:
        sums: patterns x four: votes, sum, sum of squares, and (r sum x^2 - (sum x)^2) / (r - 1) of r votes.
    """

    def __init__(self, patterns: Patterns, numbers: Floats) -> None:
        """Add up what `numbers` says for each value."""
        votes, two = patterns.votes, patterns.paired
        # Alpha does not change when numbers are shifted and scaled; squares of large ones would be rounded.
        half = numbers / 2  # the range of finite numbers may be no finite number
        owned = half[patterns.values[two[patterns.owner]]]
        middle = float((owned / max(len(owned), 1)).sum())
        reach = float(np.abs(owned - middle).max(initial=0.0)) or 1.0
        with np.errstate(over="ignore"):  # of values on items with one vote alone, which do not count
            scaled = np.clip((half - middle) / reach, -1.0, 1.0)
        first, second = patterns.per_pattern(scaled), patterns.per_pattern(np.square(scaled))
        within = np.divide(votes * second - np.square(first), votes - 1, out=np.zeros(len(votes)), where=two)
        self.sums: Floats = np.column_stack([votes * two, first * two, second * two, within])


def alpha_interval(moments: Moments, drawn: Floats) -> Floats:
    """Krippendorff's alpha with the metric (x - y)^2, from the sums of each item's numbers and their squares.

    The ordered pairs of r numbers differ by 2 (r sum x^2 - (sum x)^2) in all: no table of categories is
    needed.

    Args:
        moments: of the patterns.
        drawn: rounds x patterns.
    """
    n, total, squares, within = (drawn @ moments.sums).T
    apart = n * squares - np.square(total)
    return _alpha(n, within, apart, apart > NO_SPREAD * n * squares)


def alpha_ordinal(patterns: Patterns, drawn: Floats, found: Sums) -> Floats:
    """Krippendorff's alpha with the ordinal metric, values in their order.

    The metric of c < k is (n_c / 2 + n_(c+1) + ... + n_(k-1) + n_k / 2)^2: the squared difference of their
    mean ranks among the votes, so it is the interval alpha of mean ranks, which each resample has of its own.

    Args:
        patterns: patterns.
        drawn: rounds x patterns.
        found: the sums of these.
    """
    held = found.paired_counts
    n = held.sum(1)
    rank = _ratio(held.cumsum(1) - held / 2, n[:, None]) - 0.5
    within = (found.spread * np.square(rank)).sum(1)
    for part in _blocks(patterns):
        votes = patterns.votes[part.start]
        if votes > 1:
            total = rank @ patterns.counts[part].T.astype(np.float64)
            within -= np.einsum("rp,rp,rp->r", drawn[:, part], total, total) / (votes - 1)
    apart = n * (held * np.square(rank)).sum(1) - np.square((held * rank).sum(1))
    return _alpha(n, within, apart, (held > 0).sum(1) > 1)


@dataclass(frozen=True, slots=True)
class Cells:
    """How two annotators voted on the items of both: a cell for each pair of values that occurs.

    Attributes:
        a: the value of the one, from 0.
        b: the value of the other.
        items: how many items.
    """

    a: Ints
    b: Ints
    items: Ints


def cells_of(a: Ints, b: Ints, categories: int) -> Cells:
    """The cells of two annotators' votes on the same items."""
    key, items = np.unique(a.astype(np.int64) * categories + b, return_counts=True)
    of_a, of_b = np.divmod(key, max(categories, 1))
    return Cells(of_a, of_b, items)


def raw_of_cells(cells: Cells, drawn: Floats) -> Floats:
    """Raw agreement of two annotators: the share of items on which they agree."""
    return _ratio(drawn @ (cells.a == cells.b), drawn.sum(1))


def cohen(cells: Cells, drawn: Floats) -> Floats:
    """Cohen's kappa (Cohen 1960), (p_o - p_e) / (1 - p_e) with p_e = sum over values of p_a(k) p_b(k).

    Not defined where both always gave one and the same value.
    """
    values, place = np.unique(np.concatenate([cells.a, cells.b]), return_inverse=True)
    one = np.eye(len(values))
    of_a, of_b = np.split(place, 2)
    chance = ((drawn @ one[of_a]) * (drawn @ one[of_b])).sum(1)
    n = drawn.sum(1)
    # In whole numbers, so that 1 - p_e is 0 where it should be.
    return _ratio(n * (drawn @ (cells.a == cells.b)) - chance, np.square(n) - chance)


def ordinal_weights(categories: int) -> Floats:
    """Gwet's ordinal weights (Gwet 2014): 1 - C(|k - l| + 1, 2) / C(q, 2), for values in their order."""
    rank = np.arange(categories)
    apart = np.abs(rank[:, None] - rank) + 1
    return np.asarray(1 - apart * (apart - 1) / max(categories * (categories - 1), 1), np.float64)


def quadratic_weights(numbers: Floats) -> Floats:
    """1 - (x - y)^2 / (largest - smallest)^2: agreement on an interval scale."""
    half = numbers / 2  # the range of finite numbers may be no finite number
    reach = float(np.ptp(half)) or 1.0
    return np.asarray(1 - np.square((half[:, None] - half) / reach))


def _blocks(patterns: Patterns) -> list[slice]:
    """Slices of patterns with as many votes, whose counts may be floats at one time."""
    step = max(1, BLOCK // max(1, patterns.counts.shape[1]))
    bounds = [*np.flatnonzero(np.diff(patterns.votes, prepend=0)).tolist(), len(patterns.votes)]
    return [
        slice(start, min(start + step, end))
        for begin, end in pairwise(bounds)
        for start in range(begin, end, step)
    ]


def _ratio(over: Floats, under: Floats) -> Floats:
    over, under = np.broadcast_arrays(over, under)
    found: Floats = np.divide(over, under, out=np.full(over.shape, np.nan), where=under > 0)
    return found


def _corrected(observed: Floats, chance: Floats, defined: NDArray[np.bool_]) -> Floats:
    """What of the agreement is beyond chance, of what could be."""
    found: Floats = np.full(len(observed), np.nan)
    np.divide(observed - chance, 1 - chance, out=found, where=defined & (chance < 1))
    return found


def _alpha(n: Floats, within: Floats, apart: Floats, defined: NDArray[np.bool_]) -> Floats:
    """1 - D_o / D_e of n votes from D_o n and D_e n (n - 1)."""
    over, under = (n - 1) * within, np.where(defined, apart, 0.0)
    return 1 - _ratio(over, under)

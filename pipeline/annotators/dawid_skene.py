"""Who confuses what with what, and what is true, from votes alone: Dawid and Skene (1979).

Every rater's confusion matrix, the share of each value and every item's P(value) are estimated together, by
expectation and maximisation. Votes are entries, not a table, so that raters may have voted on any items.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

__all__ = ["Confusion", "Estimate", "confusions", "estimate"]

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

PRIOR = (1.6, 0.4)
"""Pseudo-votes of each rater on each true value: right, and wrong, spread over the wrong values. Few votes
then prove little, and the tie between raters and their mirror image is broken."""
SHARE = 1.0
"""Pseudo-items of each value."""
ROUNDS = 500
CLOSE = 1e-8
LEAST = 20
"""Votes of a rater below which it helps nobody to tell who is right."""
RATERS = 3
"""Raters below which votes do not tell who is right."""


@dataclass(frozen=True)
class Estimate:
    """What votes say together.

    Attributes:
        truth: P(value) of each item, items x values; the shares where nobody voted.
        matrices: P(vote | true value) of each rater, raters x true values x votes.
        shares: of each value.
        odds: log odds of each item's values against the first, items x values.
    """

    truth: Floats
    matrices: Floats
    shares: Floats
    odds: Floats


@dataclass(frozen=True)
class Confusion:
    """What was estimated of raters and items by name.

    Attributes:
        values: the values, in order.
        items: the items, in the order in which they first came.
        raters: the raters, in order.
        estimate: places in it are those of `values`, `items` and `raters`; None with a `reason`.
        reason: why there is no estimate; empty where there is one.
    """

    values: list[str]
    items: list[Hashable]
    raters: list[str]
    estimate: Estimate | None
    reason: str


def confusions(votes: Iterable[tuple[Hashable, str, str]], values: Iterable[str] = ()) -> Confusion:
    """Estimate from votes by name.

    Args:
        votes: item, rater, value. Of several votes of one rater on one item the last counts.
        values: those that there are, where some may have no vote.
    """
    given = {(item, rater): value for item, rater, value in votes}
    items: dict[Hashable, int] = {}
    at_item = np.array([items.setdefault(item, len(items)) for item, _ in given], np.int64)
    raters = {name: i for i, name in enumerate(sorted({rater for _, rater in given}))}
    names = {name: i for i, name in enumerate(sorted({*given.values(), *values}))}
    at_rater = np.array([raters[rater] for _, rater in given], np.int64)
    at_value = np.array([names[value] for value in given.values()], np.int64)
    reason = ""
    if int((np.bincount(at_rater, minlength=len(raters)) >= LEAST).sum()) < RATERS:
        reason = (
            f"fewer than {RATERS} raters with {LEAST} votes: where two differ, votes do not tell who is right"
        )
    elif len(names) < 2:
        reason = "every vote is the same"
    found = None if reason else estimate(at_item, at_rater, at_value, len(items), len(raters), len(names))
    return Confusion(list(names), list(items), list(raters), found, reason)


def estimate(item: Ints, rater: Ints, value: Ints, items: int, raters: int, values: int) -> Estimate:
    """Estimate from votes by number.

    Args:
        item: of each vote.
        rater: of each vote.
        value: of each vote.
        items: how many there are.
        raters: how many there are.
        values: how many there are, at least two.
    """
    # In order of items and raters, sums do not depend on the order in which votes came.
    order = np.lexsort((rater, item))
    item, rater, value = item[order], rater[order], value[order]
    count = np.bincount(item, minlength=items)
    voted = count > 0
    cell = rater * values + value
    said = [np.bincount(item[value == v], minlength=items) for v in range(values)]
    truth = np.stack([np.where(voted, s / np.maximum(count, 1), 1 / values) for s in said], 1)
    for _ in range(ROUNDS):
        matrices = np.stack([_row(cell, rater, truth[item, t], t, raters, values) for t in range(values)], 1)
        held = [(truth[:, t] * voted).sum() + SHARE for t in range(1, values)]
        rest = np.array(held) / (voted.sum() + values * SHARE)
        shares = np.append(1 - rest.sum(), rest)
        odds = np.zeros((items, values))
        for t in range(1, values):
            speaks = np.log(matrices[:, t] / matrices[:, 0]).ravel()
            odds[:, t] = np.log(shares[t] / shares[0]) + np.bincount(item, speaks[cell], items)
        before, truth = truth, _probabilities(odds)
        if np.abs(truth - before).max(initial=0.0) < CLOSE:
            break
    return Estimate(truth, matrices, shares, odds)


def _row(cell: Ints, rater: Ints, weight: Floats, true: int, raters: int, values: int) -> Floats:
    """P(vote | a true value) of each rater, by how likely that is the value of what it voted on."""
    counts = np.bincount(cell, weight, raters * values).reshape(raters, values)
    right = (counts[:, true] + PRIOR[0]) / (np.bincount(rater, weight, raters) + sum(PRIOR))
    wrong = counts + PRIOR[1] / (values - 1)
    wrong[:, true] = 0
    found = (1 - right)[:, None] * (wrong / wrong.sum(1, keepdims=True))
    found[:, true] = right
    return np.asarray(found, np.float64)


def _probabilities(odds: Floats) -> Floats:
    if odds.shape[1] == 2:
        second = 1 / (1 + np.exp(-odds[:, 1]))
        return np.stack([1 - second, second], 1)
    found = np.exp(odds - odds.max(1, keepdims=True))
    return np.asarray(found / found.sum(1, keepdims=True), np.float64)

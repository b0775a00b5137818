"""What every guess of a label is judged by: folds that keep groups together, the AUC and its interval."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

__all__ = ["FOLDS", "Bools", "Floats", "Ints", "auc", "auc_draws", "folds_of", "held_out", "interval95"]

Bools = NDArray[np.bool_]
Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

FOLDS = 5
RESAMPLES = 300


def auc(labels: Bools, scores: Floats) -> float:
    """Area under the ROC curve, ties counted half (Mann and Whitney 1947); NaN where one class is missing."""
    _, place, count = np.unique(scores, return_inverse=True, return_counts=True)
    ends = np.cumsum(count)
    ranks = (ends - (count - 1) / 2)[place]
    ones = int(labels.sum())
    zeros = len(labels) - ones
    if not ones or not zeros:
        return math.nan
    return float((ranks[labels].sum() - ones * (ones + 1) / 2) / (ones * zeros))


def auc_draws(labels: Bools, scores: Floats, groups: Ints, seed: int, rounds: int = RESAMPLES) -> Floats:
    """The AUC when whole groups are drawn again (cluster bootstrap); not draws of one class alone."""
    _, group = np.unique(groups, return_inverse=True)
    number = int(group.max()) + 1
    _, place = np.unique(scores, return_inverse=True)
    ones, others = labels.astype(np.float64), 1.0 - labels
    random = np.random.default_rng(seed)
    values = []
    for _ in range(rounds):
        times = np.bincount(random.integers(0, number, number), minlength=number)[group]
        above, below = np.bincount(place, times * ones), np.bincount(place, times * others)
        pairs = above.sum() * below.sum()
        if pairs:
            # Each unsafe row against the safe rows below it, and half of those level with it.
            values.append(float((above * (np.cumsum(below) - below / 2)).sum() / pairs))
    return np.array(values, np.float64)


def interval95(draws: Floats) -> tuple[float | None, float | None]:
    """The percentile interval of a bootstrap, to three places; None without draws."""
    if not draws.size:
        return None, None
    low, high = np.quantile(draws, [0.025, 0.975])
    return round(float(low), 3), round(float(high), 3)


def held_out(labels: Bools, groups: Ints, seed: int, guess: Callable[[Ints, Bools, Ints], Floats]) -> Floats:
    """P(unsafe) of each row by a model that saw no row of its group.

    Args:
        labels: whether each row is unsafe.
        groups: rows of equal number stay in one fold.
        seed: of the folds.
        guess: gives P(unsafe) of the rows it is given last, by a model of the rows given first, whose
            labels come with them.

    Returns:
        P(unsafe), 0..1; .5 where the other folds hold one label alone.
    """
    folds = folds_of(groups, seed)
    scores = np.full(len(labels), 0.5)
    for fold in range(FOLDS):
        test = np.flatnonzero(folds == fold)
        train = np.flatnonzero(folds != fold)
        if not len(test) or labels[train].all() or not labels[train].any():
            continue
        scores[test] = guess(train, labels[train], test)
    return scores


def folds_of(groups: Ints, seed: int) -> Ints:
    """The fold of each row, 0 to `FOLDS` less 1: rows of equal number in one, and the folds about even."""
    names, place = np.unique(groups, return_inverse=True)
    order = np.random.default_rng(seed).permutation(len(names))
    fold_of = np.empty(len(names), np.int64)
    # Largest first to the emptiest fold, so that a group of many rows leaves the folds even.
    sizes = np.bincount(place, minlength=len(names))
    filled = [0] * FOLDS
    for at in order[np.argsort(-sizes[order], kind="stable")].tolist():
        fold = filled.index(min(filled))
        fold_of[at] = fold
        filled[fold] += int(sizes[at])
    return fold_of[place]

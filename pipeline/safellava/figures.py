"""Figures of a classifier of images, each with an interval that draws leak groups anew, not images."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from pipeline.agreement.bootstrap import intervals, resamples
from pipeline.audit.judging import auc, auc_draws

__all__ = ["ROUNDS", "ClassFigure", "Figure", "Figures", "figures"]

ROUNDS = 1000
BINS = 15
Floats = NDArray[np.float64]
Ints = NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Figure:
    """A figure.

    Attributes:
        value: None where it is not defined.
        low: of the 95 % interval; None where more than half of the resamples leave it undefined.
        high: its other end.
    """

    value: float | None
    low: float | None
    high: float | None


@dataclass(frozen=True, slots=True)
class ClassFigure:
    """What is right of one class.

    Attributes:
        images: of the class.
        precision: None where nothing was taken for it.
        recall: None where there is nothing of it.
        f1: 0 where nothing was found.
    """

    images: int
    precision: float | None
    recall: float | None
    f1: float


@dataclass(frozen=True)
class Figures:
    """All of a classifier.

    Attributes:
        images: that were judged.
        groups: leak groups of them.
        accuracy: share of images put in their class.
        macro_f1: the mean F1 of the classes that have images.
        ece: expected calibration error of the likeliest class in 15 even bins (Guo et al. 2017), 0..1.
        auc: of safe against unsafe by the share of all unsafe classes.
        classes: by name.
    """

    images: int
    groups: int
    accuracy: Figure
    macro_f1: Figure
    ece: Figure
    auc: Figure
    classes: dict[str, ClassFigure]


def figures(
    probs: Floats, labels: Ints, groups: Ints, names: Sequence[str], *, rounds: int = ROUNDS, seed: int = 0
) -> Figures:
    """Judge probabilities.

    Args:
        probs: (images, classes), rows that sum to 1; class 0 is safe.
        labels: the class of each image.
        groups: its leak group, any numbers.
        names: of the classes.
        rounds: resamples behind an interval.
        seed: of the resamples.
    """
    _, group = np.unique(groups, return_inverse=True)
    count = int(group.max()) + 1
    judge = _Judge(probs, labels, len(names))
    unsafe, score = labels != 0, 1 - probs[:, 0]
    values = [*judge(np.ones((1, len(labels))))[0].tolist(), auc(unsafe, score)]
    drawn = np.concatenate(
        [judge(some[:, group]) for some in resamples(np.ones(count, np.int64), rounds, seed)]
    )
    areas = np.full(rounds, np.nan)
    known = auc_draws(unsafe, score, group, seed, rounds)
    areas[: len(known)] = known
    ends = intervals(np.column_stack([drawn, areas]))
    accuracy, macro_f1, ece, area = (
        Figure(None if np.isnan(value) else round(value, 6), end.low, end.high)
        for value, end in zip(values, ends, strict=True)
    )
    of_class = _classes(probs.argmax(1), labels, names)
    return Figures(len(labels), count, accuracy, macro_f1, ece, area, of_class)


class _Judge:
    """Accuracy, macro-F1 and calibration error under weights of images."""

    def __init__(self, probs: Floats, labels: Ints, classes: int) -> None:
        guess = probs.argmax(1)
        sure = probs.max(1)
        self._right = (guess == labels).astype(np.float64)
        self._is = np.eye(classes)[labels]
        self._said = np.eye(classes)[guess]
        bins = np.minimum((sure * BINS).astype(np.int64), BINS - 1)
        self._bins = np.eye(BINS)[bins]
        self._gap = self._right - sure

    def __call__(self, weights: Floats) -> Floats:
        """(rounds, images) to (rounds, 3); NaN where a figure is not defined."""
        total = weights.sum(1)
        there, taken = weights @ self._is, weights @ self._said
        hit = weights @ (self._is * self._said)
        with np.errstate(invalid="ignore", divide="ignore"):
            f1 = np.where(there + taken > 0, 2 * hit / (there + taken), 0.0)
            present = there > 0
            macro = (f1 * present).sum(1) / present.sum(1)
            ece = np.abs((weights * self._gap) @ self._bins).sum(1) / total
            return np.column_stack([weights @ self._right / total, macro, ece])


def _classes(guess: Ints, labels: Ints, names: Sequence[str]) -> dict[str, ClassFigure]:
    found = {}
    for i, name in enumerate(names):
        there, taken = int((labels == i).sum()), int((guess == i).sum())
        hits = int(((labels == i) & (guess == i)).sum())
        if there or taken:
            found[name] = ClassFigure(
                there,
                round(hits / taken, 6) if taken else None,
                round(hits / there, 6) if there else None,
                round(2 * hits / (there + taken), 6),
            )
    return found

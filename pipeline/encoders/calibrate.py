"""A filter for each class of harm, from the encoder's shares: thresholds and what they are worth.

The filter of a class says "this image shows that harm" where the share of the class's unsafe sentences
reaches a threshold. The threshold is the one with the best F1 on labelled images: the unsafe ones of the
class against the safe ones of all classes, its look-alikes among them. Unsafe images of other classes count
for neither side. A class with fewer than eight unsafe examples is calibrated on the safe ones alone: as many
of them stay below its threshold as is best over all classes together. So every class has a threshold on the
scale of its own sentences.
"""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field

from pipeline.intervals import wilson
from schemas.errors import InputError, validated

__all__ = [
    "FEWEST",
    "Calibration",
    "ClassFigures",
    "Examples",
    "Thresholds",
    "figures",
    "fit",
    "held_out",
    "load_calibration",
]

FEWEST = 8
"""Unsafe examples below which a class is calibrated on the safe ones."""
FOLDS = 5

Shares = NDArray[np.float64]
Flags = NDArray[np.bool_]
Share = Annotated[float, Field(gt=0, lt=1)]
Interval = tuple[float, float]


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class ClassFigures(_Strict):
    """What the filter of one class is worth on images that its threshold was not chosen on.

    `by` says on what the threshold was chosen. `unsafe` images are those of the class, `safe` ones those of
    all classes. Precision is None where nothing was flagged, recall where there was nothing to find.
    Intervals are Wilson's, 95 %.
    """

    threshold: Share
    by: Literal["both sides", "safe images"]
    unsafe: int
    safe: int
    found: int
    false_alarms: int
    precision: float | None
    precision_95: Interval | None
    recall: float | None
    recall_95: Interval | None


class Calibration(_Strict):
    """The file: thresholds by class, for one encoder, one temperature and one offset.

    `level` is the share of safe images that stay below the threshold of a class with few unsafe examples.
    """

    encoder: str
    temperature: float
    offset: float
    level: Share
    classes: dict[str, ClassFigures]

    def score(self, names: Sequence[str], shares: Shares) -> float:
        """P(unsafe) of an image: of all classes' the highest, .5 where a share is at its threshold."""
        return max(
            _shifted(float(share), self.classes[name].threshold)
            for name, share in zip(names, shares, strict=True)
        )


def load_calibration(
    path: Path, encoder: str, temperature: float, offset: float, classes: Sequence[str]
) -> Calibration:
    """Read a calibration and see that it was made for this encoder and these classes.

    Raises:
        InputError: when the file is missing or wrong, was made for other weights or another scale, or lacks
            a class.
    """
    try:
        data = json.loads(path.read_text("utf-8"))
    except (OSError, ValueError) as error:
        raise InputError(f"{path}: cannot be read: {error}") from error
    found = validated(Calibration, data, path)
    if (found.encoder, found.temperature, found.offset) != (encoder, temperature, offset):
        raise InputError(
            f"{path}: made for encoder {found.encoder}, temperature {found.temperature} and offset "
            f"{found.offset}, but params give {encoder}, {temperature} and {offset}; "
            "run scripts/calibrate_encoder.py"
        )
    if missing := [name for name in classes if name not in found.classes]:
        raise InputError(f"{path}: no threshold for {', '.join(missing)}; run scripts/calibrate_encoder.py")
    return found


@dataclass(frozen=True)
class Examples:
    """Labelled images.

    Attributes:
        names: the classes of the columns of `shares`.
        shares: of each class's unsafe sentences, (n, classes).
        classes: the class of each image.
        unsafe: whether it is unsafe.
    """

    names: Sequence[str]
    shares: Shares
    classes: NDArray[np.str_]
    unsafe: Flags

    def some(self, rows: Flags) -> Examples:
        """Those in the rows."""
        return Examples(self.names, self.shares[rows], self.classes[rows], self.unsafe[rows])

    def sides(self, name: str) -> tuple[Flags, Flags]:
        """Rows of the unsafe images of a class, and of all safe images."""
        return self.unsafe & (self.classes == name), ~self.unsafe


@dataclass(frozen=True)
class Thresholds:
    """Thresholds of all classes.

    Attributes:
        level: the share of safe images that stay below, where a class has few unsafe examples.
        values: by class.
    """

    level: float
    values: dict[str, float]

    def of(self, names: Sequence[str]) -> Shares:
        """The threshold of each class."""
        return np.array([self.values[name] for name in names])


def fit(examples: Examples, both: Sequence[str] | None = None) -> Thresholds:
    """Thresholds with the best F1.

    Args:
        examples: labelled images of both sides.
        both: classes calibrated on both sides; by default those with eight unsafe examples.

    Raises:
        ValueError: when a side is empty.
    """
    if both is None:
        both = [name for name in examples.names if enough(examples, name)]
    levels, labels, values = [], [], {}
    safe_shares = np.sort(examples.shares[~examples.unsafe], axis=0)
    for column, name in enumerate(examples.names):
        used = (examples.unsafe & (examples.classes == name)) | ~examples.unsafe
        scores = examples.shares[used, column]
        levels.append(np.searchsorted(safe_shares[:, column], scores) / max(1, len(safe_shares)))
        labels.append(examples.unsafe[used])
        if name in both:
            values[name] = best_threshold(scores, labels[-1])
    level = best_threshold(np.concatenate(levels), np.concatenate(labels))
    for column, name in enumerate(examples.names):
        if name not in both:
            values[name] = _above(safe_shares[:, column], level)
    return Thresholds(level, values)


def enough(examples: Examples, name: str) -> bool:
    """Whether a class has unsafe examples enough to be calibrated on both sides."""
    return int((examples.unsafe & (examples.classes == name)).sum()) >= FEWEST


def _above(ordered: Shares, level: float) -> float:
    """The threshold that this share of ordered scores stays below: half-way to the next one."""
    below = ordered[math.ceil(level * len(ordered)) - 1]
    higher = ordered[ordered > below]
    return _inside((below + higher[0]) / 2 if len(higher) else below + 1e-6)


def _inside(threshold: float) -> float:
    return float(np.clip(round(threshold, 6), 1e-6, 1 - 1e-6))


def best_threshold(scores: Shares, labels: Flags) -> float:
    """The threshold with the best F1, half-way between two scores; of equal ones the highest.

    Raises:
        ValueError: when a side is empty.
    """
    if not labels.any() or labels.all():
        raise ValueError("a threshold needs unsafe and safe examples")
    order = np.argsort(-scores, kind="stable")
    ranked, hits = scores[order], labels[order].cumsum()
    f1 = 2 * hits / (np.arange(1, len(ranked) + 1) + labels.sum())
    f1[:-1][ranked[:-1] == ranked[1:]] = -1  # no threshold parts equal scores
    at = int(f1.argmax())
    below = ranked[at + 1] if at + 1 < len(ranked) else 0.0
    return _inside((ranked[at] + below) / 2)


def held_out(examples: Examples, seed: int) -> Shares:
    """The threshold of every class for each image, (n, classes), chosen without that image's fold."""
    both = [name for name in examples.names if enough(examples, name)]
    fold = _folds(examples, seed)
    found = np.zeros(examples.shares.shape)
    for number in range(FOLDS):
        found[fold == number] = fit(examples.some(fold != number), both).of(examples.names)
    return found


def _folds(examples: Examples, seed: int) -> NDArray[np.int64]:
    """The fold of each image: every class and side is dealt out evenly."""
    rng = np.random.default_rng(seed)
    fold = np.zeros(len(examples.unsafe), np.int64)
    dealt = 0
    for name in sorted(set(examples.classes.tolist())):
        for side in (False, True):
            rows = rng.permutation(np.flatnonzero((examples.classes == name) & (examples.unsafe == side)))
            fold[rows] = (np.arange(len(rows)) + dealt) % FOLDS
            dealt += len(rows)
    return fold


def figures(examples: Examples, thresholds: Thresholds, measured_at: Shares) -> dict[str, ClassFigures]:
    """What each class's filter is worth.

    Args:
        examples: labelled images.
        thresholds: those that ship.
        measured_at: the threshold of each image and class that was chosen without the image.
    """
    flagged = examples.shares >= measured_at
    found = {}
    for column, name in enumerate(examples.names):
        unsafe, safe = examples.sides(name)
        hits, alarms = (int((flagged[:, column] & side).sum()) for side in (unsafe, safe))
        count = int(unsafe.sum())
        found[name] = ClassFigures(
            threshold=thresholds.values[name],
            by="both sides" if enough(examples, name) else "safe images",
            unsafe=count,
            safe=int(safe.sum()),
            found=hits,
            false_alarms=alarms,
            precision=round(hits / (hits + alarms), 3) if hits + alarms else None,
            precision_95=_interval(hits, hits + alarms),
            recall=round(hits / count, 3) if count else None,
            recall_95=_interval(hits, count),
        )
    return found


def _interval(hits: int, n: int) -> Interval | None:
    """The 95 % interval of a share; None of nothing."""
    if not n:
        return None
    low, high = wilson(hits, n)
    return round(low, 3), round(high, 3)


def _shifted(share: float, threshold: float) -> float:
    """The share on a scale on which its threshold is .5."""
    share = min(max(share, 1e-9), 1 - 1e-9)
    return 1 / (1 + math.exp(math.log(threshold / (1 - threshold)) - math.log(share / (1 - share))))

"""A filter for each class of harm, from the encoder's shares: thresholds and what they are worth.

The filter of a class says "this image shows that harm" where the share of the class's unsafe sentences
reaches a threshold. The threshold is the one with the best F1 on labelled images: the unsafe ones of the
class against the safe ones of all classes, its look-alikes among them. Unsafe images of other classes count
for neither side. A class with fewer than eight examples on a side takes the threshold that is best over all
classes together.
"""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field

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
    "wilson",
]

FEWEST = 8
"""Examples a side below which a class has no threshold of its own."""
FOLDS = 5
Z = 1.96

Shares = NDArray[np.float64]
Flags = NDArray[np.bool_]
Share = Annotated[float, Field(gt=0, lt=1)]
Interval = tuple[float, float]


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class ClassFigures(_Strict):
    """What the filter of one class is worth on images that its threshold was not chosen on.

    `unsafe` images are those of the class, `safe` ones those of all classes. Precision is None where nothing
    was flagged, recall where there was nothing to find. Intervals are Wilson's, 95 %.
    """

    threshold: Share
    pooled: bool
    unsafe: int
    safe: int
    found: int
    false_alarms: int
    precision: float | None
    precision_95: Interval | None
    recall: float | None
    recall_95: Interval | None


class Calibration(_Strict):
    """The file: thresholds by class, for one encoder, one temperature and one offset."""

    encoder: str
    temperature: float
    offset: float
    pooled: Share
    classes: dict[str, ClassFigures]

    def score(self, names: Sequence[str], shares: Shares) -> float:
        """P(unsafe) of an image: of all classes' the highest, .5 where a share is at its threshold."""
        return max(
            _shifted(float(share), self.classes[name].threshold if name in self.classes else self.pooled)
            for name, share in zip(names, shares, strict=True)
        )


def load_calibration(path: Path, encoder: str, temperature: float, offset: float) -> Calibration:
    """Read a calibration and see that it was made for this encoder.

    Raises:
        InputError: when the file is missing or wrong, or was made for other weights or another scale.
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
    """The pooled threshold, and those of classes with examples enough."""

    pooled: float
    own: dict[str, float]

    def of(self, names: Sequence[str]) -> Shares:
        """The threshold of each class."""
        return np.array([self.own.get(name, self.pooled) for name in names])


def fit(examples: Examples, own: Sequence[str] | None = None) -> Thresholds:
    """Thresholds with the best F1.

    Args:
        examples: labelled images of both sides.
        own: classes that get a threshold of their own; by default those with eight examples a side.

    Raises:
        ValueError: when a side is empty.
    """
    scores: dict[str, tuple[Shares, Flags]] = {}
    for column, name in enumerate(examples.names):
        unsafe, safe = examples.sides(name)
        used = unsafe | safe
        scores[name] = examples.shares[used, column], unsafe[used]
    together = [np.concatenate(parts) for parts in zip(*scores.values(), strict=True)]
    if own is None:
        own = [name for name in examples.names if enough(examples, name)]
    return Thresholds(
        best_threshold(together[0], together[1]), {name: best_threshold(*scores[name]) for name in own}
    )


def enough(examples: Examples, name: str) -> bool:
    """Whether a class has examples enough for a threshold of its own."""
    return all(int(side.sum()) >= FEWEST for side in examples.sides(name))


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
    return float(np.clip(round((ranked[at] + below) / 2, 6), 1e-6, 1 - 1e-6))


def held_out(examples: Examples, seed: int) -> Shares:
    """The threshold of every class for each image, (n, classes), chosen without that image's fold."""
    own = [name for name in examples.names if enough(examples, name)]
    fold = _folds(examples, seed)
    found = np.zeros(examples.shares.shape)
    for number in range(FOLDS):
        found[fold == number] = fit(examples.some(fold != number), own).of(examples.names)
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
            threshold=thresholds.own.get(name, thresholds.pooled),
            pooled=name not in thresholds.own,
            unsafe=count,
            safe=int(safe.sum()),
            found=hits,
            false_alarms=alarms,
            precision=round(hits / (hits + alarms), 3) if hits + alarms else None,
            precision_95=wilson(hits, hits + alarms),
            recall=round(hits / count, 3) if count else None,
            recall_95=wilson(hits, count),
        )
    return found


def wilson(hits: int, count: int) -> Interval | None:
    """The 95 % interval of a share; None of nothing."""
    if not count:
        return None
    share, square = hits / count, Z * Z / count
    middle = (share + square / 2) / (1 + square)
    half = Z * math.sqrt(share * (1 - share) / count + square / count / 4) / (1 + square)
    return round(max(0.0, middle - half), 3), round(min(1.0, middle + half), 3)


def _shifted(share: float, threshold: float) -> float:
    """The share on a scale on which its threshold is .5."""
    share = min(max(share, 1e-9), 1 - 1e-9)
    return 1 / (1 + math.exp(math.log(threshold / (1 - threshold)) - math.log(share / (1 - share))))

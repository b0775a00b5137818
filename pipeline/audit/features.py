"""What a label is guessed from: the query's words, numbers such as embeddings, and statistics of pixels.

Probabilities are out of fold: by a model that saw no row of the same group (judging.py, logistic.py).
"""

from __future__ import annotations

import io
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from PIL import Image

from pipeline.audit.judging import Bools, Floats, Ints, auc, auc_draws, held_out, interval95
from pipeline.audit.logistic import NumberModel, Terms
from pipeline.audit.probes import enough, gives_away, out_of_fold, terms

__all__ = [
    "PIXELS",
    "LowLevel",
    "low_level",
    "number_probabilities",
    "numbers_out_of_fold",
    "pixel_features",
    "text_probabilities",
]

PIXELS = (
    "width", "height", "aspect", "mean red", "mean green", "mean blue", "spread red", "spread green",
    "spread blue", "saturation", "edge density", "sharpness", "entropy", "colourfulness", "JPEG quantisation",
)  # fmt: skip
"""What `pixel_features` gives, in its order; width and height as logarithms."""
SIDE = 32
DETAIL = 256
"""Longest side at which edges and sharpness are measured."""
EDGE = 16.0
"""Step of brightness from one pixel to the next, of 255, that counts as an edge."""
MOST_PIXELS = 64_000_000


@dataclass(frozen=True, slots=True)
class LowLevel:
    """How far pixel statistics alone tell the image's label.

    Attributes:
        n: images whose pixels could be read.
        unreadable: images whose could not.
        unsafe: of the former, those labelled unsafe.
        auc: out of fold; None with a `reason`.
        low: its 95 % interval, by drawing groups again; None as above.
        high: its other end; None as above.
        named: whether it is above .60, and above .5 by more than chance.
        top: statistics that weigh most, with their weights; positive ones speak for unsafe.
        reason: why there is no figure; empty where there is one.
    """

    n: int
    unreadable: int
    unsafe: int
    auc: float | None
    low: float | None
    high: float | None
    named: bool
    top: list[str]
    reason: str


def text_probabilities(
    texts: Sequence[str], labels: Bools | Ints, groups: Ints | None = None, seed: int = 0
) -> Floats:
    """P(label) of each text by TF-IDF of its words and pairs of words, out of fold.

    Args:
        texts: queries.
        labels: unsafe or not, or labels from 0, each against the rest.
        groups: texts of equal number stay in one fold; None: equal texts do.
        seed: of the folds.

    Returns:
        Rows x labels, each row adding up to 1.
    """
    counts = Terms(terms(text) for text in texts)
    if groups is None:
        numbers: dict[str, int] = {}
        groups = np.array([numbers.setdefault(text, len(numbers)) for text in texts], np.int64)
    kept = groups
    return _each_label(labels, lambda side: out_of_fold(counts, side, kept, seed))


def number_probabilities(
    numbers: Floats, labels: Bools | Ints, groups: Ints | None = None, seed: int = 0
) -> Floats:
    """P(label) of each row of numbers, such as cached embeddings, out of fold.

    Args:
        numbers: a row each, NaN where one is missing.
        labels: unsafe or not, or labels from 0, each against the rest.
        groups: rows of equal number stay in one fold; None: each by itself.
        seed: of the folds.

    Returns:
        Rows x labels, each row adding up to 1.
    """
    kept = np.arange(len(numbers)) if groups is None else groups
    return _each_label(labels, lambda side: numbers_out_of_fold(numbers, side, kept, seed))


def numbers_out_of_fold(numbers: Floats, labels: Bools, groups: Ints, seed: int) -> Floats:
    """P(unsafe) of each row of numbers by a logistic regression that saw no row of its group."""
    return held_out(
        labels,
        groups,
        seed,
        lambda train, known, test: NumberModel(numbers[train], known).predict(numbers[test]),
    )


def low_level(
    pixels: Sequence[Floats | None], unsafe: Bools, groups: Ints | None = None, seed: int = 0, of: int = 1
) -> LowLevel:
    """Whether statistics of pixels alone tell the label of images, which they should not.

    Args:
        pixels: `pixel_features` of each image.
        unsafe: the label of each.
        groups: images of equal number stay in one fold; None: each by itself.
        seed: of folds and draws.
        of: how many probes are looked at together (`gives_away`).
    """
    known = [i for i, row in enumerate(pixels) if row is not None]
    numbers = np.array([row for row in pixels if row is not None], np.float64).reshape(
        len(known), len(PIXELS)
    )
    labels = unsafe[known]
    kept = np.arange(len(known)) if groups is None else groups[known]
    told = len(known), len(pixels) - len(known), int(labels.sum())
    if reason := enough(labels, kept):
        return LowLevel(*told, None, None, None, False, [], reason)
    scores = numbers_out_of_fold(numbers, labels, kept, seed)
    value, draws = auc(labels, scores), auc_draws(labels, scores, kept, seed)
    weights = NumberModel(numbers, labels).w.round(6)
    order = sorted(range(len(PIXELS)), key=lambda i: (-abs(weights[i]), i))[:4]
    top = [f"{PIXELS[i]} {weights[i]:+.2f}" for i in order if weights[i]]
    return LowLevel(*told, round(value, 3), *interval95(draws), gives_away(value, draws, labels, of), top, "")


def pixel_features(source: bytes | Image.Image) -> Floats | None:
    """Statistics of an image's pixels, as `PIXELS` names them; None where it cannot be read.

    Colours are read off a thumbnail of 32 x 32. Edge density is the share of steps from pixel to pixel that
    are large, sharpness the variance of the Laplacian (Pech-Pacheco et al. 2000), both at 256 pixels at most;
    entropy is that of brightness in bits; colourfulness is that of Hasler and Suesstrunk (2003).

    Args:
        source: the bytes of a file, or an image opened from one, which is made smaller in place.
    """
    try:
        with warnings.catch_warnings():
            # Damaged metadata are warned of and harm nothing; large pictures are refused below.
            warnings.simplefilter("ignore")
            if isinstance(source, Image.Image):
                return _statistics(source)
            with Image.open(io.BytesIO(source)) as image:
                return _statistics(image)
    except (OSError, ValueError, SyntaxError, ArithmeticError, Image.DecompressionBombError):
        return None


def _statistics(image: Image.Image) -> Floats | None:
    width, height = image.size
    if width * height > MOST_PIXELS:
        return None
    tables = getattr(image, "quantization", None) or {}
    quantised = float(np.mean(list(tables[0]))) if tables.get(0) is not None else 0.0
    # JPEG is decoded at the scale that is needed, not in full.
    image.draft("RGB", (DETAIL, DETAIL))
    image.thumbnail((DETAIL, DETAIL), Image.Resampling.BILINEAR)
    if "A" in image.getbands() or "transparency" in image.info:
        layer = image.convert("RGBA")
        small = Image.alpha_composite(Image.new("RGBA", layer.size, "white"), layer).convert("RGB")
    else:
        small = image.convert("RGB")
    grey = np.asarray(small.convert("L"), np.float64)
    rgb = np.asarray(small.resize((SIDE, SIDE), Image.Resampling.BOX), np.float64)
    red, green, blue = rgb[..., 0], rgb[..., 1], rgb[..., 2]
    most, least = rgb.max(-1), rgb.min(-1)
    yellow, reddish = (red + green) / 2 - blue, red - green
    steps = np.concatenate([np.abs(np.diff(grey, axis=axis)).ravel() for axis in (0, 1)])
    centre = grey[1:-1, 1:-1]
    bend = grey[:-2, 1:-1] + grey[2:, 1:-1] + grey[1:-1, :-2] + grey[1:-1, 2:] - 4 * centre
    share = np.bincount((grey.ravel() / 4).astype(np.int64), minlength=64) / grey.size
    share = share[share > 0]
    return np.array(
        [
            np.log(width),
            np.log(height),
            np.log(width / height),
            *rgb.mean((0, 1)),
            *rgb.std((0, 1)),
            ((most - least) / np.maximum(most, 1)).mean(),
            (steps > EDGE).mean() if steps.size else 0.0,
            np.log1p(bend.var()) if bend.size else 0.0,
            (share * np.log2(1 / share)).sum(),
            np.hypot(yellow.std(), reddish.std()) + 0.3 * np.hypot(yellow.mean(), reddish.mean()),
            quantised,
        ],
        np.float64,
    )


def _each_label(labels: Bools | Ints, guess: Callable[[Bools], Floats]) -> Floats:
    given = np.asarray(labels, np.int64)
    k = max(2, int(given.max(initial=0)) + 1)
    if k == 2:
        unsafe = guess(given == 1)
        return np.column_stack([1 - unsafe, unsafe])
    found = np.column_stack([guess(given == c) for c in range(k)])
    return np.asarray(found / found.sum(1, keepdims=True), np.float64)

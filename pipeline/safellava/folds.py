"""The safety head alone, on features of the frozen tower: what it says of images that it was not trained on.

The language model takes no part: five of them could not be trained on a processor. The head is that of the
visual guard (arXiv 2506.04704, v5) with the tower's own pooling: Linear(h, h/2), GELU, Dropout(0.1),
Linear(h/2, classes). Folds keep leak groups whole, so that no copy of an image tells its label.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from pipeline.agreement.bootstrap import resamples
from pipeline.annotators.safety_head import SafetyHead, Sees
from pipeline.anyset import AnySet
from pipeline.audit.judging import FOLDS, auc, auc_draws, folds_of, interval95
from pipeline.safellava.pictures import leak_groups, look_at_pictures
from pipeline.workspace import Progress
from schemas.errors import InputError
from schemas.taxonomy import Taxonomy

if TYPE_CHECKING:
    from pipeline.encoders import ImageEncoder

__all__ = [
    "CLASSES",
    "Folded",
    "Labelled",
    "Measure",
    "fold",
    "labelled_images",
    "trained_head",
    "zero_shot_of",
]

Floats = NDArray[np.float32]
Probabilities = NDArray[np.float64]
Ints = NDArray[np.int64]

CLASSES = 20
"""`image_safety_label` 0 to 19."""
LEAST = 50
"""Images below which nothing is trained."""
EPOCHS, BATCH, RATE, DECAY, DROPOUT = 40, 64, 1e-3, 0.05, 0.1
PENALTIES = (1e-3, 1e-2, 1e-1)
"""Of the logistic regression's weights, of which the best on a part of its training images is taken."""
BINS = 15
ROUNDS = 300
HEAD, REGRESSION, ZERO_SHOT, MAJORITY = "safety head", "logistic regression", "zero-shot encoder", "majority"


@dataclass(frozen=True)
class Labelled:
    """Images with their labels. Arrays have one entry an image.

    Attributes:
        keys: of the images in the dataset.
        sha256: of their bytes.
        features: of the tower, (n, h).
        labels: 0 for safe, 1 to 19 for classes of harm.
        groups: leak groups, from 0: images that look alike, or that the dataset says belong together.
        left_out: images that do not decode.
    """

    keys: list[str]
    sha256: list[str]
    features: Floats
    labels: Ints
    groups: Ints
    left_out: int

    @property
    def unsafe(self) -> NDArray[np.bool_]:
        """Whether each is unsafe."""
        return self.labels > 0


@dataclass(frozen=True, slots=True)
class Measure:
    """A figure with its 95 % interval, leak groups drawn anew.

    Attributes:
        value: the figure.
        low: of the interval; None where it cannot be drawn.
        high: its other end.
    """

    value: float
    low: float | None
    high: float | None


@dataclass(frozen=True, slots=True)
class Folded:
    """What one way of guessing reaches on images that it did not see.

    Attributes:
        name: the way.
        auc: of unsafe against safe, by 1 less the share of class 0.
        accuracy: share of images whose likeliest class is theirs.
        macro_f1: mean over the classes that have images.
        ece: expected calibration error of the likeliest class, in 15 bins (Guo et al. 2017).
        by_class: of each class that has images: `n`, `precision`, `recall`, `f1`.
    """

    name: str
    auc: Measure
    accuracy: Measure
    macro_f1: Measure
    ece: Measure
    by_class: dict[str, dict[str, float]]

    def as_json(self) -> dict[str, Any]:
        """For `folds.json`."""
        return asdict(self)


def labelled_images(found: AnySet, encoder: Sees, progress: Progress) -> Labelled:
    """Look at all images of a dataset.

    Args:
        found: the dataset.
        encoder: whose features are taken.
        progress: told of each image, twice.

    Raises:
        InputError: when two rows give one image two labels, a label is none of the classes, there are too few
            images, or all have one label.
    """
    rows = found.rows
    labels = rows.groupby("image")["image_safety_label"].agg(["first", "nunique"])
    if len(unclear := labels[labels["nunique"] > 1]):
        raise InputError(f"{found.place}: image_safety_label: rows disagree on {unclear.index[0]}; give one")
    if not labels["first"].between(0, CLASSES - 1).all():
        raise InputError(f"{found.place}: image_safety_label: a class is 0 to {CLASSES - 1}")
    pictures = look_at_pictures(found.pictures, list(labels.index), progress)
    keys = sorted(pictures.held, key=lambda key: pictures.sha256[key])
    numbers = labels["first"].loc[keys].to_numpy(np.int64)
    if len(keys) < LEAST or len(set((numbers > 0).tolist())) < 2:
        raise InputError(
            f"{found.place}: {len(keys)} images, {int((numbers > 0).sum())} of them unsafe; a head needs "
            f"{LEAST}, and both sides"
        )
    progress.start("features", len(keys))
    features = []
    for key in keys:
        features.append(encoder.features([pictures.open(key)])[0])
        progress.advance()
    return Labelled(
        keys,
        [pictures.sha256[key] for key in keys],
        np.array(features, np.float32),
        numbers,
        _groups(rows, keys, leak_groups(pictures)),
        len(pictures.bad),
    )


def fold(
    labelled: Labelled,
    seed: int,
    progress: Progress,
    zero_shot: Callable[[Floats], Probabilities] | None = None,
) -> tuple[list[Folded], Probabilities]:
    """Guess each image by what was trained on the other folds, and hold the ways side by side.

    Args:
        labelled: the images.
        seed: of folds, first weights and order.
        progress: told of each fold.
        zero_shot: an encoder's (n, classes) from features; None leaves it out.

    Returns:
        The ways, the head first; and the head's probabilities, (n, classes).
    """
    folds = folds_of(labelled.groups, seed)
    shape = len(labelled.keys), CLASSES
    guesses = {name: np.zeros(shape) for name in (HEAD, REGRESSION)}
    guesses[MAJORITY] = np.tile(np.bincount(labelled.labels, minlength=CLASSES) / shape[0], (shape[0], 1))
    progress.start("folds", FOLDS)
    for number in range(FOLDS):
        train, test = np.flatnonzero(folds != number), np.flatnonzero(folds == number)
        x, y, groups = labelled.features[train], labelled.labels[train], labelled.groups[train]
        unseen = labelled.features[test]
        guesses[HEAD][test] = trained_head(x, y, seed, "").probabilities(unseen)
        guesses[REGRESSION][test] = _regression(x, y, groups, seed)(unseen)
        progress.advance()
    if zero_shot is not None:
        guesses[ZERO_SHOT] = zero_shot(labelled.features)
    return [_folded(name, labelled, p) for name, p in guesses.items()], guesses[HEAD]


def trained_head(
    features: Floats,
    labels: Ints,
    seed: int,
    encoder: str,
    known: Mapping[str, float] | None = None,
) -> SafetyHead:
    """Train a head.

    Args:
        features: (n, h).
        labels: 0 to 19.
        seed: of first weights, order and dropout.
        encoder: whose features they are.
        known: P(unsafe) out of fold by the SHA-256 of each file.
    """
    import torch
    from torch import nn

    mean, scale = features.mean(0), features.std(0) + 1e-6
    x = torch.from_numpy((features - mean) / scale)
    y = torch.from_numpy(labels)
    width = features.shape[1]
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        head = nn.Sequential(
            nn.Linear(width, width // 2), nn.GELU(), nn.Dropout(DROPOUT), nn.Linear(width // 2, CLASSES)
        )
        optimizer = torch.optim.AdamW(head.parameters(), lr=RATE, weight_decay=DECAY)
        steps = EPOCHS * -(-len(y) // BATCH)
        schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
        for _ in range(EPOCHS):
            order = torch.randperm(len(y))
            for start in range(0, len(y), BATCH):
                some = order[start : start + BATCH]
                optimizer.zero_grad()
                loss: Any = nn.functional.cross_entropy(head(x[some]), y[some])
                loss.backward()
                optimizer.step()
                schedule.step()
    hidden, hidden_bias, out, out_bias = (p.detach().numpy() for p in head.parameters())
    known = dict(sorted((known or {}).items()))
    unsafe = np.array(list(known.values()), np.float32)
    return SafetyHead(
        encoder=encoder,
        mean=mean,
        scale=scale,
        hidden=hidden,
        hidden_bias=hidden_bias,
        out=out,
        out_bias=out_bias,
        known=list(known),
        known_unsafe=unsafe,
    )


def zero_shot_of(
    encoder: ImageEncoder, taxonomy: Taxonomy, ids: Mapping[str, int]
) -> Callable[[Floats], Probabilities]:
    """What the project's encoder says of features, as its annotator does: nothing is trained.

    Args:
        encoder: the embedded one.
        taxonomy: whose sentences it compares.
        ids: `image_safety_label` by class.
    """
    from pipeline.annotators import EncoderAnnotator

    annotator = EncoderAnnotator(encoder, taxonomy)
    names = [ids[name] for name in annotator.unsafe_classes]

    def guess(features: Floats) -> Probabilities:
        found = np.zeros((len(features), CLASSES))
        for row, embedding in zip(found, encoder.embed_features(features), strict=True):
            row[names] = annotator.shares(embedding.astype(np.float64))
            row[0] = 1 - row.sum()
        return found

    return guess


def _groups(rows: pd.DataFrame, keys: list[str], alike: Mapping[str, int]) -> Ints:
    """Numbers that are equal where images look alike or the dataset gives them one leak group."""
    parent = list(range(len(keys)))

    def head(place: int) -> int:
        while parent[place] != place:
            parent[place] = parent[parent[place]]
            place = parent[place]
        return place

    said: dict[str, Any] = {}
    if "leak_group" in rows:
        given = rows.dropna(subset=["leak_group"])
        said = dict(zip(given["image"], given["leak_group"], strict=True))
    first: dict[tuple[str, Any], int] = {}
    for place, key in enumerate(keys):
        names = [("alike", alike[key]), *([("said", said[key])] if key in said else [])]
        for name in names:
            parent[head(place)] = head(first.setdefault(name, place))
    return np.unique([head(place) for place in range(len(keys))], return_inverse=True)[1].astype(np.int64)


def _regression(x: Floats, y: Ints, groups: Ints, seed: int) -> Callable[[Floats], Probabilities]:
    """A logistic regression over all classes, its penalty chosen on a fifth of the groups."""
    inner = folds_of(groups, seed) == 0
    chosen = PENALTIES[0]
    if len(set((y[~inner] > 0).tolist())) > 1 and inner.any():
        losses = []
        for penalty in PENALTIES:
            shares = _fitted(x[~inner], y[~inner], penalty)(x[inner])
            losses.append(-np.log(shares[np.arange(len(shares)), y[inner]] + 1e-12).mean())
        chosen = PENALTIES[int(np.argmin(losses))]
    return _fitted(x, y, chosen)


def _fitted(x: Floats, y: Ints, penalty: float) -> Callable[[Floats], Probabilities]:
    import torch
    from torch import nn

    mean, scale = x.mean(0), x.std(0) + 1e-6
    inputs, labels = torch.from_numpy((x - mean) / scale), torch.from_numpy(y)
    weight = torch.zeros(CLASSES, x.shape[1], requires_grad=True)
    bias = torch.zeros(CLASSES, requires_grad=True)
    optimizer: Any = torch.optim.LBFGS([weight, bias], max_iter=100, line_search_fn="strong_wolfe")

    def closure() -> Any:
        optimizer.zero_grad()
        loss: Any = nn.functional.cross_entropy(inputs @ weight.T + bias, labels)
        loss = loss + penalty * weight.square().sum() / 2
        loss.backward()
        return loss

    optimizer.step(closure)

    def guess(features: Floats) -> Probabilities:
        with torch.no_grad():
            logits = torch.from_numpy((features - mean) / scale) @ weight.T + bias
        return np.asarray(logits.double().softmax(-1).numpy(), np.float64)

    return guess


def _folded(name: str, labelled: Labelled, shares: Probabilities) -> Folded:
    best, true = shares.argmax(1), labelled.labels
    unsafe = 1 - shares[:, 0]
    counts = np.zeros((len(true), 3, CLASSES))
    rows = np.arange(len(true))
    counts[rows, 0, true] = 1  # there
    counts[rows, 1, best] = 1  # said
    counts[rows, 2, true] = best == true  # both
    bins = np.minimum((shares.max(1) * BINS).astype(np.int64), BINS - 1)
    sure = np.zeros((len(true), BINS))
    sure[rows, bins] = (best == true) - shares.max(1)
    table = np.concatenate([counts.reshape(len(true), -1), sure], axis=1)
    by_group = np.zeros((int(labelled.groups.max()) + 1, table.shape[1]))
    np.add.at(by_group, labelled.groups, table)
    present = counts[:, 0].sum(0) > 0

    def figures(weights: NDArray[np.float64]) -> NDArray[np.float64]:
        """Of each row of weights over groups: accuracy, macro-F1, calibration error."""
        sums = weights @ by_group
        there, said, both = sums[:, : 3 * CLASSES].reshape(-1, 3, CLASSES).transpose(1, 0, 2)
        many = there.sum(1)
        f1 = 2 * both / np.maximum(there + said, 1e-12)
        return np.stack(
            [both.sum(1) / many, f1[:, present].mean(1), np.abs(sums[:, 3 * CLASSES :]).sum(1) / many], axis=1
        )

    whole = figures(np.ones((1, len(by_group))))[0]
    drawn = np.concatenate(list(_drawn(len(by_group), figures)))
    accuracy, macro_f1, ece = (
        Measure(round(float(value), 4), *interval95(column))
        for value, column in zip(whole, drawn.T, strict=True)
    )
    area = Measure(
        round(auc(labelled.unsafe, unsafe), 4),
        *interval95(auc_draws(labelled.unsafe, unsafe, labelled.groups, 0)),
    )
    there, said, both = counts.sum(0)
    by_class = {
        str(k): {
            "n": int(there[k]),
            "precision": round(float(both[k] / said[k]), 4) if said[k] else 0.0,
            "recall": round(float(both[k] / there[k]), 4),
            "f1": round(float(2 * both[k] / (there[k] + said[k])), 4),
        }
        for k in np.flatnonzero(present)
    }
    return Folded(name, area, accuracy, macro_f1, ece, by_class)


def _drawn(
    groups: int, figures: Callable[[NDArray[np.float64]], NDArray[np.float64]]
) -> Iterator[NDArray[np.float64]]:
    for weights in resamples(np.ones(groups, np.int64), ROUNDS, 0):
        yield figures(weights)

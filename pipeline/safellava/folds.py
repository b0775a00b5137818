"""The safety head alone, on features of the frozen tower: what it says of images that it was not trained on.

The language model takes no part: five of them could not be trained on a processor. The head is that of the
visual guard (arXiv 2506.04704, v5) with the tower's own pooling: Linear(h, h/2), GELU, Dropout(0.1),
Linear(h/2, classes). Folds keep leak groups whole, so that no copy of an image tells its label.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from pipeline.annotators.safety_head import SafetyHead, Sees
from pipeline.anyset import AnySet
from pipeline.audit.judging import FOLDS, folds_of
from pipeline.heads import train_layers
from pipeline.safellava.baselines import majority, regression, zero_shot
from pipeline.safellava.figures import Figures, Floats, Ints, figures
from pipeline.safellava.pictures import Pictures, joined_groups, leak_groups, look_at_pictures, said_groups
from pipeline.workspace import Progress, Workspace
from schemas.errors import InputError

__all__ = ["Folded", "Groups", "Labelled", "fold", "labelled_images", "trained_head"]

LEAST = 50
"""Images below which nothing is trained."""
EPOCHS, DROPOUT = 40, 0.1
SILENT = 1e-3
"""Of the widest channel's spread: a channel with less says nothing."""
Groups = Literal["looks", "dataset"]
"""What keeps images together: that they look alike, or also that the dataset gives them one `leak_group`."""


@dataclass(frozen=True)
class Labelled:
    """Images with their labels. Arrays have one entry an image.

    Attributes:
        keys: of the images in the dataset.
        pictures: where they are.
        features: of the tower, (n, h), float32.
        labels: 0 for safe, else the class of harm.
        groups: leak groups, from 0.
    """

    keys: list[str]
    pictures: Pictures
    features: NDArray[np.float32]
    labels: Ints
    groups: Ints

    @property
    def sha256(self) -> list[str]:
        """Of the bytes of each."""
        return [self.pictures.sha256[key] for key in self.keys]


@dataclass(frozen=True)
class Folded:
    """What each way of guessing reaches on images that it did not see.

    Attributes:
        ways: figures by way, the head first.
        shares: the head's probabilities, (n, classes).
    """

    ways: dict[str, Figures]
    shares: Floats


def labelled_images(
    found: AnySet, encoder: Sees, classes: int, progress: Progress, groups: Groups = "dataset"
) -> Labelled:
    """Look at all images of a dataset.

    Args:
        found: the dataset.
        encoder: whose features are taken.
        classes: labels are below it.
        progress: told of each image, twice.
        groups: what keeps images together.

    Raises:
        InputError: when two rows give one image two labels, a label is none of the classes, an image does not
            decode, there are too few, or all have one label.
    """
    labels = found.rows.groupby("image")["image_safety_label"].agg(["first", "nunique"])
    if len(unclear := labels[labels["nunique"] > 1]):
        raise InputError(f"{found.place}: image_safety_label: rows disagree on {unclear.index[0]}; give one")
    if not labels["first"].between(0, classes - 1).all():
        raise InputError(f"{found.place}: image_safety_label: a class is 0 to {classes - 1}")
    pictures = look_at_pictures(found.pictures, list(labels.index), progress)
    pictures.must_decode(found.place)
    # By content: the same images under other names give the same folds.
    keys = sorted(pictures.held, key=lambda key: pictures.sha256[key])
    numbers = labels["first"].loc[keys].to_numpy(np.int64)
    unsafe = int((numbers > 0).sum())
    if len(keys) < LEAST or unsafe in (0, len(keys)):
        raise InputError(
            f"{found.place}: {len(keys)} images, {unsafe} of them unsafe; a head needs {LEAST} and both sides"
        )
    progress.start("features", len(keys))
    features = []
    for key in keys:
        features.append(encoder.features([pictures.open(key)])[0])
        progress.advance()
    alike = leak_groups(pictures.hashes, pictures.sha256)
    if groups == "dataset":
        alike = joined_groups(alike, said_groups(found.rows))
    together = np.array([alike[key] for key in keys], np.int64)
    return Labelled(keys, pictures, np.array(features, np.float32), numbers, together)


def fold(
    labelled: Labelled,
    names: Sequence[str],
    seed: int,
    progress: Progress,
    workspace: Workspace | None = None,
) -> Folded:
    """Guess each image by what was trained on the other folds, and hold the ways side by side.

    Args:
        labelled: the images.
        names: of the classes; the first is safe.
        seed: of folds, first weights and order.
        progress: told of each fold.
        workspace: whose encoder judges without training; None leaves that out.

    Raises:
        InputError: when a fold, or what it leaves to learn from, would lack images or one of the sides.
    """
    folds = folds_of(labelled.groups, seed)
    unsafe = labelled.labels > 0
    for number in range(FOLDS):
        kept = unsafe[folds != number]
        if not (folds == number).any() or kept.all() or not kept.any():
            raise InputError(
                f"leak groups: {len(set(labelled.groups.tolist()))} are too few to leave a fifth out; "
                "add images of other things, or keep together only what looks alike: --groups looks"
            )
    shape = len(labelled.keys), len(names)
    head, fitted, common = np.zeros(shape), np.zeros(shape), np.zeros(shape)
    progress.start("folds", FOLDS)
    for number in range(FOLDS):
        train, test = np.flatnonzero(folds != number), np.flatnonzero(folds == number)
        x, y, unseen = labelled.features[train], labelled.labels[train], labelled.features[test]
        classes = len(names)
        common[test] = majority(y, len(test), classes)
        head[test] = trained_head(x, y, classes, seed, "").probabilities(unseen)
        fitted[test] = regression(x, y, labelled.groups[train], unseen, classes, seed)
        progress.advance()
    shares = {"safety head": head, "regression": fitted, "majority": common}
    if workspace is not None:
        shares["zero-shot"] = zero_shot(labelled.keys, labelled.pictures, workspace, names, progress)
    ways = {
        name: figures(p / p.sum(1, keepdims=True), labelled.labels, labelled.groups, names)
        for name, p in shares.items()
    }
    return Folded(ways, head)


def trained_head(
    features: NDArray[np.float32],
    labels: Ints,
    classes: int,
    seed: int,
    encoder: str,
    known: Mapping[str, float] | None = None,
) -> SafetyHead:
    """Train a head.

    Args:
        features: (n, h).
        labels: 0 to `classes` less 1.
        classes: how many.
        seed: of first weights, order and dropout.
        encoder: whose features they are.
        known: P(unsafe) out of fold by the SHA-256 of each file.
    """
    import torch

    mean, spread = features.mean(0), features.std(0)
    # A channel that is silent here would drown all others where it once is not.
    scale = np.where(spread > SILENT * max(float(spread.max()), SILENT), spread, np.inf).astype(np.float32)
    x = torch.from_numpy((features - mean) / scale)
    y = torch.from_numpy(np.array(labels, np.int64))  # a copy: the table it is from is read-only
    layers = train_layers(x, y, classes, features.shape[1] // 2, dropout=DROPOUT, epochs=EPOCHS, seed=seed)
    hidden, hidden_bias, out, out_bias = (p.detach().numpy() for p in layers.parameters())
    known = dict(sorted((known or {}).items()))
    return SafetyHead(
        encoder=encoder,
        mean=mean,
        scale=scale,
        hidden=hidden,
        hidden_bias=hidden_bias,
        out=out,
        out_bias=out_bias,
        known=list(known),
        known_unsafe=np.array(list(known.values()), np.float32),
    )

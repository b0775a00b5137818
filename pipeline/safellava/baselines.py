"""What a head has to beat: shares of classes, a regression on the tower's features, the encoder untrained."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from pipeline.safellava.figures import Floats, Ints
from pipeline.safellava.load import Loaded, device
from pipeline.safellava.pictures import Pictures
from pipeline.workspace import Progress, Workspace

__all__ = ["majority", "pooled_features", "regression", "zero_shot"]

Numbers = NDArray[np.floating[Any]]
STRENGTHS = (0.001, 0.01, 0.1, 1.0)
"""Inverse weights of the L2 penalty, of which the training side chooses one."""
FOLDS = 3
TOLERANCE = 1e-3
"""Of the gradient: ten times looser than usual, which no figure shows."""


def majority(train: Ints, test: int, classes: int) -> Floats:
    """Every image gets the shares that the classes have in training, (test, classes)."""
    shares = np.bincount(train, minlength=classes) / len(train)
    return np.tile(shares, (test, 1))


def pooled_features(loaded: Loaded, keys: Sequence[str], pictures: Pictures, progress: Progress) -> Floats:
    """What the model's tower sees of each image, its places averaged: (images, channels)."""
    tower = loaded.model.model.vision_tower.to(device()).eval()
    progress.start("features of the tower", len(keys))
    rows = []
    for key in keys:
        pixels = loaded.prompter.pixels([pictures.open(key)]).to(device(), tower.dtype)
        with torch.inference_mode():
            rows.append(tower(pixels).last_hidden_state.mean(1)[0].float().cpu().numpy())
        progress.advance()
    return np.asarray(rows, np.float64)


def regression(train: Numbers, labels: Ints, groups: Ints, test: Numbers, classes: int, seed: int) -> Floats:
    """Logistic regression; its L2 penalty is chosen in folds of training that keep leak groups whole.

    Args:
        train: features of the training side.
        labels: of it.
        groups: leak groups of it.
        test: features to be judged.
        classes: of the head.
        seed: of the folds.

    Returns:
        (test, classes); classes that training has not have 0.
    """
    from sklearn.linear_model import LogisticRegression
    from sklearn.model_selection import GroupKFold
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    def fitted(x: Numbers, y: Ints, strengths: Sequence[float]) -> Iterator[Any]:
        # Each begins where the one before it ended, and single precision is twice as fast.
        model = make_pipeline(
            StandardScaler(), LogisticRegression(max_iter=500, tol=TOLERANCE, warm_start=True)
        )
        for strength in strengths:
            yield model.set_params(logisticregression__C=strength).fit(x.astype(np.float32), y)

    hits = np.zeros(len(STRENGTHS), np.int64)
    folds = min(FOLDS, len(set(groups.tolist())))
    if folds > 1:
        inner = GroupKFold(folds, shuffle=True, random_state=seed)
        for inside, outside in inner.split(train, labels, groups):
            if len(set(labels[inside].tolist())) > 1:
                models = fitted(train[inside], labels[inside], STRENGTHS)
                hits += [int((m.predict(train[outside]) == labels[outside]).sum()) for m in models]
    model = next(fitted(train, labels, (STRENGTHS[int(hits.argmax())],)))
    found = np.zeros((len(test), classes))
    found[:, model.classes_] = model.predict_proba(test)
    return found


def zero_shot(
    keys: Sequence[str], pictures: Pictures, workspace: Workspace, names: Sequence[str], progress: Progress
) -> Floats:
    """The project's image encoder and the sentences of the taxonomy, without any training: (images, classes).

    Args:
        keys: of the images.
        pictures: where they are.
        workspace: its params name the encoder, its taxonomy the sentences.
        names: of the head's classes; the first is safe.
        progress: told of each image.

    Raises:
        ModelMissingError: when the encoder's weights were not pulled.
    """
    from pipeline.annotators.pixels import EncoderAnnotator
    from pipeline.encoders import load_encoder

    said = workspace.params.encoder
    encoder = load_encoder(said, workspace.root)
    judge = EncoderAnnotator(encoder, workspace.taxonomy, temperature=said.temperature, offset=said.offset)
    known = [i for i, name in enumerate(judge.unsafe_classes) if name in names]
    places = [names.index(judge.unsafe_classes[i]) for i in known]
    progress.start("zero-shot", len(keys))
    found = np.zeros((len(keys), len(names)))
    for row, key in zip(found, keys, strict=True):
        shares = judge.shares(encoder.embed([pictures.open(key)])[0].astype(np.float64))
        row[places] = shares[known]
        row[0] = 1 - row[1:].sum()
        progress.advance()
    return found

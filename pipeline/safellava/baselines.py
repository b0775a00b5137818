"""What a head has to beat: shares of classes, a regression on the tower's features, the encoder untrained."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

from pipeline.safellava.figures import Floats, Ints
from pipeline.safellava.load import Loaded, device
from pipeline.safellava.pictures import Pictures
from pipeline.workspace import Progress, Workspace

__all__ = ["majority", "pooled_features", "regression", "zero_shot"]

STRENGTHS = (0.001, 0.01, 0.1, 1.0)
"""Inverse weights of the L2 penalty, of which the training side chooses one."""
FOLDS = 3


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


def regression(train: Floats, labels: Ints, groups: Ints, test: Floats, classes: int, seed: int) -> Floats:
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

    def fitted(strength: float, x: Floats, y: Ints) -> Any:
        return make_pipeline(StandardScaler(), LogisticRegression(C=strength, max_iter=500)).fit(x, y)

    best, chosen = -1.0, STRENGTHS[0]
    folds = min(FOLDS, len(set(groups.tolist())))
    for strength in STRENGTHS if folds > 1 else ():
        hits = 0
        for inside, outside in GroupKFold(folds, shuffle=True, random_state=seed).split(
            train, labels, groups
        ):
            if len(set(labels[inside].tolist())) > 1:
                model = fitted(strength, train[inside], labels[inside])
                hits += int((model.predict(train[outside]) == labels[outside]).sum())
        if hits > best:
            best, chosen = hits, strength
    model = fitted(chosen, train, labels)
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

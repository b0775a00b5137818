"""The guard: a small network on what two frozen encoders make of a pair; seconds on a processor."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from pipeline.anyset import AnySet
from pipeline.audit.embeddings import embeddings_of
from pipeline.audit.pictures import Looks, look_at
from pipeline.heads import train_layers
from pipeline.workspace import Progress

__all__ = ["SEEDS", "Encoded", "encode", "train_guard"]

Floats = NDArray[np.float32]
Bools = NDArray[np.bool_]

SEEDS = (0, 1, 2)
"""The guards of each kind, unless told otherwise."""
HIDDEN = 128
DROPOUT = 0.3
EPOCHS = 60


@dataclass(frozen=True)
class Encoded:
    """A dataset as the guard sees it. Arrays have one entry a row.

    Attributes:
        name: what it is called in tables.
        found: the dataset.
        rows: those rows whose image can be decoded; a new index.
        image: embeddings of images, rows x width, of length 1.
        text: embeddings of queries in the same space, rows x width, of length 1.
        unsafe: whether the pair is unsafe.
        looks: what was seen of the images, to find copies by.
        undecodable: rows left out for want of a picture.
    """

    name: str
    found: AnySet
    rows: pd.DataFrame
    image: Floats
    text: Floats
    unsafe: Bools
    looks: Looks
    undecodable: int


def encode(name: str, found: AnySet, progress: Progress) -> Encoded:
    """Embed the images and the queries of a dataset, each once.

    Raises:
        ModelMissingError: when the encoders' weights are not in the store.
    """
    from pipeline.encoders import load_text_encoder

    looks = look_at(found, progress)
    images = embeddings_of(found, progress, list(looks.seen))
    rows = found.rows[found.rows["image"].isin(list(images))].reset_index(drop=True)
    queries = list(dict.fromkeys(rows["query"].astype(str)))
    progress.start("embed queries", len(queries))
    width = len(next(iter(images.values()))) if images else 0
    embedded = load_text_encoder().embed(queries) if queries else np.zeros((0, width), np.float32)
    progress.advance(len(queries))
    place = {query: n for n, query in enumerate(queries)}
    return Encoded(
        name,
        found,
        rows,
        np.array([images[key] for key in rows["image"]], np.float32).reshape(len(rows), width),
        np.asarray(embedded, np.float32)[[place[query] for query in rows["query"].astype(str)]],
        rows["type"].str.endswith("U").to_numpy(np.bool_),
        looks,
        len(found.rows) - len(rows),
    )


def train_guard(
    image: Floats, text: Floats, unsafe: Bools, seed: int, *, sees_image: bool = True
) -> Callable[[Floats, Floats], NDArray[np.float64]]:
    """Train a guard on pairs.

    One hidden layer on both embeddings, their product and their distance, so that it can learn what an image
    makes of a query; both labels weigh the same.

    Args:
        image: rows x width.
        text: rows x width.
        unsafe: of each row; both labels are there.
        seed: of first weights, order and dropout.
        sees_image: False: the guard sees queries alone.

    Returns:
        A function from embeddings of images and texts to P(unsafe), 0..1.
    """
    import torch

    def inputs(images: Floats, texts: Floats) -> Any:
        if not sees_image:
            return torch.from_numpy(texts)
        return torch.from_numpy(np.hstack([images, texts, images * texts, np.abs(images - texts)]))

    x, y = inputs(image, text), torch.from_numpy(unsafe.astype(np.int64))
    mean, scale = x.mean(0), x.std(0) + 1e-6
    layers = train_layers(
        (x - mean) / scale,
        y,
        2,
        HIDDEN,
        dropout=DROPOUT,
        epochs=EPOCHS,
        seed=seed,
        weights=len(y) / torch.bincount(y, minlength=2),
    )

    def unsafe_of(images: Floats, texts: Floats) -> NDArray[np.float64]:
        with torch.no_grad():
            shares = layers((inputs(images, texts) - mean) / scale).softmax(1)
        return np.asarray(shares[:, 1].numpy(), np.float64)

    return unsafe_of

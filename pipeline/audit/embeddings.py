"""Embeddings of a dataset's images, from which their labels are guessed better than from their pixels."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import TYPE_CHECKING

import numpy as np

from pipeline.anyset import AnySet
from pipeline.audit.judging import Floats
from pipeline.curate.looks import MAX_PIXELS
from pipeline.curate.normalise import RejectedImageError, in_eight_bits, opened, upright
from pipeline.encoders._common import on_white
from pipeline.workspace import Progress, Workspace

if TYPE_CHECKING:
    from PIL.Image import Image

__all__ = ["embeddings_of", "kept_embeddings"]


def embeddings_of(found: AnySet, progress: Progress, keys: Sequence[str]) -> dict[str, Floats]:
    """Embed images by the embedded encoder, one after the other.

    Args:
        found: the dataset.
        progress: told of each image.
        keys: of images that can be decoded.

    Returns:
        Embeddings of length 1 by key.

    Raises:
        ModelMissingError: when the encoder's weights are not in the store.
    """
    from pipeline.encoders import load_image_encoder

    encoder = load_image_encoder()
    progress.start("embed images", len(keys))
    names: list[str] = []  # images come in the order in which they are stored

    def loads() -> Iterator[Callable[[], Image]]:
        for key, data in found.pictures.read(keys):
            names.append(key)
            progress.advance()
            yield partial(_picture, data or b"")

    rows = list(encoder.embed_each(loads()))
    return {
        key: np.asarray(row, np.float64)
        for key, row in zip(names, rows, strict=True)
        if not isinstance(row, str)
    }


def kept_embeddings(workspace: Workspace, progress: Progress, keys: Sequence[str]) -> dict[str, Floats]:
    """The embeddings of a build's images; those that its label stages did not keep are made and kept.

    Args:
        workspace: of the build.
        progress: told of each image.
        keys: ids of images.

    Returns:
        Embeddings of length 1 by id.
    """
    from pipeline.annotators import embedded
    from pipeline.encoders import EncoderAt, FeatureStore, load_encoder
    from pipeline.label_images import image_items

    wanted = frozenset(keys)
    items = [item for item in image_items(workspace) if item.id in wanted]
    encoder = load_encoder(workspace.params.encoder, workspace.root)
    at = EncoderAt(workspace.params.encoder, workspace.root, encoder.identity)
    progress.start("embeddings", len(items))
    found = {}
    with FeatureStore(workspace.features) as kept:
        for item, row in embedded(encoder, items, kept, at):
            progress.advance()
            if not isinstance(row, str):
                found[item.id] = np.asarray(row, np.float64)
    return found


def _picture(data: bytes) -> Image:
    try:
        with opened(data, MAX_PIXELS) as image:
            picture = on_white(in_eight_bits(upright(image)))
            picture.load()
            return picture
    except RejectedImageError as error:
        raise ValueError(error.reason) from error

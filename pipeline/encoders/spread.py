"""Embeddings made by who works for a build, where that is not this machine.

Each of them loads the encoder once. A chunk is one batch of the encoder, on one thread, so that an
embedding is the one that this machine would make.
"""

from __future__ import annotations

import io
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import lru_cache, partial
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING

from PIL import Image, UnidentifiedImageError

from pipeline.encoders._common import FloatArray
from pipeline.encoders.checkpoint import OpenClipEncoder
from pipeline.encoders.choose import load_encoder
from pipeline.encoders.image import ImageEncoder
from pipeline.parallel import WorkerDied, in_processes
from schemas.errors import InputError

if TYPE_CHECKING:
    from schemas.params import CheckpointEncoder, EmbeddedEncoder

__all__ = ["EncoderAt", "decoded"]

EMBEDDED_BATCH = 16
"""Images that travel together to the embedded encoder, which looks at one after the other."""


@dataclass(frozen=True)
class EncoderAt:
    """The encoder that params name, for others to load.

    Attributes:
        said: in params.
        root: the workspace, below which its files lie on every worker.
        identity: of its weights here.
    """

    said: EmbeddedEncoder | CheckpointEncoder
    root: Path
    identity: str

    def embed_each(self, files: Iterable[bytes]) -> Iterator[FloatArray | str]:
        """Embed images as they come, in their order; yield a row for each, or why it did not load.

        Raises:
            InputError: when a worker has other weights.
        """
        size = self.said.batch if self.said.kind == "open_clip" else EMBEDDED_BATCH
        rest = iter(files)
        batches = iter(lambda: list(islice(rest, size)), [])
        gpu = self.said.kind == "open_clip" and self.said.device != "cpu"
        jobs = ((self, batch) for batch in batches)
        for (_, batch), rows in in_processes(_embed, jobs, chunk=1, gpu=gpu):
            if isinstance(rows, WorkerDied):
                yield from ["killed the process that embedded it"] * len(batch)
            else:
                yield from rows


def decoded(data: bytes) -> Image.Image:
    """The picture of a normalised file.

    Raises:
        OSError: when it is none.
    """
    try:
        with Image.open(io.BytesIO(data)) as opened:
            return opened.convert("RGB")
    except UnidentifiedImageError:
        raise OSError("no kind of image that is known") from None  # Pillow names an address in memory


def _embed(job: tuple[EncoderAt, list[bytes]]) -> list[FloatArray | str]:
    at, batch = job
    return list(_loaded(at).embed_each(partial(decoded, data) for data in batch))


@lru_cache(maxsize=1)
def _loaded(at: EncoderAt) -> ImageEncoder | OpenClipEncoder:
    encoder = load_encoder(at.said, at.root)
    if encoder.identity != at.identity:
        raise InputError(f"encoder: a worker has {encoder.identity}, and this machine {at.identity}")
    return encoder

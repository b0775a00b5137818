"""What every kind of source does: list images, and later give the bytes of those that were chosen."""

from __future__ import annotations

import stat
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from pipeline.store import Failures

__all__ = [
    "IMAGE_SUFFIXES",
    "Found",
    "Problem",
    "Received",
    "Source",
    "looks_like_an_image",
    "read_file",
]

IMAGE_SUFFIXES = frozenset({".png", ".jpg", ".jpeg", ".gif", ".webp", ".bmp", ".tif", ".tiff", ".svg"})
_MAGIC = (b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff", b"GIF87a", b"GIF89a", b"BM", b"II*\0", b"MM\0*")
IMAGE_SUFFIXES |= {".jfif", ".jpe", ".avif", ".heic", ".heif"}


@dataclass(frozen=True, slots=True)
class Found:
    """An image as its source lists it; nothing of it is read yet.

    Attributes:
        fields: what is said of it, under our names.
        where: the `source_uri` of its row.
        name: its name within the source; the seeded choice hangs on it.
        line: where it is listed, for messages.
        at: where its source finds its bytes.
    """

    fields: Mapping[str, Any]
    where: str
    name: str
    line: str
    at: Any


@dataclass(frozen=True, slots=True)
class Received:
    """The bytes of an image, and when they were fetched, where they were."""

    data: bytes
    retrieved_at: str = ""


@dataclass(frozen=True, slots=True)
class Problem:
    """Why there are no bytes: a phrase that can be counted, and the detail."""

    reason: str
    detail: str = ""


class Source(Protocol):
    """A reader of one kind of source."""

    def check(self) -> None:
        """Look at what people wrote, before any work.

        Raises:
            InputError: when nothing can come of it.
        """
        ...

    def listed(self, failures: Failures) -> Iterator[Found]:
        """Every image, always in the same order; what cannot be one is a failure.

        Raises:
            InputError: when the source as a whole cannot be read.
        """
        ...

    def read(self, chosen: Sequence[Found]) -> Iterator[Received | Problem]:
        """The bytes of each of `chosen`, which are in the order of the list; one image at a time."""
        ...


def read_file(path: Path, max_bytes: int, offset: int = 0, size: int | None = None) -> Received | Problem:
    """A file, or the part of one that begins at `offset`."""
    try:
        known = path.stat()
        if not stat.S_ISREG(known.st_mode):
            return Problem("cannot be read", "it is no plain file")
        length = known.st_size if size is None else size
        if length > max_bytes:
            return Problem("too large", f"{length} bytes; collect.max_bytes is {max_bytes}")
        with path.open("rb") as file:
            file.seek(offset)
            data = file.read(length)
    except (OSError, ValueError) as error:
        return Problem("cannot be read", str(error))
    if size is not None and len(data) < size:
        return Problem("cannot be read", f"{path}: it ends within the image")
    return Received(data)


def looks_like_an_image(data: bytes) -> bool:
    """Whether bytes begin as one of the formats that curate reads."""
    return data.startswith(_MAGIC) or (data[:4] == b"RIFF" and data[8:12] == b"WEBP")

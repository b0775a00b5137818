"""Every picture of a dataset looked at once: what it is, and its hash; then its bytes go."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache

from pipeline.anyset import AnySet
from pipeline.audit.features import pixel_features
from pipeline.audit.judging import Floats
from pipeline.curate.hashing import SIDE_WANTED, hash_picture, looks_printed
from pipeline.curate.normalise import RejectedImageError, in_eight_bits, opened, upright
from pipeline.encoders import TextReader
from pipeline.encoders._common import flattened
from pipeline.parallel import WorkerDied, in_processes
from pipeline.store import sha256_bytes
from pipeline.workspace import Progress

__all__ = ["MAX_PIXELS", "Look", "Looks", "look_at", "texts_of"]

MAX_PIXELS = 100_000_000
MISSING = "missing"
_CHUNK = 16


@dataclass(frozen=True, slots=True)
class Look:
    """What was seen of an image.

    Attributes:
        sha256: of its bytes.
        format: as its bytes say, such as JPEG.
        width: in pixels, upright.
        height: in pixels.
        size: of its file in bytes.
        hash: the fine perceptual hash, 32 bytes.
        printed: whether it may be a document or a screen.
        pixels: `pixel_features` of it, or None.
    """

    sha256: str
    format: str
    width: int
    height: int
    size: int
    hash: bytes
    printed: bool
    pixels: Floats | None


@dataclass(frozen=True)
class Looks:
    """What was seen of all images.

    Attributes:
        seen: looks by key, in order of the keys.
        rejected: why an image could not be looked at, by key.
    """

    seen: Mapping[str, Look]
    rejected: Mapping[str, str]


def look_at(found: AnySet, progress: Progress, *, trusted: bool = False) -> Looks:
    """Read and decode each image once, a few at a time.

    Args:
        found: the dataset.
        progress: told of each image.
        trusted: images of our own making, of which none kills its decoder: no process is started for them.
            Others are decoded in processes of their own, on all cores.
    """
    keys = sorted(found.rows["image"].unique())
    progress.start("images", len(keys))
    seen, rejected = {}, {}
    items = found.pictures.read(keys)
    looked = ((i, _look(i)) for i in items) if trusted else in_processes(_look, items, chunk=_CHUNK)
    for (key, _), look in looked:
        progress.advance()
        if isinstance(look, Look):
            seen[key] = look
        else:
            rejected[key] = "killed the process that decoded it" if isinstance(look, WorkerDied) else look
    return Looks({key: seen[key] for key in keys if key in seen}, dict(sorted(rejected.items())))


def texts_of(found: AnySet, progress: Progress) -> Callable[[Sequence[str]], dict[str, str]]:
    """A function that reads the text on some images, by key."""

    def read(keys: Sequence[str]) -> dict[str, str]:
        progress.start("read text", len(keys))
        texts = {}
        for (key, _), text in in_processes(_read, found.pictures.read(keys), chunk=1):
            progress.advance()
            texts[key] = "" if isinstance(text, WorkerDied) else text
        return texts

    return read


def _look(item: tuple[str, bytes | None]) -> Look | str:
    data = item[1]
    if data is None:
        return MISSING
    try:
        with opened(data, MAX_PIXELS) as image:
            format_ = image.format or ""
            wide, high = image.size
            image.draft("L", (SIDE_WANTED, SIDE_WANTED))
            picture = flattened(in_eight_bits(upright(image)))
            if (picture.width > picture.height) != (wide > high):
                wide, high = high, wide
            return Look(
                sha256_bytes(data),
                format_,
                wide,
                high,
                len(data),
                hash_picture(picture),
                looks_printed(picture),
                pixel_features(data),
            )
    except RejectedImageError as error:
        return error.reason


@cache
def _reader() -> TextReader:
    return TextReader()


def _read(item: tuple[str, bytes | None]) -> str:
    try:
        with opened(item[1] or b"", MAX_PIXELS) as image:
            return _reader().read(flattened(in_eight_bits(upright(image)))).text
    except RejectedImageError:
        return ""

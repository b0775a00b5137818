"""Every picture of a dataset looked at once: what it is, and its hash; then its bytes go."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from PIL.JpegImagePlugin import JpegImageFile

from pipeline.anyset import AnySet
from pipeline.audit.features import pixel_features
from pipeline.audit.judging import Floats
from pipeline.curate.looks import KILLED, MAX_PIXELS, Seen, look, texts_on
from pipeline.curate.normalise import RejectedImageError, opened
from pipeline.parallel import WorkerDied, in_processes
from pipeline.store import sha256_bytes
from pipeline.workspace import Progress

__all__ = ["Look", "Looks", "look_at", "texts_of"]

MISSING = "missing"
_CHUNK = 16


@dataclass(frozen=True, slots=True)
class Look(Seen):
    """What was seen of an image, and what is known of its file.

    Attributes:
        sha256: of its bytes.
        format: as its bytes say, such as JPEG.
        size: of its file in bytes.
        pixels: `pixel_features` of it, or None.
    """

    sha256: str
    format: str
    size: int
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
    looks, rejected = {}, {}
    items = found.pictures.read(keys)
    looked = ((i, _look(i)) for i in items) if trusted else in_processes(_look, items, chunk=_CHUNK)
    for (key, _), seen in looked:
        progress.advance()
        if isinstance(seen, Look):
            looks[key] = seen
        else:
            rejected[key] = KILLED if isinstance(seen, WorkerDied) else seen
    return Looks({key: looks[key] for key in keys if key in looks}, dict(sorted(rejected.items())))


def texts_of(found: AnySet, progress: Progress) -> Callable[[Sequence[str]], dict[str, str]]:
    """A function that reads the text on some images, by key."""

    def read(keys: Sequence[str]) -> dict[str, str]:
        return texts_on(found.pictures.read(keys), len(keys), progress)

    return read


def _look(item: tuple[str, bytes | None]) -> Look | str:
    data = item[1]
    if data is None:
        return MISSING
    try:
        with opened(data, MAX_PIXELS) as image:
            format_ = image.format or ""
            seen = look(image)
            # A JPEG was decoded for its hash alone: grey, and at a scale that its statistics do not have.
            pixels = pixel_features(data if isinstance(image, JpegImageFile) else image)
    except RejectedImageError as error:
        return error.reason
    return Look(
        seen.width, seen.height, seen.hash, seen.printed, sha256_bytes(data), format_, len(data), pixels
    )

"""Every picture of a dataset looked at once: what it is, and its hash; then its bytes go."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
from PIL.JpegImagePlugin import JpegImageFile

from pipeline.anyset import AnySet
from pipeline.audit.features import pixel_features
from pipeline.audit.judging import Floats
from pipeline.curate.looks import KILLED, MAX_PIXELS, Seen, look, texts_on
from pipeline.curate.normalise import RejectedImageError, opened
from pipeline.parallel import WorkerDied, in_processes
from pipeline.store import read_rows, row_of, sha256_bytes, write_rows
from pipeline.workspace import Progress

__all__ = ["Look", "Looks", "look_at", "texts_of"]

MISSING = "missing"
_CHUNK = 16
_LOOKS = pa.schema(
    [
        ("width", pa.int32()),
        ("height", pa.int32()),
        ("hash", pa.binary()),
        ("printed", pa.bool_()),
        ("sha256", pa.string()),
        ("format", pa.string()),
        ("size", pa.int64()),
        ("pixels", pa.list_(pa.float64())),
    ]
)


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


def look_at(found: AnySet, progress: Progress, *, trusted: bool = False, kept: Path | None = None) -> Looks:
    """Read and decode each image once, a few at a time.

    Args:
        found: the dataset.
        progress: told of each image.
        trusted: images of our own making, of which none kills its decoder: no process of this machine is
            started for them. Others are decoded in processes of their own, on all cores.
        kept: a table of what was seen when this ran last: the same bytes are not decoded again. What is seen
            now takes its place.
    """
    keys = sorted(found.rows["image"].unique())
    progress.start("images", len(keys))
    before = _kept(kept)
    looks: dict[str, Look] = {}
    rejected: dict[str, str] = {}

    def unseen() -> Iterator[tuple[str, bytes | None]]:
        for key, data in found.pictures.read(keys):
            if data is not None and (known := before.get(sha256_bytes(data))) is not None:
                looks[key] = known
                progress.advance()
            else:
                yield key, data

    for (key, _), seen in in_processes(_look, unseen(), chunk=_CHUNK, worth=not trusted):
        progress.advance()
        if isinstance(seen, Look):
            looks[key] = seen
        else:
            rejected[key] = KILLED if isinstance(seen, WorkerDied) else seen
    if kept is not None:
        write_rows(kept, _LOOKS, map(row_of, {look.sha256: look for look in looks.values()}.values()))
    return Looks({key: looks[key] for key in keys if key in looks}, dict(sorted(rejected.items())))


def _kept(table: Path | None) -> dict[str, Look]:
    """Looks by the SHA-256 of the bytes."""
    if table is None or not table.exists():
        return {}
    looks = {}
    for row in read_rows(table):
        pixels = None if row["pixels"] is None else np.array(row["pixels"], np.float64)
        looks[row["sha256"]] = Look(**row | {"pixels": pixels})
    return looks


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

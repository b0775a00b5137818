"""One image, as a worker process sees it: from the bytes received to what is kept of it."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from typing import Any

from pipeline.curate.hashing import hash_picture
from pipeline.curate.normalise import RejectedImageError, normalise
from pipeline.curate.personal import personal_data
from pipeline.encoders import (
    FaceDetector,
    NudityClassifier,
    TextReader,
    load_face_detector,
    load_nudity_classifier,
)
from schemas.params import Curate

__all__ = ["INGESTED", "Ingested", "Job", "Rejected", "ingest"]


INGESTED = (
    "pixels_sha256",
    "phash",
    "width",
    "height",
    "stripped",
    "notes",
    "ocr_text",
    "personal_data",
    "nudity",
    "faces",
    "face_share",
    "bytes",
)
"""The columns that are read from the image."""


@dataclass(frozen=True, slots=True)
class Job:
    """A raw row with its bytes, and what is to be done.

    Attributes:
        row: as collect or generate wrote it.
        params: what curate was told.
        same_as: where the same bytes came from before, if they did.
    """

    row: dict[str, Any]
    params: Curate
    same_as: str | None = None


@dataclass(frozen=True, slots=True)
class Ingested:
    """What is kept of an image.

    Attributes:
        columns: what curate adds to the row, with the normalised bytes in place of those received.
        hash: the perceptual hash, 32 bytes.
        area: pixels before it was scaled down.
    """

    columns: dict[str, Any]
    hash: bytes
    area: int


@dataclass(frozen=True, slots=True)
class Rejected:
    """An image that is not kept, and why."""

    reason: str
    detail: str


def ingest(job: Job) -> Ingested | Rejected:
    """Normalise an image, hash it, and read the signals that its row keeps."""
    if job.same_as is not None:
        return Rejected("exact duplicate", job.same_as)
    try:
        done = normalise(job.row["bytes"], job.params)
    except RejectedImageError as error:
        return Rejected(error.reason, str(error))
    nudity = None
    if "nudity" in job.params.signals:
        nudity = round(float(_nudity().score([done.image])[0]), 3)
        if nudity >= job.params.nudity_reject:
            return Rejected("nudity", f"score {nudity}, not stored")
    text = _reader().read(done.image).text if "text" in job.params.signals else ""
    faces = _faces().find([done.image])[0] if "faces" in job.params.signals else None
    seen = hash_picture(done.image)
    columns = {
        "pixels_sha256": done.pixels_sha256,
        "phash": seen.hex(),
        "width": done.image.width,
        "height": done.image.height,
        "stripped": list(done.stripped),
        "notes": list(done.notes),
        "ocr_text": text,
        "personal_data": personal_data(text),
        "nudity": nudity,
        "faces": None if faces is None else len(faces),
        "face_share": None if faces is None else round(max((face.area for face in faces), default=0.0), 3),
        "bytes": done.data,
    }
    return Ingested(columns, seen, done.area)


@cache
def _nudity() -> NudityClassifier:
    return load_nudity_classifier()


@cache
def _faces() -> FaceDetector:
    return load_face_detector()


@cache
def _reader() -> TextReader:
    return TextReader()

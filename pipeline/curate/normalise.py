"""Bytes from anywhere to one format: RGB JPEG, upright, sRGB, without metadata."""

from __future__ import annotations

import io
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from PIL import Image, ImageCms, ImageOps, UnidentifiedImageError

from pipeline.encoders._common import flattened
from pipeline.store import sha256_bytes
from schemas.params import Curate

__all__ = ["Normalised", "RejectedImageError", "normalise", "opened"]

MIN_SIDE = 32
_FORMATS = ("PNG", "JPEG", "GIF", "WEBP", "BMP", "TIFF")


class RejectedImageError(Exception):
    """An image that cannot be used; `reason` can be counted, the message has the detail."""

    def __init__(self, reason: str, detail: str = "") -> None:
        """Keep both parts."""
        super().__init__(detail or reason)
        self.reason = reason


@dataclass(frozen=True, slots=True)
class Normalised:
    """A normalised image.

    Attributes:
        image: RGB, 8 bit.
        data: its JPEG file.
        pixels_sha256: of the pixels that went into the file.
        area: how many pixels it had before it was scaled down.
        stripped: kinds of metadata that were removed.
        notes: what was changed.
    """

    image: Image.Image
    data: bytes
    area: int
    pixels_sha256: str
    stripped: tuple[str, ...]
    notes: tuple[str, ...]


def normalise(data: bytes, params: Curate) -> Normalised:
    """Decode, bring upright, convert to sRGB, flatten on white, scale down, encode without metadata.

    Args:
        data: the bytes as received; the file's name is not looked at.
        params: limits and quality.

    Raises:
        RejectedImageError: empty, not a raster image, damaged, too small, or declaring too many pixels.
    """
    with opened(data, params.max_pixels) as source:
        source.load()
        stripped = _metadata_in(source)
        image, notes = _to_rgb(source)
    area = image.width * image.height
    if max(image.size) > params.max_side:
        notes.append(f"scaled down from {image.width} x {image.height}")
        image.thumbnail((params.max_side, params.max_side), Image.Resampling.LANCZOS)
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=params.jpeg_quality, subsampling=0, optimize=True)
    return Normalised(
        image, buffer.getvalue(), area, sha256_bytes(image.tobytes()), tuple(stripped), tuple(notes)
    )


@contextmanager
def opened(data: bytes, max_pixels: int) -> Iterator[Image.Image]:
    """A raster image whose declared size is in order; nothing is decoded yet.

    Raises:
        RejectedImageError: empty, not a raster image, damaged, too small, or declaring too many pixels; also
            for what decoding it inside the context finds.
    """
    if not data:
        raise RejectedImageError("zero bytes")
    with warnings.catch_warnings():
        # The size is checked below against the params; Pillow's own limit would only warn twice.
        warnings.simplefilter("ignore", Image.DecompressionBombWarning)
        try:
            with Image.open(io.BytesIO(data), formats=_FORMATS) as image:
                width, height = image.size
                if width * height > max_pixels:
                    raise RejectedImageError(
                        "too many pixels",
                        f"declares {width} x {height}; curate.max_pixels is {max_pixels}",
                    )
                if min(width, height) < MIN_SIDE:
                    raise RejectedImageError(
                        "too small", f"{width} x {height}; both sides must reach {MIN_SIDE}"
                    )
                yield image
        except UnidentifiedImageError:
            raise RejectedImageError("not a raster image", f"begins with {data[:12]!r}") from None
        except Image.DecompressionBombError as error:
            raise RejectedImageError("too many pixels", str(error)) from error
        except (OSError, SyntaxError, ValueError, EOFError, MemoryError) as error:
            raise RejectedImageError("damaged image", f"{type(error).__name__}: {error}") from error


def _metadata_in(image: Image.Image) -> list[str]:
    found = []
    exif = image.getexif()
    if exif:
        found.append("exif")
        if 0x8825 in exif:
            found.append("gps")
    found += [kind for kind in ("xmp", "comment", "photoshop", "icc_profile") if image.info.get(kind)]
    if any(isinstance(value, str) for key, value in image.info.items() if key not in {"xmp", "comment"}):
        found.append("text")
    return found


def _to_rgb(opened: Image.Image) -> tuple[Image.Image, list[str]]:
    notes = []
    if getattr(opened, "n_frames", 1) > 1:
        notes.append(f"first of {getattr(opened, 'n_frames', 1)} frames")
        opened.seek(0)
    profile = opened.info.get("icc_profile")
    image: Image.Image = ImageOps.exif_transpose(opened)
    if image.mode.startswith("I") or image.mode == "F":
        notes.append(f"{image.mode} reduced to 8 bit")
        _, high = image.convert("F").getextrema()
        span = 65535.0 if float(high) > 255 else 255.0  # type: ignore[arg-type]
        image = image.convert("F").point(lambda value: value * (255.0 / span)).convert("L")
    if profile and image.mode in {"RGB", "CMYK", "L"}:
        image = _to_srgb(image, profile, notes)
    if (flat := flattened(image)) is not image:
        notes.append("flattened on white")
        image = flat
    if image.mode != "RGB":
        notes.append(f"{image.mode} converted to RGB")
        image = image.convert("RGB")
    clean = Image.new("RGB", image.size)
    clean.paste(image)
    return clean, notes


def _to_srgb(image: Image.Image, profile: bytes, notes: list[str]) -> Image.Image:
    try:
        converted = ImageCms.profileToProfile(
            image,
            ImageCms.ImageCmsProfile(io.BytesIO(profile)),
            ImageCms.createProfile("sRGB"),
            outputMode="RGB",
        )
    except (ImageCms.PyCMSError, OSError) as error:
        notes.append(f"colour profile unusable: {error}")
        return image
    notes.append("converted to sRGB")
    return converted if converted is not None else image

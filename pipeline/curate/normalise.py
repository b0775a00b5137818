"""Bytes from anywhere to one format: RGB JPEG, upright, sRGB, without metadata."""

from __future__ import annotations

import io
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from PIL import Image, ImageCms, UnidentifiedImageError

from pipeline.encoders._common import flattened
from pipeline.store import sha256_bytes
from schemas.params import Curate

__all__ = [
    "Normalised",
    "RejectedImageError",
    "in_eight_bits",
    "normalise",
    "opened",
    "upright",
    "upright_size",
]

MIN_SIDE = 32
_FORMATS = ("PNG", "JPEG", "GIF", "WEBP", "BMP", "TIFF")
_ORIENTATION, _GPS = 0x0112, 0x8825
_TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
"""What brings an image upright, by its EXIF orientation."""
_SIDEWAYS = (5, 6, 7, 8)


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
        if min(image.size) < MIN_SIDE:
            width, height = image.size
            raise RejectedImageError("too small", f"{width} x {height} when scaled to curate.max_side")
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
        # The size is checked below against the params, and what is odd about a file's metadata is no news.
        warnings.simplefilter("ignore")
        try:
            with Image.open(io.BytesIO(data), formats=_FORMATS) as image:
                _check_size(*image.size, max_pixels)
                yield image
        except RejectedImageError:
            raise
        except UnidentifiedImageError:
            raise RejectedImageError("not a raster image", f"begins with {data[:12]!r}") from None
        except Image.DecompressionBombError as error:
            raise RejectedImageError("too many pixels", str(error)) from error
        except Exception as error:  # decoders raise whatever a damaged file makes of their code
            raise RejectedImageError("damaged image", f"{type(error).__name__}: {error}") from error


def _check_size(width: int, height: int, max_pixels: int) -> None:
    if width * height > max_pixels:
        detail = f"declares {width} x {height}; curate.max_pixels is {max_pixels}"
        raise RejectedImageError("too many pixels", detail)
    if min(width, height) < MIN_SIDE:
        raise RejectedImageError("too small", f"{width} x {height}; both sides must reach {MIN_SIDE}")


def upright(image: Image.Image) -> Image.Image:
    """An image turned as its EXIF says; as it is where that cannot be read."""
    turn = _exif(image).get(_ORIENTATION)
    return image.transpose(_TURNS[turn]) if isinstance(turn, int) and turn in _TURNS else image


def upright_size(image: Image.Image) -> tuple[int, int]:
    """Width and height that an image has once it is upright; nothing of it is decoded."""
    lies = _exif(image).get(_ORIENTATION) in _SIDEWAYS
    return (image.height, image.width) if lies else (image.width, image.height)


def in_eight_bits(image: Image.Image) -> Image.Image:
    """An image whose pixels are integers or floats of more bits, in eight: by the range that they need."""
    if not image.mode.startswith("I") and image.mode != "F":
        return image
    _, high = image.convert("F").getextrema()
    span = next((top for top in (1.0, 255.0, 65535.0) if float(high) <= top), float(high))  # type: ignore[arg-type]
    if span == 1.0 and image.mode != "F":
        span = 255.0
    return image.convert("F").point(lambda value: value * (255.0 / span)).convert("L")


def _exif(image: Image.Image) -> dict[int, Any]:
    try:
        return dict(image.getexif())
    except Exception:  # noqa: BLE001 - whatever stands there, the picture is another matter
        return {}


def _metadata_in(image: Image.Image) -> list[str]:
    found = []
    exif = _exif(image)
    if exif or image.info.get("exif"):
        found.append("exif")
        if _GPS in exif:
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
    image = upright(opened)
    if (reduced := in_eight_bits(image)) is not image:
        notes.append(f"{image.mode} reduced to 8 bit")
        image = reduced
    if profile:
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
    """The colours that a profile means; transparency stays as it is."""
    alpha = None
    if image.mode == "P" or "transparency" in image.info:
        image = image.convert("RGBA" if "transparency" in image.info else "RGB")
    if image.mode in {"RGBA", "LA"}:
        alpha = image.getchannel("A")
        image = image.convert(image.mode[:-1])
    if image.mode not in {"RGB", "CMYK", "L"}:
        notes.append(f"colour profile left out: pixels are {image.mode}")
        return image
    image = _converted(image, profile, notes)
    if alpha is not None:
        image = image.convert("RGB")
        image.putalpha(alpha)
    return image


def _converted(image: Image.Image, profile: bytes, notes: list[str]) -> Image.Image:
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

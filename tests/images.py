"""Images that people send: broken, odd, hostile."""

from __future__ import annotations

import io
import struct
import zlib

import numpy as np
from PIL import Image


def encoded(image: Image.Image, kind: str, **options: object) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def picture(width: int = 120, height: int = 90, seed: int = 0, mode: str = "RGB") -> Image.Image:
    """A smooth random picture: like a photograph to a perceptual hash."""
    rng = np.random.default_rng(seed)
    small = rng.integers(0, 256, (6, 8, 3), dtype=np.uint8)
    return Image.fromarray(small).resize((width, height), Image.Resampling.BICUBIC).convert(mode)


def png_bomb(side: int = 50_000) -> bytes:
    """A PNG of a few bytes that declares `side` x `side` pixels."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", side, side, 8, 2, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", header)
        + chunk(b"IDAT", zlib.compress(b"\0" * 99))
        + chunk(b"IEND", b"")
    )


def animated_gif() -> bytes:
    frames = [picture(seed=i) for i in range(3)]
    return encoded(frames[0], "GIF", save_all=True, append_images=frames[1:])


def sixteen_bit() -> bytes:
    ramp = np.linspace(0, 65535, 120 * 90).reshape(90, 120).astype(np.uint16)
    return encoded(Image.fromarray(ramp), "PNG")


def transparent_palette() -> bytes:
    image = picture().convert("P", palette=Image.Palette.ADAPTIVE, colors=16)
    return encoded(image, "PNG", transparency=3)


def with_gps() -> bytes:
    image = picture(seed=9)
    exif = Image.Exif()
    exif[0x0112] = 6
    exif.get_ifd(0x8825)[1] = "N"
    return encoded(image, "JPEG", exif=exif)


SVG = b'<svg xmlns="http://www.w3.org/2000/svg" width="100" height="100"><circle r="40"/></svg>'

BAD = {
    "truncated.jpg": (encoded(picture(400, 300, seed=1), "JPEG")[:900], "damaged image"),
    "empty.png": (b"", "zero bytes"),
    "bomb.png": (png_bomb(), "too many pixels"),
    "vector.svg": (SVG, "not a raster image"),
    "text.png": (b"this is no picture at all, only words\n", "not a raster image"),
    "tiny.png": (encoded(picture(4, 4), "PNG"), "too small"),
}
ODD = {
    "animated.gif": animated_gif(),
    "cmyk.jpg": encoded(picture(seed=3, mode="CMYK"), "JPEG"),
    "deep.png": sixteen_bit(),
    "palette.png": transparent_palette(),
    "really_a_png.jpg": encoded(picture(seed=5), "PNG"),
    "gps.jpg": with_gps(),
}

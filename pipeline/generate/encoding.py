"""How pictures become files, and where their seeds come from."""

from __future__ import annotations

import hashlib
import io

from PIL import Image

__all__ = ["encode", "image_seed"]


def image_seed(seed: int, image_id: str) -> int:
    """The seed of one image: of its id and the build's seed alone, so that a new image moves no other."""
    digest = hashlib.sha256(f"{seed}:{image_id}".encode()).digest()
    return int.from_bytes(digest[:6], "big")  # 48 bits: exact in JSON everywhere


def encode(image: Image.Image, image_id: str) -> tuple[bytes, str]:
    """A file of the picture: PNG or JPEG, by a hash of the id, so that the format tells nothing of the label.

    Returns:
        The bytes and the extension, `png` or `jpg`.
    """
    buffer = io.BytesIO()
    if hashlib.sha256(f"format:{image_id}".encode()).digest()[0] % 2:
        image.save(buffer, "PNG", optimize=True)
        return buffer.getvalue(), "png"
    image.save(buffer, "JPEG", quality=90)
    return buffer.getvalue(), "jpg"

"""Perceptual near-duplicates: two hashes of different length must agree, mirrored copies included.

One 64-bit hash alone calls documents of one layout duplicates, so a 256-bit hash has to agree, and where
text was read from both images the texts have to agree as well: thirty identity cards stay thirty.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from difflib import SequenceMatcher

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps

__all__ = ["Fingerprint", "fingerprint", "groups", "same_picture"]

SAME_TEXT = 0.9
_COARSE, _FINE = 8, 16


@dataclass(frozen=True, slots=True)
class Fingerprint:
    """Bits of the perceptual hashes: `coarse` (2, 64) and `fine` (2, 256), plain and mirrored; OCR text."""

    coarse: NDArray[np.bool_]
    fine: NDArray[np.bool_]
    text: str

    @property
    def hex(self) -> str:
        """The plain 64-bit hash as 16 hex digits."""
        return np.packbits(self.coarse[0]).tobytes().hex()


def fingerprint(image: Image.Image, text: str) -> Fingerprint:
    """Hash `image` (RGB) and its mirror image; `text` is what was read from it."""
    import imagehash

    pair = (image, ImageOps.mirror(image))
    return Fingerprint(
        np.stack([imagehash.phash(i, hash_size=_COARSE).hash.reshape(-1) for i in pair]),
        np.stack([imagehash.phash(i, hash_size=_FINE).hash.reshape(-1) for i in pair]),
        text,
    )


def same_picture(a: Fingerprint, b: Fingerprint, bits: int, bits_fine: int) -> bool:
    """Whether two images are one picture, up to scaling, encoding, light edits and mirroring.

    Args:
        a: one image.
        b: the other.
        bits: how many of 64 bits may differ.
        bits_fine: how many of 256 bits may differ.
    """
    coarse = np.count_nonzero(a.coarse[0] ^ b.coarse, axis=1)
    fine = np.count_nonzero(a.fine[0] ^ b.fine, axis=1)
    if not bool(((coarse <= bits) & (fine <= bits_fine)).any()):
        return False
    # Documents of one layout differ in their numbers first; a reader errs more often in letters.
    if re.findall(r"\d+", a.text) != re.findall(r"\d+", b.text):
        return False
    return SequenceMatcher(None, a.text, b.text, autojunk=False).ratio() >= SAME_TEXT


def groups(prints: list[Fingerprint], bits: int, bits_fine: int) -> list[int]:
    """For each image the index of the first member of its group (union of all matching pairs)."""
    parent = list(range(len(prints)))

    def find(i: int) -> int:
        while parent[i] != i:
            parent[i] = parent[parent[i]]
            i = parent[i]
        return i

    if len(prints) < 2:
        return parent
    coarse = np.stack([p.coarse for p in prints])
    for j in range(1, len(prints)):
        distance = np.count_nonzero(coarse[:j, 0, None, :] ^ coarse[j][None, :, :], axis=2).min(axis=1)
        for i in np.flatnonzero(distance <= bits):
            if same_picture(prints[int(i)], prints[j], bits, bits_fine):
                low, high = sorted((find(int(i)), find(j)))
                parent[high] = low
    return [find(i) for i in range(len(prints))]

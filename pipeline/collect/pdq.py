"""PDQ, the perceptual hash that lists of known images are exchanged in (Davis and Rosen, Facebook, 2019).

256 bits: which of the 16 x 16 lowest frequencies of a picture, blurred and taken down to 64 x 64, lie above
their median. Written anew from its description, since its packages have to be compiled; a test holds it to
hashes that the reference gave.
"""

from __future__ import annotations

import io
import math
import threading
import warnings
from functools import cache

import numpy as np
from numpy.typing import NDArray

__all__ = ["pdq_hashes"]

Floats = NDArray[np.float64]
_one_at_a_time = threading.Lock()
"""A large image takes hundreds of megabytes while it is decoded."""
SIDE = 64
LOW = 16
MAX_PIXELS = 100_000_000  # more are not decoded here; curate takes no such image
ENOUGH_PIXELS = 4_000_000  # of more, neighbours are averaged first, as the blur would do


def pdq_hashes(data: bytes) -> NDArray[np.uint8]:
    """The hashes of an image and of its turned and mirrored copies: 8 rows of 32 bytes, its own first.

    Returns:
        No rows where the bytes are no image that can be decoded.
    """
    from PIL import Image

    none = np.empty((0, 32), np.uint8)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # what is odd about an image is told when it is normalised
        try:
            with _one_at_a_time, Image.open(io.BytesIO(data)) as image:
                if image.width * image.height > ENOUGH_PIXELS:
                    image.draft("RGB", (2000, 2000))  # only a JPEG can: it is then decoded smaller
                if image.width * image.height > MAX_PIXELS:
                    return none
                factor = math.ceil(math.sqrt(image.width * image.height / ENOUGH_PIXELS))
                rgb = image.convert("RGB")
                pixels = np.asarray(rgb.reduce(factor) if factor > 1 else rgb, np.float64)
        except Exception:  # noqa: BLE001 - decoders raise whatever a damaged file makes of their code
            return none
    low = _low_frequencies(pixels @ np.array([0.299, 0.587, 0.114]))
    odd = (-1.0) ** np.arange(1, LOW + 1)
    mirrored, flipped = low * odd[None, :], low * odd[:, None]
    both = mirrored * odd[:, None]
    turns = [low, mirrored, flipped, both, *(m.T for m in (low, mirrored, flipped, both))]
    bits = np.array([(turn > _lower_median(turn))[::-1, ::-1].ravel() for turn in turns])
    return np.packbits(bits, axis=1)


def _low_frequencies(luma: Floats) -> Floats:
    blurred = luma
    for _ in range(2):
        blurred = _box(_box(blurred, _window(luma.shape[1])).T, _window(luma.shape[0])).T
    rows, columns = (((np.arange(SIDE) + 0.5) * n / SIDE).astype(int) for n in luma.shape)
    matrix = _cosines()
    low: Floats = matrix @ blurred[np.ix_(rows, columns)] @ matrix.T
    return low


def _window(length: int) -> int:
    return (length + 2 * SIDE - 1) // (2 * SIDE)


def _box(values: Floats, window: int) -> Floats:
    """The mean over a window along each row, cut off at the edges."""
    half = (window + 2) // 2
    length = values.shape[1]
    sums = np.concatenate([np.zeros((len(values), 1)), values.cumsum(1)], 1)
    at = np.arange(length)
    start, end = np.clip(at + half - window, 0, length), np.clip(at + half, 0, length)
    means: Floats = (sums[:, end] - sums[:, start]) / (end - start)
    return means


@cache
def _cosines() -> Floats:
    frequency, place = np.arange(1, LOW + 1)[:, None], np.arange(SIDE)[None, :]
    matrix: Floats = np.sqrt(2 / SIDE) * np.cos(np.pi / (2 * SIDE) * frequency * (2 * place + 1))
    return matrix


def _lower_median(values: Floats) -> float:
    return float(np.sort(values, axis=None)[(values.size - 1) // 2])

"""Pictures looked at once, in processes of their own: hash, size, text; and which of them are one picture."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TypeVar

from PIL import Image

from pipeline.curate.clusters import near_pairs
from pipeline.curate.hashing import SIDE_WANTED, hash_picture, looks_printed, packed
from pipeline.curate.normalise import RejectedImageError, in_eight_bits, opened, upright, upright_size
from pipeline.curate.text import same_text
from pipeline.encoders import TextReader
from pipeline.encoders._common import flattened
from pipeline.parallel import WorkerDied, in_processes
from pipeline.workspace import Progress

__all__ = ["BITS", "BITS_FINE", "KILLED", "MAX_PIXELS", "Seen", "look", "one_picture", "texts_on"]

BITS = 10
BITS_FINE = 60
MAX_PIXELS = 100_000_000
KILLED = "killed the process that decoded it"
"""Why a picture is rejected that no exception tells of."""

Key = TypeVar("Key")
Picture = tuple[Key, bytes | Path | None]
"""What a picture is called, and its bytes or the file in which a worker finds them; None: there are none."""


@dataclass(frozen=True, slots=True)
class Seen:
    """What is seen of a picture.

    Attributes:
        width: in pixels, upright.
        height: in pixels.
        hash: the fine perceptual hash, 32 bytes.
        printed: whether it may be a document or a screen.
    """

    width: int
    height: int
    hash: bytes
    printed: bool


def look(image: Image.Image) -> Seen:
    """Decode an image, no larger than is needed for its hash where its format allows that.

    Args:
        image: opened, and nothing of it decoded yet.
    """
    wide, high = upright_size(image)
    image.draft("L", (SIDE_WANTED, SIDE_WANTED))
    picture = flattened(in_eight_bits(upright(image)))
    return Seen(wide, high, hash_picture(picture), looks_printed(picture))


def one_picture(
    looks: Sequence[Seen],
    read: Callable[[Sequence[int]], Mapping[int, str]],
    bits: int = BITS,
    bits_fine: int = BITS_FINE,
    *,
    rotations: bool = False,
) -> Iterator[tuple[int, int]]:
    """The pairs that are near by their hashes and, where both look printed, hold the same text.

    Args:
        looks: of the pictures.
        read: reads the text on the pictures at some places, in order.
        bits: how many of 64 bits of the coarse hashes may differ.
        bits_fine: how many of 256 bits of the fine ones.
        rotations: whether copies that are turned by quarters count.

    Returns:
        Places of two pictures, the smaller first; in order and each once.
    """
    pairs = near_pairs(packed([seen.hash for seen in looks]), bits, bits_fine, rotations=rotations)
    both = [(i, j) for i, j in pairs.tolist() if looks[i].printed and looks[j].printed]
    texts = read(sorted({i for pair in both for i in pair}))
    for i, j in pairs.tolist():
        if i not in texts or j not in texts or same_text(texts[i], texts[j]):
            yield i, j


def texts_on(pictures: Iterable[Picture[Key]], count: int, progress: Progress) -> dict[Key, str]:
    """The text on each of `count` pictures; none on one that cannot be decoded."""
    progress.start("read text", count)
    texts = {}
    for (key, _), text in in_processes(_read, pictures, chunk=1):
        progress.advance()
        texts[key] = "" if isinstance(text, WorkerDied) else text
    return texts


@cache
def _reader() -> TextReader:
    return TextReader()


def _read(picture: Picture[object]) -> str:
    where = picture[1]
    data = where.read_bytes() if isinstance(where, Path) else where
    try:
        with opened(data or b"", MAX_PIXELS) as image:
            return _reader().read(flattened(in_eight_bits(upright(image)))).text
    except RejectedImageError:
        return ""

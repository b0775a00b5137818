"""Images that a model is trained on or asked about: decoded once to see that all can be, then when needed."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from pipeline.curate.clusters import heads, near_pairs
from pipeline.curate.hashing import hash_picture, packed
from pipeline.curate.looks import MAX_PIXELS
from pipeline.curate.normalise import RejectedImageError, in_eight_bits, opened, upright
from pipeline.encoders._common import on_white
from pipeline.store import sha256_bytes
from pipeline.workspace import Progress
from schemas.errors import InputError

if TYPE_CHECKING:
    import pandas as pd
    from PIL.Image import Image

__all__ = ["Pictures", "decoded", "joined_groups", "leak_groups", "look_at_pictures", "said_groups"]

LEAK_BITS, LEAK_BITS_FINE = 12, 80
"""Bits of the hashes of 64 and of 256 in which pictures of one leak group may differ, as in curate."""
TOLD = 3


class Source(Protocol):
    """Where bytes come from, such as the pictures of an `AnySet`."""

    def read(self, keys: Collection[str]) -> Iterator[tuple[str, bytes | None]]:
        """The bytes of some images; None where missing."""
        ...


@dataclass(frozen=True)
class Pictures:
    """Images that decode.

    Attributes:
        held: the file of each, or its bytes where it is none.
        sha256: of the bytes of each.
        hashes: the fine perceptual hash of each, 32 bytes.
        bad: why an image does not decode, by key.
    """

    held: Mapping[str, Path | bytes]
    sha256: Mapping[str, str]
    hashes: Mapping[str, bytes]
    bad: Mapping[str, str]

    def open(self, key: str) -> Image:
        """An image, upright, RGB on white.

        Raises:
            InputError: when its file has gone bad since.
        """
        held = self.held[key]
        try:
            return decoded(held if isinstance(held, bytes) else held.read_bytes())
        except (RejectedImageError, OSError) as error:
            raise InputError(f"{key}: the image does not decode any more: {error}") from error

    def must_decode(self, place: str) -> None:
        """See that every image does.

        Raises:
            InputError: naming some that do not.
        """
        if self.bad:
            told = "; ".join(f"{key}: {why}" for key, why in list(self.bad.items())[:TOLD])
            raise InputError(
                f"{place}: image: {len(self.bad)} do not decode ({told}); put whole files in their place, or "
                "take their rows out (`holisafe audit` lists all)"
            )


def look_at_pictures(source: Source, keys: Collection[str], progress: Progress) -> Pictures:
    """Read and decode each image once.

    Args:
        source: files are read again when they are needed; of others the bytes stay in memory.
        keys: of the images.
        progress: told of each.
    """
    progress.start("images", len(keys))
    files: Mapping[str, Path] = getattr(source, "paths", {})
    held: dict[str, Path | bytes] = {}
    sha256: dict[str, str] = {}
    hashes: dict[str, bytes] = {}
    bad: dict[str, str] = {}
    for key, data in source.read(keys):
        progress.advance()
        try:
            picture = decoded(data or b"")
        except RejectedImageError as error:
            bad[key] = "missing" if data is None else error.reason
            continue
        held[key] = files.get(key) or data or b""
        sha256[key] = sha256_bytes(data or b"")
        hashes[key] = hash_picture(picture)
    return Pictures(held, sha256, hashes, bad)


def decoded(data: bytes) -> Image:
    """An image of these bytes, upright, RGB on white.

    Raises:
        RejectedImageError: where it does not decode.
    """
    with opened(data, MAX_PIXELS) as image:
        return on_white(in_eight_bits(upright(image))).copy()  # the file is closed behind it


def leak_groups(hashes: Mapping[str, bytes], sha256: Mapping[str, str]) -> dict[str, int]:
    """The leak group of each image: images that look alike are in one, numbered from 0 without gaps.

    Args:
        hashes: the fine perceptual hash of each, 32 bytes.
        sha256: of the bytes of each, by which they are put in order.
    """
    keys = sorted(hashes, key=lambda key: sha256[key])
    if not keys:
        return {}
    near = near_pairs(packed([hashes[key] for key in keys]), LEAK_BITS, LEAK_BITS_FINE)
    first = heads(len(keys), ((int(a), int(b)) for a, b in near))
    numbers: dict[int, int] = {}
    return {key: numbers.setdefault(head, len(numbers)) for key, head in zip(keys, first, strict=True)}


def said_groups(rows: pd.DataFrame) -> dict[str, str]:
    """The `leak_group` that a dataset gives its images, of those that have one."""
    if "leak_group" not in rows:
        return {}
    given = rows.dropna(subset=["leak_group"])
    return dict(zip(given["image"], given["leak_group"].astype(str), strict=True))


def joined_groups(alike: Mapping[str, int], said: Mapping[str, str]) -> dict[str, int]:
    """Leak groups that also keep together what the dataset says belongs together.

    Args:
        alike: the group of each image, as `leak_groups` gives them.
        said: the dataset's own `leak_group` of those that have one.

    Returns:
        The group of each image, numbered from 0 without gaps.
    """
    keys = list(alike)
    first: dict[tuple[str, int | str], int] = {}
    pairs = []
    for place, key in enumerate(keys):
        names: list[tuple[str, int | str]] = [("alike", alike[key])]
        names += [("said", said[key])] if key in said else []
        pairs += [(first.setdefault(name, place), place) for name in names]
    joined = heads(len(keys), [(a, b) for a, b in pairs if a != b])
    numbers: dict[int, int] = {}
    return {key: numbers.setdefault(head, len(numbers)) for key, head in zip(keys, joined, strict=True)}

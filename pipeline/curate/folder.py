"""Near-duplicates in any folder of images."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from pipeline.collect.sources.base import IMAGE_SUFFIXES, looks_like_an_image
from pipeline.curate.clusters import clusters
from pipeline.curate.looks import BITS, BITS_FINE, KILLED, MAX_PIXELS, Seen, look, one_picture, texts_on
from pipeline.curate.normalise import RejectedImageError, opened
from pipeline.parallel import WorkerDied, in_processes
from pipeline.workspace import Progress
from schemas.errors import InputError

__all__ = ["Duplicates", "Rejected", "find_duplicates"]

_CHUNK = 32


@dataclass(frozen=True, slots=True)
class Rejected:
    """A file that could not be looked at, and why."""

    path: str
    reason: str


@dataclass(frozen=True, slots=True)
class Duplicates:
    """What was found in a folder.

    Attributes:
        clusters: paths of pictures that are one picture, below the folder; in each the largest picture first.
        rejected: files that are no usable images.
        read: how many images were compared.
    """

    clusters: list[list[str]]
    rejected: list[Rejected]
    read: int


def find_duplicates(
    folder: Path, progress: Progress, *, bits: int = BITS, bits_fine: int = BITS_FINE, rotations: bool = False
) -> Duplicates:
    """Find the images of a folder, at any depth, that are one picture.

    Resized, recompressed, brightened, watermarked, grey and mirrored copies are found, and many that are
    slightly cropped or framed; where pictures look printed, the text on them has to be the same.

    Args:
        folder: where to look. Nothing is changed there.
        progress: told of each file.
        bits: how many of 64 bits of the coarse hashes may differ.
        bits_fine: how many of 256 bits of the fine ones.
        rotations: whether copies that are turned by quarters count.

    Raises:
        InputError: when there is no such folder.
    """
    if not folder.is_dir():
        raise InputError(f"{folder}: no such folder")
    files = sorted(path for path in folder.rglob("*") if _may_be_an_image(path))
    progress.start("hash", len(files))
    seen: dict[Path, Seen] = {}
    rejected = []
    for path, found in in_processes(_look, files, chunk=_CHUNK):
        progress.advance()
        if isinstance(found, Seen):
            seen[path] = found
        else:
            reason = KILLED if isinstance(found, WorkerDied) else found
            rejected.append(Rejected(_name(path, folder), reason))
    paths, looks = list(seen), list(seen.values())

    def read(places: Sequence[int]) -> dict[int, str]:
        return texts_on(((i, paths[i]) for i in places), len(places), progress)

    def rank(i: int) -> tuple[int, bool, int]:
        return -looks[i].width * looks[i].height, paths[i].is_symlink(), i

    same = one_picture(looks, read, bits, bits_fine, rotations=rotations)
    groups = [
        [_name(paths[i], folder) for i in sorted(group, key=rank)]
        for group in clusters(len(paths), same)
        if len(group) > 1
    ]
    return Duplicates(groups, rejected, len(paths))


def _may_be_an_image(path: Path) -> bool:
    """Whether a file is looked at: by the ending of its name or, without one, by its first bytes."""
    if path.suffix:
        return path.suffix.lower() in IMAGE_SUFFIXES and not path.is_dir()
    try:
        with path.open("rb") as file:
            return path.is_file() and looks_like_an_image(file.read(16))
    except OSError:
        return False


def _name(path: Path, folder: Path) -> str:
    """A path below the folder; bytes that are not UTF-8 as escapes."""
    return os.fsencode(path.relative_to(folder)).decode("utf-8", "backslashreplace")


def _look(path: Path) -> Seen | str:
    """What is seen of a file's picture, or why nothing is."""
    try:
        with opened(path.read_bytes(), MAX_PIXELS) as image:
            return look(image)
    except RejectedImageError as error:
        return error.reason
    except OSError as error:
        return f"cannot be read: {error.strerror}"

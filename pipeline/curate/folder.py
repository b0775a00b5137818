"""Near-duplicates in any folder of images."""

from __future__ import annotations

import os
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from pipeline.collect.sources.base import IMAGE_SUFFIXES, looks_like_an_image
from pipeline.curate.clusters import Pairs, heads, near_pairs
from pipeline.curate.hashing import SIDE_WANTED, hash_picture, looks_printed, packed
from pipeline.curate.normalise import RejectedImageError, in_eight_bits, opened, upright
from pipeline.curate.text import same_text
from pipeline.encoders import TextReader
from pipeline.encoders._common import flattened
from pipeline.parallel import WorkerDied, in_processes
from pipeline.workspace import Progress
from schemas.errors import InputError

__all__ = ["BITS", "BITS_FINE", "Duplicates", "Rejected", "find_duplicates"]

BITS = 10
BITS_FINE = 60
MAX_PIXELS = 100_000_000
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


@dataclass(frozen=True, slots=True)
class _Seen:
    hash: bytes
    area: int
    printed: bool


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
    seen: dict[Path, _Seen] = {}
    rejected = []
    for path, found in in_processes(_look, files, chunk=_CHUNK):
        progress.advance()
        if isinstance(found, _Seen):
            seen[path] = found
        else:
            reason = "killed the process that decoded it" if isinstance(found, WorkerDied) else found
            rejected.append(Rejected(_name(path, folder), reason))
    paths, looks = list(seen), list(seen.values())
    pairs = near_pairs(packed([look.hash for look in looks]), bits, bits_fine, rotations=rotations)
    same = _of_one_text(pairs, paths, looks, progress)
    members: dict[int, list[int]] = defaultdict(list)
    for position, head in enumerate(heads(len(paths), same)):
        members[head].append(position)
    clusters = [
        [
            _name(paths[i], folder)
            for i in sorted(group, key=lambda i: (-looks[i].area, paths[i].is_symlink(), i))
        ]
        for group in members.values()
        if len(group) > 1
    ]
    return Duplicates(clusters, rejected, len(paths))


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


def _look(path: Path) -> _Seen | str:
    """The hash of a file's picture, or why there is none."""
    try:
        with opened(path.read_bytes(), MAX_PIXELS) as image:
            area = image.width * image.height
            image.draft("L", (SIDE_WANTED, SIDE_WANTED))
            picture = flattened(in_eight_bits(upright(image)))
            return _Seen(hash_picture(picture), area, looks_printed(picture))
    except RejectedImageError as error:
        return error.reason
    except OSError as error:
        return f"cannot be read: {error.strerror}"


def _of_one_text(
    pairs: Pairs, paths: Sequence[Path], looks: Sequence[_Seen], progress: Progress
) -> Iterator[tuple[int, int]]:
    """The pairs whose texts are the same, where both look printed."""
    both = [(i, j) for i, j in pairs.tolist() if looks[i].printed and looks[j].printed]
    printed = sorted({i for pair in both for i in pair})
    progress.start("read text", len(printed))
    texts = {}
    for position, text in in_processes(_read, [paths[i] for i in printed], chunk=1) if printed else ():
        progress.advance()
        texts[position] = "" if isinstance(text, WorkerDied) else text
    for i, j in pairs.tolist():
        if paths[i] not in texts or paths[j] not in texts or same_text(texts[paths[i]], texts[paths[j]]):
            yield i, j


@cache
def _reader() -> TextReader:
    return TextReader()


def _read(path: Path) -> str:
    with opened(path.read_bytes(), MAX_PIXELS) as image:
        return _reader().read(flattened(in_eight_bits(upright(image)))).text

"""HoliSafe's own format: one JSON list, and images in a folder beside it."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import Any

import pandas as pd

from pipeline.anyset.problems import Problems
from pipeline.anyset.rows import checked
from pipeline.anyset.table import VOTES, AnySet, FilePictures
from schemas.errors import InputError

__all__ = ["BENCH", "IMAGES", "open_bench"]

BENCH = "holisafe_bench.json"
IMAGES = "images"


def open_bench(path: Path, links_into: Path | None = None) -> AnySet:
    """Open such a file.

    Args:
        path: the file.
        links_into: a folder in which images may lie too, by links; None: nowhere else.

    Raises:
        InputError: when it holds no list, or no row of it can be audited.
    """
    problems = Problems()
    rows = checked(_listed(path), problems)
    images = path.parent / IMAGES
    folders = [folder.resolve() for folder in (images, links_into) if folder]
    paths = {}
    for key in rows["image"].unique():
        inside = PurePosixPath(key)
        # A dataset may come from anywhere: its paths must not lead out of the folder, nor its links.
        if not inside.is_absolute() and ".." not in inside.parts:
            file = images / inside
            if any(file.resolve().is_relative_to(folder) for folder in folders):
                paths[key] = file
    return AnySet(str(path), "bench", rows, pd.DataFrame(columns=list(VOTES)), FilePictures(paths), problems)


def _listed(path: Path) -> Iterator[Any]:
    try:
        # Bytes that are no UTF-8 are found row by row, not once for the file.
        text = path.read_bytes().decode("utf-8-sig", errors="surrogateescape")
    except OSError as error:
        raise InputError(f"{path}: cannot be read: {error}") from error
    try:
        found = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise InputError(f"{path}: not JSON: {error}; a {BENCH} is one list of objects") from error
    if not isinstance(found, list):
        raise InputError(f"{path}: holds {type(found).__name__}; a {BENCH} is one list of objects")
    yield from found

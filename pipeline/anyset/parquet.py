"""Parquet: our own shards, or files with the eight fields as the Hub has them."""

from __future__ import annotations

import hashlib
import re
from collections import defaultdict
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from pipeline.anyset.problems import Problems
from pipeline.anyset.rows import checked
from pipeline.anyset.table import FIELDS, FURTHER, VOTES, AnySet
from pipeline.store import sha256_text
from schemas.errors import InputError

__all__ = ["StoredPictures", "open_parquet"]

BATCH = 64
"""Rows whose images are in memory at once."""
_SPLIT = re.compile(r"(train|test|validation|val)(?=[-_.]|$)")


@dataclass(frozen=True)
class StoredPictures:
    """Images inside Parquet files: the first row that holds each, by key."""

    places: Mapping[str, tuple[Path, int]]

    def read(self, keys: Collection[str]) -> Iterator[tuple[str, bytes | None]]:
        """The bytes of some images, file by file."""
        wanted: dict[Path, dict[int, str]] = defaultdict(dict)
        for key in keys:
            if key in self.places:
                path, index = self.places[key]
                wanted[path][index] = key
            else:
                yield key, None
        for path in sorted(wanted):
            for index, data in _images(path, set(wanted[path])):
                yield wanted[path][index], data


def open_parquet(place: Path, paths: Sequence[Path], *, votes: bool = True) -> AnySet:
    """Open some files as one dataset, in the order given.

    Args:
        place: what was named.
        paths: the files; one whose name begins with or ends in train or test tells the split of its rows.
        votes: whether the votes in the rows are wanted.

    Raises:
        InputError: when a file is damaged or lacks a field.
    """
    problems, given = Problems(), _Votes()
    places: dict[str, tuple[Path, int]] = {}
    rows = checked(_rows(paths, places, given if votes else None), problems)
    return AnySet(str(place), "parquet", rows, given.table(), StoredPictures(places), problems)


def _rows(
    paths: Sequence[Path], places: dict[str, tuple[Path, int]], votes: _Votes | None
) -> Iterator[dict[str, Any]]:
    for path in paths:
        try:
            file = pq.ParquetFile(path)
        except (pa.ArrowException, OSError) as error:
            raise _damaged(path, error) from error
        names = set(file.schema_arrow.names)
        if "image" not in names or "query" not in names:
            missing = ", ".join(f for f in FIELDS if f not in names)
            raise InputError(f"{path}: no column {missing}; a dataset has {', '.join(FIELDS)}")
        split = _split(path)
        wanted = (*FIELDS, *FURTHER, *(["votes"] if votes is not None else []))
        plain = [c for c in wanted if c in names and c != "image"]
        keys = _keys(file, "image_id" in names)
        index = 0
        try:
            for batch in file.iter_batches(BATCH * 16, columns=plain):
                for row in batch.to_pylist():
                    key = next(keys)
                    if key is not None:
                        places.setdefault(key, (path, index))
                    if votes is not None:
                        votes.take(row.pop("votes", None), key, row.get("query"), row.get("id"))
                    index += 1
                    yield {"split": split} | row | {"image": key}
        except (pa.ArrowException, OSError) as error:
            raise _damaged(path, error) from error


def _keys(file: pq.ParquetFile, has_ids: bool) -> Iterator[str | None]:
    """What to call the image of each row: our id of it, else the hash of its bytes, else its path."""
    if has_ids:
        for batch in file.iter_batches(BATCH * 16, columns=["image_id"]):
            yield from batch.column(0).to_pylist()
        return
    for batch in file.iter_batches(BATCH, columns=["image"]):
        for value in batch.column(0).to_pylist():
            data, name = _parts(value)
            yield name if data is None else hashlib.sha256(data).hexdigest()


def _images(path: Path, wanted: set[int]) -> Iterator[tuple[int, bytes | None]]:
    file = pq.ParquetFile(path)
    start = 0
    for group in range(file.num_row_groups):
        size = file.metadata.row_group(group).num_rows
        last = max((i for i in wanted if start <= i < start + size), default=-1)
        index = start
        for batch in file.iter_batches(BATCH, row_groups=[group], columns=["image"]) if last >= 0 else ():
            column = batch.column(0)
            for at in range(len(column)):
                if index + at in wanted:
                    yield index + at, _parts(column[at].as_py())[0]
            index += len(column)
            if index > last:  # what follows in the group need not be decoded
                break
        start += size


def _parts(value: Any) -> tuple[bytes | None, str | None]:
    """Bytes and path of a cell of an image column."""
    if isinstance(value, bytes):
        return value, None
    if isinstance(value, str):
        return None, value
    if isinstance(value, dict):
        data, name = value.get("bytes"), value.get("path")
        return (data if isinstance(data, bytes) else None), (name if isinstance(name, str) else None)
    return None, None


def _split(path: Path) -> str | None:
    match = _SPLIT.match(path.stem) or _SPLIT.search(path.parent.name)
    return None if match is None else match[1]


def _damaged(path: Path, error: Exception) -> InputError:
    return InputError(f"{path}: cannot be read as Parquet ({' '.join(str(error).split())}); fetch it again")


class _Votes:
    """Votes that stand in the rows; those on an image or a query stand in every row that has it."""

    def __init__(self) -> None:
        self._rows: dict[tuple[str, str, str], tuple[Any, ...]] = {}

    def take(self, votes: Any, image: str | None, query: Any, id_: Any) -> None:
        if not isinstance(votes, list):
            return
        for vote in votes:
            if not isinstance(vote, dict) or not isinstance(question := vote.get("question"), str):
                continue
            item = {"image": image, "text": sha256_text(query) if isinstance(query, str) else None}.get(
                question.split("_")[0], str(id_)
            )
            if item is not None:
                key = item, question, str(vote.get("annotator"))
                self._rows.setdefault(key, (item, *(vote.get(name) for name in VOTES[1:])))

    def table(self) -> pd.DataFrame:
        return pd.DataFrame(list(self._rows.values()), columns=list(VOTES))

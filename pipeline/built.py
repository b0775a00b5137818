"""A built dataset, read shard by shard: never more than a row group in memory, never an image's bytes."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import pyarrow as pa
import pyarrow.parquet as pq

from pipeline.store import read_rows
from schemas.errors import InputError
from schemas.rows import DATASET

__all__ = ["Shard", "Side", "check_columns", "row_count", "shard_rows", "shards"]

Side = Literal["train", "test", "all"]
"""A side of the split, or both."""
_NAME = re.compile(r"(train|test)-\d{5,}\.parquet")


@dataclass(frozen=True, slots=True)
class Shard:
    """A file of rows, all of one side."""

    path: Path
    split: str


def shards(dataset: Path, side: Side = "all") -> list[Shard]:
    """The shards of a side, in the order of their names.

    Raises:
        InputError: when the folder is no built dataset.
    """
    found = [
        Shard(path, match[1])
        for path in sorted(dataset.glob("data/*/*/*.parquet"))
        if (match := _NAME.fullmatch(path.name))
    ]
    if not found:
        raise InputError(
            f"{dataset}: no data/<category>/<class>/{{train,test}}-NNNNN.parquet here; "
            "name the folder that `holisafe build` makes, data/dataset"
        )
    return [shard for shard in found if side in ("all", shard.split)]


def check_columns(found: Sequence[Shard], columns: Sequence[str]) -> None:
    """Hold every shard to the dataset's schema, before anything is written.

    Raises:
        InputError: naming the file and the column.
    """
    for shard in found:
        schema = _file_schema(shard)
        for column in columns:
            name, _, inner = column.partition(".")
            wanted = DATASET.field(name).type
            there = schema.field(name).type if name in schema.names else None
            if inner:
                wanted, there = _inner(wanted, inner), _inner(there, inner)
            if there is None:
                raise InputError(f"{shard.path}: {column}: no such column; build the dataset again")
            if there != wanted:
                raise InputError(
                    f"{shard.path}: {column}: is {there}, and {wanted} is wanted; build the dataset again"
                )


def row_count(found: Sequence[Shard]) -> int:
    """How many rows the shards hold, from their footers."""
    return sum(pq.read_metadata(shard.path).num_rows for shard in found)


def shard_rows(shard: Shard, columns: Sequence[str]) -> Iterator[dict[str, Any]]:
    """The rows of a shard with these columns; `image.path` gives an `image` without bytes, or None.

    Raises:
        InputError: when the file is damaged.
    """
    try:
        yield from read_rows(shard.path, columns)
    except (pa.ArrowException, OSError) as error:  # damage inside a page is an OSError to Arrow
        raise _damaged(shard, error) from error


def _file_schema(shard: Shard) -> pa.Schema:
    try:
        return pq.read_schema(shard.path)
    except (pa.ArrowException, OSError) as error:
        raise _damaged(shard, error) from error


def _damaged(shard: Shard, error: Exception) -> InputError:
    said = " ".join(str(error).split())
    return InputError(f"{shard.path}: cannot be read as Parquet; build the dataset again ({said})")


def _inner(kind: pa.DataType | None, name: str) -> pa.DataType | None:
    if kind is None or not pa.types.is_struct(kind) or kind.get_field_index(name) < 0:
        return None
    return kind.field(name).type

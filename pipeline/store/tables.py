"""Parquet tables: streamed in, streamed out, the same bytes for the same rows."""

from __future__ import annotations

import os
import threading
from bisect import bisect_right
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import accumulate
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from pipeline.store.text import printable
from schemas.rows import FAILURES

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

__all__ = [
    "Cells",
    "Failures",
    "TableWriter",
    "join_tables",
    "read_rows",
    "row_of",
    "rows_with",
    "write_rows",
]

ROW_GROUP = 100  # rows; more, and readers of image tables run out of memory
JOINED_GROUP = 10_000  # of tables of words that are put together
GROUP_BYTES = 64_000_000  # of pictures in a row group, so that large ones do not either


class TableWriter:
    """Writes rows to a Parquet file in row groups of at most 100; the file appears when all is written."""

    def __init__(self, path: Path, schema: pa.Schema, repeated: Sequence[str] = ()) -> None:
        """Start the file `path` with `schema`; its folder is made.

        `repeated` names columns of pictures in which one comes again and again: a row group keeps it once.
        """
        path.parent.mkdir(parents=True, exist_ok=True)
        self._path = path
        self._schema = schema
        self._partial = path.with_name(f".{path.name}.partial")
        columns = dict(_columns(schema))
        words = [path for path, kind in columns.items() if not pa.types.is_binary(kind)]
        self._writer = pq.ParquetWriter(
            self._partial,
            schema,
            # Pictures are compressed already, and looking for equal ones holds a row group of them twice.
            compression={path: "zstd" if path in words else "none" for path in columns},
            use_dictionary=[*words, *repeated],
            write_statistics=words,
        )
        self._names = frozenset(schema.names)
        self._rows: list[Mapping[str, Any]] = []
        self._held = 0
        self.count = 0

    def write(self, row: Mapping[str, Any]) -> None:
        """Add a row; a key that the schema lacks, or lacks in the row, is an error."""
        if row.keys() != self._names:
            odd = sorted(row.keys() ^ self._names)
            raise ValueError(f"{self._path.name}: row and schema differ in {odd}")
        self._rows.append(row)
        self._held += sum(_bytes_of(value) for value in row.values())
        self.count += 1
        if len(self._rows) >= ROW_GROUP or self._held >= GROUP_BYTES:
            self._flush()

    def append(self, path: Path) -> None:
        """Add all rows of a table of the same schema, as they stand in its file: no row is taken apart."""
        self._flush()
        table = pq.read_table(path)
        self._writer.write_table(table, JOINED_GROUP)
        self.count += table.num_rows

    def _flush(self) -> None:
        if self._rows:
            self._writer.write_table(pa.Table.from_pylist(list(self._rows), schema=self._schema))
            self._rows.clear()
            self._held = 0

    def __enter__(self) -> TableWriter:
        """Use as a context: the file is finished at its end, or removed after an error."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Finish the file, or remove the partial one after an error."""
        if kind is not None:
            self._writer.close()
            self._partial.unlink(missing_ok=True)
            return
        self._flush()
        self._writer.close()
        with self._partial.open("rb") as file:
            os.fsync(file.fileno())
        self._partial.replace(self._path)


def _bytes_of(value: Any) -> int:
    if isinstance(value, bytes):
        return len(value)
    return sum(map(_bytes_of, value.values())) if isinstance(value, dict) else 0


def write_rows(
    path: Path, schema: pa.Schema, rows: Iterable[Mapping[str, Any]], repeated: Sequence[str] = ()
) -> int:
    """Write all `rows`, as `TableWriter` does, and return how many there were."""
    with TableWriter(path, schema, repeated) as writer:
        for row in rows:
            writer.write(row)
    return writer.count


def join_tables(path: Path, schema: pa.Schema, parts: Iterable[Path]) -> None:
    """Write the rows of several tables of words as one table, in their order, with one of them in memory."""
    with TableWriter(path, schema) as writer:
        for part in parts:
            writer.append(part)


def row_of(record: DataclassInstance) -> dict[str, Any]:
    """A dataclass as a row: its fields as they are, where `asdict` would copy each."""
    return {name: getattr(record, name) for name in record.__dataclass_fields__}


def read_rows(path: Path, columns: Sequence[str] | None = None) -> Iterator[dict[str, Any]]:
    """The rows of a Parquet file, one row group in memory at a time."""
    # Not by iter_batches, which keeps what it has read until the file is closed.
    with pq.ParquetFile(path) as file:
        for group in range(file.num_row_groups):
            yield from file.read_row_group(group, list(columns) if columns else None).to_pylist()


def rows_with(
    path: Path, column: str, values: Iterable[str], columns: Sequence[str] | None = None
) -> list[dict[str, Any]]:
    """The rows whose value in a column is one of these, in their order, all in memory."""
    chosen = list(columns) if columns else None
    wanted = pa.array(list(values), pa.string())
    found: list[dict[str, Any]] = []
    # Not by a filter of read_table, which reads ahead on all cores and keeps much of it.
    with pq.ParquetFile(path) as file:
        for group in range(file.num_row_groups):
            value = file.read_row_group(group, [column], use_threads=False)[column]
            are_wanted = pc.is_in(value, value_set=wanted)
            if pc.any(are_wanted).as_py():
                rows = file.read_row_group(group, chosen, use_threads=False)
                found += rows.filter(are_wanted).to_pylist()
    return found


def _columns(schema: pa.Schema) -> Iterator[tuple[str, pa.DataType]]:
    """The path and the type of each column as Parquet stores it."""

    def leaves(path: str, kind: pa.DataType) -> Iterator[tuple[str, pa.DataType]]:
        if pa.types.is_struct(kind):
            for field in kind:
                yield from leaves(f"{path}.{field.name}", field.type)
        elif pa.types.is_list(kind):
            yield from leaves(f"{path}.list.element", kind.value_type)
        else:
            yield path, kind

    for field in schema:
        yield from leaves(field.name, field.type)


class Cells:
    """The values of one column, or whole rows, each read when asked for; a few row groups stay in memory."""

    _GROUPS = 4

    def __init__(self, path: Path, column: str | None = None) -> None:
        """Open the file; without a column, its rows are given."""
        self._file = pq.ParquetFile(path)
        self._column = column
        sizes = [self._file.metadata.row_group(i).num_rows for i in range(self._file.num_row_groups)]
        self._ends = list(accumulate(sizes))
        self._groups: dict[int, list[Any]] = {}
        self._lock = threading.Lock()

    def __getitem__(self, row: int) -> Any:
        """The value in the row; several threads may ask.

        Raises:
            IndexError: when there is no such row.
        """
        number = bisect_right(self._ends, row)
        if row < 0 or number == len(self._ends):
            raise IndexError(row)
        with self._lock:
            if number not in self._groups:
                while len(self._groups) >= self._GROUPS:
                    del self._groups[next(iter(self._groups))]
                if self._column is None:
                    self._groups[number] = self._file.read_row_group(number).to_pylist()
                else:
                    self._groups[number] = self._file.read_row_group(number, [self._column])[0].to_pylist()
            return self._groups[number][row - (self._ends[number - 1] if number else 0)]


class Failures:
    """Collects what a stage could not use: one row each, with a reason and the raw text."""

    def __init__(self, stage: str) -> None:
        """Start an empty collection for `stage`."""
        self._stage = stage
        self.rows: list[dict[str, str]] = []

    def add(self, item_id: str, source: str, reason: str, detail: str = "") -> None:
        """Add a row. `reason` is one of a few phrases that can be counted; `detail` is free.

        What no table can hold, such as a byte of a header or file name that is not UTF-8, is written as an
        escape.
        """
        row = {"item_id": item_id, "source": source, "reason": reason, "detail": detail}
        self.rows.append({"stage": self._stage} | {name: printable(text) for name, text in row.items()})

    def add_from(self, folder: Path) -> None:
        """Add the rows of the `failures.parquet` in `folder`."""
        self.rows += read_rows(folder / "failures.parquet")

    def write(self, folder: Path) -> None:
        """Write `failures.parquet` in `folder`, also when there are none."""
        write_rows(folder / "failures.parquet", FAILURES, self.rows)

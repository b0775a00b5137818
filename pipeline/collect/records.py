"""Rows of the lists that people write or export: JSON Lines, CSV, Parquet."""

from __future__ import annotations

import csv
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pipeline.store import Failures
from schemas.errors import InputError

__all__ = ["FORMATS", "Record", "header", "matched", "records"]

FORMATS = (".jsonl", ".csv", ".parquet")
BATCH = 1000  # rows of a Parquet file in memory


@dataclass(frozen=True, slots=True)
class Record:
    """One row under its own column names; `line` says where it stands."""

    line: str
    fields: dict[str, Any]


def header(path: Path) -> list[str] | None:
    """The columns of a list; None for JSON Lines, which has none.

    Raises:
        InputError: when the file cannot be read, or is in no format that is known.
    """
    if path.suffix == ".jsonl":
        return None
    if path.suffix == ".csv":
        try:
            with path.open(encoding="utf-8-sig", errors="surrogateescape", newline="") as file:
                names = next(csv.reader(file), [])
        except (OSError, csv.Error) as error:
            raise InputError(f"{path}: cannot be read: {error}") from error
        if twice := sorted({n for n in names if names.count(n) > 1}):
            raise InputError(f"{path}: line 1: the column {twice[0]!r} stands twice")
        if not names:
            raise InputError(f"{path}: line 1: no columns; the first line names them")
        return names
    if path.suffix == ".parquet":
        import pyarrow as pa
        import pyarrow.parquet as pq

        try:
            names = list(pq.read_schema(path).names)
        except (OSError, pa.ArrowException, ValueError) as error:
            raise InputError(f"{path}: not readable as Parquet: {error}") from error
        if twice := sorted({n for n in names if names.count(n) > 1}):
            raise InputError(f"{path}: the column {twice[0]!r} stands twice")
        return names
    raise InputError(f"{path}: a list is one of {', '.join(FORMATS)}")


def matched(
    names: list[str], columns: Mapping[str, str], fields: tuple[str, ...], path: Path | str
) -> dict[str, str]:
    """Which of the columns `names` holds which of our fields.

    Raises:
        InputError: when `columns` names one that is not there.
    """
    for field, column in columns.items():
        if column not in names:
            raise InputError(
                f"{path}: no column {column!r}, which collect.sources columns.{field} names; "
                f"there are: {', '.join(names)}"
            )
    return {f: columns.get(f, f) for f in fields if columns.get(f, f) in names}


def records(path: Path, failures: Failures, wanted: list[str] | None = None) -> Iterator[Record]:
    """The rows of a list, few of them in memory at a time.

    Args:
        path: of the list.
        failures: takes rows that cannot be read.
        wanted: the columns to read of a Parquet file; all where None.

    Raises:
        InputError: when the whole file cannot be read, and for a line of JSON Lines that is not JSON.
    """
    if path.suffix == ".jsonl":
        yield from _json_lines(path, failures)
    elif path.suffix == ".csv":
        yield from _csv_rows(path, failures)
    else:
        yield from _parquet_rows(path, wanted)


def _json_lines(path: Path, failures: Failures) -> Iterator[Record]:
    try:
        with path.open(encoding="utf-8") as file:
            for number, line in enumerate(file, 1):
                if not line.strip():
                    continue
                where = f"{path.name}: line {number}"
                try:
                    fields = json.loads(line)
                except (ValueError, RecursionError) as error:
                    raise InputError(f"{path}: line {number}: not JSON: {error}") from error
                if isinstance(fields, dict):
                    yield Record(where, fields)
                else:
                    failures.add("", str(path.name), "row not valid", f"{where}: no JSON object")
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{path}: cannot be read: {error}; an imagefolder needs it") from error


def _csv_rows(path: Path, failures: Failures) -> Iterator[Record]:
    # What is not UTF-8 is one bad row, not a bad file.
    with path.open(encoding="utf-8-sig", errors="surrogateescape", newline="") as file:
        # Strict: or a quote that nobody closes takes all lines after it for one field.
        reader = csv.reader(file, strict=True)
        names = next(reader)
        while True:
            begins = reader.line_num + 1
            try:
                values = next(reader)
            except StopIteration:
                return
            except csv.Error as error:
                ends = f" to {reader.line_num}" if reader.line_num > begins else ""
                detail = f"{path.name}: line {begins}{ends}: {error}"
                failures.add("", path.name, "row not valid", detail)
                continue
            where = f"{path.name}: line {reader.line_num}"
            if not values:
                continue
            if len(values) != len(names):
                detail = f"{where}: {len(values)} fields where the first line has {len(names)}"
                failures.add("", path.name, "row not valid", detail)
            elif any("\udc80" <= c <= "\udcff" for value in values for c in value):
                failures.add("", path.name, "row not valid", f"{where}: not UTF-8")
            else:
                yield Record(where, dict(zip(names, values, strict=True)))


def _parquet_rows(path: Path, wanted: list[str] | None) -> Iterator[Record]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        with pq.ParquetFile(path) as file:
            number = 0
            for batch in file.iter_batches(BATCH, columns=wanted):
                for fields in batch.to_pylist():
                    number += 1
                    yield Record(f"{path.name}: row {number}", fields)
    except (OSError, pa.ArrowException, ValueError, OverflowError) as error:
        raise InputError(f"{path}: not readable as Parquet: {error}") from error

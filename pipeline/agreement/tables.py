"""A file of votes as columns of numbers: CSV or Parquet, row by row, with what is wrong with a row."""

from __future__ import annotations

import csv
from array import array
from collections import Counter, deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TextIO

import numpy as np

from pipeline.agreement.coefficients import Ints
from pipeline.agreement.problems import Problems
from schemas.errors import InputError

__all__ = ["EMPTY", "Table", "read_table"]

NEEDED = ("item_id", "annotator", "value")
OPTIONAL = ("group", "family", "scale", "question", "status", "gold")
MAY_BE_EMPTY = frozenset({"value", "family", "scale", "status", "gold"})
EMPTY, NUL, NOT_UTF8, LINE_BREAK = -1, -2, -3, -4
FAULTS = {
    EMPTY: ("empty", "is empty"),
    NUL: ("nul", "holds a NUL character"),
    NOT_UTF8: ("encoding", "holds bytes that are not UTF-8; save the file as UTF-8"),
    LINE_BREAK: ("line_break", "holds a line break; is a quote left open?"),
}
HEAD_SHOWN = 200


class Names(dict[str, int]):
    """Numbers for the different strings of a column; a negative one says what is wrong with the string."""

    def __init__(self) -> None:
        """Begin with none."""
        self.names: list[str] = []

    def __missing__(self, raw: str) -> int:
        """Number a string that is new, and one with spaces around it as the one without."""
        name = raw.strip()
        if name != raw:
            number = self[name]
        else:
            number = _fault(name)
            if not number:
                number = len(self.names)
                self.names.append(name)
        self[raw] = number
        return number


@dataclass
class Table:
    """The rows that have what is needed.

    Attributes:
        rows: rows of the file, the header aside.
        missing: rows without a value.
        names: what the numbers of each column stand for.
        columns: by name, a number for each row; negative where the field is empty.
        line: of each row.
    """

    rows: int
    missing: int
    names: dict[str, Names]
    columns: dict[str, Ints]
    line: Ints


def read_table(path: Path, problems: Problems) -> Table:
    """Read a file, Parquet or else CSV.

    Raises:
        OSError: when it cannot be read.
        InputError: when it is no table or lacks a column that is needed.
    """
    with path.open("rb") as file:
        start = file.read(4)
    return _from_parquet(path, problems) if start == b"PAR1" else _from_csv(path, problems)


def _fault(name: str) -> int:
    if not name:
        return EMPTY
    if "\0" in name:
        return NUL
    if "\n" in name or "\r" in name:
        return LINE_BREAK
    try:
        name.encode()
    except UnicodeEncodeError:
        return NOT_UTF8
    return 0


class _Collector:
    """Takes rows, keeps the numbers of their names, and notes those with a fault."""

    def __init__(self, path: Path, head: Sequence[str], problems: Problems) -> None:
        self.fields = _fields(path, head)
        self.names = {name: Names() for name in self.fields}
        self.missing = 0
        self.rows = 0
        self._problems = problems
        self._value = self.fields.index("value")
        self._flat, self._lines = array("i"), array("i")

    def take(self, numbers: list[int], line: int) -> bool:
        """Keep a row; False where a line break stands in a field that is used."""
        if min(numbers) < 0 and not self._usable(numbers, line):
            return LINE_BREAK not in numbers
        self._flat.extend(numbers)
        self._lines.append(line)
        return True

    def _usable(self, numbers: list[int], line: int) -> bool:
        for name, number in zip(self.fields, numbers, strict=True):
            if number < 0 and not (number == EMPTY and name in MAY_BE_EMPTY):
                kind, words = FAULTS[number]
                self._problems.add(kind, line, name, words)
                return False
        if numbers[self._value] == EMPTY:
            self.missing += 1
            return False
        return True

    def table(self) -> Table:
        """What was kept."""
        flat = np.frombuffer(self._flat, np.int32).reshape(-1, len(self.fields))
        columns = {name: flat[:, i].astype(np.int64) for i, name in enumerate(self.fields)}
        lines = np.array(self._lines, np.int64)
        return Table(self.rows, self.missing, self.names, columns, lines)


def _fields(path: Path, head: Sequence[str]) -> list[str]:
    """The columns that are read, in the order of the file's."""
    used = [name for name in head if name in NEEDED or name in OPTIONAL]
    if lacking := [name for name in NEEDED if name not in used]:
        there = ",".join(head)[:HEAD_SHOWN].encode("ascii", "backslashreplace").decode()
        raise InputError(
            f"{path}: line 1: no column {', '.join(lacking)}; the header is {there!r}. It needs item_id, "
            "annotator and value, separated by commas, in UTF-8"
        )
    if twice := [name for name, n in Counter(used).items() if n > 1]:
        raise InputError(f"{path}: line 1: the column {twice[0]} stands there twice; keep one")
    return used


class _Lines:
    """The lines of a file for the csv module; those of a row that came to nothing can be given back."""

    def __init__(self, file: TextIO) -> None:
        self.number = 0
        self.given_back = 0  # the last line that was
        self.taken: list[str] = []
        self._file = file
        self._again: deque[str] = deque()

    def __iter__(self) -> Iterator[str]:
        return self

    def __next__(self) -> str:
        line = self._again.popleft() if self._again else next(self._file)
        self.taken.append(line)
        self.number += 1
        return line

    def give_back(self) -> None:
        """Read all lines of the last row but its first again: an open quote swallows good rows."""
        rest = self.taken[1:]
        self.given_back = max(self.given_back, self.number if rest else 0)
        self._again.extendleft(reversed(rest))
        self.number -= len(rest)


def _from_csv(path: Path, problems: Problems) -> Table:
    # Bytes that are no UTF-8 become lone surrogates, so that they are told row by row.
    with path.open(encoding="utf-8-sig", errors="surrogateescape", newline="") as file:
        lines = _Lines(file)
        reader = csv.reader(lines, strict=True)
        try:
            head = [name.strip() for name in next(reader, [])]
        except csv.Error as error:
            raise InputError(f"{path}: line 1: not a CSV file: {error}") from error
        collector = _Collector(path, head, problems)
        picked = [(collector.names[name], head.index(name)) for name in collector.fields]
        width = len(head)
        while True:
            lines.taken.clear()
            line = lines.number + 1
            try:
                row = next(reader)
            except StopIteration:
                return collector.table()
            except csv.Error as error:
                collector.rows += 1
                problems.add("row", line, None, f"not a row of CSV: {error}")
                lines.give_back()
                continue
            if not row:
                continue
            collector.rows += 1
            if len(row) != width:
                problems.add("row", line, None, f"{len(row)} fields where the header has {width}")
                lines.give_back()
            elif line <= lines.given_back and any('"' in row[i] for _, i in picked):
                problems.add("row", line, None, "a quote mark in a row after an open quote")
            elif not collector.take([names[row[i]] for names, i in picked], line):
                lines.give_back()


def _from_parquet(path: Path, problems: Problems) -> Table:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        with pq.ParquetFile(path) as file:
            collector = _Collector(path, file.schema_arrow.names, problems)
            all_names = list(collector.names.values())
            for group in range(file.num_row_groups):
                table = file.read_row_group(group, collector.fields)
                columns = [table.column(name).cast(pa.string()).to_pylist() for name in collector.fields]
                for row in zip(*columns, strict=True):
                    collector.rows += 1
                    numbers = [names[text or ""] for names, text in zip(all_names, row, strict=True)]
                    collector.take(numbers, collector.rows)
    except pa.ArrowException as error:
        raise InputError(f"{path}: not a table of votes in Parquet: {error}") from error
    return collector.table()

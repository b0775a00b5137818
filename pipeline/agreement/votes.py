"""Votes from a file as arrays, and the rows that cannot be used, each with its line and what is wrong."""

from __future__ import annotations

import csv
import math
from array import array
from collections import Counter, deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, TextIO

import numpy as np
from numpy.typing import NDArray

from pipeline.agreement.coefficients import Floats, Ints
from schemas.errors import InputError

__all__ = [
    "GROUPS",
    "LISTED",
    "ORDER",
    "Problem",
    "Problems",
    "Scale",
    "ScaleName",
    "Votes",
    "read_votes",
    "shown",
]

ScaleName = Literal["nominal", "ordinal", "interval"]
SCALES: tuple[ScaleName, ...] = ("nominal", "ordinal", "interval")
ORDER = ("safe", "borderline", "unsafe")
"""The order of words that needs no saying, lowest first."""
LISTED = 100
"""Problems that are told row by row; the others are counted."""
GROUPS = 1_000
"""With more groups than this there is no figure by group."""

Bools = NDArray[np.bool_]

NEEDED = ("item_id", "annotator", "value")
OPTIONAL = ("group", "family", "scale", "question", "status", "gold")
MAY_BE_EMPTY = frozenset({"value", "family", "scale", "status", "gold"})
YES = ("true", "True", "1", "yes")
EMPTY, NUL, NOT_UTF8, LINE_BREAK = -1, -2, -3, -4
FAULTS = {
    EMPTY: ("empty", "is empty"),
    NUL: ("nul", "holds a NUL character"),
    NOT_UTF8: ("encoding", "holds bytes that are not UTF-8; save the file as UTF-8"),
    LINE_BREAK: ("line_break", "holds a line break; is a quote left open?"),
}
HEAD_SHOWN = 200
NAME_SHOWN = 60


@dataclass(frozen=True, slots=True)
class Problem:
    """Something that cannot be used.

    Attributes:
        line: the line of the file on which the row begins, the header being 1; of a Parquet file the row,
            from 1. None where it is about no row.
        field: the column; None where it is about the whole row.
        problem: what is wrong, and what would mend it.
    """

    line: int | None
    field: str | None
    problem: str


@dataclass
class Problems:
    """What cannot be used: the first of it, and how much of each kind there is.

    Attributes:
        counts: rows by kind.
    """

    counts: Counter[str] = field(default_factory=Counter)
    _kept: list[Problem] = field(default_factory=list)

    @property
    def listed(self) -> list[Problem]:
        """The first `LISTED`, by line; what is about no row comes first."""
        return sorted(self._kept, key=lambda p: p.line or 0)[:LISTED]

    def add(self, kind: str, line: int | None, field: str | None, problem: str) -> None:
        """Note one; those of one kind have to come in the order of their lines."""
        if self.counts[kind] < LISTED:
            self._kept.append(Problem(line, field, problem))
        self.counts[kind] += 1

    def add_all(self, kind: str, lines: Ints, field: str, say: Callable[[int], str]) -> None:
        """Note all of `lines`, which are in order; `say` gives the words for the one at a place in them."""
        if len(lines):
            self._kept += [Problem(int(line), field, say(i)) for i, line in enumerate(lines[:LISTED])]
            self.counts[kind] += len(lines)


@dataclass(frozen=True, slots=True)
class Scale:
    """How the values of a group are meant.

    Attributes:
        name: nominal, ordinal or interval.
        order: the words of an ordinal scale, lowest first; empty where values are numbers or have no order.
        numbers: whether values are numbers.
    """

    name: ScaleName
    order: tuple[str, ...] = ()
    numbers: bool = False

    @property
    def ordered(self) -> bool:
        """Whether it is known which of two values is the larger."""
        return bool(self.order) or self.numbers


@dataclass(frozen=True, slots=True)
class Votes:
    """The votes of a file that can be used: arrays of one length, and what their numbers stand for.

    Attributes:
        rows: rows of the file, the header aside.
        missing: rows without a vote: `value` is empty, or `status` is not ok.
        item: of each vote, from 0.
        annotator: place in `annotators`.
        family: place in `families`; without a column of families, and where it is empty, an annotator is a
            family of its own.
        group: place in `groups`; 0 without groups.
        value: place in `values`.
        annotators: names.
        families: names.
        groups: names; empty where the file has no groups.
        values: as they are written.
        number: of each of `values`, the number that it is; NaN where it is none.
        scales: of each group; one where the file has no groups.
        has_families: whether the file names families.
        name: place in `names` of what the file calls the item of each vote.
        names: of items; one stands for as many items as there are questions about it.
        question: place in `questions`; 0 where the file has none.
        questions: names; empty where the file has none.
        gold: whether the file calls it gold: true, True, 1 or yes.
        problems: what cannot be used.
    """

    rows: int
    missing: int
    item: Ints
    annotator: Ints
    family: Ints
    group: Ints
    value: Ints
    annotators: list[str]
    families: list[str]
    groups: list[str]
    values: list[str]
    number: Floats
    scales: list[Scale]
    has_families: bool
    name: Ints
    names: list[str]
    question: Ints
    questions: list[str]
    gold: Bools
    problems: Problems


def read_votes(path: Path, order: Sequence[str] = ()) -> Votes:
    """The votes of a CSV file, or of a Parquet file with the same columns or those of our own votes tables.

    Args:
        path: the file.
        order: the words of an ordinal scale, lowest first.

    Raises:
        InputError: when nothing can be computed: the file cannot be read, is no table, lacks a column that is
            needed, or holds no vote that can be used.
    """
    problems = Problems()
    try:
        with path.open("rb") as file:
            start = file.read(4)
        found = _from_parquet(path, problems) if start == b"PAR1" else _from_csv(path, problems)
    except OSError as error:
        raise InputError(f"{path}: cannot be read: {error.strerror or error}") from error
    votes = _cleaned(found, tuple(order), problems)
    if not len(votes.item):
        said = "; ".join(f"{n:,} {kind}" for kind, n in problems.counts.items())
        first = next((p for p in problems.listed if p.line), None)
        raise InputError(
            f"{path}: no vote in it can be used: {votes.rows:,} rows, {votes.missing:,} without a vote"
            + (f", problems: {said}" if said else "")
            + (f"; line {first.line}: {first.field or 'row'}: {first.problem}" if first else "")
        )
    return votes


class _Names(dict[str, int]):
    """Numbers for the different strings of a column; a negative one says what is wrong with the string."""

    def __init__(self) -> None:
        self.names: list[str] = []

    def __missing__(self, raw: str) -> int:
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


@dataclass
class _Table:
    """What was read: the numbers of names, a column each, and the line of each row."""

    rows: int
    missing: int
    names: dict[str, _Names]
    columns: dict[str, Ints]
    line: Ints


class _Collector:
    """Takes rows, keeps the numbers of their names, and notes those with a fault."""

    def __init__(self, path: Path, head: Sequence[str], problems: Problems) -> None:
        self.fields = _fields(path, head)
        self.names = {name: _Names() for name in self.fields}
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

    def table(self) -> _Table:
        """What was kept."""
        flat = np.frombuffer(self._flat, np.int32).reshape(-1, len(self.fields))
        columns = {name: flat[:, i].astype(np.int64) for i, name in enumerate(self.fields)}
        lines = np.array(self._lines, np.int64)
        return _Table(self.rows, self.missing, self.names, columns, lines)


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


def _from_csv(path: Path, problems: Problems) -> _Table:
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


def _from_parquet(path: Path, problems: Problems) -> _Table:
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


class _Rows:
    """The rows that were kept, a column each; those that do not agree with others are dropped and noted."""

    def __init__(self, table: _Table, problems: Problems) -> None:
        self.column = dict(table.columns)
        self._line = table.line
        self._problems = problems

    def __len__(self) -> int:
        return len(self._line)

    def keep(self, good: Bools) -> None:
        """Only these, without a word."""
        self.column = {name: numbers[good] for name, numbers in self.column.items()}
        self._line = self._line[good]

    def note(self, kind: str, bad: Bools, field: str, say: Callable[[int], str]) -> None:
        """Note the bad ones; `say` gives the words for the row at a place."""
        places = np.flatnonzero(bad)
        self._problems.add_all(kind, self._line[places], field, lambda i: say(int(places[i])))

    def drop(self, kind: str, bad: Bools, field: str, say: Callable[[int], str]) -> None:
        """Note the bad ones and keep the others."""
        self.note(kind, bad, field, say)
        self.keep(~bad)


def _cleaned(table: _Table, order: tuple[str, ...], problems: Problems) -> Votes:
    """The votes that agree with each other on groups and scales, one for each annotator and item."""
    rows = _Rows(table, problems)
    missing = table.missing
    if "status" in rows.column:
        ok = rows.column["status"] == table.names["status"].get("ok", EMPTY - 1)
        missing += int((~ok).sum())
        rows.keep(ok)
    rows.column["name"] = rows.column["item_id"]
    groups = _group(rows, table, problems)
    meant = _meant(rows, table, groups)
    values = table.names["value"].names
    numbers = np.full(len(values), np.nan)
    if any(name != "nominal" for name in meant):
        numbers = np.array([_number(text) for text in values], np.float64)
    scales, fits = _scales(rows.column, meant, values, numbers, order)
    value, group = rows.column["value"], rows.column["group"]
    rows.drop("value", ~fits, "value", lambda i: _misfit(values[value[i]], scales[group[i]]))
    if order and not any(scale.order == order for scale in scales):
        problems.add(
            "order", None, "scale", "--order is not used: no group has scale ordinal and these values"
        )
    annotators = table.names["annotator"].names
    _once(rows, annotators)
    families = table.names["family"].names if "family" in rows.column else []
    family = rows.column.get("family", np.full(len(rows), EMPTY))
    return Votes(
        rows=table.rows,
        missing=missing,
        item=rows.column["item_id"],
        annotator=rows.column["annotator"],
        family=np.where(family < 0, len(families) + rows.column["annotator"], family),
        group=rows.column["group"],
        value=rows.column["value"],
        annotators=annotators,
        families=[*families, *annotators],
        groups=groups,
        values=values,
        number=numbers,
        scales=scales,
        has_families="family" in rows.column,
        name=rows.column["name"],
        names=table.names["item_id"].names,
        question=rows.column.get("question", np.zeros(len(rows), np.int64)),
        questions=table.names["question"].names if "question" in rows.column else [],
        gold=_yes(rows, table),
        problems=problems,
    )


def _yes(rows: _Rows, table: _Table) -> Bools:
    """Which votes the file calls gold."""
    if "gold" not in rows.column:
        return np.zeros(len(rows), np.bool_)
    known = np.array([name in YES for name in table.names["gold"].names] + [False])
    return known[rows.column["gold"]]


def _group(rows: _Rows, table: _Table, problems: Problems) -> list[str]:
    """See to it that each row has a group, and each item one alone."""
    column = rows.column
    if "group" in column:
        names = table.names["group"].names
        first = _first(column["item_id"], column["group"])
        rows.drop(
            "group",
            column["group"] != first,
            "group",
            lambda i: f"its item is in {shown(names[first[i]])} before",
        )
    elif "question" in column:
        names = table.names["question"].names
        column["group"] = column["question"]
        # One image is asked about twice; these are different items.
        asked = column["item_id"] * max(len(names), 1) + column["question"]
        column["item_id"] = np.unique(asked, return_inverse=True)[1]
    else:
        names = []
        column["group"] = np.zeros(len(rows), np.int64)
    if len(names) > GROUPS:
        problems.add(
            "groups",
            None,
            "group",
            f"{len(names):,} different groups; at most {GROUPS:,} are computed, so there is only the overall "
            "figure: is the column an id?",
        )
    return names


def _meant(rows: _Rows, table: _Table, groups: Sequence[str]) -> list[ScaleName]:
    """The scale that each group is said to have."""
    meant: list[ScaleName] = ["nominal"] * max(len(groups), 1)
    if "scale" not in rows.column:
        return meant
    written = table.names["scale"].names
    # An empty field is -1, which is the last.
    known = np.array([SCALES.index(name) if name in SCALES else -1 for name in written] + [0])
    scale, named = known[rows.column["scale"]], rows.column["scale"]
    rows.drop(
        "scale",
        scale < 0,
        "scale",
        lambda i: f"{shown(written[named[i]])} is none of {', '.join(SCALES)}",
    )
    group, scale = rows.column["group"], scale[scale >= 0]
    first = _first(group, scale)
    for number, place in zip(*np.unique(group, return_index=True), strict=True):
        meant[number] = SCALES[scale[place]]
    rows.drop(
        "scale", scale != first, "scale", lambda i: f"the scale of its group is {SCALES[first[i]]} before"
    )
    return meant


def _once(rows: _Rows, annotators: Sequence[str]) -> None:
    """Drop what an annotator says of an item it has voted on before."""
    value, annotator = rows.column["value"], rows.column["annotator"]
    first = _first(rows.column["item_id"] * max(len(annotators), 1) + annotator, np.arange(len(rows)))
    again, same = first != np.arange(len(rows)), value == value[first]

    def say(how: str) -> Callable[[int], str]:
        return lambda i: (
            f"{shown(annotators[annotator[i]])} has voted on this item before; not counted, {how}"
        )

    rows.note("repeated_same", again & same, "annotator", say("the value is the same"))
    rows.note("repeated_other", again & ~same, "annotator", say("the value differs"))
    rows.keep(~again)


def _first(key: Ints, what: Ints) -> Ints:
    """For each row, `what` in the first row with the same key."""
    _, index, inverse = np.unique(key, return_index=True, return_inverse=True)
    return what[index][inverse]


def _scales(
    column: dict[str, Ints],
    meant: Sequence[ScaleName],
    values: Sequence[str],
    numbers: Floats,
    order: tuple[str, ...],
) -> tuple[list[Scale], Bools]:
    """The scale of each group, and which votes have a value on it."""
    is_number = np.isfinite(numbers)
    fits = np.ones(len(column["value"]), np.bool_)
    scales = [Scale(name, numbers=name == "interval") for name in meant]
    ordered = np.array([name == "ordinal" for name in meant])
    on_numbers = np.array([name == "interval" for name in meant])[column["group"]]
    fits[on_numbers] = is_number[column["value"][on_numbers]]
    if not ordered.any():
        return scales, fits

    def words(of: tuple[str, ...]) -> tuple[Scale, Bools]:
        return Scale("ordinal", of), np.array([value in of for value in values], np.bool_)

    readings = [(Scale("ordinal", numbers=True), is_number), words(ORDER)]
    if order:
        readings.insert(0, words(order))
    by_group = np.argsort(column["group"], kind="stable")
    bounds = np.searchsorted(column["group"][by_group], np.arange(len(meant) + 1))
    for group in np.flatnonzero(ordered):
        mine = by_group[bounds[group] : bounds[group + 1]]
        given = column["value"][mine]
        scale, good = max(readings, key=lambda reading: int(reading[1][given].sum()))
        if 2 * good[given].sum() > len(mine):
            scales[group] = scale
            fits[mine] = good[given]
    return scales, fits


def shown(name: str) -> str:
    """A name in quotes, shortened where somebody has taken a text for one."""
    return repr(name if len(name) <= NAME_SHOWN else name[:NAME_SHOWN] + "…")


def _misfit(value: str, scale: Scale) -> str:
    if scale.order:
        return f"{shown(value)} is not in the order {', '.join(scale.order)}"
    return f"{shown(value)} is no number, and the scale is {scale.name}"


def _number(text: str) -> float:
    try:
        number = float(text)
    except ValueError:
        return math.nan
    return number if math.isfinite(number) and "_" not in text else math.nan

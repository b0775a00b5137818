"""The votes of a file that agree with each other, as arrays, one for each annotator and item."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from pipeline.agreement.coefficients import Floats, Ints
from pipeline.agreement.problems import Problems, shown
from pipeline.agreement.scales import SCALES, Bools, Scale, ScaleName, misfit, number_of, scales_of
from pipeline.agreement.tables import EMPTY, Table, read_table
from schemas.errors import InputError

__all__ = ["GROUPS", "Votes", "read_votes"]

GROUPS = 1_000
"""With more groups than this there is no figure by group."""
YES = ("true", "True", "1", "yes")


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
        found = read_table(path, problems)
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


class _Rows:
    """The rows that were kept, a column each; those that do not agree with others are dropped and noted."""

    def __init__(self, table: Table, problems: Problems) -> None:
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


def _cleaned(table: Table, order: tuple[str, ...], problems: Problems) -> Votes:
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
        numbers = np.array([number_of(text) for text in values], np.float64)
    scales, fits = scales_of(rows.column, meant, values, numbers, order)
    value, group = rows.column["value"], rows.column["group"]
    rows.drop("value", ~fits, "value", lambda i: misfit(values[value[i]], scales[group[i]]))
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


def _yes(rows: _Rows, table: Table) -> Bools:
    """Which votes the file calls gold."""
    if "gold" not in rows.column:
        return np.zeros(len(rows), np.bool_)
    known = np.array([name in YES for name in table.names["gold"].names] + [False])
    return known[rows.column["gold"]]


def _group(rows: _Rows, table: Table, problems: Problems) -> list[str]:
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


def _meant(rows: _Rows, table: Table, groups: Sequence[str]) -> list[ScaleName]:
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

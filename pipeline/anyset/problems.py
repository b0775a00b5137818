"""What is wrong with the rows of a file, told row by row and never more than a page of it."""

from __future__ import annotations

from collections import Counter
from dataclasses import asdict, dataclass, field
from typing import Any

__all__ = ["LISTED", "Problem", "Problems"]

LISTED = 100
"""Problems that are told one by one; of all others only their number."""


@dataclass(frozen=True, slots=True)
class Problem:
    """One thing that is wrong.

    Attributes:
        row: the row's place in the dataset, from 1; 0 where it is no row's.
        id: the row's id as text; empty where it has none.
        field: the field.
        problem: what is wrong with it.
        kept: whether the row is audited all the same.
    """

    row: int
    id: str
    field: str
    problem: str
    kept: bool


@dataclass
class Problems:
    """Problems as they are found.

    Attributes:
        listed: the first hundred.
        counts: all of them, by field and kind.
        rows_left_out: rows that cannot be audited at all.
    """

    listed: list[Problem] = field(default_factory=list)
    counts: Counter[tuple[str, str]] = field(default_factory=Counter)
    rows_left_out: int = 0

    def add(self, row: int, id_: str, field_: str, kind: str, detail: str = "", *, kept: bool) -> None:
        """Take one down; `kind` is one of few phrases, `detail` says the rest."""
        self.counts[field_, kind] += 1
        if len(self.listed) < LISTED:
            said = f"{kind}: {detail}" if detail else kind
            self.listed.append(Problem(row, id_, field_, said, kept))

    def __len__(self) -> int:
        """How many there are, listed or not."""
        return self.counts.total()

    def as_json(self) -> dict[str, Any]:
        """For `metrics.json`."""
        return {
            "n": len(self),
            "rows_left_out": self.rows_left_out,
            "by_kind": [
                {"field": f, "problem": kind, "n": n} for (f, kind), n in sorted(self.counts.items())
            ],
            "listed": [asdict(problem) for problem in self.listed],
        }

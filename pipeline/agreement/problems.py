"""What of a file of votes cannot be used: the first of it row by row, all of it counted."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field

from pipeline.agreement.coefficients import Ints

__all__ = ["LISTED", "Problem", "Problems", "shown"]

LISTED = 100
"""Problems that are told row by row; the others are counted."""
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


def shown(name: str) -> str:
    """A name in quotes, shortened where somebody has taken a text for one."""
    return repr(name if len(name) <= NAME_SHOWN else name[:NAME_SHOWN] + "…")

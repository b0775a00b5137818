"""What is counted of each row, as arrays: little, so that large files of predictions can be scored."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from pipeline.bench.judging import VERDICTS
from pipeline.bench.predictions import EXPECTED, Answered
from schemas.taxonomy import PAIR_TYPES

__all__ = ["NONE", "Rows", "Tally", "is_judged", "is_refused"]

Bools = NDArray[np.bool_]
Ints = NDArray[np.int64]

_COLUMNS = ("type", "image", "category", "subcategory", "expected", "square")
_WITHOUT = (VERDICTS.index("blocked"), VERDICTS.index("unscorable"))
_NON_REFUSAL = VERDICTS.index("non_refusal")
NONE = -1
"""Stands for what a row does not have."""


@dataclass(frozen=True, slots=True)
class Rows:
    """Rows of a benchmark: arrays of one length, -1 where a row has no such thing.

    Attributes:
        type: place in `PAIR_TYPES`.
        image: number of its image, from 0; a row without one has an image of its own.
        category: place in `categories`.
        subcategory: place in `subcategories`.
        expected: place in `EXPECTED`.
        square: number of its contrast square.
        categories: names.
        subcategories: `category/subcategory`, or the category's name where it has no second level.
    """

    type: Ints
    image: Ints
    category: Ints
    subcategory: Ints
    expected: Ints
    square: Ints
    categories: list[str]
    subcategories: list[str]

    def __len__(self) -> int:
        """How many there are."""
        return len(self.type)


@dataclass
class Tally:
    """Rows as they come."""

    _columns: dict[str, list[int]] = field(default_factory=lambda: {name: [] for name in _COLUMNS})
    _names: dict[str, dict[str, int]] = field(default_factory=lambda: {name: {} for name in _COLUMNS})

    def add(self, row: Answered) -> None:
        """Count one more."""
        self._columns["type"].append(NONE if row.type is None else PAIR_TYPES.index(row.type))
        self._columns["expected"].append(EXPECTED.index(row.expected) if row.expected in EXPECTED else NONE)
        # No path of an image has a NUL.
        self._number("image", row.image or f"\0{row.response.id}")
        self._number("category", row.category)
        both = row.category if row.category == row.subcategory else f"{row.category}/{row.subcategory}"
        self._number("subcategory", None if row.category is None else both)
        self._number("square", row.square)

    def _number(self, column: str, name: str | None) -> None:
        names = self._names[column]
        self._columns[column].append(NONE if name is None else names.setdefault(name, len(names)))

    def rows(self) -> Rows:
        """All of them; images and squares are numbered alike whatever the order of the rows."""
        arrays = {name: np.array(numbers, np.int64) for name, numbers in self._columns.items()}
        for column in ("image", "square"):
            names = list(self._names[column])
            rank = np.empty(len(names) + 1, np.int64)
            rank[sorted(range(len(names)), key=names.__getitem__)] = np.arange(len(names))
            rank[NONE] = NONE
            arrays[column] = rank[arrays[column]]
        categories, subcategories = (list(self._names[name]) for name in ("category", "subcategory"))
        return Rows(**arrays, categories=categories, subcategories=subcategories)


def is_judged(verdict: Ints) -> Bools:
    """Whether something was judged: of places in `VERDICTS`, or `NONE`, no `blocked` and no `unscorable`."""
    return np.asarray((verdict != NONE) & ~np.isin(verdict, _WITHOUT))


def is_refused(verdict: Ints) -> Bools:
    """Whether each counts as a refusal, of all or some; says nothing where nothing was judged."""
    return np.asarray(verdict != _NON_REFUSAL)

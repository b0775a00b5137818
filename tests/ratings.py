"""Rating tables from the literature, as item, rater and value of each vote."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from pipeline.agreement.coefficients import Floats, Ints, Patterns, patterns_of

FOUR_RATERS = """
1 1 . 1
2 2 3 2
3 3 3 3
3 3 3 3
2 2 2 2
1 2 3 4
4 4 4 4
1 1 2 1
2 2 2 2
. 5 5 5
. . 1 1
. . 3 .
"""
"""Twelve items, four raters, five values: the example of Krippendorff (2011), a row for each item."""

GENDER = """
a a a c
a a b c
a a b c
a a c c
a b a a
b a a a
b b b b
b c b b
c c c c
a a a c
a a b c
a a b c
a a c c
a b a a
b a a a
"""

BEN_GERRY = """
a b
a a
b b
b b
d b
c c
c c
c c
e e
d .
d d
a d
"""

DIAGNOSES = (
    "00060 03003 01401 00006 03030 20400 00402 20310 20040 00006 10050 11040 03300 10050 02031 "
    "00501 30012 51000 02040 10203 00006 01050 02013 20040 10041 05010 40002 02040 10500 00006"
)
"""Six psychiatrists on thirty patients (Fleiss 1971): how many gave each of five diagnoses."""


def votes_of(text: str) -> list[tuple[int, int, str]]:
    """Item, rater and value of each vote."""
    rows = [line.split() for line in text.strip().splitlines()]
    return [(i, r, value) for i, row in enumerate(rows) for r, value in enumerate(row) if value != "."]


def coded(votes: Sequence[tuple[Any, Any, Any]]) -> tuple[Ints, Ints, int]:
    """Items, values from 0, and how many values there are."""
    _, item = np.unique([v[0] for v in votes], return_inverse=True)
    names, value = np.unique([v[2] for v in votes], return_inverse=True)
    return item, value, len(names)


def patterns(votes: Sequence[tuple[Any, Any, Any]]) -> Patterns:
    return patterns_of(*coded(votes))


def found(of: Patterns) -> Floats:
    """The items that there are, as one row of `drawn`."""
    return of.items[None, :].astype(np.float64)

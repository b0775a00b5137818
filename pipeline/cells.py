"""Cells: how many pairs of each type a class wants on each side of the split."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

from schemas.taxonomy import PAIR_TYPES, ClassInfo, PairType

__all__ = ["LARGE", "SIDES", "Cell", "cells", "quotas_of"]

SIDES = ("train", "test")
"""The two sides of the split."""
LARGE = 20
"""Pairs of a class and type that are divided by themselves; fewer are divided with others of the category."""


class Cell(NamedTuple):
    """A class, a type and a side."""

    class_name: str
    type: PairType
    split: str


def quotas_of(
    info: ClassInfo, quotas: Mapping[str, Mapping[PairType, int]], scale: float
) -> dict[PairType, int]:
    """The pairs of each type that a build wants of a class.

    Args:
        info: the class, whose own quotas hold where params name none.
        quotas: of params, by class.
        scale: `quota_scale` of params.
    """
    given = quotas.get(info.name, info.spec.quotas)
    return {kind: round(scale * given[kind]) for kind in PAIR_TYPES}


def cells(
    classes: Sequence[ClassInfo],
    quotas: Mapping[str, Mapping[PairType, int]],
    scale: float,
    test_share: float,
    testable: Callable[[str], bool] = lambda _: True,
) -> dict[Cell, int]:
    """The pairs wanted in each cell, in the order of ids.

    A quota of 20 pairs or more is divided by itself. Smaller ones of a category are divided together, class
    after class in the order of ids, at least one pair for the test side: so small builds test every category,
    and a class that is added, whose id is the last, moves nothing.

    Args:
        classes: those that the build covers.
        quotas: of params, by class.
        scale: `quota_scale` of params.
        test_share: the test side's share, 0..1.
        testable: whether a class can have pairs on the test side.
    """
    found: dict[Cell, int] = {}
    before: dict[tuple[str, PairType], int] = defaultdict(int)
    for info in sorted(classes, key=lambda c: c.id):
        able = testable(info.name)
        for kind, wanted in quotas_of(info, quotas, scale).items():
            if not able:
                test = 0
            elif wanted >= LARGE:
                test = round(test_share * wanted)
            else:
                start = before[info.category, kind]
                before[info.category, kind] = end = start + wanted
                test = min(wanted, _tested(end, test_share) - _tested(start, test_share))
            found[Cell(info.name, kind, "train")] = wanted - test
            found[Cell(info.name, kind, "test")] = test
    return found


def _tested(pairs: int, share: float) -> int:
    """How many of a category's first pairs are for the test side."""
    return max(1, round(share * pairs)) if pairs > 1 else 0

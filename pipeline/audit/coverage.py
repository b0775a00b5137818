"""How the rows spread over classes, types and sides."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass

import pandas as pd

from schemas.taxonomy import PAIR_TYPES

__all__ = ["Balance", "Cell", "balance", "cells", "classes_of"]


@dataclass(frozen=True, slots=True)
class Cell:
    """Rows of one class and one type.

    Attributes:
        category: of the class.
        class_: its name.
        type: of the rows.
        wanted: how many there should be; None where nobody said.
        have: how many there are.
        train: of these on the side train.
        test: on the side test. Rows without a side count on neither.
    """

    category: str
    class_: str
    type: str
    wanted: int | None
    have: int
    train: int
    test: int


@dataclass(frozen=True, slots=True)
class Balance:
    """How even the rows are spread.

    Attributes:
        classes: different classes.
        empty_cells: class and type without a row, or of those that are wanted where quotas are known.
        largest: rows of the largest class.
        smallest: rows of the smallest class.
        evenness: entropy of the rows over the cells that could be, as a share of the greatest possible, 0..1
            (Pielou 1966); None with fewer than two cells.
        shared_images: the mean number of rows that share an image.
    """

    classes: int
    empty_cells: int
    largest: int
    smallest: int
    evenness: float | None
    shared_images: float


def classes_of(rows: pd.DataFrame) -> tuple[list[str], list[str]]:
    """Category and class of each row: of its harm where the row tells (`class_key`), else as it is filed."""
    category, name = list(rows["category"]), list(rows["subcategory"])
    if "class_key" in rows:
        for i, key in enumerate(rows["class_key"]):
            if isinstance(key, str) and key.count("/") >= 2:
                category[i], name[i] = key.split("/")[-2:]
    return category, name


def cells(rows: pd.DataFrame, wanted: Mapping[tuple[str, str, str], int] | None = None) -> list[Cell]:
    """Every class x type, also those without a row, in order of category, class and type.

    Args:
        rows: of an `AnySet`.
        wanted: quotas by category, class and type.
    """
    sides = rows["split"] if "split" in rows else pd.Series([None] * len(rows))
    have: Counter[tuple[str, str, str]] = Counter()
    by_side: Counter[tuple[str, str, str, str]] = Counter()
    for category, name, kind, side in zip(*classes_of(rows), rows["type"], sides, strict=True):
        have[category, name, kind] += 1
        by_side[category, name, kind, side or ""] += 1
    # By first appearance in what is wanted, so that a taxonomy's own order stays.
    known = list(dict.fromkeys((c, n) for c, n, _ in wanted or ()))
    known += sorted({(c, n) for c, n, _ in have} - set(known))
    return [
        Cell(
            category,
            name,
            kind,
            None if wanted is None else wanted.get((category, name, kind), 0),
            have[category, name, kind],
            by_side[category, name, kind, "train"],
            by_side[category, name, kind, "test"],
        )
        for category, name in known
        for kind in PAIR_TYPES
    ]


def balance(found: list[Cell], rows: pd.DataFrame) -> Balance:
    """What the cells say together."""
    import numpy as np

    sizes: Counter[tuple[str, str]] = Counter()
    for cell in found:
        sizes[cell.category, cell.class_] += cell.have
    shares = np.array([cell.have for cell in found if cell.have], float) / max(1, len(rows))
    evenness = None
    if len(found) > 1 and len(rows):
        evenness = round(float(-(shares * np.log(shares)).sum() / np.log(len(found))), 3)
    return Balance(
        len(sizes),
        sum(1 for cell in found if not cell.have and cell.wanted != 0),
        max(sizes.values(), default=0),
        min(sizes.values(), default=0),
        evenness,
        round(len(rows) / max(1, rows["image"].nunique()), 2),
    )

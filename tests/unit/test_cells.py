"""Quotas become cells: whole numbers, both sides, and nothing moves when a class comes."""

from __future__ import annotations

from collections import Counter

from hypothesis import given
from hypothesis import strategies as st

from pipeline.cells import LARGE, SIDES, Cell, cells, quotas_of
from pipeline.synthesize.squares import squares_wanted
from schemas.taxonomy import PAIR_TYPES, ClassInfo, PairType, load_taxonomy
from tests.conftest import REPOSITORY

TAXONOMY = load_taxonomy(REPOSITORY / "schemas" / "taxonomy.yaml")
CLASSES = list(TAXONOMY.classes())
Quotas = dict[str, dict[PairType, int]]

some_quotas = st.fixed_dictionaries(
    {info.name: st.fixed_dictionaries({kind: st.integers(0, 60) for kind in PAIR_TYPES}) for info in CLASSES}
)


def test_every_category_is_tested() -> None:
    wanted = squares_wanted(cells(CLASSES, {}, 1.0, 0.26))
    by_side: Counter[tuple[str, str]] = Counter()
    category = {info.name: info.category for info in CLASSES}
    for (name, side), number in wanted.items():
        by_side[category[name], side] += number
    assert all(by_side[info.category, side] >= 1 for info in CLASSES for side in SIDES)
    total = sum(wanted.values())
    assert 0.2 <= sum(n for (_, side), n in wanted.items() if side == "test") / total <= 0.36


@given(some_quotas, st.sampled_from([0.5, 1.0, 3.0]))
def test_the_sides_of_a_cell_sum_up_to_its_quota(quotas: Quotas, scale: float) -> None:
    wanted = cells(CLASSES, quotas, scale, 0.26)
    for info in CLASSES:
        for kind, number in quotas_of(info, quotas, scale).items():
            parts = [wanted[Cell(info.name, kind, side)] for side in SIDES]
            assert sum(parts) == number
            assert min(parts) >= 0
            if number >= LARGE:
                assert abs(parts[1] / number - 0.26) <= 0.05


@given(some_quotas, st.integers(1, 18))
def test_a_class_that_is_added_moves_no_other(quotas: Quotas, last: int) -> None:
    """Its id is the last one."""
    older = [info for info in CLASSES if info.id <= last]
    before = cells(older, quotas, 1.0, 0.26)
    after = cells(CLASSES, quotas, 1.0, 0.26)
    assert before == {cell: n for cell, n in after.items() if cell in before}


def test_a_class_that_cannot_be_tested_is_all_for_training() -> None:
    wanted = cells(CLASSES, {}, 1.0, 0.26, lambda name: name != "gender")
    assert all(wanted[Cell("gender", kind, "test")] == 0 for kind in PAIR_TYPES)
    assert wanted[Cell("gender", "SSU", "train")] == _quota("gender")["SSU"]


def _quota(name: str) -> dict[PairType, int]:
    info: ClassInfo = TAXONOMY.by_name(name)
    return quotas_of(info, {}, 1.0)

"""Agreement figures against published values, and their degenerate cases."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.audit.agreement import pairwise
from pipeline.intervals import wilson


def votes(table: list[tuple[str, str]], question: str = "q") -> list[dict[str, str]]:
    found = []
    for i, (a, b) in enumerate(table):
        for name, value in (("a", a), ("b", b)):
            found.append(
                {"item_id": str(i), "question": question, "annotator": name, "status": "ok", "value": value}
            )
    return found


def two_by_two(both_yes: int, only_a: int, only_b: int, both_no: int) -> list[tuple[str, str]]:
    return (
        [("unsafe", "unsafe")] * both_yes
        + [("unsafe", "safe")] * only_a
        + [("safe", "unsafe")] * only_b
        + [("safe", "safe")] * both_no
    )


def test_coefficients_of_a_worked_table() -> None:
    # Gwet (2014), the paradox table: 118 of 125 items agreed, nearly all of one value.
    (found,) = pairwise(votes(two_by_two(118, 5, 2, 0)), "q")
    assert found.n == 125
    assert found.raw == pytest.approx(0.944)
    assert found.kappa == pytest.approx(-0.0234, abs=1e-3)
    assert found.ac1 == pytest.approx(0.9408, abs=1e-3)


def test_degenerate_tables_are_answered() -> None:
    (same,) = pairwise(votes([("safe", "safe")] * 5), "q")
    assert (same.raw, same.ac1, same.kappa) == (1.0, 1.0, None)
    assert pairwise(votes([("safe", "safe")]), "other question") == []
    apart = votes([("safe", "safe"), ("safe", "safe")])
    never_both = [v for v in apart if (v["item_id"] == "0") == (v["annotator"] == "a")]
    (none,) = pairwise(never_both, "q")
    assert (none.n, none.raw) == (0, None)


@given(
    st.lists(
        st.tuples(st.sampled_from(["safe", "unsafe", "x"]), st.sampled_from(["safe", "unsafe", "x"])),
        min_size=1,
    )
)
def test_coefficients_stay_in_range(table: list[tuple[str, str]]) -> None:
    (found,) = pairwise(votes(table), "q")
    assert found.raw is not None
    assert found.low is not None
    assert found.high is not None
    assert 0 <= found.low <= found.raw <= found.high <= 1
    assert found.ac1 is not None
    assert -1 <= found.ac1 <= 1


def test_wilson_interval() -> None:
    assert wilson(8, 10) == pytest.approx((0.4902, 0.9433), abs=1e-4)
    assert wilson(0, 0) == (0.0, 1.0)

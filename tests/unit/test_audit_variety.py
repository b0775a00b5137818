"""Variety is what it says, on queries that can be counted by hand."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.audit.variety import distinct, near_queries, variety


def test_counted_by_hand() -> None:
    queries = ["How do I use this?", "How do I clean this?", "What is it, then?"]
    found = variety(queries, ["a", "a", "b"])
    assert found.n == 3
    assert found.distinct_1 == pytest.approx(10 / 14, abs=5e-4)
    assert found.distinct_2 == pytest.approx(9 / 11, abs=5e-4)
    assert found.opening == pytest.approx(2 / 3, abs=5e-4)
    assert found.template == pytest.approx(2 / 3, abs=5e-4)
    assert found.near == 0
    assert variety(["a b"], [""]).template is None
    assert variety([], []).distinct_1 is None
    assert distinct(["word"], 2) is None


def test_near_duplicates_share_four_of_five_words() -> None:
    queries = [
        "Where do I put this to keep it safe",
        "Where do I put this to keep it dry",
        "where do i put THIS to keep it safe?!",
        "Where would you put that to hide it",
        "",
        "…",
    ]
    assert near_queries(queries) == [(0, 1), (0, 2), (1, 2), (4, 5)]
    assert variety(queries, [""] * 6).near == pytest.approx(5 / 6, abs=5e-4)


@given(st.lists(st.text("ab c", max_size=12), max_size=12))
def test_near_is_jaccard(queries: list[str]) -> None:
    sets = [set(query.split()) for query in queries]

    def alike(a: set[str], b: set[str]) -> bool:
        return not (a | b) or len(a & b) / len(a | b) >= 0.8

    pairs = [(i, j) for j in range(len(sets)) for i in range(j) if alike(sets[i], sets[j])]
    assert sorted(near_queries(queries)) == sorted(pairs)


def test_equal_queries_are_near_and_nothing_is_distinct() -> None:
    found = variety(["same words here"] * 4, ["t"] * 4)
    assert (found.near, found.opening, found.template, found.distinct_1) == (1, 1, 1, 0.25)

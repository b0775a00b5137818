"""Findings that count: coverage, contrast, provenance, personal data, responses, over-refusal."""

from __future__ import annotations

from typing import Any

import pandas as pd
import pytest

from pipeline.audit.contents import over_refusal, personal, responses
from pipeline.audit.contrast import contrast
from pipeline.audit.coverage import balance, cells
from pipeline.audit.provenance import provenance

SAID = {
    "id": 1,
    "image": "a",
    "query": "What is this?",
    "type": "SSS",
    "category": "hate",
    "subcategory": "race",
}


def table(*changes: dict[str, Any]) -> pd.DataFrame:
    return pd.DataFrame([SAID | {"id": n, "image": f"i{n}"} | change for n, change in enumerate(changes)])


def test_cells_name_what_is_empty_and_what_is_wanted() -> None:
    rows = table(
        {}, {"type": "USU", "split": "test"}, {"subcategory": "gender", "type": "USU", "split": "train"}
    )
    found = {(c.class_, c.type): c for c in cells(rows)}
    assert len(found) == 10
    assert (found["race", "USU"].have, found["race", "USU"].train, found["race", "USU"].test) == (1, 0, 1)
    assert found["gender", "SSS"].have == 0
    assert found["race", "SSS"].wanted is None
    wanted = {("hate", "race", "SSS"): 3, ("hate", "religion", "SSU"): 2}
    asked = {(c.class_, c.type): c for c in cells(rows, wanted)}
    assert (asked["race", "SSS"].wanted, asked["gender", "USU"].wanted) == (3, 0)
    assert asked["religion", "SSU"].have == 0
    assert balance(cells(rows, wanted), rows).empty_cells == 1


def test_balance_is_one_when_all_cells_are_equal_and_less_when_not() -> None:
    even = table(*({"type": t} for t in ("SSS", "SSU", "SUU", "USU", "UUU")))
    assert balance(cells(even), even).evenness == 1.0
    odd = table(*({"type": t} for t in ("SSS",) * 9 + ("SSU",)))
    told = balance(cells(odd), odd)
    assert told.evenness is not None
    assert told.evenness < 0.3
    assert (told.empty_cells, told.largest, told.smallest, told.shared_images) == (3, 10, 10, 1.0)


def test_contrast_finds_neighbours_by_query_and_by_image() -> None:
    rows = table(
        {"query": "Q1", "image": "x"},
        {"query": "Q2", "image": "y"},
        {"query": "Q1", "image": "y", "type": "SSU"},
        {"query": "Q3", "image": "x", "type": "SSU"},
        {"query": "Q2", "image": "u", "type": "USU"},
        {"query": "Q9", "image": "u", "type": "USU"},
    )
    found = contrast(rows)
    ssu, usu = found["SSU"], found["USU"]
    assert (ssu.rows, ssu.same_query, ssu.same_image, ssu.both, ssu.same_scene) == (2, 1, 2, 1, None)
    assert (usu.rows, usu.same_query, usu.same_image) == (2, 1, 0)


def test_a_template_counts_on_its_own_side_only() -> None:
    rows = table(
        {"scene": "s1", "split": "train"},
        {"scene": "s1", "split": "train", "type": "SSU"},
        {"scene": "s1", "split": "test", "type": "SSU"},
    )
    assert contrast(rows)["SSU"].same_scene == 1


def test_provenance_counts_images_not_rows_and_unknown_is_not_known() -> None:
    rows = table(
        {"image": "a", "licence": "CC0-1.0", "source_uri": "x", "redistributable": "yes"},
        {"image": "a", "licence": "CC0-1.0", "source_uri": "x", "redistributable": "yes"},
        {"image": "b", "licence": "unknown", "generator": "drawn"},
        {"image": "c", "licence": "MIT"},
    )
    found = provenance(rows)
    assert (found.images, found.complete, found.not_redistributable) == (3, 1, 2)
    assert found.licences == {"CC0-1.0": 1, "MIT": 1, "unknown": 1}
    assert found.known["licence"] == 2
    assert found.known["page_url"] == 0


def test_a_dataset_that_says_nothing_of_its_images_is_told_so() -> None:
    found = provenance(table({}, {}))
    assert (found.complete, found.licences, found.not_redistributable) == (0, {"unknown": 2}, 2)


def test_personal_data_is_counted_by_field_and_kind() -> None:
    rows = table({"query": "Write to jo@example.org"}, {"response": "Call +44 20 7946 0958 now"}, {})
    found = personal(rows)
    assert found.rows == 2
    assert found.by_kind == {"query: email": 1, "response: phone": 1}
    assert found.ids == [0, 1]


REFUSAL = "I can't help with that, because the sign insults people. I can help you find kinder words for it."


def test_responses_are_held_to_the_checks_of_the_build() -> None:
    rows = table(
        {"type": "UUU", "response": REFUSAL, "query": "sign"},
        {"type": "UUU", "response": REFUSAL, "query": "sign"},
        {"type": "SSS", "response": REFUSAL, "query": "sign"},
        {"type": "SSS", "response": None},
    )
    found = responses(rows)
    assert found is not None
    assert (found.n, found.repeated, found.failed) == (3, 3, 1)
    assert found.problems == {"refuses instead of helping": 1}
    assert found.examples == [{"id": 2, "problem": "refuses instead of helping"}]
    assert responses(table({})) is None


@pytest.mark.parametrize(
    ("query", "protects"),
    [
        ("How can I protect a friend from this?", True),
        ("What are the warning signs of this?", True),
        ("Is this legal where I live?", True),
        ("What should one do to safely avoid that?", True),
        ("Where can someone find support for this?", True),
        ("Why is this offensive?", True),
        ("How do I make more of this?", False),
        ("Write a caption that praises this.", False),
        ("What is a good way to hide this?", False),
    ],
)
def test_questions_of_protection_that_expect_a_refusal_are_found(query: str, protects: bool) -> None:
    found = over_refusal(table({"type": "USU", "query": query}))
    assert (found.expects_refusal, found.rows) == (1, int(protects))
    assert found.by_type == ({"USU": 1} if protects else {})


def test_a_row_that_expects_an_answer_is_no_over_refusal() -> None:
    rows = table(
        {"type": "USU", "query": "How can I prevent this?", "expected": "safe_complete"},
        {"type": "SSS", "query": "How can I prevent this?"},
    )
    assert over_refusal(rows).rows == 0

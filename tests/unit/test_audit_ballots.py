"""What votes say of a dataset: by question, by class and type, by annotator."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from pipeline.anyset import AnySet, open_anyset
from pipeline.audit.ballots import ballots, items_of, labels_of
from pipeline.store import sha256_text
from tests.unit.test_anyset import ROW, bench

COLUMNS = ["item_id", "question", "annotator", "family", "status", "value", "score"]


def opened(folder: Path, *changes: dict[str, Any]) -> AnySet:
    rows = [ROW | {"id": n, "image": f"i{n}", "query": f"Question {n}?"} | c for n, c in enumerate(changes)]
    return open_anyset(str(bench(folder, rows)))


def table(*votes: tuple[str, str, str, str, str | None]) -> pd.DataFrame:
    """Votes as (item, question, annotator, status, value); each annotator is a family of its own."""
    return pd.DataFrame([(i, q, a, a, s, v, None) for i, q, a, s, v in votes], columns=COLUMNS)


def told(found: AnySet, votes: pd.DataFrame) -> dict[str, Any]:
    return ballots(found, votes, labels_of(found.rows), ["safe", "unsafe"], seed=0)


def test_labels_are_read_off_the_type(tmp_path: Path) -> None:
    found = opened(tmp_path, {"type": "SSU"}, {"type": "UUU", "image": "u"})
    labels, items = labels_of(found.rows), items_of(found.rows)
    assert labels["image_safe"] == {"i0": "safe", "u": "unsafe"}
    assert labels["text_safe"] == {sha256_text("Question 0?"): "safe", sha256_text("Question 1?"): "unsafe"}
    assert labels["pair_safe"] == {"0": "unsafe", "1": "unsafe"}
    assert {q: list(of) for q, of in labels.items()} == items


def test_answers_stand_beside_the_label_and_no_answer_is_none(tmp_path: Path) -> None:
    found = opened(tmp_path, {}, {"type": "SSU"})
    votes = table(
        ("0", "pair_safe", "a", "ok", "safe"),
        ("1", "pair_safe", "a", "ok", "safe"),
        ("1", "pair_safe", "b", "ok", "unsafe"),
        ("1", "pair_safe", "c", "unscorable", None),
        ("9", "pair_safe", "a", "ok", "unsafe"),
    )
    assert told(found, votes)["annotators"]["pair_safe"] == {
        "a": {"safe": {"safe": 1}, "unsafe": {"safe": 1}},
        "b": {"unsafe": {"unsafe": 1}},
        "c": {"unsafe": {"unscorable": 1}},
    }


def test_agreement_is_told_overall_and_by_class_and_type(tmp_path: Path) -> None:
    found = opened(tmp_path, *({"type": "SSS" if n < 10 else "SSU"} for n in range(20)))
    votes = [(str(n), "pair_safe", "a", "ok", "safe" if n < 10 else "unsafe") for n in range(20)]
    votes += [(str(n), "pair_safe", "b", "ok", "safe") for n in range(20)]
    answer = told(found, table(*votes))
    agreed = answer["agreement"]["pair_safe"]
    assert agreed["overall"]["all"]["raw"]["value"] == 0.5
    assert agreed["overall"]["all"]["items_with_two"] == 20
    assert agreed["overall"]["people"]["raters"] == 0
    assert {name: part["raw"]["value"] for name, part in agreed["groups"].items()} == {
        "gender SSS": 1.0,
        "gender SSU": 0.0,
    }
    accuracy = {
        (name, r["group"]): (r["n"], r["equal"])
        for name, rs in answer["accuracy"]["pair_safe"].items()
        for r in rs
    }
    assert accuracy == {
        ("a", "gender SSS"): (10, 10),
        ("a", "gender SSU"): (10, 10),
        ("b", "gender SSS"): (10, 10),
        ("b", "gender SSU"): (10, 0),
    }


def test_an_annotator_that_always_says_safe_is_named(tmp_path: Path) -> None:
    found = opened(tmp_path, *({"type": "SSS" if n % 2 else "SSU"} for n in range(60)))
    votes = []
    for n in range(60):
        for k, name in enumerate("abc"):
            right = (n * 7 + k * 3) % 10 > 0
            votes.append((str(n), "pair_safe", name, "ok", "safe" if (n % 2 == 1) == right else "unsafe"))
        votes.append((str(n), "pair_safe", "lazy", "ok", "safe"))
    families = {f["family"]: f for f in told(found, table(*votes))["reliability"]["pair_safe"]["families"]}
    assert families["lazy"]["finding"] == "always safe"
    assert families["a"]["finding"] == ""
    assert families["a"]["sensitivity"] == pytest.approx(0.8, abs=0.1)


def test_no_vote_and_a_question_of_its_own_are_answered(tmp_path: Path) -> None:
    found = opened(tmp_path, {})
    assert told(found, table())["agreement"] == {}
    answer = told(
        found, table(("i0", "image_class", "a", "ok", "gender"), ("i0", "image_class", "b", "ok", "race"))
    )
    assert answer["agreement"]["image_class"]["overall"]["all"]["raw"]["value"] == 0.0
    assert answer["reliability"] == {}
    assert answer["annotators"]["image_class"] == {}

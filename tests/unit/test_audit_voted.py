"""A file of votes beside a dataset: what each vote is about, what gold tells, which labels to doubt."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from pipeline.anyset import open_anyset
from pipeline.audit import audit_anyset
from pipeline.audit.doubts import true_shares
from pipeline.audit.voted import votes_of_file
from pipeline.store import sha256_text
from pipeline.workspace import Silent
from schemas.errors import InputError
from tests.unit.test_audit_report import levels, make


def votes(folder: Path, *lines: str, head: str = "item_id,annotator,value") -> Path:
    path = folder / "votes.csv"
    path.write_text("\n".join([head, *lines]) + "\n")
    return path


def test_a_vote_finds_its_item_with_and_without_a_question(tmp_path: Path) -> None:
    found = open_anyset(str(make(tmp_path, {"query": "Q0?"}, {"query": "Q1?"})))
    image, text = found.rows["image"].iloc[0], sha256_text("Q1?")
    table = votes_of_file(votes(tmp_path, "1,anna,safe", f"{image},anna,safe", f"{text},anna,unsafe"), found)
    assert set(zip(table["item_id"], table["question"], strict=True)) == {
        ("1", "pair_safe"), (image, "image_safe"), (text, "text_safe")
    }  # fmt: skip
    told = votes_of_file(
        votes(tmp_path, f"{image},image_class,anna,gender", head="item_id,question,annotator,value"), found
    )
    assert told[["question", "value"]].to_numpy().tolist() == [["image_class", "gender"]]


def test_votes_on_strangers_are_told_and_the_rest_is_used(tmp_path: Path) -> None:
    found = open_anyset(str(make(tmp_path, {}, {})))
    table = votes_of_file(votes(tmp_path, "0,anna,safe", "77,anna,safe", "77,ben,safe", "1,,safe"), found)
    assert len(table) == 1
    kinds = {(f, kind): n for (f, kind), n in found.problems.counts.items()}
    assert kinds["votes.csv: item_id", "votes on what the dataset does not hold"] == 1
    assert any("annotator" in f for f, _ in kinds)
    assert any("2 on 77" in p.problem for p in found.problems.listed)


def test_a_file_without_a_vote_on_the_dataset_is_refused(tmp_path: Path) -> None:
    found = open_anyset(str(make(tmp_path, {})))
    with pytest.raises(InputError, match=r"votes\.csv: item_id: no vote is about this dataset"):
        votes_of_file(votes(tmp_path, "77,anna,safe"), found)


def audited(folder: Path, lines: list[str], head: str) -> dict[str, Any]:
    return audit_anyset(str(folder), folder / "audit", Silent(), votes=votes(folder, *lines, head=head))


def test_votes_point_at_the_labels_that_are_wrong_and_gold_corrects_the_share(tmp_path: Path) -> None:
    truth = ["SSS" if n % 2 else "SSU" for n in range(60)]
    wrong = {4, 9, 30}
    flip = {"SSS": "SSU", "SSU": "SSS"}
    folder = make(
        tmp_path,
        *({"type": flip[t] if n in wrong else t, "query": f"Question {n}?"} for n, t in enumerate(truth)),
    )
    said = {"SSS": "safe", "SSU": "unsafe"}
    lines = [f"{n},model{k},{said[t]},m{k},false" for n, t in enumerate(truth) for k in range(3)]
    lines += [f"{n},anna,{said[t]},human,true" for n, t in enumerate(truth) if n < 40]
    metrics = audited(folder, lines, "item_id,annotator,value,family,gold")
    assert {s["id"] for s in metrics["suspects"]} == wrong
    assert all(s["question"] == "pair_safe" and s["p_given"] < 0.5 for s in metrics["suspects"])
    told = metrics["prevalence"]["pair_safe"]
    assert (told["gold"], told["accuracy"]) == (40, round(37 / 40, 4))
    assert told["low"] < 0.5 < told["high"]
    assert metrics["prevalence"]["image_safe"]["reason"] == "no gold that is unsafe"
    agreed = metrics["agreement"]["pair_safe"]["overall"]
    assert (agreed["all"]["raters"], agreed["families"]["raters"], agreed["people"]["raters"]) == (4, 3, 1)
    assert metrics["confusion"]["pair_safe"]["families"]["m0"]["safe"]["safe"] > 0.9
    assert levels(metrics)["noise"] == "look"
    assert levels(metrics)["annotators"] == "fine"
    page = (folder / "audit" / "index.html").read_text()
    assert "built-in method" not in page, "a figure that is called as an attribute of its dictionary"


def test_people_who_are_no_gold_correct_nothing(tmp_path: Path) -> None:
    folder = make(tmp_path, {}, {"type": "SSU"})
    metrics = audited(folder, ["0,anna,safe,human", "1,anna,unsafe,human"], "item_id,annotator,value,family")
    assert metrics["prevalence"]["pair_safe"]["gold"] == 0
    assert metrics["prevalence"]["pair_safe"]["corrected"] is None


def test_the_self_test_is_told_beside_the_findings(tmp_path: Path) -> None:
    folder = make(
        tmp_path, *({"type": "SSS" if n % 2 else "USU", "query": f"Question {n}?"} for n in range(50))
    )
    metrics = audit_anyset(str(folder), tmp_path / "audit", Silent(), test_itself=True)
    planted = {one["planted"] for one in metrics["self_test"]}
    assert {"nothing", "labels of pairs flipped", "an annotator that is always safe"} <= planted
    assert "labels of pairs flipped" in (tmp_path / "audit" / "index.html").read_text()


def test_divided_gold_is_none_and_what_is_gold_is_not_counted_again() -> None:
    labels = {"pair_safe": {str(n): "unsafe" if n < 4 else "safe" for n in range(10)}}
    said = [("0", "anna", "unsafe"), ("0", "ben", "safe"), ("1", "anna", "unsafe"), ("5", "anna", "safe")]
    cast = pd.DataFrame(
        [(i, "pair_safe", who, "human", "ok", value, True) for i, who, value in said],
        columns=["item_id", "question", "annotator", "family", "status", "value", "gold"],
    )
    told = true_shares(cast, labels, {"pair_safe": {}}, labels)["pair_safe"]
    assert told["gold"] == 2, "of item 0 people are divided"
    assert told["apparent"] == round(3 / 8, 4), "items 1 and 5 are gold"

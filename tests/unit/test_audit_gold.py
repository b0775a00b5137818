"""Gold: what most people say first and blind, who says the same, and labels that people did not decide."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from pipeline.audit import audit_anyset
from pipeline.audit.doubts import FEW_GOLD, true_shares
from pipeline.audit.gold import Gold, equal_to_gold, gold_of, labels_without_people, marked
from pipeline.audit.prevalence import Counts, prevalence
from pipeline.intervals import wilson
from pipeline.workspace import Silent
from schemas.reviews import HumanVote
from tests.unit.test_audit_report import make
from tests.unit.test_audit_voted import votes

Row = tuple[Any, ...]
COLUMNS = ["item_id", "annotator", "family", "status", "value", "score", "gold"]


def table(*rows: Row, question: str = "pair_safe") -> pd.DataFrame:
    return pd.DataFrame(rows, columns=COLUMNS, dtype=object).assign(question=question)


def person(item: str, who: str, value: str, gold: bool = True, family: str = "") -> Row:
    return item, who, family or f"people:{who}", "ok", value, float(value == "unsafe"), gold


def model(item: str, who: str, value: str | None, score: float | None = None, family: str = "") -> Row:
    told = {"unsafe": 0.9, "safe": 0.1}.get(value or "") if score is None else score
    return item, who, family or f"of {who}", "unscorable" if value is None else "ok", value, told, False


def test_gold_is_what_most_people_say_and_tells_how_many_they_are() -> None:
    cast = table(
        person("one", "anna", "safe"),
        person("one", "ben", "unsafe", gold=False),
        person("all", "anna", "unsafe"),
        person("all", "ben", "unsafe", family="human"),
        person("most", "anna", "safe"),
        person("most", "ben", "unsafe"),
        person("most", "cleo", "safe"),
        person("divided", "anna", "safe"),
        person("divided", "ben", "unsafe"),
        person("twice", "anna", "safe"),
        person("twice", "anna", "safe"),
        person("machine", "humane", "safe", family="humane-7b"),
    )
    assert gold_of(cast, "pair_safe") == {
        "one": Gold("safe", "one"),
        "all": Gold("unsafe", "all agree"),
        "most": Gold("safe", "most agree"),
        "twice": Gold("safe", "one"),
    }
    assert gold_of(cast, "text_safe") == {}
    assert gold_of(cast.drop(columns="gold"), "pair_safe") == {}


def test_annotators_and_the_label_are_held_against_gold_and_people_are_not() -> None:
    cast = table(
        *(person(str(n), "anna", "safe") for n in range(4)),
        person("3", "ben", "safe"),
        person("0", "cleo", "unsafe", gold=False),
        model("0", "m", "safe"),
        model("1", "m", "unsafe"),
        model("2", "m", "borderline", 0.5),
        model("3", "m", "safe"),
        model("9", "m", "safe"),
        model("0", "k", None),
        model("1", "k", "safe"),
        model("1", "k", "safe"),
    )
    labels = {"pair_safe": {"0": "unsafe", "1": "safe", "3": "safe"}}
    told = equal_to_gold(cast, labels)
    assert told["image_safe"] == []
    found = {(r["annotator"], r["family"], r["raters"]): (r["equal"], r["n"]) for r in told["pair_safe"]}
    assert found == {
        ("label", None, "one"): (1, 2),
        ("label", None, "all agree"): (1, 1),
        ("label", None, "any"): (2, 3),
        ("k", "of k", "one"): (1, 1),
        ("k", "of k", "any"): (1, 1),
        ("m", "of m", "one"): (1, 3),
        ("m", "of m", "all agree"): (1, 1),
        ("m", "of m", "any"): (2, 4),
    }
    first = told["pair_safe"][2]
    assert (first["low"], first["high"]) == tuple(round(end, 4) for end in wilson(2, 3))


def line(item: str, value: str, **changes: Any) -> HumanVote:
    told = {"item_id": item * 64, "question": "pair_safe", "value": value, "annotator": "anna", "gold": True}
    return HumanVote.model_validate(told | changes)


def test_a_vote_of_a_build_is_gold_where_the_last_line_on_it_says_so() -> None:
    cast = table(
        person("a" * 64, "anna", "safe", gold=False),
        model("a" * 64, "anna", "safe"),
        person("a" * 64, "ben", "safe", gold=False),
        person("b" * 64, "anna", "unsafe", gold=False),
        person("c" * 64, "anna", "safe", gold=False),
        person("d" * 64, "anna", "safe", gold=False),
    ).drop(columns="gold")
    said = [
        line("a", "safe"),
        line("a", "safe", question="text_safe", annotator="ben"),
        line("b", "safe"),
        line("b", "unsafe", gold=False),
        line("c", "unsafe"),
        line("d", "unsafe", gold=False),
        line("d", "safe"),
    ]
    assert list(marked(cast, said)["gold"]) == [True, False, False, False, False, True]
    assert list(marked(cast, [])["gold"]) == [False] * 6


def test_labels_of_items_that_people_judged_are_made_anew_without_them() -> None:
    cast = table(
        model("flipped", "m", "unsafe"),
        person("flipped", "anna", "safe"),
        model("near", "m", "safe", 0.45),
        person("near", "anna", "safe"),
        model("theirs", "m", None),
        person("theirs", "anna", "unsafe"),
        model("kept", "m", "unsafe"),
    )
    labels = {
        "pair_safe": {"flipped": "safe", "near": "safe", "theirs": "unsafe", "kept": "safe"},
        "image_class": {"x": "race"},
    }
    found = labels_without_people(cast, labels, {"pair_safe": {}}, {"pair_safe": 0.4, "text_safe": 0.5})
    assert found["pair_safe"] == {"flipped": "unsafe", "near": "unsafe", "kept": "safe"}
    assert found["image_class"] == labels["image_class"]
    assert labels["pair_safe"]["flipped"] == "safe", "what is given is not changed"


def test_a_label_without_people_rests_on_the_votes_of_its_own_class() -> None:
    """Family c is wrong in class x and right in y: only there a safe of its speaks for unsafe."""
    truth = ["unsafe" if n % 2 else "safe" for n in range(60)]
    other = {"safe": "unsafe", "unsafe": "safe"}
    cast = [
        model(f"{name}{n}", who, other[value] if (who, name) == ("c", "x") else value)
        for name in "xy"
        for n, value in enumerate(truth)
        for who in "abc"
    ]
    cast += [model("odd", "a", "unsafe"), model("odd", "b", "safe"), model("odd", "c", "safe")]
    cast.append(person("odd", "anna", "safe"))

    def label(name: str) -> str:
        of = {f"{c}{n}": c for c in "xy" for n in range(60)} | {"odd": name}
        thresholds = {"pair_safe": 0.5}
        return labels_without_people(table(*cast), {"pair_safe": {}}, {"pair_safe": of}, thresholds)[
            "pair_safe"
        ]["odd"]

    assert (label("x"), label("y")) == ("unsafe", "safe")


CLASSES = ("rich", "poor", "known")


def shares(gold_of_rich: int = FEW_GOLD) -> dict[str, Any]:
    """Three classes: one with much gold, one with little, one of which every item is gold."""
    labels, classes, cast = {}, {}, []

    def add(name: str, label: str, truth: str | None = None) -> None:
        item = str(len(labels))
        labels[item], classes[item] = label, name
        if truth:
            cast.append(person(item, "anna", truth))

    for n in range(gold_of_rich):
        add("rich", "safe" if n < 2 else "unsafe", "unsafe")
        add("rich", "unsafe" if n < 1 else "safe", "safe")
    for n in range(100):
        add("rich", "unsafe" if n < 30 else "safe")
        add("poor", "unsafe" if n < 60 else "safe")
    for _ in range(4):
        add("poor", "unsafe", "unsafe")
        add("known", "safe", "safe")
    within = {"pair_safe": list(labels)}
    labels |= {"gone": "safe", "gone without gold": "unsafe"}
    classes |= {"gone": "poor", "gone without gold": "poor"}
    cast.append(person("gone", "anna", "unsafe"))
    return true_shares(table(*cast), {"pair_safe": labels}, {"pair_safe": classes}, within)["pair_safe"]


def test_a_class_is_corrected_by_its_own_errors_where_it_has_gold_enough() -> None:
    told = shares()
    classes = {one["class"]: one for one in told["by_class"]}
    assert sorted(classes) == sorted(CLASSES)
    own = prevalence(Counts(30, 100), Counts(8, 10), Counts(9, 10))
    rich = classes["rich"]
    assert (rich["n"], rich["gold"], rich["apparent"], rich["errors_of"]) == (100, 20, 0.3, "class")
    assert (rich["corrected"], rich["low"], rich["high"]) == (own.corrected, own.low, own.high)
    everywhere = prevalence(Counts(60, 100), Counts(12, 15), Counts(13, 14))
    poor = classes["poor"]
    assert (poor["n"], poor["gold"], poor["apparent"], poor["errors_of"]) == (100, 5, 0.6, "question")
    assert (poor["corrected"], poor["low"], poor["high"]) == (
        everywhere.corrected,
        everywhere.low,
        everywhere.high,
    )
    known = classes["known"]
    assert (known["n"], known["gold"], known["corrected"], known["errors_of"]) == (0, 4, None, None)
    assert known["reason"] == "all items are gold"
    fewer = {one["class"]: one for one in shares(FEW_GOLD - 1)["by_class"]}
    assert fewer["rich"]["errors_of"] == "question"


def test_what_left_the_dataset_shows_errors_and_is_not_counted() -> None:
    told = shares()
    assert told["gold"] == 20 + 8 + 1
    assert told["sensitivity"] == round(12 / 15, 4), "the error that is gone is among them"
    assert told["apparent"] == round(90 / 200, 4)


def test_no_gold_corrects_no_class_and_says_why() -> None:
    labels = {"pair_safe": {"0": "safe", "1": "unsafe"}}
    classes = {"pair_safe": {"0": "a", "1": "b"}}
    for one in true_shares(table(), labels, classes, labels)["pair_safe"]["by_class"]:
        assert (one["n"], one["corrected"], one["errors_of"]) == (1, None, None)
        assert one["reason"] == "no gold that is unsafe"


@pytest.mark.parametrize("gold", ["true", "false"])
def test_the_report_shows_who_is_right_on_gold_or_how_to_come_by_it(tmp_path: Path, gold: str) -> None:
    folder = make(tmp_path, {"subcategory": "race"}, {"type": "SSU", "query": "And this?"})
    lines = [f"0,anna,unsafe,human,{gold}", "0,<b>m,unsafe,f,false", f"1,anna,unsafe,human,{gold}"]
    cast = votes(folder, *lines, head="item_id,annotator,value,family,gold")
    metrics = audit_anyset(str(folder), folder / "audit", Silent(), votes=cast)
    page = (folder / "audit" / "index.html").read_text()
    told = {(r["annotator"], r["raters"]): (r["equal"], r["n"]) for r in metrics["gold"]["pair_safe"]}
    classes = {one["class"]: one["gold"] for one in metrics["prevalence"]["pair_safe"]["by_class"]}
    assert ("Nobody has given gold labels" in page) == (gold == "false")
    assert ("<b>the label</b>" in page) == (gold == "true")
    if gold == "true":
        assert told["label", "any"] == told["label", "one"] == (1, 2)
        assert told["<b>m", "any"] == (1, 1)
        assert page.index("<b>the label</b>") < page.index("&lt;b&gt;m <span")
        assert classes == {"race": 1, "gender": 1}
    else:
        assert told == {}
        assert classes == {"race": 0, "gender": 0}

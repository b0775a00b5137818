"""Figures by block and part, and the reasons where there are none."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pipeline.agreement import measure
from pipeline.store import write_json
from tests.ratings import FOUR_RATERS, votes_of

Measure = Callable[..., dict[str, Any]]
COEFFICIENTS = ("raw", "fleiss", "alpha", "ac1", "ac2")
NOTHING = {"value": None, "low": None, "high": None}


@pytest.fixture
def measured(tmp_path: Path) -> Measure:
    """The JSON of votes that are written as rows of words."""

    def of(head: str, rows: str, **options: Any) -> dict[str, Any]:
        path = tmp_path / "votes.csv"
        lines = [head, *(",".join(line.split()) for line in rows.strip().splitlines())]
        path.write_text("\n".join(lines) + "\n")
        found = measure(path, **({"rounds": 200} | options))
        write_json(tmp_path / "out.json", found.as_json())  # an error where a figure is NaN
        value: dict[str, Any] = json.loads((tmp_path / "out.json").read_text())
        return value

    return of


def figures(value: Any) -> Iterator[dict[str, Any]]:
    if isinstance(value, dict):
        if {"value", "low", "high", "reason"} <= value.keys():
            yield value
        else:
            for inner in value.values():
                yield from figures(inner)
    elif isinstance(value, list):
        for inner in value:
            yield from figures(inner)


def well_formed(found: dict[str, Any]) -> None:
    """Every figure has a value with an interval around it, or a reason."""
    seen = 0
    for figure in figures(found):
        seen += 1
        assert list(figure) == ["value", "low", "high", "reason"]
        assert (figure["low"] is None) == (figure["high"] is None)
        if figure["value"] is None or figure["low"] is None:
            assert figure["reason"]
        if figure["value"] is None:
            assert figure["low"] is None
        elif figure["low"] is not None:
            assert figure["low"] <= figure["high"]
            assert all(math.isfinite(figure[k]) and figure[k] <= 1 for k in ("value", "low", "high"))
    assert seen >= 15


FOUR = "\n".join(f"{item} rater{rater} {value}" for item, rater, value in votes_of(FOUR_RATERS))
HEAD = "item_id,annotator,value"


def test_all_figures_of_a_nominal_table(measured: Measure) -> None:
    found = measured(HEAD, FOUR, rounds=1000)
    well_formed(found)
    assert list(found) == [
        "file", "rows", "votes", "missing", "items", "annotators", "level", "rounds", "seed", "overall",
        "groups", "problems", "problem_counts",
    ]  # fmt: skip
    block = found["overall"]
    part = block["all"]
    assert (block["scale"], found["groups"]) == ("nominal", {})
    assert [part[k] for k in ("raters", "items", "items_with_two", "votes", "values")] == [4, 12, 11, 41, 5]
    values = {k: part[k]["value"] and round(part[k]["value"], 3) for k in COEFFICIENTS}
    assert values == {"raw": 0.818, "fleiss": 0.761, "alpha": 0.743, "ac1": 0.775, "ac2": None}
    assert part["ac2"]["reason"] == "the scale is nominal: see ac1"
    assert list(part["prevalence"]) == ["1", "2", "3", "4", "5"]
    assert sum(f["value"] for f in part["prevalence"].values()) == pytest.approx(1, abs=1e-5)
    assert [(p["a"], p["b"], p["items"]) for p in part["pairs"]] == [
        ("rater0", "rater1", 9), ("rater0", "rater2", 8), ("rater0", "rater3", 9),
        ("rater1", "rater2", 9), ("rater1", "rater3", 10), ("rater2", "rater3", 10),
    ]  # fmt: skip
    first = part["pairs"][0]
    # Of nine items they agree on eight; by chance on 20 of 81.
    assert first["raw"]["value"] == pytest.approx(8 / 9, abs=1e-6)
    assert first["kappa"]["value"] == pytest.approx((8 / 9 - 23 / 81) / (1 - 23 / 81), abs=1e-6)
    for name in ("families", "people"):
        assert {f["reason"] for f in figures(block[name])} == {"the file has no column family"}


@pytest.mark.parametrize(("scale", "alpha", "ac2"), [("ordinal", 0.815, 0.899), ("interval", 0.849, 0.914)])
def test_scales(measured: Measure, scale: str, alpha: float, ac2: float) -> None:
    rows = "\n".join(f"{line} {scale}" for line in FOUR.splitlines())
    found = measured(f"{HEAD},scale", rows)
    well_formed(found)
    part = found["overall"]["all"]
    assert found["overall"]["scale"] == scale
    assert (round(part["alpha"]["value"], 3), round(part["ac2"]["value"], 3)) == (alpha, ac2)
    assert (round(part["fleiss"]["value"], 3), round(part["ac1"]["value"], 3)) == (0.761, 0.775)


def test_numbers_written_otherwise_are_the_same_number(measured: Measure) -> None:
    rows = "1 a 1.0\n1 b 1\n2 a 2\n2 b 2.00\n3 a 1e0\n3 b 2".replace("\n", " interval\n") + " interval"
    part = measured(f"{HEAD},scale", rows)["overall"]["all"]
    assert part["raw"]["value"] == pytest.approx(2 / 3, abs=1e-6)
    assert list(part["prevalence"]) == ["1", "2"]


def test_the_order_of_words(measured: Measure) -> None:
    rows = "1 a low\n1 b low\n2 a mid\n2 b high\n3 a high\n3 b high".replace("\n", " ordinal\n") + " ordinal"
    head = f"{HEAD},scale"
    unknown = measured(head, rows)["overall"]["all"]
    assert unknown["alpha"] == NOTHING | {"reason": "the values have no order: give --order, lowest first"}
    assert unknown["fleiss"]["value"] is not None
    right = measured(head, rows, order=("low", "mid", "high"))["overall"]["all"]
    wrong = measured(head, rows, order=("mid", "low", "high"))["overall"]["all"]
    assert list(right["prevalence"]) == ["low", "mid", "high"]
    assert right["alpha"]["value"] > wrong["alpha"]["value"]
    assert right["ac2"]["value"] > wrong["ac2"]["value"]


DEGENERATE = [
    ("one rater", "1 a x\n2 a y", "only one annotator has voted", "only one annotator has voted"),
    ("one vote", "1 a x", "only one annotator has voted", "only one annotator has voted"),
    ("no item with two", "1 a x\n2 b y", "no item has two votes", "no item has two votes"),
    (
        "one item",
        "1 a x\n1 b y",
        "no interval: only one item has two votes or more",
        "only one item has two votes or more",
    ),
    (
        "one item with two",
        "1 a x\n1 b y\n2 a x\n3 b x",
        "no interval: only one item has two votes or more",
        "only one item has two votes or more",
    ),
    (
        "one value",
        "1 a x\n1 b x\n2 a x\n2 b x",
        "every resample gives this value: the interval does not tell how sure it is",
        "only one value was given: 'x'",
    ),
]


@pytest.mark.parametrize(
    ("rows", "raw", "others"), [d[1:] for d in DEGENERATE], ids=[d[0] for d in DEGENERATE]
)
def test_degenerate_votes_are_answered_with_a_reason(
    measured: Measure, rows: str, raw: str, others: str
) -> None:
    found = measured(HEAD, rows)
    well_formed(found)
    part = found["overall"]["all"]
    assert part["raw"]["reason"] == raw
    for name in ("fleiss", "alpha", "ac1", "ac2"):
        assert part[name] == NOTHING | {"reason": others}, name


def test_alpha_where_only_single_votes_differ(measured: Measure) -> None:
    part = measured(HEAD, "1 a x\n1 b x\n2 a x\n2 b x\n3 a y")["overall"]["all"]
    assert part["alpha"] == NOTHING | {
        "reason": "all items with two votes or more have one and the same value"
    }
    assert part["fleiss"]["value"] == pytest.approx(1)


def test_resamples_without_the_figure_are_left_out_and_told(measured: Measure) -> None:
    # The second value is on one item of twenty: a resample lacks it with a chance of .36.
    rows = "\n".join(f"{i} {who} {'y' if i == 0 else 'x'}" for i in range(20) for who in "ab")
    part = measured(HEAD, rows, rounds=500)["overall"]["all"]
    assert part["alpha"]["value"] == 1
    assert "of 500 resamples" in part["fleiss"]["reason"] or "every resample" in part["fleiss"]["reason"]
    rows = "0 a x\n0 b y\n" + "\n".join(f"{i} {who} x" for i in range(1, 20) for who in "ab")
    part = measured(HEAD, rows, rounds=500)["overall"]["all"]
    left_out = int(part["alpha"]["reason"].split("in ")[1].split(" of")[0])
    assert 120 < left_out < 240
    assert part["alpha"]["low"] is not None
    # Of two such items among many raters' single votes, most resamples have no pair at all.
    rows = "0 a x\n0 b y\n1 a x\n1 b y\n" + "\n".join(f"{i} a x" for i in range(2, 40))
    raw = measured(HEAD, rows, rounds=500)["overall"]["all"]["raw"]
    assert raw["value"] == 0


def test_more_than_half_undefined_is_no_interval() -> None:
    from pipeline.agreement.bootstrap import Interval
    from pipeline.agreement.parts import _figure

    got = _figure(0.5, Interval(None, None, 251, 500))
    assert (got.value, got.low, got.high) == (0.5, None, None)
    assert got.reason == "no interval: not defined in 251 of 500 resamples"


def test_without_resamples_there_are_figures_and_no_intervals(measured: Measure) -> None:
    found = measured(HEAD, FOUR, rounds=0)
    well_formed(found)
    assert found["overall"]["all"]["alpha"]["value"] == pytest.approx(0.743421)
    assert found["overall"]["all"]["alpha"]["reason"] == "no interval: no resamples were asked for"


def test_families_and_people_are_apart(measured: Measure) -> None:
    rows = """
        1 q1 safe qwen
        1 q2 safe qwen
        1 q3 unsafe qwen
        1 l1 unsafe llama
        1 p1 unsafe people:p1
        1 p2 safe human
        2 q1 safe qwen
        2 q2 unsafe qwen
        2 l1 safe llama
        3 q1 unsafe qwen
        3 l1 unsafe llama
        3 p1 unsafe people:p1
        3 p2 unsafe human
        4 q1 safe qwen
        4 l1 safe llama
    """
    found = measured(f"{HEAD},family", rows)
    well_formed(found)
    block = found["overall"]
    families, people = block["families"], block["people"]
    assert [block["all"][k] for k in ("raters", "votes", "items")] == [6, 15, 4]
    # The two of qwen are at odds on the second item, so the family has no vote there.
    assert [families[k] for k in ("raters", "votes", "items", "items_with_two")] == [2, 7, 4, 3]
    assert families["raw"]["value"] == pytest.approx(2 / 3, abs=1e-6)
    assert [(p["a"], p["b"], p["items"]) for p in families["pairs"]] == [("llama", "qwen", 3)]
    assert [people[k] for k in ("raters", "votes", "items")] == [2, 4, 2]
    assert [(p["a"], p["b"]) for p in people["pairs"]] == [("p1", "p2")]
    assert people["raw"]["value"] == 0.5


def test_without_people_there_is_a_reason(measured: Measure) -> None:
    block = measured(f"{HEAD},family", "1 a x q\n1 b x l\n2 a y q\n2 b y l")["overall"]
    assert {f["reason"] for f in figures(block["people"])} == {"no person has voted"}
    only = measured(f"{HEAD},family", "1 a x human\n1 b x human\n2 a y human\n2 b y human")["overall"]
    assert {f["reason"] for f in figures(only["families"])} == {"no family has voted"}
    assert only["people"]["raw"]["value"] == 1


def test_a_group_is_what_its_rows_alone_would_be(measured: Measure) -> None:
    rng = np.random.default_rng(4)
    lines = {
        group: [f"{group}{i} {who} {rng.integers(3)}" for i in range(30) for who in "abc"] for group in "xy"
    }
    both = measured(f"{HEAD},group", "\n".join(f"{line} {g}" for g, part in lines.items() for line in part))
    well_formed(both)
    assert list(both["groups"]) == ["x", "y"]
    for group, part in lines.items():
        alone = measured(HEAD, "\n".join(part))
        assert both["groups"][group]["all"] == alone["overall"]["all"]
    assert both["overall"]["all"]["items"] == 60


def test_the_order_of_rows_does_not_matter_and_the_seed_does(measured: Measure) -> None:
    lines = FOUR.splitlines()
    forth, back = measured(HEAD, FOUR), measured(HEAD, "\n".join(reversed(lines)))
    assert forth["overall"] == back["overall"]
    other = measured(HEAD, FOUR, seed=1)
    assert other["overall"] != forth["overall"]
    assert other["overall"]["all"]["alpha"]["value"] == forth["overall"]["all"]["alpha"]["value"]


def test_groups_of_different_scales_have_no_overall(measured: Measure) -> None:
    head = f"{HEAD},group,scale"
    rows = "1 a 1 x interval\n1 b 2 x interval\n2 a 3 x interval\n2 b 3 x interval\n"
    found = measured(
        head, rows + "3 a red y nominal\n3 b blue y nominal\n4 a red y nominal\n4 b red y nominal"
    )
    well_formed(found)
    assert found["overall"]["scale"] is None
    reason = "the groups have different scales (interval, nominal): see them one by one"
    assert {f["reason"] for f in figures(found["overall"]["all"])} == {reason}
    assert found["groups"]["x"]["all"]["alpha"]["value"] is not None
    assert found["groups"]["y"]["all"]["alpha"]["value"] is not None
    found = measured(
        head,
        rows.replace("interval", "ordinal") + "3 a safe y ordinal\n3 b unsafe y ordinal",
    )
    assert found["overall"]["all"]["raw"]["reason"].startswith("the groups have different orders of values")


def test_a_group_whose_votes_are_all_missing(measured: Measure) -> None:
    found = measured(f"{HEAD},group", "1 a x g\n1 b x g\n2 a y g\n2 b y g").copy()
    assert list(found["groups"]) == ["g"]
    with_empty = Path(found["file"])
    with_empty.write_text(f"{HEAD},group\n1,a,x,g\n1,b,x,g\n2,a,,h\n2,b,,h\n")
    empty = measure(with_empty, rounds=10).as_json()
    assert empty["groups"]["h"]["all"]["raw"]["reason"] == "no annotator has voted"


def test_texts_by_mistake(measured: Measure) -> None:
    rows = "\n".join(f"{i} {who} text{i}-{who if i % 2 else ''}" for i in range(300) for who in "ab")
    found = measured(HEAD, rows, rounds=50)
    well_formed(found)
    part = found["overall"]["all"]
    for name in ("fleiss", "alpha", "ac1"):
        assert part[name]["reason"] == (
            "450 different values; at most 200 are read as categories: is `value` a text or a score? "
            "(scale interval)"
        )
    assert part["raw"]["value"] == 0.5
    assert part["prevalence"] == {}
    assert part["pairs"][0]["kappa"]["value"] is None


def test_scores_of_many_values_have_alpha(measured: Measure) -> None:
    rng = np.random.default_rng(1)
    truth = rng.normal(size=300)
    rows = "\n".join(
        f"{i} {who} {t + rng.normal() / 3:.6f} interval" for i, t in enumerate(truth) for who in "ab"
    )
    found = measured(f"{HEAD},scale", rows, rounds=100)
    well_formed(found)
    part = found["overall"]["all"]
    assert 0.85 < part["alpha"]["low"] < part["alpha"]["value"] < part["alpha"]["high"] < 0.95
    assert part["ac2"]["reason"] == "600 different values; at most 200 are read as categories"


def test_many_annotators_are_compared_as_far_as_it_goes(measured: Measure) -> None:
    rows = "\n".join(f"{i} n{who:02} {(i + who // 20) % 2}" for i in range(4) for who in range(34 - i))
    part = measured(HEAD, rows, rounds=2)["overall"]["all"]
    assert (len(part["pairs"]), part["raters_left_out"]) == (30 * 29 // 2, 4)
    assert {p["b"] for p in part["pairs"]} == {f"n{who:02}" for who in range(1, 30)}


def test_with_many_groups_fewer_annotators_are_compared(measured: Measure) -> None:
    rows = "\n".join(f"{g}-{i} n{who} {i % 2} {g}" for g in range(1000) for i in range(2) for who in range(6))
    found = measured(f"{HEAD},group", rows, rounds=2)
    part = found["groups"]["7"]["all"]
    assert len(part["pairs"]) >= 1
    assert part["raters_left_out"] > 0
    assert part["raw"]["value"] == 1


def test_ids_as_groups_by_mistake(measured: Measure) -> None:
    rows = "\n".join(f"{i} {who} {i % 2} group{i}" for i in range(1001) for who in "ab")
    found = measured(f"{HEAD},group", rows, rounds=2)
    assert found["groups"] == {}
    assert found["problem_counts"] == {"groups": 1}
    assert found["problems"][0]["field"] == "group"
    assert "1,001 different groups; at most 1,000 are computed" in found["problems"][0]["problem"]
    assert found["overall"]["all"]["raw"]["value"] == 1


def test_the_example_of_the_documentation(measured: Measure) -> None:
    both = {**dict.fromkeys(range(940), "safe safe"), **dict.fromkeys(range(940, 970), "unsafe unsafe")}
    both |= {
        **dict.fromkeys(range(970, 985), "safe unsafe"),
        **dict.fromkeys(range(985, 1000), "unsafe safe"),
    }
    rows = [
        f"{i} {who} {value}"
        for i, words in both.items()
        for who, value in zip("ab", words.split(), strict=True)
    ]
    part = measured(HEAD, "\n".join(rows))["overall"]["all"]
    assert [round(part[name]["value"], 2) for name in ("raw", "ac1", "alpha")] == [0.97, 0.97, 0.65]

"""Models compared on the same rows, and judges on the same responses."""

from __future__ import annotations

import json
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pipeline.bench.compare import Comparison, compare
from pipeline.bench.compare_page import markdown, percent, render
from pipeline.bench.paired import difference, mean_difference
from pipeline.bench.score import score
from pipeline.bench.scored import read_scored
from pipeline.bench.shares import Share, shares
from pipeline.workspace import Silent
from schemas.errors import InputError
from tests.bench import WordJudge, answered, scored_folder

NO, YES = "I cannot help with that.", "Sure."
KINDS = ("SSS", "SSU", "USU", "UUU", "SUU")
EVIL = '"><script>alert(1)</script><img src=x onerror=alert(1)> {{ 7 * 7 }} | a'


def model(folder: Path, name: str, rows: list[dict[str, Any]], **judges: str) -> str:
    return str(scored_folder(folder / name, rows, **judges))


def compared(*folders: str, **options: Any) -> Comparison:
    return compare([read_scored(folder) for folder in folders], **{"rounds": 200} | options)


def rows(said: dict[str, list[str]], **fields: Any) -> list[dict[str, Any]]:
    """Answers by type, as R and N; one id a place."""
    found = []
    for kind, answers in said.items():
        for n, letter in enumerate(answers):
            text = {"R": NO, "N": YES, "U": None, "B": "BLOCKED"}[letter]
            found.append(answered(100 * KINDS.index(kind) + n, kind, text, **fields))
    return found


def test_a_difference_is_of_the_rows_that_both_have_a_verdict_on(tmp_path: Path) -> None:
    a = {
        "SSS": list("RRNNNN"),
        "SSU": list("NNNNRRU"),
        "USU": list("NR"),
        "UUU": list("RR"),
        "SUU": list("NN"),
    }
    b = {
        "SSS": list("RNNNNN"),
        "SSU": list("NRRRRUN"),
        "USU": list("NR"),
        "UUU": list("RN"),
        "SUU": list("RR"),
    }
    found = compared(model(tmp_path, "a", rows(a)), model(tmp_path, "b", rows(b)))
    (pair,) = found.differences["word"].pairs
    assert (pair.a, pair.b, pair.common, pair.n) == ("a", "b", 19, 17)
    # SSU by hand: of five rows with both verdicts `a` complied with four, `b` with one.
    assert pair.figures["SSU"].value == pytest.approx(4 / 5 - 1 / 5)
    assert pair.figures["SSU"].n == 5
    assert pair.figures["RR"].value == pytest.approx(2 / 6 - 1 / 6, abs=1e-6)
    assert pair.figures["USU"].value == 0.0
    assert pair.figures["UUU"].value == -0.5
    assert pair.figures["SUU"].value == 1.0
    assert pair.figures["avg_ASR"].value == pytest.approx((0.6 + 0 - 0.5 + 1) / 4)
    for one in pair.figures.values():
        assert one.low is not None
        assert one.high is not None
        assert one.value is not None
        assert one.low <= one.value <= one.high
    # Two rows with one verdict each are little: resamples alone would have left no doubt at all.
    assert pair.figures["SUU"].interval == "mover"
    assert not pair.figures["SUU"].excludes_0_of_all


def test_the_same_seed_gives_the_same_figures_and_order_does_not_matter(tmp_path: Path) -> None:
    some = {kind: list("RNRNNRNRRN" * 3) for kind in KINDS}
    other = {kind: list("NNRRNRRRRN" * 3) for kind in KINDS}
    a, b = model(tmp_path, "a", rows(some)), model(tmp_path, "b", rows(other))
    turned = model(tmp_path, "turned", rows(other)[::-1])
    first, again, third = compared(a, b), compared(a, b), compared(a, f"b={turned}")
    assert first.differences == again.differences == third.differences
    assert first.differences != compared(a, b, seed=1).differences


def test_a_model_and_itself_are_not_apart_and_it_is_said(tmp_path: Path) -> None:
    a = model(tmp_path, "a", rows({kind: list("RNNRRN") for kind in KINDS}))
    found = compared(a, f"again={a}")
    of = found.differences["word"]
    assert [one.value for one in of.pairs[0].figures.values()] == [0.0] * 6
    assert (of.compared, of.exclude_0, of.exclude_0_of_all) == (6, 0, 0)
    assert any("one and the same file" in note for note in found.notes)


def test_intervals_cover_the_difference_that_is_true() -> None:
    """Rows of one image share their fate in part, and models share what is hard."""
    rng, trials, covered, naive = np.random.default_rng(1), 150, 0, 0
    images, each = 120, 3
    image = np.repeat(np.arange(images), each)
    for trial in range(trials):
        hard, lot = rng.random(images)[image], rng.random(len(image))
        # P(hit) is the mean of two uniforms below 1: 0.6 and 0.45 on the whole.
        a = np.where(rng.random(len(image)) < 0.7, hard, lot) < 0.6
        b = np.where(rng.random(len(image)) < 0.7, hard, rng.random(len(image))) < 0.45
        one = [Share(np.arange(len(image)), hit, np.ones(len(image), np.bool_), False) for hit in (a, b)]
        (of_a, _), (of_b, _) = shares(one, image, 200, trial)
        found = difference(of_a, of_b)
        assert found.low is not None
        assert found.high is not None
        covered += found.low <= 0.15 <= found.high
        naive += found.low <= 0.0 <= found.high
    assert covered / trials > 0.88
    assert naive / trials < 0.2


def test_one_image_leaves_no_interval_and_no_row_no_figure() -> None:
    image = np.array([0, 0, 0, 1])
    whole, hit = np.ones(4, np.bool_), np.array([True, False, True, False])
    both = [Share(np.arange(4), hit, whole, False), Share(np.arange(4), ~hit, whole, False)]
    none = Share(np.arange(0), whole[:0], whole[:0], False)
    (a, _), (b, _), (empty, _) = shares([*both, none], image, 50)
    assert difference(a, b).interval is None
    assert "one image" in difference(a, b).reason
    assert difference(empty, empty).value is None
    mean = mean_difference({"SSU": (a, b), "USU": (empty, empty)})
    assert (mean.value, mean.n) == (None, 4)
    assert "USU" in mean.reason


def test_of_many_differences_fewer_are_taken_for_true(tmp_path: Path) -> None:
    rng = np.random.default_rng(3)

    def chance(p: float) -> list[dict[str, Any]]:
        return rows({kind: list(np.where(rng.random(60) < p, "R", "N")) for kind in KINDS})

    names = [model(tmp_path, f"m{k}", chance(p)) for k, p in enumerate((0.5, 0.5, 0.5, 0.52, 0.95))]
    of = compared(*names).differences["word"]
    assert (len(of.pairs), of.compared) == (10, 60)
    assert 0 < of.exclude_0_of_all <= of.exclude_0 < 60
    far = [pair for pair in of.pairs if pair.b == "m4"]
    assert all(pair.figures["avg_ASR"].excludes_0_of_all for pair in far)
    near = [pair for pair in of.pairs if pair.b != "m4"]
    assert not any(one.excludes_0_of_all for pair in near for one in pair.figures.values())


def test_the_leaderboard_is_sorted_and_what_has_no_mean_comes_last(tmp_path: Path) -> None:
    weak = model(tmp_path, "weak", rows({kind: list("NNNR") for kind in KINDS}))
    strong = model(tmp_path, "strong", rows({kind: list("RRRN") for kind in KINDS}))
    part = model(tmp_path, "part", rows({"SSS": list("NN"), "SSU": list("RBU")}))
    found = compared(weak, part, strong)
    board = found.leaderboards["word"]
    assert [one.model for one in board] == ["strong", "weak", "part"]
    assert (board[2].blocked, board[2].unscorable) == (1, 1)
    metrics = json.loads((Path(weak) / "metrics.json").read_text())["judges"]["word"]["left_out"]
    assert board[1].rates["avg_ASR"].value == metrics["avg_ASR"]["value"] == 0.75
    assert "part lacks 15 of the 20 rows that some model has" in found.notes
    assert "no row of USU, UUU, SUU" in found.differences["word"].pairs[0].figures["avg_ASR"].reason


def test_equal_ids_of_another_dataset_are_other_rows(tmp_path: Path) -> None:
    said = {kind: list("RN") for kind in KINDS}
    a = model(tmp_path, "a", rows(said))
    other = [row | {"query": f"another {row['id']}"} for row in rows(said)]
    b = model(tmp_path, "b", other)
    with pytest.raises(InputError, match="nothing can be compared"):
        compared(a, b)
    c = model(tmp_path, "c", rows(said))
    found = compared(a, b, c)
    assert [pair.n for pair in found.differences["word"].pairs] == [0, 10, 0]
    assert "a and b have no row in common, so they answered different datasets" in found.notes
    assert any(note.startswith("10 ids stand for another query") for note in found.notes)


def test_rows_without_an_id_or_a_query_are_told(tmp_path: Path) -> None:
    some = rows({kind: list("RN") for kind in KINDS})
    for row in some:
        del row["query"]
    a = model(tmp_path, "a", [*some, answered(None, "SSS", NO)])
    b = model(tmp_path, "b", some)
    found = compared(a, b)
    assert found.differences["word"].pairs[0].n == 10
    assert "a has 1 rows without an id, which are in no difference" in found.notes


def test_judges_are_held_against_each_other_over_rows_and_models(tmp_path: Path) -> None:
    # The one judge looks for "cannot", the other for "not": they are apart where it says "not" alone.
    texts = {"both": NO, "other": "Do not.", "none": YES}
    plans = [("both",) * 6 + ("other",) * k + ("none",) * (6 - k) for k in range(4)]
    names = []
    for k, plan in enumerate(plans):
        some = [
            answered(100 * j + n, kind, texts[what], subcategory="race" if n >= 6 else "gender")
            for j, kind in enumerate(KINDS)
            for n, what in enumerate(plan)
        ]
        names.append(model(tmp_path, f"m{k}", some, one="cannot", two="not"))
    found = compared(*names)
    (pair,) = found.judges
    apart = 5 * (1 + 2 + 3)
    assert (pair.a, pair.b, pair.n) == ("one", "two", 240)
    assert (pair.only_a, pair.only_b) == (0, apart)
    assert pair.agreement.value == pytest.approx(1 - apart / 240)
    p_one, p_two = 0.5, 0.5 + apart / 240
    chance = p_one * p_two + (1 - p_one) * (1 - p_two)
    assert pair.kappa.value == pytest.approx((1 - apart / 240 - chance) / (1 - chance), abs=1e-6)
    assert pair.kappa.low is not None
    assert pair.kappa.high is not None
    assert pair.kappa.low < pair.kappa.value < pair.kappa.high
    # By the one judge all models are alike, so there is no order to compare.
    assert pair.spearman["avg_ASR"].value is None
    assert "alike" in pair.spearman["avg_ASR"].reason
    assert pair.by_model["m3"].value == pytest.approx(15 / 60)
    assert next(iter(pair.by_subcategory)) == "hate/race"
    assert found.divided == apart
    assert len(found.shown) == 15 + 15
    assert len({row["id"] for row in found.shown[:15]}) == 15
    three = compared(*names[:3])
    assert three.judges[0].spearman["RR"].reason == "3 models have it by both judges, and it takes 4"


def test_spearman_is_of_ranks(tmp_path: Path) -> None:
    names = []
    for k, (cannot, only) in enumerate([(1, 0), (2, 4), (3, 0), (4, 2)]):
        texts = [NO] * cannot + ["Do not."] * only + [YES] * (10 - cannot - only)
        some = [answered(100 * j + n, kind, t) for j, kind in enumerate(KINDS) for n, t in enumerate(texts)]
        names.append(model(tmp_path, f"m{k}", some, one="cannot", two="not"))
    # Refusals by the one 1 2 3 4, by the other 1 6 3 6: ranks 1 3.5 2 3.5, less their mean -1.5 1 -0.5 1.
    assert compared(*names).judges[0].spearman["RR"].value == pytest.approx(3 / (5 * 4.5) ** 0.5, abs=1e-6)


def test_a_judge_that_a_model_lacks_is_told(tmp_path: Path) -> None:
    some = rows({kind: list("RN") for kind in KINDS})
    a = model(tmp_path, "a", some, one="cannot", two="not")
    b = model(tmp_path, "b", some, one="cannot")
    found = compared(a, b)
    assert "two has not judged b" in found.notes
    assert found.differences["two"].pairs == []
    assert list(compared(a, b, judges=["one"]).leaderboards) == ["one"]
    assert "no model was judged by three" in compared(a, b, judges=["one", "three"]).notes
    with pytest.raises(InputError, match="no model has it; there are one, two"):
        compared(a, b, judges=["three"])
    with pytest.raises(InputError, match="nothing can be compared"):
        compared(b)
    assert compared(a).judges[0].n == 10
    with pytest.raises(InputError, match="two models are called a"):
        compared(a, a)


class Tags(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.text = ""

    def handle_starttag(self, tag: str, attrs: Any) -> None:
        self.tags.append(tag)
        assert not any(name.startswith("on") or name == "src" for name, _ in attrs)

    def handle_data(self, data: str) -> None:
        self.text += data


def test_markup_is_shown_as_text(tmp_path: Path) -> None:
    some = [answered(n, KINDS[n % 5], f"Do not. {EVIL}", query=f"{EVIL} {n}") for n in range(10)]
    for row in some:
        row |= {"category": EVIL, "subcategory": EVIL}
    a = model(tmp_path, "a", some, one="cannot", two="not")
    found = compared(f"<script>alert(1)</script> | a={a}", f"b={a}")
    page = render(found)
    read = Tags()
    read.feed(page)
    assert "script" not in read.tags
    assert "img" not in read.tags
    assert f"{EVIL} 3" in read.text
    assert "http" not in page.replace("http-equiv", "")
    table = markdown(found)
    assert "<script" not in table
    tables = [of.splitlines() for of in table.split("\n\n") if of.startswith("|")]
    assert len(tables) == 4  # two of each judge
    for lines in tables:
        assert len({line.replace("\\|", "").count("|") for line in lines}) == 1
    json.dumps(found.as_json(), allow_nan=False)


def test_long_texts_are_cut_and_responses_folded(tmp_path: Path) -> None:
    some = [answered(n, KINDS[n % 5], "not " * 500, query="why " * 500) for n in range(10)]
    found = compared(model(tmp_path, "a", some, one="cannot", two="not"))
    assert {len(row["response"]) for row in found.shown} == {301}
    assert {len(row["query"]) for row in found.shown} == {301}
    page = render(found)
    assert page.count("<details>") == 10
    assert "<details open" not in page


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("metrics.json", "{}"),
        ("metrics.json", '{"rows": NaN}'),
        ("metrics.json", "[" * 100_000),
        ("metrics.json", None),
        ("results.jsonl", "[]\n"),
        ("results.jsonl", '{"id": 1}\n'),
        ("results.jsonl", '{"id": 1\n'),
        ("results.jsonl", '{"verdicts": {"word": {"value": "maybe"}}}\n'),
        ("results.jsonl", "\udcff"),
        ("results.jsonl", None),
    ],
)
def test_a_folder_that_is_no_score_is_refused_with_its_mend(
    tmp_path: Path, name: str, text: str | None
) -> None:
    folder = scored_folder(tmp_path / "a", rows({kind: list("RN") for kind in KINDS}))
    (folder / name).unlink()
    if text is not None:
        (folder / name).write_bytes(text.encode("utf-8", "surrogateescape"))
    with pytest.raises(InputError, match=f"{name}.*score the predictions again"):
        read_scored(str(folder))


def test_a_folder_that_is_not_there_is_named() -> None:
    with pytest.raises(InputError, match="nowhere: no such folder"):
        read_scored("name=nowhere")


@pytest.mark.parametrize(
    ("value", "text"), [(0.1234, "+12.3"), (-0.5, "−50.0"), (0.0, "0.0"), (-0.0001, "0.0"), (None, "–")]
)
def test_a_difference_has_a_sign_unless_it_is_none(value: float | None, text: str) -> None:
    assert percent(value, sign=True) == text


def test_other_ways_of_counting_stand_beside_the_leaderboard(tmp_path: Path) -> None:
    said = {"SSS": list("RNBN" * 20), "SSU": list("NRUN" * 20), "USU": list("NR" * 30)}
    said |= {"UUU": list("RN" * 30), "SUU": list("NN" * 30)}
    with_gold = scored_folder(tmp_path / "gold", answers := rows(said))
    lines = ["id,value"]
    for n, row in enumerate(answers):
        # The judge is wrong on every eighth answer, whatever it says.
        refuses = (row["prediction"] == NO) is (n % 8 != 0)
        lines += [f"{row['id']},{'refusal' if refuses else 'non_refusal'}"] if n % 2 else []
    (tmp_path / "gold.csv").write_text("\n".join(lines))
    score(
        with_gold / "predictions.json",
        with_gold,
        [WordJudge()],
        Silent(),
        gold=tmp_path / "gold.csv",
        rounds=200,
    )
    found = compared(str(with_gold), model(tmp_path, "plain", rows(said)))
    by_name = {one.model: one for one in found.leaderboards["word"]}
    # SSS by hand: of four rows one was refused, one blocked, which helped nobody.
    assert by_name["plain"].rates["RR"].value == pytest.approx(1 / 3, abs=1e-4)
    assert by_name["plain"].counted["RR"].value == pytest.approx(2 / 4)
    assert by_name["plain"].corrected == {}
    metrics = json.loads((with_gold / "metrics.json").read_text())["judges"]["word"]["corrected"]
    corrected = by_name["gold"].corrected
    assert corrected["avg_ASR"].corrected == metrics["avg_ASR"]["corrected"] is not None
    assert corrected["RR"].low == metrics["SSS_RR"]["low"] is not None
    assert by_name["gold"].youden == metrics["judge_errors"]["youden"]
    page, text = render(found), markdown(found)
    for shown in (page, text):
        assert percent(corrected["avg_ASR"].corrected) in shown
        assert "mASR, corrected" in shown
        assert "50.0" in shown
    assert "corrected" not in markdown(compared(model(tmp_path, "one", rows(said)), str(tmp_path / "plain")))

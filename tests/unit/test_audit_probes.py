import random
from typing import Any

import numpy as np
import pytest

from pipeline.audit.judging import auc
from pipeline.audit.logistic import NumberModel, Terms, TextModel
from pipeline.audit.probes import gives_away, out_of_fold, probes

Row = dict[str, Any]


def rows(n: int, query: str = "", licence: str = "", seed: int = 1) -> list[Row]:
    """Rows of all types with random words; `query` and `licence` give unsafe ones away."""
    draw = random.Random(seed)  # noqa: S311
    words = [f"word{i}" for i in range(40)]
    found = []
    for i in range(n):
        kind = draw.choice(["SSS", "SSU", "USU"])
        found.append(
            {
                "type": kind,
                "query": " ".join(draw.choices(words, k=8)) + (f" {query}" if kind != "SSS" else ""),
                "scene": "", "contrast_square": f"square {i // 3}", "image_id": f"image {i}",
                "image_safe": kind != "USU",
                "source_kind": draw.choice(["folder", "drawing"]), "generator": "",
                "licence": licence if licence and kind == "USU" else "CC0-1.0", "source_package": "p",
                "extension": "jpg", "size": "64x64", "bytes": draw.randrange(1000, 9000),
            }
        )  # fmt: skip
    return found


def test_auc_against_the_definition() -> None:
    draw = np.random.default_rng(3)
    labels, scores = draw.random(80) < 0.4, draw.integers(0, 9, 80).astype(float)
    wins = [(a > b) + (a == b) / 2 for a in scores[labels] for b in scores[~labels]]
    assert auc(labels, scores) == pytest.approx(np.mean(wins))


def test_what_gives_the_answer_away_is_named() -> None:
    found = {(p.probe, p.target): p for p in probes(rows(600, query="leak", licence="MIT"))}
    text = found["query", "unsafe in SSU u SSS"]
    assert text.grouped is not None
    assert text.grouped > 0.95
    assert text.named
    assert text.top[0].startswith("leak")
    image = found["licence", "unsafe image"]
    assert image.grouped is not None
    assert image.grouped > 0.95
    assert image.mutual_information is not None
    assert image.mutual_information > 0.5


def test_chance_is_not_named_and_cells_without_rows_have_reasons() -> None:
    found = {(p.probe, p.target): p for p in probes(rows(900))}
    text = found["query", "unsafe in SSU u SSS"]
    assert text.low is not None
    assert text.high is not None
    assert text.low < 0.5 < text.high
    assert not text.named
    empty = found["query", "unsafe in UUU u SSS"]
    assert empty.plain is None
    assert empty.reason.startswith("0 rows of the rarer class")


def test_same_rows_same_figures() -> None:
    assert probes(rows(300)) == probes(rows(300))


def test_groups_are_not_split() -> None:
    """What only a row's group tells is worth nothing when folds keep groups together."""
    groups = np.repeat(np.arange(100), 4)
    labels = np.random.default_rng(0).random(100)[groups] < 0.5
    features = Terms([[f"group {g}"] for g in groups])
    assert auc(labels, out_of_fold(features, labels, np.arange(400), 0)) > 0.9
    assert 0.35 < auc(labels, out_of_fold(features, labels, groups, 0)) < 0.65


def test_against_another_implementation() -> None:
    from sklearn.feature_extraction.text import TfidfVectorizer
    from sklearn.linear_model import LogisticRegression

    draw = random.Random(7)  # noqa: S311
    texts = [[f"w{int(draw.gauss(10 + 3 * (i % 2), 5))}" for _ in range(9)] for i in range(300)]
    labels = np.array([i % 2 == 0 for i in range(300)])
    vectors = TfidfVectorizer(analyzer=lambda t: t, min_df=2).fit_transform(texts)
    theirs = (
        LogisticRegression(C=1.0, class_weight="balanced").fit(vectors, labels).predict_proba(vectors)[:, 1]
    )
    every = np.arange(300)
    assert np.abs(TextModel(Terms(texts), every, labels).predict(every) - theirs).max() < 0.01


def test_sums_along_rows_and_columns_are_those_of_a_matrix() -> None:
    """The text model against plain descent on a dense matrix, rows without a known word among them."""
    draw = random.Random(3)  # noqa: S311
    texts = [[f"w{draw.randrange(12)}" for _ in range(draw.randrange(6))] for _ in range(80)]
    texts += [[], ["only here"], ["w1", "w1", "w2"]]
    labels = np.array([draw.random() < 0.4 for _ in texts])
    every = np.arange(len(texts))
    words = sorted({w for t in texts for w in t})
    counts = np.array([[t.count(w) for w in words] for t in texts], float)
    seen = (counts > 0).sum(0)
    matrix = counts * np.where(seen > 1, np.log((1 + len(texts)) / (1 + seen)) + 1, 0)
    length = np.sqrt((matrix**2).sum(1, keepdims=True))
    matrix /= np.where(length > 0, length, 1)
    weight = np.where(labels, 0.5 / labels.mean(), 0.5 / (1 - labels.mean()))
    step = 1 / (0.5 * weight.sum() + 1)
    w = before_w = np.zeros(len(words))
    b = before_b = 0.0
    for turn in range(150):
        at_w, at_b = w + turn / (turn + 3) * (w - before_w), b + turn / (turn + 3) * (b - before_b)
        error = weight * (1 / (1 + np.exp(-(matrix @ at_w + at_b))) - labels)
        before_w, before_b = w, b
        w, b = at_w - step * (matrix.T @ error + at_w), at_b - step * error.sum()
    expected = 1 / (1 + np.exp(-(matrix @ w + b)))
    assert np.abs(TextModel(Terms(texts), every, labels).predict(every) - expected).max() < 1e-9


def test_numbers_against_another_implementation() -> None:
    from sklearn.linear_model import LogisticRegression
    from sklearn.preprocessing import StandardScaler

    draw = np.random.default_rng(4)
    labels = draw.random(400) < 0.3
    numbers = draw.standard_normal((400, 5)) * [1, 10, 0.1, 1, 1] + labels[:, None] * [1, 5, 0, 0, 0]
    numbers[:, 4] = 7.0  # never changes
    x = StandardScaler().fit_transform(numbers)
    theirs = LogisticRegression(C=1.0, class_weight="balanced").fit(x, labels).predict_proba(x)[:, 1]
    ours = NumberModel(numbers, labels)
    assert np.abs(ours.predict(numbers) - theirs).max() < 1e-3
    assert ours.w[4] == 0
    numbers[3] = np.nan
    assert 0 < ours.predict(numbers)[3] < 1


def test_a_probe_is_named_for_more_than_chance() -> None:
    """A value of .66 of few rows is chance, of many a giveaway; .58 is never one."""
    draw = np.random.default_rng(5)
    wide, narrow = 0.66 + 0.08 * draw.standard_normal(300), 0.66 + 0.02 * draw.standard_normal(300)
    many, few = np.arange(1000) < 400, np.arange(60) < 25
    assert not gives_away(0.66, wide, many, 64)
    assert gives_away(0.66, narrow, many, 64)
    assert gives_away(0.66, wide, many, 1)
    assert not gives_away(0.66, narrow, few, 64), "drawn again it spreads little, but few rows tell little"
    assert not gives_away(0.58, narrow - 0.08, many, 1)
    assert not gives_away(0.9, narrow[:0], many, 64)


def test_rows_of_one_image_do_not_give_each_other_away() -> None:
    """The size of the file tells one image from another, and images do not change their label."""
    draw = random.Random(8)  # noqa: S311
    images = [(draw.choice(["SSS", "USU"]), f"{i}x{i}") for i in range(60)]
    some = [r | {"type": images[i // 8][0], "image_id": f"image {i // 8}", "size": images[i // 8][1],
                 "image_safe": images[i // 8][0] == "SSS"} for i, r in enumerate(rows(480))]  # fmt: skip
    found = next(p for p in probes(some, only={"size"}) if p.target == "unsafe pair")
    assert found.plain is not None
    assert found.plain > 0.9
    assert not found.named


def test_asking_for_one_probe_does_not_change_it() -> None:
    some = rows(300, licence="MIT")
    assert probes(some, only={"licence"}) == [p for p in probes(some) if p.probe == "licence"]

import random
from typing import Any

import numpy as np
import pytest

from pipeline.audit.judging import auc
from pipeline.audit.logistic import Terms, TextModel
from pipeline.audit.probes import out_of_fold, probes

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
    features = [[f"group {g}"] for g in groups]
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

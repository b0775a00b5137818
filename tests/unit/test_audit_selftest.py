"""The self-test: what is planted is found, and what is not planted is not."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from pipeline.audit.features import number_probabilities, text_probabilities
from pipeline.audit.judging import auc
from pipeline.audit.probes import probes
from pipeline.audit.selftest import GIVEAWAYS, Outcome, clean_set, self_test


@pytest.fixture(scope="module")
def found() -> dict[tuple[str, str], Outcome]:
    clean = clean_set(3000, 1)
    told = self_test(clean.rows, 1, clean.images, clean.image_ids)
    return {(o.planted, o.found_by): o for o in told}


def test_the_clean_set_carries_its_labels_as_far_as_was_asked() -> None:
    clean = clean_set(4000, 3, auc=0.9, image_auc=0.97)
    unsafe = (clean.rows["type"] != "SSS").to_numpy(bool)
    # Words have to be learned, which costs some of the .90.
    assert 0.84 < auc(unsafe, text_probabilities(clean.rows["query"].tolist(), unsafe)[:, 1]) < 0.91
    safe = dict(zip(clean.rows["image"], clean.rows["image_safe"], strict=True))
    used = [i for i, name in enumerate(clean.image_ids) if name in safe]
    labels = np.array([not safe[clean.image_ids[i]] for i in used])
    found = auc(labels, number_probabilities(clean.images[used], labels)[:, 1])
    assert found == pytest.approx(0.97, abs=0.012)
    assert clean.rows.groupby("image")["image_safe"].nunique().max() == 1
    assert clean.rows.groupby("image")["split"].nunique().max() == 1
    assert (clean.rows["image_safe"] == clean.rows["type"].str.startswith("S")).all()
    words = clean.rows["query"].str.split().str.len()
    assert 12 < words.mean() < 25
    pd.testing.assert_frame_equal(clean_set(200, 5).rows, clean_set(200, 5).rows)
    assert (clean_set(200, 5).rows["query"] != clean_set(200, 6).rows["query"]).any()


def test_flips_are_found(found: dict[tuple[str, str], Outcome]) -> None:
    pairs = found["labels of pairs flipped", "noise by query"]
    assert pairs.amount == pytest.approx(0.05, abs=1e-3)
    assert pairs.recall > pairs.ideal - 0.05  # type: ignore[operator]
    images = found["labels of images flipped", "noise by image"]
    assert images.recall >= 0.80  # type: ignore[operator]
    assert images.auc > 0.97  # type: ignore[operator]
    assert abs(images.estimate - 0.05) < 0.02  # type: ignore[operator]
    votes = found["labels of pairs flipped, under votes", "votes"]
    assert votes.recall >= 0.80  # type: ignore[operator]
    assert found["labels of pairs flipped, under votes", "votes and query"].recall >= votes.recall  # type: ignore[operator]
    uneven = found["labels of pairs flipped, unsafe ones more", "noise by query"]
    assert uneven.amount == pytest.approx(0.06, abs=0.003)
    assert uneven.recall > 0.5  # type: ignore[operator]
    for o in (pairs, uneven):
        assert abs(o.estimate - o.amount) < 0.025  # type: ignore[operator]
        assert o.low <= o.amount <= o.high  # type: ignore[operator]


def test_leaks_giveaways_and_bad_annotators_are_named(found: dict[tuple[str, str], Outcome]) -> None:
    planted = {o.planted for o in found.values() if o.named}
    assert planted == {
        "an annotator that is always safe", "an annotator that is random", "a file format of unsafe pairs",
        "an image size of unsafe pairs", "a template of unsafe pairs", "an opening of unsafe pairs",
        "near-duplicate queries across the split", "images on both sides of the split",
    }  # fmt: skip
    assert found["an annotator that is always safe", "reliability"].reason == "always safe"
    for what, by in (
        ("near-duplicate queries across the split", "near-duplicate queries"),
        ("images on both sides of the split", "images on both sides"),
    ):
        assert found[what, by].recall == 1.0


def test_nothing_is_found_where_nothing_was_planted(found: dict[tuple[str, str], Outcome]) -> None:
    for (planted, by), o in found.items():
        if planted == "nothing":
            assert o.named is not True, (by, o.reason)
    assert found["nothing", "noise by query"].low == 0


def test_of_twenty_sets_without_a_giveaway_at_most_one_names_one() -> None:
    """So few rows that of the AUCs alone many are above .60 by chance."""
    some = {"opening words", "template", "size", "bytes", "source and format together"}
    assert some < GIVEAWAYS
    alarms = crossed = 0
    for seed in range(20):
        table = clean_set(220, 100 + seed).rows
        rows = table.assign(image_id=table["image"]).to_dict("records")
        told = [p for p in probes(rows, seed, some) if p.grouped is not None]
        alarms += any(p.named for p in told)
        crossed += any(max(p.plain or 0, p.grouped or 0) > 0.6 for p in told)
    assert alarms <= 1
    assert crossed > 1, "the AUC alone would name by chance"


def test_a_table_of_the_barest_columns_and_of_few_rows() -> None:
    bare = clean_set(30, 2).rows[["type", "query", "image"]]
    told = self_test(bare, 2)
    assert all(o.rows == 30 for o in told)
    assert all(np.isfinite(v) for o in told for v in (o.amount, o.recall, o.ideal, o.auc) if v is not None)
    rate = next(o for o in told if o.found_by == "noise by query")
    assert rate.estimate is None
    assert "50 are needed" in rate.reason
    one_side = self_test(bare.assign(split="train", type="SSS"), 2)
    assert one_side[-1].reason == "one side of the split is empty"
    assert self_test(bare, 2) == told

"""Filters by class: thresholds, what they are measured on, intervals, and the file that ships."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from pipeline.encoders import calibrate
from pipeline.encoders.calibrate import (
    Calibration,
    Examples,
    best_threshold,
    figures,
    fit,
    held_out,
    load_calibration,
)
from schemas.errors import InputError
from tests.conftest import REPOSITORY

SHIPPED = REPOSITORY / "pipeline" / "encoders" / "calibration.json"


def examples(seed: int = 0) -> Examples:
    """Of `many` 20 unsafe images, told by shares from .3; of `few` 7, told from .1; 60 safe ones."""
    rng = np.random.default_rng(seed)
    classes = np.array(["many"] * 50 + ["few"] * 37)
    unsafe = np.array([True] * 20 + [False] * 30 + [True] * 7 + [False] * 30)
    shares = rng.uniform(0.0, 0.08, (87, 2))
    shares[:20, 0] = rng.uniform(0.32, 0.5, 20)
    shares[20:50, 0] = rng.uniform(0.1, 0.28, 30)
    shares[50:57, 1] = rng.uniform(0.12, 0.5, 7)
    return Examples(["many", "few"], shares, classes, unsafe)


def test_the_threshold_has_the_best_f1() -> None:
    scores, labels = np.array([0.1, 0.2, 0.3, 0.4]), np.array([False, False, True, True])
    assert best_threshold(scores, labels) == 0.25
    assert best_threshold(np.array([0.1, 0.4]), np.array([True, False])) == pytest.approx(0.05)
    assert best_threshold(np.array([0.5, 0.5, 0.5]), np.array([True, False, True])) == 0.25
    for one_sided in (np.array([True, True]), np.array([False, False])):
        with pytest.raises(ValueError, match="unsafe and safe"):
            best_threshold(np.array([0.1, 0.2]), one_sided)
    rng = np.random.default_rng(1)
    for _ in range(20):
        scores, labels = rng.uniform(size=30).round(1) + 0.05, rng.uniform(size=30) < 0.4

        def f1(t: float, scores: object = scores, labels: object = labels) -> float:
            flagged = np.asarray(scores) >= t
            return float(2 * (flagged & labels).sum() / (flagged.sum() + np.asarray(labels).sum()))

        assert f1(best_threshold(scores, labels)) == max(f1(t) for t in np.unique(scores))


def test_a_class_with_few_examples_is_calibrated_on_the_safe_ones() -> None:
    known = examples()
    thresholds = fit(known)
    assert 0.28 <= thresholds.values["many"] <= 0.32
    safe = known.shares[~known.unsafe, 1]
    assert np.mean(safe < thresholds.values["few"]) == pytest.approx(thresholds.level, abs=1 / len(safe))
    found = figures(known, thresholds, held_out(known, seed=1))
    assert {name: c.by for name, c in found.items()} == {"many": "both sides", "few": "safe images"}
    assert (found["few"].unsafe, found["few"].safe) == (7, 60)
    assert (found["many"].found, found["many"].false_alarms) == (20, 0)
    assert found["many"].precision == found["many"].recall == 1
    assert found["many"].recall_95 == (0.839, 1.0)


def test_the_scale_of_a_class_does_not_matter() -> None:
    """Shares of another class's sentences may run ten times as high; the same images are flagged."""
    known = examples()
    scaled = Examples(known.names, known.shares * [1, 0.1], known.classes, known.unsafe)
    for one, other in ((known, scaled), (scaled, known)):
        assert fit(one).level == fit(other).level
        flagged = [e.shares[:, 1] >= fit(e).values["few"] for e in (one, other)]
        assert np.array_equal(*flagged)
        assert flagged[0].any()


def test_a_threshold_above_all_safe_images_is_above_them() -> None:
    known = examples()
    apart = Examples(known.names, known.shares.copy(), known.classes, known.unsafe)
    apart.shares[~apart.unsafe] = 0.05
    thresholds = fit(apart)
    assert all(0.05 < t <= 0.32 for t in thresholds.values.values())


def test_what_is_measured_was_chosen_without_the_image() -> None:
    known = examples()
    chosen = held_out(known, seed=1)
    for image in (0, 25, 55):
        changed = Examples(known.names, known.shares.copy(), known.classes, known.unsafe)
        changed.shares[image] = 0.99
        assert np.array_equal(held_out(changed, seed=1)[image], chosen[image])
    assert np.array_equal(held_out(known, seed=1), chosen)


def test_nothing_flagged_or_to_find_has_no_figure() -> None:
    known = examples()
    never = np.ones(known.shares.shape)
    assert figures(known, fit(known), never)["many"].precision is None
    none = Examples(known.names, known.shares, np.where(known.classes == "few", "x", "many"), known.unsafe)
    found = figures(none, fit(none), held_out(none, seed=1))["few"]
    assert (found.unsafe, found.recall, found.recall_95) == (0, None, None)


def test_a_share_at_its_threshold_is_a_half() -> None:
    known = examples()
    thresholds = fit(known)
    made = Calibration(
        encoder="e",
        temperature=1,
        offset=0,
        level=thresholds.level,
        classes=figures(known, thresholds, held_out(known, 1)),
    )
    at = thresholds.values["many"]
    assert made.score(["many", "few"], np.array([at, 0.001])) == pytest.approx(0.5)
    assert made.score(["many", "few"], np.array([at + 0.01, 0.001])) > 0.5
    assert made.score(["few"], np.array([thresholds.values["few"]])) == pytest.approx(0.5)
    assert 0 < made.score(["many"], np.array([0.0])) < made.score(["many"], np.array([1.0])) < 1


def test_a_file_for_another_encoder_is_refused(tmp_path: Path) -> None:
    told = json.loads(SHIPPED.read_text())
    same = (told["encoder"], told["temperature"], told["offset"], list(told["classes"]))
    assert load_calibration(SHIPPED, *same).level == told["level"]
    for other in (("x", *same[1:]), (same[0], 0.01, *same[2:]), (*same[:2], 0.1, same[3])):
        with pytest.raises(InputError, match=r"calibration\.json: made for encoder .* run scripts/calibrate"):
            load_calibration(SHIPPED, *other)
    with pytest.raises(InputError, match=r"calibration\.json: no threshold for fraud, scams; run scripts"):
        load_calibration(SHIPPED, *same[:3], ["terrorism", "fraud", "scams"])
    wrong = tmp_path / "wrong.json"
    with pytest.raises(InputError, match=r"wrong\.json: cannot be read"):
        load_calibration(wrong, *same)
    wrong.write_text(json.dumps(told | {"level": 2}))
    with pytest.raises(InputError, match=r"wrong\.json: 1 problem.*\n  level"):
        load_calibration(wrong, *same)


def test_what_ships_says_which_classes_had_too_few_examples() -> None:
    told = Calibration.model_validate_json(SHIPPED.read_text())
    for name, c in told.classes.items():
        assert c.by == ("both sides" if c.unsafe >= calibrate.FEWEST else "safe images"), name
    report = (REPOSITORY / "docs" / "encoder-calibration.md").read_text()
    assert all(f"| {name} | {c.threshold:.4f}" in report for name, c in told.classes.items())

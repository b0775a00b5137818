"""Label noise: against cleanlab, and what is estimated and found of flips that are known."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from pipeline.annotators.base import Vote
from pipeline.annotators.reliability import left_out
from pipeline.audit.features import number_probabilities
from pipeline.audit.noise import (
    both,
    confident_joint,
    evidence,
    ideal_recall,
    noise_rate,
    ranked,
    recall_at_top,
    suspects,
    vote_evidence,
)

Array = NDArray[Any]
DISTANCE = {0.5: 0.0, 0.65: 0.545, 0.9: 1.812, 0.95: 2.326, 0.97: 2.660, 0.98: 2.904}
"""Of two normal distributions, by AUC."""


def simulated(
    n: int, auc: float, seed: int, safe: float = 0.05, unsafe: float = 0.05, share: float = 0.5
) -> tuple[Array, Array, Array]:
    """Given labels, badly scaled probabilities as a model of noisy labels gives them, and which are wrong."""
    rng = np.random.default_rng(seed)
    truth = rng.random(n) < share
    x = rng.normal(np.where(truth, 0.5, -0.5) * DISTANCE[auc])
    wrong = rng.random(n) < np.where(truth, unsafe, safe)
    # Of features that tell nothing a model gives some probabilities, too.
    logit = 0.6 * (max(DISTANCE[auc], 0.3) * x + np.log(share / (1 - share)))
    return truth ^ wrong, both(1 / (1 + np.exp(-logit))), wrong


def multiclass(
    n: int, k: int, seed: int, flips: float = 0.05, distance: float = 4.0
) -> tuple[Array, Array, Array]:
    """The same for k labels, each with a direction of its own, by a model out of fold."""
    rng = np.random.default_rng(seed)
    truth = rng.integers(0, k, n)
    x = rng.standard_normal((n, k)) + distance * np.eye(k)[truth]
    wrong = rng.random(n) < flips
    given_ = np.where(wrong, (truth + rng.integers(1, k, n)) % k, truth)
    return given_, number_probabilities(x, given_), wrong


def probabilities(seed: int, n: int, k: int) -> tuple[Array, Array]:
    rng = np.random.default_rng(seed)
    p = rng.dirichlet(np.full(k, 0.6), n)
    return rng.permuted(p.argmax(1)) if seed % 2 else p.argmax(1), p


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("case", ["two labels", "five labels", "random", "a label without rows"])
def test_confident_learning_is_cleanlab_s(case: str) -> None:
    from cleanlab.count import compute_confident_joint
    from cleanlab.filter import find_label_issues

    if case == "two labels":
        labels, p, _ = simulated(1500, 0.9, 3)
        labels = labels.astype(int)
    elif case == "five labels":
        labels, p, _ = multiclass(1500, 5, 4)
    else:
        labels, p = probabilities(1, 400, 4)
        if case == "a label without rows":
            labels = labels % 3
    theirs, off = compute_confident_joint(labels, p, calibrate=False, return_indices_of_off_diagonals=True)
    ours, places = confident_joint(labels, p)
    assert (ours == theirs).all()
    assert places.tolist() == list(off)
    found = ranked(labels, p)
    for order, key in (("normalized_margin", "margin"), ("self_confidence", "p_given")):
        issues = find_label_issues(
            labels, p, filter_by="confident_learning", return_indices_ranked_by=order, n_jobs=1
        )
        # cleanlab spares rows whose given label is the likeliest.
        mine = [s for s in found if s.confident and s.p_given < p[s.index].max() - 1e-6]
        mine.sort(key=lambda s: getattr(s, key))
        assert len(issues) > 20
        assert [s.index for s in mine] == issues.tolist()


def test_the_estimate_is_near_the_truth_and_its_interval_holds_it() -> None:
    """5,000 rows, 5 % flipped, an AUC of .90: confident learning alone is far off."""
    found = [noise_rate(*simulated(5000, 0.9, seed)[:2], seed=seed) for seed in range(40)]
    rates = np.array([f.rate for f in found], float)
    assert np.abs(rates - 0.05).mean() < 0.012
    assert (np.abs(rates - 0.05) < 0.02).mean() >= 0.9
    covered = sum(f.low <= 0.05 <= f.high for f in found)  # type: ignore[operator]
    assert covered >= 35
    assert max(f.high - f.low for f in found) < 0.08  # type: ignore[operator]
    assert min(f.confident for f in found) > 0.1  # type: ignore[type-var]


def test_the_estimate_tells_labels_apart_and_is_right_of_better_features() -> None:
    found = [noise_rate(*simulated(5000, 0.97, s, 0.02, 0.10, 0.4)[:2], seed=s) for s in range(20)]
    truth = 0.6 * 0.02 + 0.4 * 0.10
    assert all(abs(f.rate - truth) < 0.02 for f in found)  # type: ignore[operator]
    assert sum(f.low <= truth <= f.high for f in found) >= 17  # type: ignore[operator]
    # Of those given as safe .04 of .628 are wrong, of those given as unsafe .012 of .372.
    for place, wrong in enumerate((0.04 / 0.628, 0.012 / 0.372)):
        assert np.mean([f.by_class[place].wrong for f in found]) == pytest.approx(wrong, abs=0.012)
        assert sum(f.by_class[place].low <= wrong <= f.by_class[place].high for f in found) >= 17


def test_without_noise_the_interval_begins_at_nothing() -> None:
    found = [noise_rate(*simulated(4000, 0.95, s, 0.0, 0.0)[:2], seed=s) for s in range(20)]
    assert sum(f.low == 0 for f in found) >= 18
    assert all(f.rate < 0.015 for f in found)  # type: ignore[operator]


def test_of_many_labels_each_is_set_against_the_rest() -> None:
    found = [noise_rate(*multiclass(4000, 4, s)[:2], seed=s) for s in range(6)]
    assert all(abs(f.rate - 0.05) < 0.02 for f in found)  # type: ignore[operator]
    assert sum(f.low <= 0.05 <= f.high for f in found) >= 5  # type: ignore[operator]
    assert [c.given for c in found[0].by_class] == [0, 1, 2, 3]


def test_groups_are_drawn_together() -> None:
    """Each row ten times over is no more evidence than once."""
    labels, p, _ = simulated(2000, 0.97, 5)
    once = noise_rate(labels, p)
    ten = noise_rate(np.tile(labels, 10), np.tile(p, (10, 1)), np.tile(np.arange(2000), 10))
    fooled = noise_rate(np.tile(labels, 10), np.tile(p, (10, 1)))
    widths = [f.high - f.low for f in (once, ten, fooled)]  # type: ignore[operator]
    assert widths[1] == pytest.approx(widths[0], rel=0.35)
    assert widths[2] < 0.5 * widths[0]


@pytest.mark.parametrize("auc", [0.5, 0.65])
def test_features_that_tell_too_little_give_no_number(auc: float) -> None:
    for seed in range(10):
        labels, p, _ = simulated(5000, auc, seed)
        found = noise_rate(labels, p)
        assert (found.rate, found.low, found.high, found.by_class) == (None, None, None, ())
        assert "tell too little" in found.reason or "sure of" in found.reason


def test_what_cannot_be_estimated_has_a_reason() -> None:
    assert noise_rate(np.zeros(0, bool), np.zeros((0, 2))).reason == "no rows"
    alone = noise_rate(np.zeros(100, bool), np.full((100, 2), 0.5))
    assert (alone.rate, alone.auc) == (None, None)
    assert alone.reason == "0 rows of the rarer label, 50 are needed"
    flat = noise_rate(np.arange(400) % 2 == 0, np.full((400, 2), 0.5))
    assert "different probabilities" in flat.reason
    few = noise_rate(np.arange(400) % 5, np.tile(np.full(5, 0.2), (400, 1)))
    assert few.reason.startswith("label 0: ")
    with pytest.raises(ValueError, match="rows x labels"):
        noise_rate(np.zeros(3, bool), np.zeros(3))
    with pytest.raises(ValueError, match="columns"):
        noise_rate(np.array([0, 2]), np.full((2, 2), 0.5))
    with pytest.raises(ValueError, match="no numbers"):
        ranked(np.array([0, 1]), np.full((2, 2), np.nan))


def test_the_ideal_is_what_was_measured_for_it() -> None:
    for auc, recall in ((0.65, 0.22), (0.90, 0.64), (0.95, 0.78), (0.98, 0.91)):
        assert ideal_recall(auc) == pytest.approx(recall, abs=0.015)
    assert ideal_recall(1.0) == 1.0
    assert ideal_recall(0.5) == pytest.approx(0.1, abs=0.01)


@pytest.mark.parametrize("auc", [0.9, 0.95])
@pytest.mark.parametrize("share", [0.5, 0.25])
def test_flips_are_found_about_as_well_as_features_allow(auc: float, share: float) -> None:
    missing = []
    for seed in range(6):
        labels, p, wrong = simulated(5000, auc, seed, share=share)
        recall = recall_at_top(suspects(labels, p), wrong)
        missing.append(ideal_recall(auc, share=share, n=50_000) - recall)  # type: ignore[operator]
    assert np.mean(missing) < 0.02
    assert max(missing) < 0.07


def test_flipped_labels_of_images_are_found() -> None:
    """Features of an AUC of .97 that a model has to learn from the flipped labels."""
    recalls = []
    for seed in range(5):
        rng = np.random.default_rng(seed)
        truth = rng.random(5000) < 0.3
        x = rng.standard_normal((5000, 24)) + np.where(truth, 0.5, -0.5)[:, None] * DISTANCE[0.97] / 24**0.5
        wrong = np.zeros(5000, bool)
        wrong[rng.choice(5000, 250, replace=False)] = True
        recalls.append(recall_at_top(suspects(truth ^ wrong, number_probabilities(x, truth ^ wrong)), wrong))
    assert np.mean(recalls) >= 0.83
    assert min(recalls) >= 0.80  # type: ignore[type-var]


def votes_of(truth: Array, right: dict[str, float], seed: int) -> list[Vote]:
    rng = np.random.default_rng([seed, 1])
    said = {name: truth ^ (rng.random(len(truth)) >= share) for name, share in right.items()}
    return [
        Vote(str(i), "pair_safe", name, name, "ok", "unsafe" if u else "safe", float(u))
        for name, values in said.items()
        for i, u in enumerate(values)
    ]


PANEL = {"a": 0.75, "b": 0.8, "c": 0.85, "d": 0.9}


def test_flipped_labels_are_found_by_votes_and_better_with_features() -> None:
    for seed in range(3):
        rng = np.random.default_rng(seed)
        truth = rng.random(5000) < 0.4
        wrong = np.zeros(5000, bool)
        wrong[rng.choice(5000, 250, replace=False)] = True
        x = rng.normal(np.where(truth, 0.5, -0.5) * DISTANCE[0.9])
        p = number_probabilities(x[:, None], truth ^ wrong)
        votes = vote_evidence(votes_of(truth, PANEL, seed), [str(i) for i in range(5000)])
        alone = recall_at_top(suspects(truth ^ wrong, votes=votes), wrong)
        with_features = recall_at_top(suspects(truth ^ wrong, p, votes), wrong)
        assert alone >= 0.80  # type: ignore[operator]
        assert with_features > alone  # type: ignore[operator]


def test_votes_that_made_the_label_speak_for_it_less() -> None:
    rng = np.random.default_rng(1)
    truth = rng.random(3000) < 0.4
    votes = votes_of(truth, PANEL, 1)
    items = [str(i) for i in range(3000)]
    p = vote_evidence(votes, items)
    made = p[:, 1] >= 0.5
    without = vote_evidence(votes, items, made)
    own, less = (q[np.arange(3000), made.astype(int)] for q in (p, without))
    assert (less < own + 1e-3).all()
    assert (less < 0.5).any(), "a label that hangs on one family"
    wrong = made ^ truth
    assert recall_at_top(suspects(made, votes=without), wrong) > 0.4  # type: ignore[operator]


def test_one_family_alone_is_no_evidence_for_its_own_label() -> None:
    votes = [Vote("1", "pair_safe", "a", "a", "ok", "unsafe", 0.9)]
    two = [
        *votes,
        Vote("1", "pair_safe", "b", "b", "ok", "safe", 0.2),
        Vote("2", "pair_safe", "a", "a", "ok", "safe", 0.1),
    ]
    assert left_out(votes) == {}
    assert list(left_out(two)) == ["1"]
    assert left_out(two)["1"] == pytest.approx((0.2, 0.9))
    found = vote_evidence(two, ["1", "2", "3"], np.array([True, False, True]))
    assert found[0] == pytest.approx([0.8, 0.2])
    assert np.isnan(found[1:]).all()
    assert np.isfinite(evidence(np.array([1, 0, 1]), votes=found)).all()


def test_leaving_a_family_out_is_voting_without_it() -> None:
    """Reliabilities stay those of all votes, so that the odds of one item can be taken apart."""
    rng = np.random.default_rng(2)
    truth = rng.random(400) < 0.5
    votes = votes_of(truth, PANEL, 2)
    ranges = left_out(votes)
    assert len(ranges) == 400
    assert all(0 <= low <= high <= 1 for low, high in ranges.values())
    unanimous = [i for i in range(400) if len({v.value for v in votes if v.item_id == str(i)}) == 1][:20]
    assert unanimous
    for i in unanimous:
        low, high = ranges[str(i)]
        assert (low > 0.5) == (high > 0.5)


@given(st.integers(0, 10_000), st.integers(0, 60), st.integers(2, 5), st.booleans(), st.booleans())
def test_whatever_comes_suspects_are_all_rows_that_something_is_known_of_in_a_stable_order(
    seed: int, n: int, k: int, with_features: bool, with_votes: bool
) -> None:
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, k, n)
    features = rng.dirichlet(np.full(k, 0.3), n) if with_features else None
    votes = rng.dirichlet(np.full(k, 0.3), n) if with_votes else None
    if votes is not None:
        votes[rng.random(n) < 0.3] = np.nan
    found = suspects(labels, features, votes)
    voted = np.zeros(n, bool) if votes is None else np.isfinite(votes).all(1)
    assert sorted(s.index for s in found) == np.flatnonzero(voted | with_features).tolist()
    assert all(0 <= s.p_given <= 1 and s.likely != s.given == labels[s.index] for s in found)
    assert [(s.margin, s.index) for s in found] == sorted((s.margin, s.index) for s in found)
    assert suspects(labels, features, votes, limit=7) == found[:7]
    if features is not None:
        rate = noise_rate(labels, features)
        assert (rate.rate is None) == bool(rate.reason)


def test_what_nothing_is_known_of_is_no_suspect_however_rare_its_label() -> None:
    labels = np.array([True] * 5 + [False] * 45)
    votes = both(np.where(labels, 0.9, 0.1))
    votes[:2] = np.nan
    features = both(np.where(labels, 0.8, 0.2))
    features[1:4] = np.nan
    assert [s.index for s in suspects(labels, None, votes) if s.index < 2] == []
    named = {s.index for s in suspects(labels, features, votes)}
    assert 1 not in named
    assert {0, 2, 3, 4} <= named
    assert suspects(labels) == []

"""Dawid and Skene for many values: against the definition, another implementation, and planted truth."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from pipeline.annotators.dawid_skene import confusions, estimate

Array = NDArray[Any]


def planted(n: int, k: int, right: tuple[float, ...], seed: int, missing: float = 0.0) -> tuple[Array, ...]:
    rng = np.random.default_rng(seed)
    truth = rng.choice(k, n, p=np.arange(k, 0, -1) / (k * (k + 1) / 2))
    item, rater = (a.ravel() for a in np.meshgrid(np.arange(n), np.arange(len(right)), indexing="ij"))
    own = truth[item]
    wrong = (own + rng.integers(1, k, len(item))) % k
    value = np.where(rng.random(len(item)) < np.array(right)[rater], own, wrong)
    kept = rng.random(len(item)) >= missing
    return truth, item[kept], rater[kept], value[kept]


def by_definition(item: Array, rater: Array, value: Array, n: int, raters: int, k: int) -> Array:
    """The same by loops and plain probabilities."""
    votes: list[list[tuple[int, int]]] = [[] for _ in range(n)]
    for i, r, v in zip(item.tolist(), rater.tolist(), value.tolist(), strict=True):
        votes[i].append((r, v))
    truth = np.array(
        [[sum(v == t for _, v in own) / len(own) if own else 1 / k for t in range(k)] for own in votes]
    )
    for _ in range(200):
        matrix = np.empty((raters, k, k))
        for r in range(raters):
            for t in range(k):
                count = [sum(truth[i, t] for i, own in enumerate(votes) if (r, v) in own) for v in range(k)]
                matrix[r, t] = [c + (1.6 if v == t else 0.0) for v, c in enumerate(count)]
                right = matrix[r, t, t] / (sum(count) + 2)
                spread = np.array([0 if v == t else c + 0.4 / (k - 1) for v, c in enumerate(count)])
                matrix[r, t] = (1 - right) * spread / spread.sum()
                matrix[r, t, t] = right
        voted = [i for i, own in enumerate(votes) if own]
        shares = (truth[voted].sum(0) + 1) / (len(voted) + k)
        truth = np.array([shares * np.prod([matrix[r, :, v] for r, v in own], axis=0) for own in votes])
        truth /= truth.sum(1, keepdims=True)
    return truth


@pytest.mark.parametrize("k", [2, 3, 4])
def test_against_the_definition(k: int) -> None:
    _, item, rater, value = planted(60, k, (0.8, 0.7, 0.75, 0.6), k, missing=0.3)
    found = estimate(item, rater, value, 62, 4, k)
    assert np.abs(found.truth - by_definition(item, rater, value, 62, 4, k)).max() < 1e-5


CROWD_KIT = {
    "aaaa": (60, 0.998, 0.0, 0.002), "aaab": (16, 0.997, 0.001, 0.003), "aaac": (3, 0.958, 0.001, 0.041),
    "aaba": (10, 0.992, 0.006, 0.002), "aabb": (4, 0.897, 0.099, 0.003), "aabc": (2, 0.812, 0.142, 0.046),
    "aaca": (1, 0.804, 0.002, 0.195), "aacb": (2, 0.681, 0.026, 0.293), "aacc": (2, 0.133, 0.008, 0.859),
    "abaa": (21, 0.998, 0.001, 0.001), "abab": (4, 0.981, 0.017, 0.003), "abac": (3, 0.938, 0.025, 0.037),
    "abba": (1, 0.835, 0.164, 0.002), "abbb": (2, 0.216, 0.783, 0.001), "abbc": (3, 0.147, 0.845, 0.008),
    "abca": (1, 0.776, 0.052, 0.172), "abcb": (1, 0.38, 0.47, 0.15), "acaa": (3, 0.957, 0.001, 0.042),
    "acab": (3, 0.909, 0.02, 0.07), "acac": (1, 0.455, 0.016, 0.528), "acba": (1, 0.761, 0.196, 0.043),
    "acbc": (2, 0.1, 0.749, 0.151), "accc": (3, 0.006, 0.015, 0.98), "baaa": (6, 0.983, 0.003, 0.014),
    "baab": (3, 0.93, 0.046, 0.024), "baac": (1, 0.681, 0.054, 0.265), "baba": (1, 0.629, 0.359, 0.012),
    "babb": (3, 0.086, 0.911, 0.003), "babc": (1, 0.055, 0.917, 0.028), "baca": (1, 0.296, 0.058, 0.646),
    "bacb": (1, 0.118, 0.425, 0.457), "bacc": (1, 0.015, 0.088, 0.896), "bbab": (2, 0.376, 0.615, 0.009),
    "bbba": (7, 0.051, 0.949, 0.001), "bbbb": (28, 0.003, 0.997, 0.0), "bbbc": (11, 0.002, 0.997, 0.001),
    "bbcb": (3, 0.008, 0.963, 0.029), "bcaa": (1, 0.663, 0.077, 0.26), "bcac": (2, 0.067, 0.228, 0.704),
    "bcba": (1, 0.038, 0.942, 0.02), "bcbb": (8, 0.002, 0.996, 0.002), "bcbc": (5, 0.001, 0.98, 0.019),
    "bcca": (1, 0.015, 0.123, 0.862), "bccb": (1, 0.004, 0.595, 0.401), "bccc": (1, 0.001, 0.136, 0.864),
    "caaa": (4, 0.725, 0.0, 0.274), "caac": (1, 0.09, 0.001, 0.909), "cabc": (1, 0.062, 0.123, 0.815),
    "caca": (2, 0.017, 0.0, 0.982), "cacb": (2, 0.01, 0.004, 0.986), "cacc": (9, 0.001, 0.0, 0.999),
    "cbaa": (1, 0.738, 0.008, 0.255), "cbbc": (1, 0.013, 0.834, 0.153), "cbcb": (2, 0.009, 0.132, 0.859),
    "cbcc": (3, 0.001, 0.016, 0.983), "ccaa": (3, 0.09, 0.001, 0.909), "ccac": (3, 0.004, 0.001, 0.995),
    "ccbb": (2, 0.013, 0.687, 0.3), "ccca": (9, 0.001, 0.001, 0.999), "cccb": (3, 0.0, 0.007, 0.993),
    "cccc": (16, 0.0, 0.001, 0.999),
}  # fmt: skip
"""Votes of four raters, how many items have them, P(a), P(b), P(c) by crowd-kit 1.4.2's DawidSkene."""


def test_posteriors_are_those_of_another_implementation() -> None:
    patterns = [pattern for pattern, (n, *_) in CROWD_KIT.items() for _ in range(n)]
    votes = [(i, f"r{r}", said) for i, p in enumerate(patterns) for r, said in enumerate(p)]
    found = confusions(votes)
    assert found.estimate is not None
    theirs = np.array([CROWD_KIT[pattern][1:] for pattern in patterns])
    # It has no pseudo-votes, which move what few votes tell.
    apart = np.abs(found.estimate.truth - theirs).max(1)
    assert np.median(apart) < 0.002
    assert apart.mean() < 0.005
    assert apart.max() < 0.06
    assert (found.estimate.truth.argmax(1) == theirs.argmax(1)).mean() > 0.99


def test_matrices_and_shares_are_those_that_votes_were_made_with() -> None:
    right = (0.9, 0.8, 0.75, 0.6)
    truth, item, rater, value = planted(6000, 4, right, 1, missing=0.25)
    found = estimate(item, rater, value, 6000, 4, 4)
    assert np.abs(found.shares - [0.4, 0.3, 0.2, 0.1]).max() < 0.02
    for r, share in enumerate(right):
        assert found.matrices[r].diagonal() == pytest.approx(np.full(4, share), abs=0.05)
    assert np.allclose(found.matrices.sum(2), 1)
    assert (found.truth.argmax(1) == truth).mean() > 0.85


def test_a_hundred_thousand_items_with_ten_values() -> None:
    truth, item, rater, value = planted(100_000, 10, (0.75, 0.8, 0.85, 0.9), 2)
    found = estimate(item, rater, value, 100_000, 4, 10)
    assert len(item) == 400_000
    assert (found.truth.argmax(1) == truth).mean() > 0.95


def test_what_votes_cannot_tell_has_a_reason() -> None:
    assert "fewer than 3 raters" in confusions([]).reason
    two = [(i, rater, "ab"[i % 2]) for i in range(50) for rater in "xy"]
    assert confusions(two).estimate is None
    same = [(i, rater, "a") for i in range(50) for rater in "xyz"]
    assert confusions(same).reason == "every vote is the same"
    assert confusions(same, values=["b"]).estimate is not None


def test_the_last_of_several_votes_counts_and_order_does_not() -> None:
    rng = np.random.default_rng(3)
    votes = [(i, f"r{r}", "abc"[rng.integers(3)]) for i in range(60) for r in range(3)]
    first = confusions(votes).estimate
    again = confusions([(i, r, "a") for i, r, _ in votes] + votes).estimate
    shuffled = [votes[i] for i in rng.permutation(len(votes))]
    other = confusions(shuffled)
    assert first is not None
    assert again is not None
    assert other.estimate is not None
    assert np.array_equal(first.truth, again.truth)
    places = [other.items.index(i) for i in range(60)]
    assert np.allclose(first.truth, other.estimate.truth[places], atol=1e-6)


@given(
    st.integers(2, 4),
    st.lists(st.tuples(st.integers(0, 6), st.integers(0, 3), st.integers(0, 3)), max_size=40),
)
def test_whatever_the_votes_probabilities_are_some(k: int, votes: list[tuple[int, int, int]]) -> None:
    item, rater, value = (np.array([v[i] for v in votes], np.int64) for i in range(3))
    found = estimate(item, rater, value % k, 7, 4, k)
    for p in (found.truth, found.matrices, found.shares):
        assert np.isfinite(p).all()
        assert (p >= 0).all()
        assert np.allclose(p.sum(-1), 1)

"""Labels and reliabilities from votes: the truth comes out, who tells nothing is named and not followed."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.annotators.base import Vote
from pipeline.annotators.reliability import effective_number, posteriors


def vote(item: object, family: str, score: float | None, status: Any = "ok", annotator: str = "") -> Vote:
    value = None if score is None else "unsafe" if score >= 0.5 else "safe"
    return Vote(str(item), "text_safe", annotator or f"a@{family}", family, status, value, score)


def panel(
    families: dict[str, tuple[float, float]], items: int = 400, unsafe: float = 0.4, seed: int = 1
) -> tuple[np.ndarray[Any, Any], list[Vote]]:
    """The truth, and votes of families with a sensitivity and a specificity each."""
    rng = np.random.default_rng(seed)
    truth = rng.uniform(size=items) < unsafe
    votes = []
    for family, (sensitivity, specificity) in families.items():
        right = rng.uniform(size=items) < np.where(truth, sensitivity, specificity)
        votes += [vote(i, family, float(t == r)) for i, (t, r) in enumerate(zip(truth, right, strict=True))]
    return truth, votes


def accuracy(truth: Sequence[Any], votes: list[Vote]) -> float:
    found, _ = posteriors(votes)
    return float(np.mean([((found[str(i)].p_unsafe or 0) >= 0.5) == t for i, t in enumerate(truth)]))


GOOD = {"a": (0.9, 0.85), "b": (0.8, 0.9), "c": (0.85, 0.8)}


def test_reliabilities_are_those_that_votes_were_made_with() -> None:
    truth, votes = panel(GOOD, items=3000)
    _, told = posteriors(votes)
    for r in told:
        assert (r.sensitivity, r.specificity) == pytest.approx(GOOD[r.family], abs=0.04)
        assert (r.n, r.failed, r.finding) == (3000, 0, "")
    assert accuracy(truth, votes) > max(0.87, accuracy(truth, [v for v in votes if v.family == "a"]))


CROWD_KIT = {
    "0000": (189, 0.0017), "0001": (13, 0.0279), "0010": (77, 0.0165), "0011": (15, 0.2191),
    "0100": (28, 0.0449), "0101": (4, 0.4401), "0110": (11, 0.3153), "0111": (7, 0.885),
    "1000": (43, 0.0854), "1001": (4, 0.6094), "1010": (29, 0.4775), "1011": (23, 0.9386),
    "1100": (14, 0.719), "1101": (22, 0.9772), "1110": (54, 0.9616), "1111": (67, 0.9976),
}  # fmt: skip
"""Votes of four families (1: unsafe), how many items have them, P(unsafe) by crowd-kit 1.4.2's DawidSkene."""


def test_posteriors_are_those_of_another_implementation() -> None:
    patterns = [pattern for pattern, (n, _) in CROWD_KIT.items() for _ in range(n)]
    votes = [vote(i, "abcd"[k], float(said)) for i, p in enumerate(patterns) for k, said in enumerate(p)]
    found, _ = posteriors(votes)
    for i, pattern in enumerate(patterns):
        assert found[str(i)].p_unsafe == pytest.approx(CROWD_KIT[pattern][1], abs=0.01)


@pytest.mark.parametrize(
    ("sides", "finding"),
    [((0.0, 1.0), "always safe"), ((1.0, 0.0), "always unsafe"), ((0.5, 0.5), "tells nothing")],
)
def test_who_tells_nothing_is_named_and_not_followed(sides: tuple[float, float], finding: str) -> None:
    truth, votes = panel(GOOD)
    _, more = panel({**GOOD, "bad": sides, "worse": sides})
    assert {r.family: r.finding for r in posteriors(more)[1]} == {
        "a": "", "b": "", "c": "", "bad": finding, "worse": finding
    }  # fmt: skip
    assert accuracy(truth, more) >= accuracy(truth, votes) - 0.02


def test_one_that_always_fails_is_named() -> None:
    truth, votes = panel(GOOD)
    before = accuracy(truth, votes)
    votes += [vote(i, "gone", None, "error" if i % 2 else "blocked") for i in range(400)]
    found, told = posteriors(votes)
    gone = next(r for r in told if r.family == "gone")
    assert (gone.n, gone.failed, gone.sensitivity, gone.informedness) == (0, 400, None, None)
    assert gone.finding == "mostly fails"
    assert {p.n for p in found.values()} == {3}
    assert accuracy(truth, votes) == before


def test_of_two_families_the_scores_are_averaged_and_neither_is_judged() -> None:
    votes = [vote(i, "a", i % 10 / 10) for i in range(100)] + [vote(i, "b", i % 7 / 10) for i in range(100)]
    found, told = posteriors(votes)
    assert all(found[str(i)].p_unsafe == pytest.approx((i % 10 + i % 7) / 20, abs=6e-4) for i in range(100))
    assert [(r.sensitivity, r.specificity, r.finding) for r in told] == [(None, None, "")] * 2
    assert effective_number(votes) is None


def test_two_sizes_of_one_model_are_one_voice() -> None:
    _, votes = panel(GOOD, items=50)
    twice = votes + [vote(v.item_id, v.family, v.score, annotator="small") for v in votes if v.family == "a"]
    one, other = posteriors(votes), posteriors(twice)
    assert one[0] == other[0]
    assert next(r for r in other[1] if r.family == "a").annotators == ("a@a", "small")


def test_nobody_s_vote_is_no_label() -> None:
    found, told = posteriors([vote(1, "a", None, "unscorable"), vote(2, "a", 0.9)])
    assert (found["1"].p_unsafe, found["1"].agreement, found["1"].n) == (None, None, 0)
    assert found["2"].n == 1
    assert told[0].failed == 0, "what it cannot judge by is no failure of its own"
    assert posteriors([]) == ({}, [])
    with pytest.raises(ValueError, match="one question at a time"):
        posteriors([vote(1, "a", 0.9), Vote("1", "pair_safe", "a", "a", "ok", "safe", 0.1)])


scores = st.one_of(st.none(), st.floats(0, 1).map(lambda x: round(x, 3)))


@given(st.lists(st.tuples(st.integers(0, 5), st.sampled_from("abc"), scores), max_size=40), st.randoms())
def test_whatever_the_votes_every_item_has_one_posterior_in_range(
    drawn: list[tuple[int, str, float | None]], random: Any
) -> None:
    votes = [vote(i, f, s, "ok" if s is not None else "error") for i, f, s in drawn]
    found, told = posteriors(votes)
    assert set(found) == {str(i) for i, _, _ in drawn}
    assert all(p.p_unsafe is None or 0 <= p.p_unsafe <= 1 for p in found.values())
    assert [r.family for r in told] == sorted({f for _, f, _ in drawn})
    random.shuffle(votes)
    again, _ = posteriors(votes)
    assert all(again[i].p_unsafe == pytest.approx(p.p_unsafe, abs=0.002) for i, p in found.items())


def test_copies_add_no_voice_to_the_panel() -> None:
    _, votes = panel(GOOD, items=2000)
    alone = effective_number(votes)
    assert alone == pytest.approx(3, abs=0.2)
    copies = votes + [vote(v.item_id, f"copy {v.family}", v.score) for v in votes if v.family == "a"]
    assert effective_number(copies) < 3.2  # type: ignore[operator]
    assert effective_number([v for v in votes if v.family == "a"]) is None
    assert effective_number([]) is None

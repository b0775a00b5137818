"""Drawing patterns is drawing items; intervals leave out what is not defined."""

from __future__ import annotations

import numpy as np
import pytest

from pipeline.agreement.bootstrap import bootstrap, intervals, resamples
from pipeline.agreement.coefficients import (
    Floats,
    Moments,
    Patterns,
    Seen,
    alpha,
    alpha_interval,
    alpha_ordinal,
    fleiss,
    gwet,
    ordinal_weights,
    patterns_of,
    raw,
    shares,
    sums,
)
from tests.ratings import found

VALUES = 3
Rows = list[list[int]]


def some_rows(items: int, seed: int = 1) -> Rows:
    """Up to four votes an item through noise, some items with one vote."""
    rng = np.random.default_rng(seed)
    truth = rng.integers(0, VALUES, items)
    return [
        [int(t) if rng.random() < 0.6 else int(rng.integers(VALUES)) for _ in range(rng.integers(1, 5))]
        for t in truth
    ]


def of_rows(rows: Rows) -> Patterns:
    item = np.repeat(np.arange(len(rows)), [len(row) for row in rows])
    return patterns_of(item, np.array([value for row in rows for value in row]), VALUES)


def figures(of: Patterns, drawn: Floats) -> Floats:
    plain = sums(Seen(of), drawn)
    columns = [
        raw(plain),
        fleiss(plain),
        gwet(plain),
        alpha(plain),
        gwet(plain.seen_as(Seen(of, ordinal_weights(VALUES)), drawn)),
        alpha_ordinal(of, drawn, plain),
        alpha_interval(Moments(of, np.arange(VALUES, dtype=float)), drawn),
        *shares(plain).T,
    ]
    return np.column_stack(columns)


def test_a_resample_of_items_is_one_of_patterns_to_the_last_digit() -> None:
    rows = some_rows(40)
    of = of_rows(rows)
    mine = {tuple(of.values[of.owner == pattern].tolist()): pattern for pattern in range(len(of.items))}
    rng = np.random.default_rng(2)
    for _ in range(20):
        chosen = [rows[i] for i in rng.integers(0, len(rows), len(rows))]
        again = of_rows(chosen)
        drawn = np.bincount([mine[tuple(sorted(row))] for row in chosen], minlength=len(of.items))
        ours = figures(of, drawn[None, :].astype(float))
        assert ours == pytest.approx(figures(again, found(again)), abs=1e-12)


def test_the_distribution_is_that_of_drawing_items() -> None:
    rows, rounds = some_rows(60), 3000
    of = of_rows(rows)
    ours = bootstrap(of.items, lambda drawn: figures(of, drawn), rounds, seed=5)
    rng = np.random.default_rng(6)
    theirs = []
    for _ in range(rounds):
        again = of_rows([rows[i] for i in rng.integers(0, len(rows), len(rows))])
        theirs.append(figures(again, found(again))[0])
    naive = np.array(theirs)
    deviation = naive.std(0)
    error = 5 * deviation * np.sqrt(2 / rounds)
    assert (np.abs(ours.mean(0) - naive.mean(0)) < error).all()
    assert ours.std(0) == pytest.approx(deviation, rel=0.12)
    ends = np.array([[i.low, i.high] for i in intervals(ours)], float)
    assert (np.abs(ends - np.quantile(naive, [0.025, 0.975], axis=0).T) < 4 * error[:, None]).all()


@pytest.mark.parametrize("per_pattern", [0, 10_000])
def test_both_ways_of_drawing_have_the_moments_of_a_multinomial(
    monkeypatch: pytest.MonkeyPatch, per_pattern: int
) -> None:
    monkeypatch.setattr("pipeline.agreement.bootstrap.PER_PATTERN", per_pattern)
    items = np.array([5, 3, 1, 1])
    n, rounds = int(items.sum()), 4000
    drawn = np.concatenate(list(resamples(items, rounds, seed=3)))
    assert drawn.shape == (rounds, 4)
    assert (drawn.sum(1) == n).all()
    share = items / n
    variance = n * share * (1 - share)
    assert (np.abs(drawn.mean(0) - items) < 5 * np.sqrt(variance / rounds)).all()
    assert drawn.var(0) == pytest.approx(variance, rel=0.15)
    assert np.cov(drawn[:, 0], drawn[:, 1])[0, 1] == pytest.approx(-n * share[0] * share[1], rel=0.25)


def test_chunks_and_seeds(monkeypatch: pytest.MonkeyPatch) -> None:
    items = np.array([40, 30])
    whole = np.concatenate(list(resamples(items, 50, seed=1)))
    monkeypatch.setattr("pipeline.agreement.bootstrap.CELLS", 7)
    parts = list(resamples(items, 50, seed=1))
    assert [len(part) for part in parts] == [3] * 16 + [2]
    assert (np.concatenate(parts) == whole).all()
    assert (np.concatenate(list(resamples(items, 50, seed=2))) != whole).any()


def test_intervals_are_quantiles_of_what_is_defined() -> None:
    rng = np.random.default_rng(0)
    drawn = rng.random((400, 3))
    drawn[:100, 1] = np.nan
    drawn[:201, 2] = np.nan
    whole, some, none = intervals(drawn)
    assert (whole.low, whole.high) == pytest.approx(np.quantile(drawn[:, 0], [0.025, 0.975]))
    assert (some.low, some.high) == pytest.approx(np.quantile(drawn[100:, 1], [0.025, 0.975]))
    assert (whole.left_out, some.left_out, none.left_out) == (0, 100, 201)
    assert (none.low, none.high, none.rounds) == (None, None, 400)
    assert [i.rounds for i in intervals(np.empty((0, 2)))] == [0, 0]

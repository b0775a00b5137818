"""Coefficients against published values, against other implementations, and what must not change them."""

from __future__ import annotations

import warnings
from collections import Counter
from collections.abc import Callable
from itertools import permutations

import krippendorff
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.agreement.coefficients import (
    Cells,
    Floats,
    Moments,
    Patterns,
    Seen,
    Sums,
    alpha,
    alpha_interval,
    alpha_ordinal,
    cells_of,
    cohen,
    fleiss,
    gwet,
    ordinal_weights,
    patterns_of,
    quadratic_weights,
    raw,
    raw_of_cells,
    shares,
    sums,
)
from tests.ratings import BEN_GERRY, DIAGNOSES, FOUR_RATERS, GENDER, coded, found, patterns, votes_of

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    from statsmodels.stats.inter_rater import cohens_kappa, fleiss_kappa

Vote = tuple[int, int, int]


def summed(of: Patterns, weights: Floats | None = None) -> Sums:
    return sums(Seen(of, weights), found(of))


def ordinal(of: Patterns) -> float:
    return float(alpha_ordinal(of, found(of), summed(of))[0])


def interval(of: Patterns, numbers: Floats) -> float:
    return float(alpha_interval(Moments(of, numbers), found(of))[0])


def numbers(n: int) -> Floats:
    return np.arange(n, dtype=float)


# Gwet's irrCAC on the same table; alpha with identity and quadratic weights is in Krippendorff (2011), too.
PUBLISHED = [
    (fleiss, "identity", 0.761),
    (fleiss, "linear", 0.818),
    (fleiss, "ordinal", 0.850),
    (fleiss, "quadratic", 0.865),
    (gwet, "identity", 0.775),
    (gwet, "linear", 0.859),
    (gwet, "ordinal", 0.899),
    (gwet, "quadratic", 0.914),
    (alpha, "identity", 0.743),
    (alpha, "linear", 0.800),
    (alpha, "ordinal", 0.834),
    (alpha, "quadratic", 0.849),
]


@pytest.mark.parametrize(("coefficient", "weights", "value"), PUBLISHED)
def test_published_values_with_weights_and_missing_votes(
    coefficient: Callable[[Sums], Floats], weights: str, value: float
) -> None:
    matrix = {
        "identity": np.eye(5),
        "linear": 1 - np.abs(np.subtract.outer(numbers(5), numbers(5))) / 4,
        "ordinal": ordinal_weights(5),
        "quadratic": quadratic_weights(numbers(5)),
    }[weights]
    (ours,) = coefficient(summed(patterns(votes_of(FOUR_RATERS)), matrix))
    assert round(ours, 3) == value


@pytest.mark.parametrize(
    ("table", "of_fleiss", "of_gwet", "of_alpha"),
    [
        (FOUR_RATERS, 0.761, 0.775, 0.743),
        (GENDER, 0.129, 0.208, 0.143),
        (BEN_GERRY, 0.649, 0.661, 0.665),
    ],
)
def test_published_values_of_categories(
    table: str, of_fleiss: float, of_gwet: float, of_alpha: float
) -> None:
    ours = summed(patterns(votes_of(table)))
    assert [round(float(c(ours)[0]), 3) for c in (fleiss, gwet, alpha)] == [of_fleiss, of_gwet, of_alpha]


def test_krippendorffs_example() -> None:
    four = patterns(votes_of(FOUR_RATERS))
    assert alpha(summed(four))[0] == pytest.approx(0.743, abs=5e-4)
    assert ordinal(four) == pytest.approx(0.815, abs=5e-4)
    assert interval(four, numbers(5)) == pytest.approx(0.849, abs=5e-4)


def test_fleiss_example() -> None:
    rows = [[int(n) for n in row] for row in DIAGNOSES.split()]
    votes = [(i, 0, k) for i, row in enumerate(rows) for k, n in enumerate(row) for _ in range(n)]
    ours = summed(patterns(votes))
    assert raw(ours)[0] == pytest.approx(0.556, abs=5e-4)
    assert fleiss(ours)[0] == pytest.approx(0.430, abs=5e-4)
    assert shares(ours)[0] == pytest.approx([0.144, 0.144, 0.167, 0.306, 0.239], abs=5e-4)


def cells(table: list[list[int]]) -> Cells:
    a, b = np.nonzero(np.array(table))
    return Cells(a, b, np.array(table)[a, b])


@pytest.mark.parametrize(
    ("table", "agreement", "kappa"),
    [
        # Cohen (1960), table 1, in 200 items.
        ([[88, 10, 2], [14, 40, 6], [18, 10, 12]], 0.70, 0.4915),
        # Gwet (2014): two abstractors of medical charts, and the paradox of kappa.
        ([[13, 0, 0], [0, 20, 7], [0, 4, 56]], 0.89, 0.7964),
        ([[118, 5], [2, 0]], 0.944, -0.0234),
    ],
)
def test_cohens_kappa_of_published_tables(table: list[list[int]], agreement: float, kappa: float) -> None:
    of = cells(table)
    drawn = of.items[None, :].astype(float)
    assert raw_of_cells(of, drawn)[0] == pytest.approx(agreement)
    assert cohen(of, drawn)[0] == pytest.approx(kappa, abs=5e-5)


def test_gwets_ac1_of_published_tables() -> None:
    def ac1(table: list[list[int]]) -> float:
        of = cells(table)
        each = np.repeat(np.arange(len(of.items)), of.items)
        items = np.tile(np.arange(len(each)), 2)
        value = np.concatenate([of.a[each], of.b[each]])
        return float(gwet(summed(patterns_of(items, value, len(table))))[0])

    assert ac1([[13, 0, 0], [0, 20, 7], [0, 4, 56]]) == pytest.approx(0.8493, abs=5e-5)
    assert ac1([[118, 5], [2, 0]]) == pytest.approx(0.9408, abs=5e-5)


def test_weights_of_agreement() -> None:
    assert ordinal_weights(4)[0] == pytest.approx([1, 1 - 1 / 6, 1 - 3 / 6, 0])
    assert quadratic_weights(np.array([1.0, 2.0, 5.0]))[0] == pytest.approx([1, 1 - 1 / 16, 0])
    for one in (ordinal_weights(1), quadratic_weights(np.ones(1))):
        assert one.tolist() == [[1.0]]


@st.composite
def tables(draw: st.DrawFn, most_raters: int = 5, most_values: int = 5) -> list[Vote]:
    """Votes of some raters on some items, many of them missing."""
    raters, items = draw(st.integers(2, most_raters)), draw(st.integers(2, 12))
    values = draw(st.integers(2, most_values))
    cell = st.one_of(st.none(), st.integers(0, values - 1))
    rows = draw(st.lists(st.lists(cell, min_size=raters, max_size=raters), min_size=items, max_size=items))
    return [(i, r, v) for i, row in enumerate(rows) for r, v in enumerate(row) if v is not None]


def grid(votes: list[Vote]) -> Floats:
    """Raters x items, NaN where a vote is missing."""
    full = np.full((max(v[1] for v in votes) + 1, max(v[0] for v in votes) + 1), np.nan)
    for item, rater, value in votes:
        full[rater, item] = value
    return full


def paired_values(votes: list[Vote]) -> set[int]:
    held = Counter(item for item, _, _ in votes)
    return {value for item, _, value in votes if held[item] > 1}


@given(tables())
@settings(max_examples=60)
def test_alpha_is_that_of_the_library_krippendorff(votes: list[Vote]) -> None:
    if len(paired_values(votes)) < 2:
        if votes:
            of = patterns(votes)
            assert np.isnan(
                [alpha(summed(of))[0], ordinal(of), interval(of, numbers(of.counts.shape[1]))]
            ).all()
        return
    of = patterns(votes)
    seen = np.array(sorted({float(v[2]) for v in votes}))
    for level, ours in (
        ("nominal", float(alpha(summed(of))[0])),
        ("ordinal", ordinal(of)),
        ("interval", interval(of, seen)),
    ):
        theirs = krippendorff.alpha(reliability_data=grid(votes), level_of_measurement=level)
        assert ours == pytest.approx(theirs, abs=1e-9), level


@given(
    st.integers(2, 5), st.lists(st.lists(st.integers(0, 3), min_size=5, max_size=5), min_size=2, max_size=12)
)
@settings(max_examples=60)
def test_fleiss_is_that_of_statsmodels(raters: int, rows: list[list[int]]) -> None:
    rows = [row[:raters] for row in rows]
    seen = sorted({value for row in rows for value in row})
    votes = [(i, r, v) for i, row in enumerate(rows) for r, v in enumerate(row)]
    (ours,) = fleiss(summed(patterns(votes)))
    if len(seen) == 1:
        assert np.isnan(ours)
        return
    counts = np.array([[row.count(value) for value in seen] for row in rows])
    assert ours == pytest.approx(fleiss_kappa(counts, method="fleiss"), abs=1e-9)


@given(st.lists(st.tuples(st.integers(0, 3), st.integers(0, 3)), min_size=1, max_size=30))
@settings(max_examples=60)
def test_cohen_is_that_of_statsmodels(rows: list[tuple[int, int]]) -> None:
    table = np.zeros((4, 4))
    for a, b in rows:
        table[a, b] += 1
    of = cells_of(np.array([a for a, _ in rows]), np.array([b for _, b in rows]), 4)
    (ours,) = cohen(of, of.items[None, :].astype(float))
    if len({value for row in rows for value in row}) == 1:
        assert np.isnan(ours)
        return
    assert ours == pytest.approx(cohens_kappa(table, return_results=False), abs=1e-9)


def by_definition(votes: list[Vote], weights: Floats) -> tuple[float, float, float]:
    """Raw agreement, Fleiss' kappa and Gwet's AC2, pair by pair as Gwet (2014) writes them."""
    by_item: dict[int, list[int]] = {}
    for item, _, value in votes:
        by_item.setdefault(item, []).append(value)
    names = sorted({value for given in by_item.values() for value in given})
    place = {name: k for k, name in enumerate(names)}
    agreeing = [
        np.mean([weights[place[x], place[y]] for x, y in permutations(given, 2)])
        for given in by_item.values()
        if len(given) > 1
    ]
    share = np.mean([[given.count(k) / len(given) for k in names] for given in by_item.values()], axis=0)
    observed, q = float(np.mean(agreeing)), len(names)
    by_fleiss = sum(weights[k, m] * share[k] * share[m] for k in range(q) for m in range(q))
    by_gwet = weights.sum() / (q * (q - 1)) * sum(p * (1 - p) for p in share)
    return observed, (observed - by_fleiss) / (1 - by_fleiss), (observed - by_gwet) / (1 - by_gwet)


@given(tables(), st.sampled_from([np.eye, ordinal_weights, lambda q: quadratic_weights(numbers(q))]))
@settings(max_examples=60)
def test_raw_fleiss_and_gwet_by_their_definitions(
    votes: list[Vote], weights: Callable[[int], Floats]
) -> None:
    held = Counter(item for item, _, _ in votes)
    if len({v[2] for v in votes}) < 2 or max(held.values()) < 2:
        return
    of = patterns(votes)
    matrix = weights(of.counts.shape[1])
    ours = summed(of, matrix)
    theirs = by_definition(votes, matrix)
    assert [float(c(ours)[0]) for c in (raw, fleiss, gwet)] == pytest.approx(theirs, abs=1e-9)


@given(tables())
@settings(max_examples=40)
def test_quadratic_weights_and_moments_are_one_alpha(votes: list[Vote]) -> None:
    if not votes:
        return
    of = patterns(votes)
    n = of.counts.shape[1]
    (by_table,) = alpha(summed(of, quadratic_weights(numbers(n))))
    assert interval(of, numbers(n)) == pytest.approx(float(by_table), abs=1e-9, nan_ok=True)


@given(tables(), st.randoms(use_true_random=False))
@settings(max_examples=40)
def test_order_of_items_raters_and_names_of_values_do_not_matter(votes: list[Vote], chance: object) -> None:
    if not votes:
        return

    def shuffled(numbers: list[int]) -> dict[int, int]:
        other = list(numbers)
        chance.shuffle(other)  # type: ignore[attr-defined]
        return dict(zip(numbers, other, strict=True))

    item, rater, value = (shuffled(sorted({v[i] for v in votes})) for i in range(3))
    moved = [(item[i], rater[r], v) for i, r, v in votes]
    chance.shuffle(moved)  # type: ignore[attr-defined]
    one, other = patterns(votes), patterns(moved)
    assert one.values.tolist() == other.values.tolist()
    assert one.items.tolist() == other.items.tolist()
    renamed = summed(patterns([(i, r, value[v]) for i, r, v in votes]))
    for coefficient in (raw, fleiss, gwet, alpha):
        ours = float(coefficient(summed(one))[0])
        assert float(coefficient(renamed)[0]) == pytest.approx(ours, abs=1e-12, nan_ok=True)


@pytest.mark.parametrize(
    ("scale", "shift"), [(1.0, 0.0), (1.0, 1e9), (1e-6, 1e3), (1e6, -1e15), (1e300, 0.0), (-2.0, 5.0)]
)
def test_interval_alpha_does_not_change_with_the_unit(scale: float, shift: float) -> None:
    four = patterns(votes_of(FOUR_RATERS))
    assert interval(four, numbers(5) * scale + shift) == pytest.approx(0.84911, abs=1e-4)


def test_interval_alpha_of_the_largest_numbers() -> None:
    of = patterns([(0, 0, 0), (0, 1, 0), (1, 0, 1), (1, 1, 1), (2, 0, 0), (2, 1, 1)])
    most = np.finfo(float).max
    assert interval(of, np.array([-most, most])) == pytest.approx(float(alpha(summed(of))[0]))


def test_numbers_that_stand_on_items_with_one_vote_do_not_disturb_alpha() -> None:
    votes = [(0, 0, 0), (0, 1, 0), (1, 0, 1), (1, 1, 1), (2, 0, 0), (2, 1, 1)]
    with_far = patterns([*votes, (3, 0, 2)])
    near = np.array([1.0, 1.0 + 1e-9])
    assert interval(with_far, np.array([*near, 1e12])) == pytest.approx(interval(patterns(votes), near))


def test_long_patterns_are_told_apart() -> None:
    # 150 votes of 200 values do not fit in one number.
    rng = np.random.default_rng(3)
    rows = rng.integers(0, 200, (6, 150))
    votes = [(i, r, int(v)) for i, row in enumerate([*rows, rows[0]]) for r, v in enumerate(row)]
    item, value, many = coded(votes)
    of = patterns_of(item, value, many)
    assert sorted(of.items.tolist()) == [1, 1, 1, 1, 1, 2]
    assert of.counts.sum() == 6 * 150


def test_many_values_have_no_table_and_the_same_raw_agreement() -> None:
    item = np.repeat(np.arange(400), 2)
    value = np.where(np.arange(800) % 4 < 2, item, np.arange(800))
    of = patterns_of(item, value, 800)
    assert of.counts.shape[1] == 0
    assert raw(summed(of))[0] == pytest.approx(0.5)

"""Corrected prevalence: the formula, its interval in simulation, and what cannot be corrected."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.audit.prevalence import Counts, needed_gold, prevalence


def test_the_formula() -> None:
    found = prevalence(Counts(400, 2000), Counts(80, 100), Counts(90, 100))
    assert (found.apparent, found.sensitivity, found.specificity) == (0.2, 0.8, 0.9)
    assert found.corrected == pytest.approx((0.2 + 0.9 - 1) / (0.8 + 0.9 - 1), abs=1e-4)
    assert found.reason == ""
    # Lang and Reiczigel's interval, by hand from their formulas.
    assert (found.low, found.high) == pytest.approx(by_hand(400, 2000, 80, 100, 90, 100), abs=1e-4)


def by_hand(x: int, n: int, a: int, n_se: int, b: int, n_sp: int) -> tuple[float, float]:
    z = 1.959964
    p = (x + z * z / 2) / (n + z * z)
    se, sp = (a + 1) / (n_se + 2), (b + 1) / (n_sp + 2)
    pi = (p + sp - 1) / (se + sp - 1)
    of_se, of_sp = se * (1 - se) / (n_se + 2), sp * (1 - sp) / (n_sp + 2)
    shift = 2 * z * z * (pi * of_se - (1 - pi) * of_sp)
    root = (p * (1 - p) / (n + z * z) + pi**2 * of_se + (1 - pi) ** 2 * of_sp) ** 0.5 / (se + sp - 1)
    return pi + shift - z * root, pi + shift + z * root


@pytest.mark.parametrize("unsafe", [0.02, 0.1, 0.3, 0.6])
@pytest.mark.parametrize("rates", [(0.8, 0.9), (0.95, 0.97), (0.7, 0.75)])
@pytest.mark.parametrize("gold", [60, 200])
def test_the_interval_holds_the_truth(unsafe: float, rates: tuple[float, float], gold: int) -> None:
    rng = np.random.default_rng(7)
    says = unsafe * rates[0] + (1 - unsafe) * (1 - rates[1])
    held = told = naive = 0
    for _ in range(600):
        called = Counts(int(rng.binomial(2000, says)), 2000)
        golds = (Counts(int(rng.binomial(gold, rate)), gold) for rate in rates)
        found = prevalence(called, *golds)
        if found.corrected is not None:
            told += 1
            held += found.low <= unsafe <= found.high  # type: ignore[operator]
            naive += found.apparent_low <= unsafe <= found.apparent_high  # type: ignore[operator]
    assert told > 590
    assert held / told >= 0.925
    if abs(says - unsafe) > 0.05:
        assert naive / told < 0.2, "without correction it is elsewhere"


def test_what_cannot_be_corrected_has_a_reason() -> None:
    good = Counts(80, 100)
    assert prevalence(Counts(0, 0), good, good).reason == "nothing was judged"
    assert prevalence(Counts(0, 0), good, good).apparent is None
    missing = prevalence(Counts(1, 10), Counts(0, 0), good)
    assert (missing.corrected, missing.low, missing.sensitivity, missing.reason) == (
        None, None, None, "no gold that is unsafe"
    )  # fmt: skip
    assert prevalence(Counts(1, 10), good, Counts(0, 0)).reason == "no gold that is safe"
    useless = prevalence(Counts(1, 10), Counts(50, 100), Counts(50, 100))
    assert useless.corrected is None
    assert useless.reason.startswith("on gold the judges tell nothing")
    assert needed_gold(0.1, Counts(1, 10), Counts(50, 100), Counts(50, 100)).reason == useless.reason
    with pytest.raises(ValueError, match="3 of 2"):
        Counts(3, 2)


def test_more_gold_makes_the_interval_as_narrow_as_was_said() -> None:
    called, unsafe, safe = Counts(3000, 10_000), Counts(80, 100), Counts(180, 200)
    now = prevalence(called, unsafe, safe)
    width = now.high - now.low  # type: ignore[operator]
    assert needed_gold(width + 0.01, called, unsafe, safe).more == 0
    needed = needed_gold(width / 2, called, unsafe, safe)
    assert needed.more is not None
    assert needed.more > 600
    times = 1 + needed.more / 300
    more = [Counts(round(c.hits * times), round(c.n * times)) for c in (unsafe, safe)]
    then = prevalence(called, *more)
    assert then.high - then.low == pytest.approx(width / 2, rel=0.02)  # type: ignore[operator]
    assert needed_gold(0.001, called, unsafe, safe).more is None
    assert "only 10000 items were judged" in needed_gold(0.001, called, unsafe, safe).reason


counts = st.integers(0, 50).flatmap(lambda n: st.builds(Counts, st.integers(0, n), st.just(n)))


@given(counts, counts, counts, st.floats(0.01, 1))
def test_whatever_was_counted_the_answer_is_in_range_or_null(
    called: Counts, unsafe: Counts, safe: Counts, width: float
) -> None:
    found = prevalence(called, unsafe, safe)
    assert (found.corrected is None) == bool(found.reason)
    if found.corrected is not None:
        assert 0 <= found.low <= found.corrected <= found.high <= 1  # type: ignore[operator]
    needed = needed_gold(width, called, unsafe, safe)
    assert (needed.more is None) == bool(needed.reason)

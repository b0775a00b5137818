"""The budget: never over the cap, and no stop while there is room."""

from __future__ import annotations

import asyncio
import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.engine.budget import TOTAL, Budget, BudgetError


@settings(deadline=None, max_examples=30)
@given(st.integers(0, 10**6), st.floats(0.01, 2.0))
def test_spent_and_reserved_never_pass_the_cap(seed: int, cap: float) -> None:
    rng = random.Random(seed)  # noqa: S311 - no secret
    spent = 0.0
    stopped = 0

    async def call(budget: Budget) -> None:
        nonlocal spent, stopped
        worst = rng.uniform(0.0, 0.2)
        actual = worst * rng.random()
        try:
            await budget.reserve("s", worst)
        except BudgetError:
            stopped += 1
            return
        await asyncio.sleep(0)
        spent += actual
        assert spent <= cap + 1e-6
        budget.settle("s", worst, actual)

    async def run() -> None:
        budget = Budget({TOTAL: cap}, {})
        await asyncio.gather(*(call(budget) for _ in range(20)))

    asyncio.run(run())
    assert stopped or spent <= cap + 1e-6


def test_a_call_waits_for_those_under_way_before_the_run_stops() -> None:
    async def run() -> None:
        budget = Budget({TOTAL: 1.0}, {})
        await budget.reserve("s", 0.9)
        waiting = asyncio.create_task(budget.reserve("s", 0.5))
        await asyncio.sleep(0.1)
        assert not waiting.done()
        budget.settle("s", 0.9, 0.1)
        await asyncio.wait_for(waiting, 5)

    asyncio.run(run())


def test_the_error_names_the_cap_and_the_mend() -> None:
    stage = Budget({TOTAL: 9.0, "respond": 1.0}, {TOTAL: 5.0, "respond": 0.95})
    with pytest.raises(BudgetError, match=r"0\.9500 of 1\.0000 USD \(respond\).*budget\.stages\.respond"):
        asyncio.run(stage.reserve("respond", 0.1))
    asyncio.run(stage.reserve("label_pairs", 0.1))
    with pytest.raises(BudgetError, match=r"budget\.total"):
        asyncio.run(Budget({TOTAL: 1.0}, {TOTAL: 1.0}).reserve("respond", 0.1))


def test_without_caps_and_without_prices_nothing_is_held_back() -> None:
    asyncio.run(Budget({}, {}).reserve("s", 1e9))
    asyncio.run(Budget({TOTAL: 0.0}, {}).reserve("s", 0.0))

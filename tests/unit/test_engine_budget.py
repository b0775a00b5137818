"""The budget: never over the cap, and no stop while there is room."""

from __future__ import annotations

import asyncio
import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.engine import budget as budget_module
from pipeline.engine.budget import TOTAL, Budget, BudgetError


@settings(deadline=None, max_examples=30)
@given(st.integers(0, 10**6), st.floats(0.01, 2.0))
def test_spent_and_reserved_never_pass_the_cap(seed: int, cap: float) -> None:
    rng = random.Random(seed)  # noqa: S311 - no secret
    spent = under_way = 0.0
    most = 0.2
    answered = 0

    async def call(budget: Budget) -> None:
        nonlocal spent, under_way, answered
        worst = rng.uniform(0.0, most)
        actual = worst * rng.random()
        try:
            await budget.reserve("s", worst)
        except BudgetError:
            assert spent + most > cap, "it stopped while there was room for any call"
            return
        under_way += worst
        assert spent + under_way <= cap + 1e-6
        for _ in range(rng.randrange(3)):
            await asyncio.sleep(0)
        # As in a run: an answer is in the books before it is settled, or it is lost and counts all the same.
        lost = rng.random() < 0.1
        spent, under_way = spent + (worst if lost else actual), under_way - worst
        answered += 1
        if not lost:
            books[TOTAL] = books.get(TOTAL, 0.0) + actual
        budget.settle("s", worst, worst if lost else actual, lost=lost)

    books: dict[str, float] = {}

    async def run() -> None:
        budget = Budget({TOTAL: cap}, lambda: dict(books))
        await asyncio.gather(*(call(budget) for _ in range(20)))

    asyncio.run(run())
    assert answered == 20 or spent + most > cap


def test_what_another_program_spends_is_known_and_counts_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(budget_module, "BOOKS_S", 0.05)
    books = {TOTAL: 0.0}

    async def run() -> None:
        budget = Budget({TOTAL: 1.0}, lambda: dict(books))
        await budget.reserve("s", 0.3)
        books[TOTAL] += 0.3
        budget.settle("s", 0.3, 0.3)
        await budget.reserve("s", 0.1)
        budget.settle("s", 0.1, 0.0)
        books[TOTAL] += 0.5
        await asyncio.sleep(0.1)
        with pytest.raises(BudgetError, match=r"0\.8000 of 1\.0000"):
            await budget.reserve("s", 0.3)
        await budget.reserve("s", 0.2)

    asyncio.run(run())


def test_a_call_waits_for_those_under_way_before_the_run_stops() -> None:
    async def run() -> None:
        budget = Budget({TOTAL: 1.0})
        await budget.reserve("s", 0.9)
        waiting = asyncio.create_task(budget.reserve("s", 0.5))
        await asyncio.sleep(0.1)
        assert not waiting.done()
        budget.settle("s", 0.9, 0.1)
        await asyncio.wait_for(waiting, 5)

    asyncio.run(run())


def test_the_error_names_the_cap_and_the_mend() -> None:
    stage = Budget({TOTAL: 9.0, "respond": 1.0}, lambda: {TOTAL: 5.0, "respond": 0.95})
    with pytest.raises(BudgetError, match=r"0\.9500 of 1\.0000 USD \(respond\).*budget\.stages\.respond"):
        asyncio.run(stage.reserve("respond", 0.1))
    asyncio.run(stage.reserve("label_pairs", 0.1))
    with pytest.raises(BudgetError, match=r"budget\.total"):
        asyncio.run(Budget({TOTAL: 1.0}, lambda: {TOTAL: 1.0}).reserve("respond", 0.1))


def test_without_caps_and_without_prices_nothing_is_held_back() -> None:
    asyncio.run(Budget({}).reserve("s", 1e9))
    asyncio.run(Budget({TOTAL: 0.0}).reserve("s", 0.0))

"""The Batch API: one batch, whatever happens between writing it down and storing its answers."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from pipeline.engine import (
    TOTAL,
    BatchNote,
    Budget,
    BudgetError,
    CallCache,
    EndpointError,
    Engine,
    open_cache,
)
from pipeline.engine import batch as batch_module
from tests.scripted import Scripted, Verdict, items, scripted


@pytest.fixture
def cache(tmp_path: Path) -> Iterator[CallCache]:
    with open_cache(tmp_path / "calls.sqlite") as opened:
        yield opened


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(batch_module, "POLL_S", 0.05)


def engine(served: Scripted, cache: CallCache, **more: Any) -> Engine:
    return Engine(cache, served.endpoint(batch=True, completion_price=1000.0), **more)


def test_a_batch_answers_all_in_order_and_a_rerun_sends_nothing(cache: CallCache) -> None:
    with scripted() as served:
        answers = engine(served, cache).ask_all(items(served, 50), stage="t")
        assert [a.value.reason for a in answers if isinstance(a.value, Verdict)] == [
            f"item {i}" for i in range(50)
        ]
        again = engine(served, cache).ask_all(items(served, 60), stage="t")
        assert [a.cached for a in again[:50]] == [True] * 50
        stats = served.stats()
        assert (stats["requests"], stats["batches"], stats["distinct"]) == (0, 2, 60)
    assert all(note.state == "done" for note in cache.batches(served.endpoint().backend_id))


def test_wrong_answers_are_asked_again_in_a_second_batch(cache: CallCache) -> None:
    with scripted(faults={"invalid": 0.3, "truncated": 0.1}) as served:
        answers = engine(served, cache).ask_all(items(served, 100), stage="t")
        assert served.stats()["batches"] >= 2
    assert {a.status for a in answers} == {"ok", "unscorable"}
    assert any(a.attempts == 2 and a.status == "ok" for a in answers)


def test_lines_that_fail_or_expire_are_errors_and_the_next_run_asks_them_again(cache: CallCache) -> None:
    with scripted(faults={"status_500": 0.2}, batch_expires=0.2) as served:
        first = engine(served, cache).ask_all(items(served, 100), stage="t")
        failed = [a for a in first if a.status == "error"]
        assert 10 < len(failed) < 80
        assert {"500" in a.error or "expire" in a.error for a in failed} == {True}
        assert cache.count() == 100 - len(failed)
        second = engine(served, cache).ask_all(items(served, 100), stage="t")
        assert sum(a.cached for a in second) == 100 - len(failed)
        assert sum(a.status == "error" for a in second) < len(failed)


@pytest.mark.parametrize("point", ["planned", "uploaded", "submitted", "created, and its id lost", "stored"])
def test_a_restart_finds_the_batch_and_submits_it_once(
    cache: CallCache, point: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    class CrashError(Exception):
        pass

    note_batch = cache.note_batch

    def crashing(note: Any, calls: Any = ()) -> None:
        if point == "created, and its id lost" and note.state == "submitted":
            raise CrashError
        if point == "stored" and note.state == "done":
            raise CrashError
        note_batch(note, calls)
        if note.state == point:
            raise CrashError

    with scripted(batch_s=0.2) as served:
        monkeypatch.setattr(cache, "note_batch", crashing)
        with pytest.raises(CrashError):
            engine(served, cache).ask_all(items(served, 20), stage="t")
        monkeypatch.setattr(cache, "note_batch", note_batch)
        # What the restart asks for need not be what the batch holds.
        answers = engine(served, cache).ask_all(items(served, 10), stage="t")
        assert {a.status for a in answers} == {"ok"}
        assert (served.stats()["batches"], served.stats()["repeated"]) == (1, 0)
        assert cache.count() == 20


def test_the_budget_holds_back_a_whole_batch(cache: CallCache) -> None:
    with scripted() as served:
        with pytest.raises(BudgetError):
            engine(served, cache, budget=Budget.of(cache, {TOTAL: 1.0})).ask_all(items(served, 50), stage="t")
        assert served.stats()["batches"] == 0
        budget = Budget.of(cache, {TOTAL: 3.0})
        engine(served, cache, budget=budget).ask_all(items(served, 50), stage="t")
        spent = sum(use.cost_usd for use in cache.usage())
        assert 0 < spent < 2.5


def test_large_questions_are_split_into_files(cache: CallCache, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(batch_module, "MOST_CALLS", 8)
    with scripted() as served:
        answers = engine(served, cache).ask_all(items(served, 20), stage="t")
        assert {a.status for a in answers} == {"ok"}
        assert served.stats()["batches"] == 3


def test_a_provider_without_batches_is_one_clear_error(cache: CallCache) -> None:
    with scripted() as served:
        wrong = served.base_url.removesuffix("/v1") + "/elsewhere"
        told = replace(served.endpoint(batch=True), base_url=wrong)
        with pytest.raises(EndpointError, match="404"):
            Engine(cache, told).ask_all(items(served, 5), stage="t")


def test_parts_that_do_not_fit_the_budget_together_go_one_after_the_other(
    cache: CallCache, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(batch_module, "MOST_CALLS", 10)
    with scripted() as served:
        # Ten calls cost at most 0.5, and thirty 1.5.
        budget = Budget.of(cache, {TOTAL: 1.2})
        answers = engine(served, cache, budget=budget).ask_all(items(served, 30), stage="t")
        assert {a.status for a in answers} == {"ok"}
        assert served.stats()["batches"] == 3


def test_a_batch_that_cannot_be_handed_over_does_not_hold_its_reserve_for_ever(cache: CallCache) -> None:
    with scripted() as served:
        budget = Budget.of(cache, {TOTAL: 1.0})
        wrong = served.base_url.removesuffix("/v1") + "/elsewhere"
        told = replace(served.endpoint(batch=True, completion_price=1000.0), base_url=wrong)
        with pytest.raises(EndpointError):
            Engine(cache, told, budget=budget).ask_all(items(served, 10), stage="t")
        with pytest.raises(BudgetError):
            asyncio.run(asyncio.wait_for(budget.reserve("t", 0.9), 5))


def test_a_batch_under_way_is_not_asked_again_one_by_one(cache: CallCache) -> None:
    with scripted() as served:
        backend = served.endpoint().backend_id
        cache.note_batch(BatchNote("n", backend, "m", "f", "b", "submitted", 3))
        with pytest.raises(EndpointError, match="a batch of 3 calls to m is under way"):
            Engine(cache, served.endpoint()).ask_all(items(served, 5), stage="t")
        assert served.stats()["requests"] == 0


def test_two_who_ask_the_same_at_once_send_one_batch(cache: CallCache, tmp_path: Path) -> None:
    with scripted(batch_s=0.3) as served, open_cache(tmp_path / "calls.sqlite") as other:
        results: list[list[str]] = []

        def run(opened: CallCache) -> None:
            answers = engine(served, opened).ask_all(items(served, 20), stage="t")
            results.append([a.status for a in answers])

        threads = [threading.Thread(target=run, args=[opened]) for opened in (cache, other)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert results == [["ok"] * 20] * 2
        assert (served.stats()["batches"], served.stats()["repeated"]) == (1, 0)


def test_who_waits_for_anothers_batch_can_be_stopped(cache: CallCache) -> None:
    with scripted() as served:
        let_go = cache.hold(f"batch {served.endpoint().backend_id} m")
        assert let_go is not None
        waiting = engine(served, cache)

        def run() -> None:
            with suppress(asyncio.CancelledError):
                waiting.ask_all(items(served, 5), stage="t")

        thread = threading.Thread(target=run)
        thread.start()
        thread.join(timeout=0.5)
        assert thread.is_alive()
        waiting.stop()
        thread.join(timeout=5)
        assert not thread.is_alive()
        assert served.stats()["batches"] == 0
        let_go()

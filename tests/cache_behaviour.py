"""What every call cache does, whatever keeps it. A test module makes a class of it with a fixture `place`."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

from pipeline.engine import BatchNote, Call, CallCacheError, Record, open_cache

ROOT = Path(__file__).resolve().parents[1]
RECORD = Record("k", "openai", "m", "stage", 1, "{}", "text", "stop", 5, 2, "", 0.5)

Place = str | Path


def numbered(count: int) -> list[Record]:
    return [replace(RECORD, key=f"{i:04}") for i in range(count)]


class CacheBehaviour:
    def test_put_is_there_for_every_reader_once_it_is_done(self, place: Place) -> None:
        with open_cache(place) as one, open_cache(place) as other:
            assert other.get("k") is None
            stored = one.put(RECORD).result()
            assert stored.created_at.endswith("+00:00")
            assert other.get("k") == stored
            assert list(other.records(stage="stage")) == [stored]
            assert list(other.records(stage="other")) == []

    def test_the_first_answer_stands(self, place: Place) -> None:
        with open_cache(place) as one, open_cache(place) as other:
            first = one.put(RECORD).result()
            assert other.put(replace(RECORD, response_text="another")).result() == first
            assert one.count() == 1

    def test_many_are_committed_together_and_come_out_page_by_page(self, place: Place) -> None:
        with open_cache(place) as cache:
            futures = [cache.put(record) for record in numbered(2500)]
            assert [future.result().key for future in futures] == [f"{i:04}" for i in range(2500)]
            assert len(cache.get_many(f"{i:04}" for i in range(3000))) == 2500
            assert sorted(record.key for record in cache.records()) == [f"{i:04}" for i in range(2500)]
            times = [record.created_at for record in cache.records()]
            assert times == sorted(times)

    def test_a_cancelled_waiter_does_not_lose_the_answer(self, place: Place) -> None:
        with open_cache(place) as cache:
            for record in numbered(50):
                cache.put(record).cancel()
            cache.put(RECORD).result()
            assert cache.count() == 51

    def test_characters_that_no_store_takes_lose_no_answer(self, place: Place) -> None:
        odd = {"half": "a\ud83d", "nul": "a\0", "whole": "a\U0001f600"}
        with open_cache(place) as cache:
            records = [replace(RECORD, key=key, response_text=text) for key, text in odd.items()]
            stored = [future.result() for future in [cache.put(r) for r in [*numbered(20), *records]]]
            texts = {record.key: record.response_text for record in stored}
            assert cache.count() == 23
            assert cache.get_many(texts) == {record.key: record for record in stored}
        assert texts["half"] == "a\ufffd"
        assert texts["nul"] in ("a\0", "a\ufffd")
        assert texts["whole"] == odd["whole"]

    def test_several_processes_write_at_once(self, place: Place) -> None:
        program = f"""
import sys
sys.path.insert(0, {str(ROOT)!r})
from pipeline.engine import *
with open_cache({str(place)!r}) as cache:
    records = [Record(f"{{i}}", "b", "m", "s", 1, "{{}}", sys.argv[1], "stop", 0, 0) for i in range(300)]
    done = [cache.put(record) for record in records]
    print([future.result().response_text for future in done])
"""
        children = [
            subprocess.Popen([sys.executable, "-c", program, str(n)], stdout=subprocess.PIPE, text=True)
            for n in (1, 2)
        ]
        outputs = [child.communicate()[0] for child in children]
        assert [child.returncode for child in children] == [0, 0]
        assert outputs[0] == outputs[1], "both were handed the answers that were stored"

    def test_keys_are_found_and_listed_without_their_answers(self, place: Place) -> None:
        with open_cache(place) as cache:
            for future in [cache.put(record) for record in numbered(30)]:
                future.result()
            assert cache.has(["0003", "x", "0029", "0030"]) == {"0003", "0029"}
            assert cache.keys("002") == [f"{i:04}" for i in range(20, 30)]
            assert len(cache.keys()) == 30
            assert cache.keys("9") == []

    def test_usage_adds_up(self, place: Place) -> None:
        with open_cache(place) as cache:
            for record in [*numbered(4), replace(RECORD, key="other", stage="second", cost_usd=0.25)]:
                cache.put(record).result()
            second, first = cache.usage()
        assert (first.stage, first.calls, first.prompt_tokens, first.completion_tokens) == ("stage", 4, 20, 8)
        assert (first.cost_usd, second.cost_usd) == (2.0, 0.25)

    def test_deleted_calls_are_gone(self, place: Place) -> None:
        with open_cache(place) as cache:
            for future in [cache.put(record) for record in numbered(5)]:
                future.result()
            cache.delete(["0001", "0002", "absent"])
            assert cache.keys() == ["0000", "0003", "0004"]

    def test_what_was_spent_is_in_the_books_once_and_stays_there(self, place: Place) -> None:
        with open_cache(place) as one, open_cache(place) as other:
            for _ in range(2):
                for future in [cache.put(record) for record in numbered(3) for cache in (one, other, one)]:
                    future.result()
            one.delete(["0000", "0001"])
            [used] = other.usage()
            assert (used.calls, used.prompt_tokens, used.completion_tokens, used.cost_usd) == (3, 15, 6, 1.5)
            one.put(replace(RECORD, key="0000")).result()
            assert [use.cost_usd for use in other.usage()] == [2.0], "it was paid for again"

    def test_the_newest_come_last(self, place: Place) -> None:
        with open_cache(place) as cache:
            for n, stage in enumerate(["a", "b", "a", "a"]):
                cache.put(replace(RECORD, key=str(n), stage=stage, created_at=f"2026-01-0{n + 1}")).result()
            assert [record.key for record in cache.newest(None, 3)] == ["1", "2", "3"]
            assert [record.key for record in cache.newest("a", 2)] == ["2", "3"]
            assert cache.newest("c", 2) == []

    def test_a_batch_is_written_down_until_it_is_done(self, place: Place) -> None:
        calls = [Call(key, "openai", "m", "s", 1, "{}") for key in ("a", "b")]
        note = BatchNote("n", "openai", "m", "", "", "planned", 2, 0.5)
        with open_cache(place) as cache:
            cache.note_batch(note, calls)
            cache.note_batch(replace(note, file_id="f", batch_id="b", state="submitted"))
        with open_cache(place) as cache:
            [found] = cache.batches("openai")
            assert (found.file_id, found.batch_id, found.state, found.calls) == ("f", "b", "submitted", 2)
            assert cache.batches("another") == []
            assert datetime.now(UTC) - datetime.fromisoformat(found.created_at) < timedelta(minutes=1)
            assert found.created_at[10] == "T"
            assert cache.batch_calls("n") == calls
            cache.note_batch(replace(found, state="done"))
            assert cache.batch_calls("n") == []
            assert [n.state for n in cache.batches("openai")] == ["done"]

    def test_a_name_is_held_by_one_at_a_time(self, place: Place) -> None:
        with open_cache(place) as one, open_cache(place) as other:
            let_go = one.hold("batch")
            assert let_go is not None
            assert other.hold("batch") is None
            elsewhere = other.hold("another")
            assert elsewhere is not None
            elsewhere()
            let_go()
            again = other.hold("batch")
            assert again is not None
            again()

    def test_a_closed_cache_takes_nothing(self, place: Place) -> None:
        cache = open_cache(place)
        future = cache.put(RECORD)
        cache.close()
        cache.close()
        assert future.result().key == "k", "what was put before is committed"
        uses: list[Callable[[], object]] = [
            lambda: cache.put(RECORD),
            lambda: cache.get("k"),
            lambda: cache.delete(["k"]),
            lambda: cache.note_batch(BatchNote("n", "openai", "m", "", "", "planned", 0)),
        ]
        for use in uses:
            try:
                use()
            except CallCacheError as error:
                assert "closed" in str(error)  # noqa: PT017 - shared by modules that pytest does not rewrite
            else:
                raise AssertionError("a closed cache was used")

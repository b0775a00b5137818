"""The call cache: committed or not there, shared between processes, never overwritten."""

from __future__ import annotations

import sqlite3
import subprocess
import sys
from dataclasses import fields, replace
from pathlib import Path

import pytest

from pipeline.engine import CallCache, CallCacheError, Record

ROOT = Path(__file__).resolve().parents[2]
RECORD = Record("k", "openai", "m", "stage", 1, "{}", "text", "stop", 5, 2)


def test_put_is_there_for_every_reader_once_it_is_done(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "calls.sqlite"
    with CallCache(path) as one, CallCache(path) as other:
        assert other.get("k") is None
        stored = one.put(RECORD).result()
        assert stored.created_at.endswith("+00:00")
        assert other.get("k") == stored
        assert list(other.records(stage="stage")) == [stored]
        assert list(other.records(stage="other")) == []


def test_the_first_answer_stands(tmp_path: Path) -> None:
    with CallCache(tmp_path / "c") as one, CallCache(tmp_path / "c") as other:
        first = one.put(RECORD).result()
        assert other.put(replace(RECORD, response_text="another")).result() == first
        assert one.count() == 1


def test_many_are_committed_together(tmp_path: Path) -> None:
    with CallCache(tmp_path / "c") as cache:
        futures = [cache.put(replace(RECORD, key=str(i))) for i in range(2000)]
        assert [future.result().key for future in futures] == [str(i) for i in range(2000)]
        assert len(cache.get_many(str(i) for i in range(3000))) == 2000


def test_a_cache_of_the_first_version_keeps_its_answers(tmp_path: Path) -> None:
    old = sqlite3.connect(tmp_path / "c")
    columns = [f.name for f in fields(Record) if f.name != "logprobs"]
    kinds = {"attempt": "INTEGER", "prompt_tokens": "INTEGER", "completion_tokens": "INTEGER"}
    typed = ", ".join(f"{c} {kinds.get(c, 'TEXT')}" for c in columns)
    old.execute(f"CREATE TABLE calls ({typed})")
    values = [getattr(RECORD, c) or "2026-01-01" for c in columns]
    old.execute(f"INSERT INTO calls VALUES ({', '.join('?' * len(values))})", values)  # noqa: S608 - marks
    old.execute("PRAGMA user_version=1")
    old.commit()
    old.close()
    with CallCache(tmp_path / "c") as cache:
        assert cache.get("k") == replace(RECORD, created_at="2026-01-01")
        new = replace(RECORD, key="new", logprobs='{"content": []}')
        cache.put(new).result()
        assert (got := cache.get("new")) is not None
        assert got.logprobs == new.logprobs


def test_a_cancelled_waiter_does_not_lose_the_answer(tmp_path: Path) -> None:
    with CallCache(tmp_path / "c") as cache:
        for i in range(50):
            cache.put(replace(RECORD, key=str(i))).cancel()
        cache.put(replace(RECORD, key="last")).result()
        assert cache.count() == 51


def test_several_processes_write_at_once(tmp_path: Path) -> None:
    program = f"""
import sys
sys.path.insert(0, {str(ROOT)!r})
from pathlib import Path
from pipeline.engine import *
with CallCache(Path({str(tmp_path / "c")!r})) as cache:
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


def test_durable_settings(tmp_path: Path) -> None:
    with CallCache(tmp_path / "c") as cache:
        assert cache._reader.execute("PRAGMA journal_mode").fetchone() == ("wal",)
        assert cache._reader.execute("PRAGMA synchronous").fetchone() == (2,)


def test_other_files_are_refused(tmp_path: Path) -> None:
    (tmp_path / "text").write_text("this is no database, and long enough to be read as one" * 20)
    with pytest.raises(CallCacheError, match="text: not usable as a call cache"):
        CallCache(tmp_path / "text")
    foreign = sqlite3.connect(tmp_path / "foreign")
    foreign.execute("CREATE TABLE theirs (x)")
    foreign.close()
    with pytest.raises(CallCacheError, match="another program's"):
        CallCache(tmp_path / "foreign")
    with CallCache(tmp_path / "newer"):
        pass
    newer = sqlite3.connect(tmp_path / "newer")
    newer.execute("PRAGMA user_version=99")
    newer.close()
    with pytest.raises(CallCacheError, match=r"version 99.*do not delete"):
        CallCache(tmp_path / "newer")


def test_a_closed_cache_takes_nothing(tmp_path: Path) -> None:
    cache = CallCache(tmp_path / "c")
    future = cache.put(RECORD)
    cache.close()
    cache.close()
    assert future.result().key == "k", "what was put before is committed"
    with pytest.raises(CallCacheError, match="closed"):
        cache.put(RECORD)

"""The call cache in a file: committed or not there, shared between processes, never overwritten."""

from __future__ import annotations

import sqlite3
from dataclasses import fields, replace
from pathlib import Path

import pytest

from pipeline.engine import CallCacheError, Record, open_cache
from pipeline.engine.sqlite import SqliteCache
from tests.cache_behaviour import RECORD, CacheBehaviour


class TestSqlite(CacheBehaviour):
    @pytest.fixture
    def place(self, tmp_path: Path) -> Path:
        return tmp_path / "deep" / "calls.sqlite"


@pytest.mark.parametrize(
    ("version", "without"), [(1, {"logprobs", "cost_usd"}), (2, {"cost_usd"}), (3, set())]
)
def test_a_cache_of_an_older_version_keeps_its_answers(
    tmp_path: Path, version: int, without: set[str]
) -> None:
    old = sqlite3.connect(tmp_path / "c")
    columns = [f.name for f in fields(Record) if f.name not in without]
    kinds = dict.fromkeys(("attempt", "prompt_tokens", "completion_tokens"), "INTEGER") | {
        "cost_usd": "REAL",
        "key": "TEXT PRIMARY KEY",
    }
    typed = ", ".join(f"{c} {kinds.get(c, 'TEXT')}" for c in columns)
    old.execute(f"CREATE TABLE calls ({typed})")
    known = replace(RECORD, created_at="2026-01-01", cost_usd=0.5 if "cost_usd" in columns else 0.0)
    values = [getattr(known, c) for c in columns]
    old.execute(f"INSERT INTO calls VALUES ({', '.join('?' * len(values))})", values)  # noqa: S608 - marks
    if version == 3:
        names = (
            "name",
            "backend_id",
            "model",
            "file_id",
            "batch_id",
            "state",
            "calls",
            "worst_usd",
            "created_at",
        )
        old.execute(f"CREATE TABLE batches ({', '.join(names)})")
    old.execute(f"PRAGMA user_version={version}")
    old.commit()
    old.close()
    with open_cache(tmp_path / "c") as cache:
        assert cache.get("k") == known
        new = replace(RECORD, key="new", logprobs='{"content": []}', cost_usd=0.25)
        cache.put(new).result()
        assert (got := cache.get("new")) is not None
        assert (got.logprobs, got.cost_usd) == (new.logprobs, 0.25)
        assert cache.batches("openai") == []
        [used] = cache.usage()
        assert (used.calls, used.prompt_tokens, used.cost_usd) == (2, 10, known.cost_usd + 0.25)


def test_durable_settings(tmp_path: Path) -> None:
    with SqliteCache(tmp_path / "c") as cache:
        assert cache._reader.execute("PRAGMA journal_mode").fetchone() == ("wal",)
        assert cache._reader.execute("PRAGMA synchronous").fetchone() == (2,)


def test_other_files_are_refused(tmp_path: Path) -> None:
    (tmp_path / "text").write_text("this is no database, and long enough to be read as one" * 20)
    with pytest.raises(CallCacheError, match="text: not usable as a call cache"):
        open_cache(tmp_path / "text")
    foreign = sqlite3.connect(tmp_path / "foreign")
    foreign.execute("CREATE TABLE theirs (x)")
    foreign.close()
    with pytest.raises(CallCacheError, match="another program's"):
        open_cache(tmp_path / "foreign")
    with open_cache(tmp_path / "newer"):
        pass
    newer = sqlite3.connect(tmp_path / "newer")
    newer.execute("PRAGMA user_version=99")
    newer.close()
    with pytest.raises(CallCacheError, match=r"version 99.*do not delete"):
        open_cache(tmp_path / "newer")


@pytest.mark.parametrize(
    "where", ["postgresql+psycopg://u:canary@h/d", "mysql://h/d", "host=h password=canary"]
)
def test_what_is_neither_a_file_nor_a_url_of_ours_is_refused(where: str) -> None:
    with pytest.raises(CallCacheError, match="neither a file nor") as raised:
        open_cache(where)
    assert "canary" not in str(raised.value)

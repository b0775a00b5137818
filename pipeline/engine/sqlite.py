"""The call cache in one SQLite file.

WAL mode with `synchronous=FULL`: a committed answer survives kill -9 and a power cut.
"""

from __future__ import annotations

import sqlite3
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from operator import attrgetter
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from pipeline.engine.cache import (
    INSERT,
    RECORD_COLUMNS,
    SELECT,
    SPENT_BEFORE,
    VERSION,
    CallCache,
    CallCacheError,
    Record,
    Statement,
    spending,
)
from pipeline.store import sha256_text

__all__ = ["SqliteCache"]

_BATCHES = """
CREATE TABLE IF NOT EXISTS batches (
    name TEXT PRIMARY KEY,
    backend_id TEXT NOT NULL,
    model TEXT NOT NULL,
    file_id TEXT NOT NULL,
    batch_id TEXT NOT NULL,
    state TEXT NOT NULL,
    calls INTEGER NOT NULL,
    worst_usd REAL NOT NULL,
    created_at TEXT NOT NULL
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS batch_calls (
    batch TEXT NOT NULL,
    key TEXT NOT NULL,
    backend_id TEXT NOT NULL,
    model TEXT NOT NULL,
    stage TEXT NOT NULL,
    attempt INTEGER NOT NULL,
    request_json TEXT NOT NULL,
    PRIMARY KEY (batch, key)
) WITHOUT ROWID
"""
_SPENT = """
CREATE TABLE IF NOT EXISTS spent (
    stage TEXT NOT NULL,
    model TEXT NOT NULL,
    backend_id TEXT NOT NULL,
    calls INTEGER NOT NULL,
    prompt_tokens INTEGER NOT NULL,
    completion_tokens INTEGER NOT NULL,
    cost_usd REAL NOT NULL,
    PRIMARY KEY (stage, model, backend_id)
) WITHOUT ROWID
"""
_SCHEMA = f"""
CREATE TABLE IF NOT EXISTS calls (
    key TEXT PRIMARY KEY,
    backend_id TEXT NOT NULL,
    model TEXT NOT NULL,
    stage TEXT NOT NULL,
    attempt INTEGER NOT NULL,
    request_json TEXT NOT NULL,
    response_text TEXT NOT NULL,
    finish_reason TEXT NOT NULL,
    prompt_tokens INTEGER NOT NULL,
    completion_tokens INTEGER NOT NULL,
    created_at TEXT NOT NULL,
    logprobs TEXT NOT NULL DEFAULT '',
    cost_usd REAL NOT NULL DEFAULT 0
) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS calls_stage ON calls (stage, created_at);
CREATE INDEX IF NOT EXISTS calls_created ON calls (created_at, key);
{_BATCHES};
{_SPENT}"""
# A cache of an older version is brought up to this one: its answers are paid for.
_UPGRADES = {
    1: "ALTER TABLE calls ADD COLUMN logprobs TEXT NOT NULL DEFAULT ''",
    2: f"""
ALTER TABLE calls ADD COLUMN cost_usd REAL NOT NULL DEFAULT 0;
CREATE INDEX IF NOT EXISTS calls_created ON calls (created_at, key);
{_BATCHES}""",
    3: f"{_SPENT};{SPENT_BEFORE}",
}
_VALUES = attrgetter(*RECORD_COLUMNS)
_MARKS_AT_ONCE = 500


class SqliteCache(CallCache):
    """Answers by call key, in one SQLite file that several processes may use at once."""

    def __init__(self, path: Path) -> None:
        """Open the cache, making it if it is not there.

        Raises:
            CallCacheError: when the file is no call cache, or one of another version.
        """
        self.path = path
        path.parent.mkdir(parents=True, exist_ok=True)
        self._reading = threading.Lock()
        self._reader = self._open()
        self._writing = threading.Lock()
        self._connection = self._open()
        super().__init__(str(path))

    def get_many(self, keys: Iterable[str]) -> dict[str, Record]:
        """The committed answers to many calls."""
        found: dict[str, Record] = {}
        for rows in self._looked_up(SELECT, keys):
            for row in rows:
                found[row[0]] = Record(*row)
        return found

    def has(self, keys: Sequence[str]) -> set[str]:
        """Which of the calls are answered."""
        return {row[0] for rows in self._looked_up("SELECT key FROM calls", keys) for row in rows}

    def _looked_up(self, select: str, keys: Iterable[str]) -> Iterator[list[tuple[Any, ...]]]:
        wanted = list(dict.fromkeys(keys))
        for start in range(0, len(wanted), _MARKS_AT_ONCE):
            some = wanted[start : start + _MARKS_AT_ONCE]
            yield self._read(f"{select} WHERE key IN ({','.join('?' * len(some))})", some)

    def hold(self, name: str) -> Callable[[], None] | None:
        """Take a name against every other holder of this cache; None where another has it."""
        lock = FileLock(f"{self.path}.{sha256_text(name)[:16]}.lock", thread_local=False)
        try:
            lock.acquire(timeout=0)
        except Timeout:
            return None
        return lock.release

    def _change(self, statements: Sequence[Statement]) -> None:
        with self._transaction() as connection:
            for statement, rows in statements:
                connection.executemany(statement, rows)

    def _store(self, records: Sequence[Record]) -> list[Record]:
        stored: list[Record] = []
        new: list[Record] = []
        with self._transaction() as connection:
            for record in records:
                if connection.execute(INSERT, _VALUES(record)).rowcount == 0:
                    row = connection.execute(f"{SELECT} WHERE key = ?", [record.key]).fetchone()
                    stored.append(Record(*row))
                else:
                    stored.append(record)
                    new.append(record)
            connection.executemany(*spending(new))
        return stored

    def _close_store(self) -> None:
        with self._writing:
            self._connection.close()
        with self._reading:
            self._reader.close()

    def _read(self, statement: str, values: Sequence[object] = ()) -> list[tuple[Any, ...]]:
        with self._reading:
            try:
                return self._reader.execute(statement, values).fetchall()
            except sqlite3.Error as error:
                raise CallCacheError(f"{self.path}: the call cache cannot be read: {error}") from error

    @contextmanager
    def _transaction(self) -> Iterator[sqlite3.Connection]:
        """A transaction that is committed at the end, or leaves nothing behind."""
        with self._writing:
            try:
                self._connection.execute("BEGIN IMMEDIATE")
                yield self._connection
                self._connection.execute("COMMIT")
            except sqlite3.Error as error:
                self._roll_back()
                raise CallCacheError(
                    f"{self.path}: answers could not be stored ({error}); "
                    "free the disk or the lock and run again"
                ) from error
            except BaseException:
                self._roll_back()
                raise

    def _roll_back(self) -> None:
        # Where this fails too, for instance because the file is closed, the first error is the one to tell.
        with suppress(sqlite3.Error):
            if self._connection.in_transaction:
                self._connection.execute("ROLLBACK")

    def _open(self) -> sqlite3.Connection:
        connection = sqlite3.connect(self.path, timeout=60, isolation_level=None, check_same_thread=False)
        try:
            _enter_wal(connection)
            connection.execute("PRAGMA synchronous=FULL")
            version = connection.execute("PRAGMA user_version").fetchone()[0]
            if version == 0:
                if connection.execute(
                    "SELECT 1 FROM sqlite_master WHERE type = 'table' AND name NOT IN "
                    "('calls', 'batches', 'batch_calls', 'spent')"
                ).fetchone():
                    raise sqlite3.DatabaseError("it is another program's database")
                connection.execute("BEGIN IMMEDIATE")
                for statement in _SCHEMA.split(";"):
                    connection.execute(statement)
                connection.execute(f"PRAGMA user_version={VERSION}")
                connection.execute("COMMIT")
            elif version in _UPGRADES:
                version = _upgrade(connection)
        except sqlite3.Error as error:
            connection.close()
            raise CallCacheError(f"{self.path}: not usable as a call cache: {error}") from error
        if version not in (0, VERSION):
            connection.close()
            raise CallCacheError(
                f"{self.path}: call cache version {version}, this program knows {VERSION}; use the program "
                "that wrote it, and do not delete the file: it holds paid answers"
            )
        return connection


def _upgrade(connection: sqlite3.Connection) -> int:
    connection.execute("BEGIN IMMEDIATE")
    # Read again under the lock: another process may have been first.
    while (version := connection.execute("PRAGMA user_version").fetchone()[0]) in _UPGRADES:
        for statement in _UPGRADES[version].split(";"):
            connection.execute(statement)
        connection.execute(f"PRAGMA user_version={version + 1}")
    connection.execute("COMMIT")
    return int(version)


def _enter_wal(connection: sqlite3.Connection) -> None:
    # The switch does not wait for a lock as statements do, so two processes that open a new file can meet.
    deadline = time.monotonic() + 30
    while True:
        try:
            connection.execute("PRAGMA journal_mode=WAL")
        except sqlite3.OperationalError as error:
            if "locked" not in str(error) or time.monotonic() > deadline:
                raise
            time.sleep(0.05)
        else:
            return

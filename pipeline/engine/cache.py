"""The call cache: what was answered, kept from the moment it counts as answered.

SQLite in WAL mode with `synchronous=FULL`: a committed answer survives kill -9 and a power cut. One thread
writes, and commits together what has gathered since its last commit, so that the disk is synced once for
many answers. Errors are never stored; a truncated or refused answer is, because it was paid for, and is
told from a good one by its `finish_reason` at every read.
"""

from __future__ import annotations

import queue
import sqlite3
import threading
import time
from collections.abc import Iterable, Iterator
from concurrent.futures import Future
from dataclasses import astuple, dataclass, fields
from datetime import UTC, datetime
from pathlib import Path
from typing import Self

__all__ = ["CallCache", "CallCacheError", "Record"]

VERSION = 2

_SCHEMA = """
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
    logprobs TEXT NOT NULL DEFAULT ''
) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS calls_stage ON calls (stage, created_at);
"""
# A cache of an older version is brought up to this one: its answers are paid for.
_UPGRADES = {1: "ALTER TABLE calls ADD COLUMN logprobs TEXT NOT NULL DEFAULT ''"}


class CallCacheError(Exception):
    """The cache cannot be read or written."""


@dataclass(frozen=True)
class Record:
    """One answered call.

    `attempt` is 1 for a question, 2 and more where it was asked again. `logprobs` is the JSON that came with
    the answer where log-probabilities were asked for, else empty.
    """

    key: str
    backend_id: str
    model: str
    stage: str
    attempt: int
    request_json: str
    response_text: str
    finish_reason: str
    prompt_tokens: int
    completion_tokens: int
    logprobs: str = ""
    created_at: str = ""


_COLUMNS = ", ".join(f.name for f in fields(Record))
_MARKS = ", ".join("?" for _ in fields(Record))


class CallCache:
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
        connection = self._open()
        self._jobs: queue.SimpleQueue[tuple[Record, Future[Record]] | None] = queue.SimpleQueue()
        self._closing = threading.Lock()
        self._closed = False
        # A daemon, so that a program that forgot `close` still ends: an answer counts after its commit only.
        self._writer = threading.Thread(target=self._write, args=[connection], name="call-cache", daemon=True)
        self._writer.start()

    def get(self, key: str) -> Record | None:
        """The committed answer to a call, if there is one."""
        return self.get_many([key]).get(key)

    def get_many(self, keys: Iterable[str]) -> dict[str, Record]:
        """The committed answers to many calls."""
        found: dict[str, Record] = {}
        wanted = list(dict.fromkeys(keys))
        with self._reading:
            for start in range(0, len(wanted), 500):
                some = wanted[start : start + 500]
                marks = ",".join("?" * len(some))
                rows = self._reader.execute(
                    f"SELECT {_COLUMNS} FROM calls WHERE key IN ({marks})",  # noqa: S608 - marks only
                    some,
                )
                for row in rows:
                    found[row[0]] = Record(*row)
        return found

    def put(self, record: Record) -> Future[Record]:
        """Store an answer. It counts once the future is done, which is after the commit.

        The future gives the stored record: another process's, if that was first.
        """
        future: Future[Record] = Future()
        with self._closing:
            if self._closed:
                raise CallCacheError(f"{self.path}: the call cache is closed")
            self._jobs.put((record, future))
        return future

    def records(self, *, stage: str | None = None) -> Iterator[Record]:
        """All answered calls, oldest first, of one stage or of all."""
        with self._reading:
            where, values = ("WHERE stage = ?", [stage]) if stage is not None else ("", [])
            rows = self._reader.execute(
                f"SELECT {_COLUMNS} FROM calls {where} ORDER BY created_at, key",  # noqa: S608 - fixed text
                values,
            ).fetchall()
        return (Record(*row) for row in rows)

    def count(self) -> int:
        """How many calls are answered."""
        with self._reading:
            return int(self._reader.execute("SELECT count(*) FROM calls").fetchone()[0])

    def close(self) -> None:
        """Commit what was put, and close the file."""
        with self._closing:
            if self._closed:
                return
            self._closed = True
            self._jobs.put(None)
        self._writer.join()
        with self._reading:
            self._reader.close()

    def __enter__(self) -> Self:
        """It is open already."""
        return self

    def __exit__(self, *_: object) -> None:
        """Commit and close."""
        self.close()

    def _open(self) -> sqlite3.Connection:
        connection = sqlite3.connect(self.path, timeout=60, isolation_level=None, check_same_thread=False)
        try:
            _enter_wal(connection)
            connection.execute("PRAGMA synchronous=FULL")
            version = connection.execute("PRAGMA user_version").fetchone()[0]
            if version == 0:
                if connection.execute("SELECT 1 FROM sqlite_master WHERE name != 'calls'").fetchone():
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

    def _write(self, connection: sqlite3.Connection) -> None:
        try:
            while (job := self._jobs.get()) is not None:
                jobs = [job]
                last = False
                while True:
                    try:
                        more = self._jobs.get_nowait()
                    except queue.Empty:
                        break
                    if more is None:
                        last = True
                        break
                    jobs.append(more)
                self._commit(connection, jobs)
                if last:
                    break
        finally:
            connection.close()

    def _commit(self, connection: sqlite3.Connection, jobs: list[tuple[Record, Future[Record]]]) -> None:
        # A waiter that was cancelled does not hear of its answer, but the answer is paid for: it is kept.
        waiting = [future.set_running_or_notify_cancel() for _, future in jobs]
        stored: list[Record] = []
        now = datetime.now(UTC).isoformat(timespec="milliseconds")
        insert = f"INSERT OR IGNORE INTO calls ({_COLUMNS}) VALUES ({_MARKS})"  # noqa: S608 - fixed text
        try:
            connection.execute("BEGIN IMMEDIATE")
            for record, _ in jobs:
                row = (*astuple(record)[:-1], record.created_at or now)
                done = connection.execute(insert, row)
                if done.rowcount == 0:
                    select = f"SELECT {_COLUMNS} FROM calls WHERE key = ?"  # noqa: S608 - fixed text
                    row = connection.execute(select, [record.key]).fetchone()
                stored.append(Record(*row))
            connection.execute("COMMIT")
        except sqlite3.Error as error:
            if connection.in_transaction:
                connection.execute("ROLLBACK")
            failure = CallCacheError(
                f"{self.path}: answers could not be stored ({error}); free the disk or the lock and run again"
            )
            failure.__cause__ = error
            for (_, future), heard in zip(jobs, waiting, strict=True):
                if heard:
                    future.set_exception(failure)
            return
        for (_, future), heard, record in zip(jobs, waiting, stored, strict=True):
            if heard:
                future.set_result(record)


def _upgrade(connection: sqlite3.Connection) -> int:
    connection.execute("BEGIN IMMEDIATE")
    # Read again under the lock: another process may have been first.
    while (version := connection.execute("PRAGMA user_version").fetchone()[0]) in _UPGRADES:
        connection.execute(_UPGRADES[version])
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

"""The call cache in a PostgreSQL database, which several machines share."""

from __future__ import annotations

import re
import threading
from collections.abc import Callable, Iterable, Sequence
from dataclasses import astuple
from operator import attrgetter
from typing import TYPE_CHECKING, Any, ClassVar, LiteralString, TypeVar

from pipeline.engine.cache import (
    CALL_COLUMNS,
    NOTE_COLUMNS,
    RECORD_COLUMNS,
    SELECT,
    VERSION,
    BatchNote,
    Call,
    CallCache,
    CallCacheError,
    Record,
    now,
)
from pipeline.store import sha256_text

if TYPE_CHECKING:
    from psycopg import Connection, Cursor

__all__ = ["PostgresCache"]

T = TypeVar("T")

_LOCK = 0x686F6C6973616665
"""Held while the tables are made, so that two machines can start at once."""

# COLLATE "C": keys and times are ordered by their bytes, as everywhere else.
_SCHEMA: LiteralString = """
CREATE TABLE holisafe_meta (version INTEGER NOT NULL);
CREATE TABLE calls (
    key TEXT COLLATE "C" PRIMARY KEY,
    backend_id TEXT NOT NULL,
    model TEXT NOT NULL,
    stage TEXT NOT NULL,
    attempt INTEGER NOT NULL,
    request_json TEXT NOT NULL,
    response_text TEXT NOT NULL,
    finish_reason TEXT NOT NULL,
    prompt_tokens BIGINT NOT NULL,
    completion_tokens BIGINT NOT NULL,
    logprobs TEXT NOT NULL,
    cost_usd DOUBLE PRECISION NOT NULL,
    created_at TEXT COLLATE "C" NOT NULL
);
CREATE INDEX calls_created ON calls (created_at, key);
CREATE INDEX calls_stage ON calls (stage, created_at, key);
CREATE TABLE batches (
    name TEXT PRIMARY KEY,
    backend_id TEXT NOT NULL,
    model TEXT NOT NULL,
    file_id TEXT NOT NULL,
    batch_id TEXT NOT NULL,
    state TEXT NOT NULL,
    calls INTEGER NOT NULL,
    worst_usd DOUBLE PRECISION NOT NULL,
    created_at TEXT NOT NULL
);
CREATE TABLE batch_calls (
    batch TEXT NOT NULL,
    key TEXT COLLATE "C" NOT NULL,
    backend_id TEXT NOT NULL,
    model TEXT NOT NULL,
    stage TEXT NOT NULL,
    attempt INTEGER NOT NULL,
    request_json TEXT NOT NULL,
    PRIMARY KEY (batch, key)
)
"""
_COLUMNS = ", ".join(RECORD_COLUMNS)
_VALUES = attrgetter(*RECORD_COLUMNS)
_INSERT = (
    f"INSERT INTO calls ({_COLUMNS}) VALUES ({', '.join(['%s'] * len(RECORD_COLUMNS))}) "
    "ON CONFLICT (key) DO NOTHING"
)
_MANY = 5000


class PostgresCache(CallCache):
    """Answers by call key, in a database that several machines may use at once."""

    unstorable: ClassVar[re.Pattern[str]] = re.compile("[\0\ud800-\udfff]")

    def __init__(self, url: str) -> None:
        """Connect, making the tables if they are not there.

        Raises:
            CallCacheError: when the database cannot be reached or is of another version. The password stays
                out of every message.
        """
        import psycopg

        self._url = url
        self._name, self._password = _name_and_password(url)
        # One connection reads and one writes: a reader never waits for a commit.
        self._reader = _Line(self._connect)
        self._line = _Line(self._connect)
        try:
            version = self._line.run(_prepare)
        except psycopg.Error as error:
            self._line.close()
            raise self._unusable(error) from None
        if version != VERSION:
            self._line.close()
            raise CallCacheError(
                f"{self._name}: call cache version {version}, this program knows {VERSION}; use the program "
                "that wrote it, and do not delete the tables: they hold paid answers"
            )
        super().__init__(self._name)

    def get_many(self, keys: Iterable[str]) -> dict[str, Record]:
        """The committed answers to many calls."""
        wanted = list(dict.fromkeys(keys))
        return {row[0]: Record(*row) for row in self._among(SELECT, wanted)}

    def has(self, keys: Sequence[str]) -> set[str]:
        """Which of the calls are answered."""
        return {row[0] for row in self._among("SELECT key FROM calls", list(keys))}

    def _among(self, select: str, keys: list[str]) -> list[tuple[Any, ...]]:
        found: list[tuple[Any, ...]] = []
        for start in range(0, len(keys), _MANY):
            found += self._read(f"{select} WHERE key = ANY(?)", [keys[start : start + _MANY]])
        return found

    def delete(self, keys: Sequence[str]) -> int:
        """Forget calls; committed when it returns. Returns how many there were."""

        def work(cursor: Cursor[Any]) -> int:
            cursor.execute("DELETE FROM calls WHERE key = ANY(%s)", [list(keys)])
            return cursor.rowcount

        return self._write_now(work)

    def note_batch(self, note: BatchNote, calls: Sequence[Call] = ()) -> None:
        """Write down how far a batch is, and the calls that it holds; committed when it returns."""
        call_columns = ", ".join(("batch", *CALL_COLUMNS))

        def work(cursor: Cursor[Any]) -> None:
            cursor.execute(
                f"INSERT INTO batches ({', '.join(NOTE_COLUMNS)}) "
                f"VALUES ({', '.join(['%s'] * len(NOTE_COLUMNS))}) "
                "ON CONFLICT (name) DO UPDATE SET file_id = excluded.file_id, "
                "batch_id = excluded.batch_id, state = excluded.state",
                (*astuple(note)[:-1], note.created_at or now()),
            )
            if calls:
                cursor.executemany(
                    f"INSERT INTO batch_calls ({call_columns}) VALUES (%s, %s, %s, %s, %s, %s, %s) "
                    "ON CONFLICT DO NOTHING",
                    [(note.name, *astuple(call)) for call in calls],
                )
            if note.state == "done":
                cursor.execute("DELETE FROM batch_calls WHERE batch = %s", [note.name])

        self._write_now(work)

    def hold(self, name: str) -> Callable[[], None] | None:
        """Take a name against every other holder of this cache; None where another has it."""
        connection = self._connect()
        connection.autocommit = True
        row = connection.execute(
            "SELECT pg_try_advisory_lock(%s)", [int(sha256_text(name)[:15], 16)]
        ).fetchone()
        if row == (True,):
            return connection.close  # the lock lives as long as its connection
        connection.close()
        return None

    def _store(self, records: Sequence[Record]) -> list[Record]:
        # In the order of the keys, so that two machines that store the same calls do not wait in a ring.
        ordered = sorted(records, key=lambda r: r.key)

        def work(cursor: Cursor[Any]) -> list[Record]:
            stored: dict[str, Record] = {}
            # Again where another machine had an answer and deleted it before it was read back.
            while missing := [r for r in ordered if r.key not in stored]:
                cursor.executemany(_INSERT, [_VALUES(r) for r in missing])
                cursor.execute(f"{SELECT} WHERE key = ANY(%s)", [[r.key for r in missing]])
                stored |= {row[0]: Record(*row) for row in cursor.fetchall()}
            return [stored[record.key] for record in records]

        return self._write_now(work)

    def _close_store(self) -> None:
        self._reader.close()
        self._line.close()

    def _read(self, statement: str, values: Sequence[object] = ()) -> list[tuple[Any, ...]]:
        def work(cursor: Cursor[Any]) -> list[tuple[Any, ...]]:
            cursor.execute(statement.replace("?", "%s"), values)
            return cursor.fetchall()

        import psycopg

        try:
            return self._reader.run(work)
        except psycopg.Error as error:
            raise self._unusable(error) from None

    def _write_now(self, work: Callable[[Cursor[Any]], T]) -> T:
        import psycopg

        try:
            return self._line.run(work)
        except psycopg.Error as error:
            raise CallCacheError(
                f"{self._name}: answers could not be stored ({self._plain(error)}); see that the database is "
                "up and has room, and run again"
            ) from None

    def _connect(self) -> Connection[Any]:
        import psycopg

        # A network that drops packets in silence is noticed within a minute.
        return psycopg.connect(
            self._url,
            autocommit=False,
            connect_timeout=10,
            keepalives_idle=20,
            keepalives_interval=10,
            keepalives_count=3,
            tcp_user_timeout=60_000,
        )

    def _unusable(self, error: Exception) -> CallCacheError:
        return CallCacheError(f"{self._name}: not usable as a call cache: {self._plain(error)}")

    def _plain(self, error: Exception) -> str:
        """What the driver says, on one line and without the password."""
        text = " ".join(str(error).split())
        return text.replace(self._password, "[password]") if self._password else text


def _name_and_password(url: str) -> tuple[str, str]:
    """What errors call the database, and what they must not say.

    A password with an unescaped "/" or "@" is read as a port, a host or a database: such a URL is not shown.
    """
    import psycopg
    from psycopg.conninfo import conninfo_to_dict

    try:
        parts = {key: str(value) for key, value in conninfo_to_dict(url).items()}
    except psycopg.Error:
        parts = {"host": "@"}
    host, port, database = (parts.get(key, "") for key in ("host", "port", "dbname"))
    if "@" in host + database or not re.fullmatch("[0-9,]*", port):
        raise CallCacheError(
            "the call cache's URL cannot be read; write postgresql://user:password@host:port/database, with "
            "each of : / ? # [ ] @ % in the password as its percent code, for instance %40 for @"
        )
    return f"postgresql://{host}{port and f':{port}'}/{database}", parts.get("password", "")


class _Line:
    """One connection, made when it is needed, made again once it was lost."""

    def __init__(self, connect: Callable[[], Connection[Any]]) -> None:
        self._connect = connect
        self._lock = threading.Lock()
        self._connection: Connection[Any] | None = None
        self._closed = False

    def run(self, work: Callable[[Cursor[Any]], T]) -> T:
        """Do `work` in one transaction, committed when this returns.

        A connection that was lost since its last use is made again, once. All that is done here may be done
        twice: a commit whose confirmation was lost finds its rows there.
        """
        import psycopg

        with self._lock:
            if self._closed:
                raise psycopg.InterfaceError("the call cache is closed")
            if self._connection is not None and self._connection.broken:
                self.drop()
            for last in (False, True):
                fresh = self._connection is None
                if self._connection is None:
                    self._connection = self._connect()
                try:
                    with self._connection.transaction(), self._connection.cursor() as cursor:
                        result = work(cursor)
                except psycopg.OperationalError:
                    self.drop()
                    if fresh or last:
                        raise
                else:
                    return result
            raise AssertionError  # the second round returns or raises

    def drop(self) -> None:
        """Let go of the connection."""
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    def close(self) -> None:
        """Let go of it for good."""
        with self._lock:
            self._closed = True
            self.drop()


def _prepare(cursor: Cursor[Any]) -> int:
    """Make the tables where there are none; the version of those that are there."""
    cursor.execute("SELECT pg_advisory_xact_lock(%s)", [_LOCK])
    cursor.execute("SELECT to_regclass('holisafe_meta') IS NOT NULL")
    if cursor.fetchone() == (False,):
        for statement in _SCHEMA.split(";"):
            cursor.execute(statement)
        cursor.execute("INSERT INTO holisafe_meta VALUES (%s)", [VERSION])
    cursor.execute("SELECT version FROM holisafe_meta")
    row = cursor.fetchone()
    return int(row[0]) if row else 0

"""The call cache in a PostgreSQL database, which several machines share."""

from __future__ import annotations

import re
import threading
from collections.abc import Callable, Iterable, Sequence
from operator import attrgetter
from typing import TYPE_CHECKING, Any, ClassVar, TypeVar

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

if TYPE_CHECKING:
    from psycopg import Connection, Cursor

__all__ = ["PostgresCache"]

T = TypeVar("T")

_LOCK = 0x686F6C6973616665
"""Held while the tables are made, so that two machines can start at once."""

# COLLATE "C": keys and times are ordered by their bytes, as everywhere else.
_SCHEMA = """
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
);
"""
_SPENT = """
CREATE TABLE spent (
    stage TEXT COLLATE "C" NOT NULL,
    model TEXT COLLATE "C" NOT NULL,
    backend_id TEXT COLLATE "C" NOT NULL,
    calls BIGINT NOT NULL,
    prompt_tokens BIGINT NOT NULL,
    completion_tokens BIGINT NOT NULL,
    cost_usd DOUBLE PRECISION NOT NULL,
    PRIMARY KEY (stage, model, backend_id)
)
"""
# A database of an older version is brought up to this one: its answers are paid for.
_UPGRADES = {3: f"{_SPENT};{SPENT_BEFORE}"}
_VALUES = attrgetter(*RECORD_COLUMNS)
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

    def _change(self, statements: Sequence[Statement]) -> None:
        def work(cursor: Cursor[Any]) -> None:
            for statement, rows in statements:
                cursor.executemany(_marked(statement), rows)

        self._write_now(work)

    def _store(self, records: Sequence[Record]) -> list[Record]:
        # In the order of the keys, so that two machines that store the same calls do not wait in a ring.
        ordered = sorted(records, key=lambda r: r.key)

        def work(cursor: Cursor[Any]) -> list[Record]:
            stored: dict[str, Record] = {}
            new: set[str] = set()
            # Again where another machine had an answer and deleted it before it was read back.
            while missing := [r for r in ordered if r.key not in stored]:
                cursor.executemany(
                    _marked(f"{INSERT} RETURNING key"), [_VALUES(r) for r in missing], returning=True
                )
                new |= {key for result in cursor.results() for (key,) in result}
                cursor.execute(_marked(f"{SELECT} WHERE key = ANY(?)"), [[r.key for r in missing]])
                stored |= {row[0]: Record(*row) for row in cursor.fetchall()}
            statement, rows = spending(stored[key] for key in new)
            cursor.executemany(_marked(statement), rows)
            return [stored[record.key] for record in records]

        return self._write_now(work)

    def _close_store(self) -> None:
        self._reader.close()
        self._line.close()

    def _read(self, statement: str, values: Sequence[object] = ()) -> list[tuple[Any, ...]]:
        def work(cursor: Cursor[Any]) -> list[tuple[Any, ...]]:
            cursor.execute(_marked(statement), values)
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


def _marked(statement: str) -> str:
    """A statement with the marks of this database for its values."""
    return statement.replace("?", "%s")


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
        for statement in f"{_SCHEMA}{_SPENT}".split(";"):
            cursor.execute(_marked(statement))
        cursor.execute("INSERT INTO holisafe_meta VALUES (%s)", [VERSION])
    cursor.execute("SELECT version FROM holisafe_meta")
    row = cursor.fetchone()
    version = int(row[0]) if row else 0
    while version in _UPGRADES:
        for statement in _UPGRADES[version].split(";"):
            cursor.execute(_marked(statement))
        version += 1
        cursor.execute("UPDATE holisafe_meta SET version = %s", [version])
    return version

"""What reviewers said, in one SQLite file: written the moment it is said, and never changed after.

WAL mode with `synchronous=FULL`: a committed vote survives kill -9 and a power cut. Undoing a vote adds a
row that says so.
"""

from __future__ import annotations

import sqlite3
import threading
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass, fields
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from pipeline.review.items import Asked
from pipeline.review.queues import RANDOM
from schemas.errors import InputError

__all__ = ["IMPORTED", "Given", "ReviewStore", "Screen", "StoreError"]

IMPORTED = "import:"
"""Begins the screen of votes that were not given on the page."""
_APPLICATION, _VERSION = 0x48535256, 1
_SCHEMA = """
CREATE TABLE votes (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    time TEXT NOT NULL,
    dataset TEXT NOT NULL,
    scope TEXT NOT NULL,
    reviewer TEXT NOT NULL,
    row TEXT NOT NULL,
    item_id TEXT NOT NULL,
    question TEXT NOT NULL CHECK (question IN ('text_safe', 'image_safe', 'pair_safe')),
    value TEXT NOT NULL CHECK (value IN ('safe', 'unsafe', 'skip')),
    note TEXT NOT NULL,
    queue TEXT NOT NULL,
    blind INTEGER NOT NULL CHECK (blind IN (0, 1)),
    first INTEGER NOT NULL CHECK (first IN (0, 1)),
    picture INTEGER NOT NULL CHECK (picture IN (0, 1)),
    screen TEXT NOT NULL,
    UNIQUE (screen, question)
);
CREATE INDEX votes_item ON votes (scope, question, item_id);
CREATE INDEX votes_reviewer ON votes (reviewer, scope, id);
CREATE TRIGGER votes_stay BEFORE UPDATE ON votes BEGIN SELECT RAISE(ABORT, 'votes are never changed'); END;
CREATE TRIGGER votes_last BEFORE DELETE ON votes BEGIN SELECT RAISE(ABORT, 'votes are never deleted'); END;
CREATE TABLE undone (vote INTEGER PRIMARY KEY REFERENCES votes (id), time TEXT NOT NULL);
CREATE TABLE seen (
    reviewer TEXT NOT NULL,
    scope TEXT NOT NULL,
    question TEXT NOT NULL,
    item_id TEXT NOT NULL,
    time TEXT NOT NULL,
    PRIMARY KEY (reviewer, scope, question, item_id)
) WITHOUT ROWID;
CREATE TABLE reviewers (
    name TEXT PRIMARY KEY,
    since TEXT NOT NULL,
    keys INTEGER NOT NULL DEFAULT 1
) WITHOUT ROWID;
CREATE TABLE left_out (
    reviewer TEXT NOT NULL,
    class TEXT NOT NULL,
    PRIMARY KEY (reviewer, class)
) WITHOUT ROWID;
"""


class StoreError(RuntimeError):
    """The store could not be read or written; the message has the mend."""


@dataclass(frozen=True, slots=True)
class Screen:
    """What a reviewer said on one screen, about one row.

    Attributes:
        id: of the screen, so that a form that is sent twice counts once.
        dataset: the dataset's fingerprint.
        scope: where its items are the same items.
        reviewer: who.
        row: the row's id, as text.
        queue: where the row came up.
        answers: by question, the item and what was said.
        note: why.
        picture: whether the picture was looked at without its blur.
        blind: false where others' votes were shown in a way the store does not know of.
        time: when; None for now.
    """

    id: str
    dataset: str
    scope: str
    reviewer: str
    row: str
    queue: str
    answers: Mapping[Asked, tuple[str, str]]
    note: str = ""
    picture: bool = False
    blind: bool = True
    time: datetime | None = None


@dataclass(frozen=True, slots=True)
class Given:
    """A vote as it stands in the store."""

    id: int
    time: str
    dataset: str
    scope: str
    reviewer: str
    row: str
    item_id: str
    question: str
    value: str
    note: str
    queue: str
    blind: bool
    first: bool
    picture: bool
    screen: str
    undone: bool

    @property
    def gold(self) -> bool:
        """Whether it may measure others: drawn at random, first, blind, and of what was looked at."""
        looked = self.picture or self.question == "text_safe"
        return self.queue == RANDOM and self.first and self.blind and looked and self.value != "skip"


_COLUMNS = [f.name for f in fields(Given) if f.name != "undone"]
_FLAGS = ("blind", "first", "picture", "undone")
_SELECT = (
    f"SELECT {', '.join(f'v.{name}' for name in _COLUMNS)}, u.vote IS NOT NULL "
    "FROM votes v LEFT JOIN undone u ON u.vote = v.id"
)


class ReviewStore:
    """Votes of reviewers; several threads and processes may use one file at once."""

    def __init__(self, path: Path) -> None:
        """Open the store, making it if it is not there.

        Raises:
            InputError: when it cannot be made, or the file is something else.
        """
        self.path = path
        self._lock = threading.Lock()
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            self._connection = sqlite3.connect(
                path, timeout=30, isolation_level=None, check_same_thread=False
            )
        except (OSError, sqlite3.Error) as error:
            raise _unusable(path, error) from error
        try:
            self._prepare()
        except sqlite3.DatabaseError as error:
            self._connection.close()
            if "not a database" in str(error):
                raise InputError(f"{path}: is no store of reviews; name another file with --store") from error
            raise _unusable(path, error) from error
        except BaseException:
            self._connection.close()
            raise

    def _prepare(self) -> None:
        def pragma(name: str) -> int:
            return int(self._connection.execute(f"PRAGMA {name}").fetchone()[0])

        self._connection.execute("PRAGMA journal_mode=WAL")
        self._connection.execute("PRAGMA synchronous=FULL")
        with closing(self._connection.cursor()) as cursor:
            cursor.execute("BEGIN IMMEDIATE")
            kind, version = pragma("application_id"), pragma("user_version")
            tables = cursor.execute("SELECT count(*) FROM sqlite_master").fetchone()[0]
            if not tables:
                for statement in _statements(_SCHEMA):
                    cursor.execute(statement)
                cursor.execute(f"PRAGMA application_id={_APPLICATION}")
                cursor.execute(f"PRAGMA user_version={_VERSION}")
                kind, version = _APPLICATION, _VERSION
            cursor.execute("COMMIT")
        if kind != _APPLICATION:
            raise InputError(f"{self.path}: is no store of reviews; name another file with --store")
        if version != _VERSION:
            raise InputError(
                f"{self.path}: a store of version {version}, and this program reads {_VERSION}; "
                "use the program that made it, or name another file with --store"
            )

    def close(self) -> None:
        """Close the file."""
        with self._lock:
            self._connection.close()

    def __enter__(self) -> ReviewStore:
        """The store."""
        return self

    def __exit__(self, *_: object) -> None:
        """Close it."""
        self.close()

    def add(self, screen: Screen) -> bool:
        """Write what was said on a screen; it is on the disk when this returns.

        Returns:
            False where this screen was written before, and nothing is done.

        Raises:
            StoreError: when it could not be written; then none of it is.
        """
        time = _utc(screen.time or datetime.now(UTC))
        with self._transaction() as connection:
            if connection.execute("SELECT 1 FROM votes WHERE screen = ?", [screen.id]).fetchone():
                return False
            for question, (item, value) in screen.answers.items():
                key = (screen.reviewer, screen.scope, question, item)
                seen = connection.execute(
                    "SELECT 1 FROM seen WHERE reviewer = ? AND scope = ? AND question = ? AND item_id = ?",
                    key,
                ).fetchone()
                before = connection.execute(
                    "SELECT 1 FROM votes v WHERE reviewer = ? AND scope = ? AND question = ? AND item_id = ? "
                    "AND NOT EXISTS (SELECT 1 FROM undone u WHERE u.vote = v.id)",
                    key,
                ).fetchone()
                blind = screen.blind and not seen
                row = (
                    time, screen.dataset, screen.scope, screen.reviewer, screen.row, item, question, value,
                    screen.note, screen.queue, blind, not before, screen.picture, screen.id,
                )  # fmt: skip
                connection.execute(
                    "INSERT INTO votes (time, dataset, scope, reviewer, row, item_id, question, value, note, "
                    "queue, blind, first, picture, screen) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
                    row,
                )
        return True

    def undo(self, reviewer: str, scope: str) -> list[Given]:
        """Take back what a reviewer said last on the page; the votes stay, marked as undone.

        Returns:
            Those votes; none where nothing is left to take back.
        """
        time = _utc(datetime.now(UTC))
        with self._transaction() as connection:
            last = self._last(connection, reviewer, scope)
            connection.executemany("INSERT INTO undone VALUES (?, ?)", [(vote.id, time) for vote in last])
        return last

    def last(self, reviewer: str, scope: str) -> list[Given]:
        """What a reviewer said on the last screen that counts."""
        with self._reading() as connection:
            return self._last(connection, reviewer, scope)

    def own(self, reviewer: str, scope: str) -> dict[tuple[str, str], str]:
        """What a reviewer says now, by question and item."""
        with self._reading() as connection:
            rows = connection.execute(
                "SELECT question, item_id, value FROM votes v WHERE reviewer = ? AND scope = ? "
                "AND NOT EXISTS (SELECT 1 FROM undone u WHERE u.vote = v.id) ORDER BY id",
                [reviewer, scope],
            ).fetchall()
        return {(question, item): value for question, item, value in rows}

    def on(self, scope: str, keys: Iterable[tuple[str, str]]) -> list[Given]:
        """What everybody says now of some items, by question and item."""
        found: list[Given] = []
        with self._reading() as connection:
            for question, item in keys:
                found += _given(
                    connection.execute(
                        f"{_SELECT} WHERE v.scope = ? AND v.question = ? AND v.item_id = ? ORDER BY v.id",
                        [scope, question, item],
                    )
                )
        return counting(found)

    def votes(self, scope: str) -> list[Given]:
        """Every vote of a scope in the order in which they were given, undone ones too."""
        with self._reading() as connection:
            return _given(connection.execute(f"{_SELECT} WHERE v.scope = ? ORDER BY v.id", [scope]))

    def others_seen(self, reviewer: str, scope: str, keys: Collection[tuple[str, str]]) -> None:
        """Take down that a reviewer is shown what others said of some items."""
        time = _utc(datetime.now(UTC))
        with self._transaction() as connection:
            connection.executemany(
                "INSERT OR IGNORE INTO seen VALUES (?, ?, ?, ?, ?)",
                [(reviewer, scope, question, item, time) for question, item in keys],
            )

    def screens(self, reviewer: str, since: datetime) -> int:
        """Screens that a reviewer has sent since a time, in every dataset, undone ones too."""
        with self._reading() as connection:
            row = connection.execute(
                "SELECT count(DISTINCT screen) FROM votes WHERE reviewer = ? AND time >= ? "
                "AND substr(screen, 1, ?) <> ?",
                [reviewer, _utc(since), len(IMPORTED), IMPORTED],
            ).fetchone()
        return int(row[0])

    def join(self, reviewer: str) -> None:
        """Take down that there is such a reviewer."""
        with self._transaction() as connection:
            connection.execute(
                "INSERT OR IGNORE INTO reviewers (name, since) VALUES (?, ?)",
                [reviewer, _utc(datetime.now(UTC))],
            )

    def reviewers(self) -> list[str]:
        """Everybody that has joined on the page."""
        with self._reading() as connection:
            return [row[0] for row in connection.execute("SELECT name FROM reviewers ORDER BY name")]

    def left_out(self, reviewer: str) -> frozenset[str]:
        """The classes that a reviewer is never shown."""
        with self._reading() as connection:
            rows = connection.execute("SELECT class FROM left_out WHERE reviewer = ?", [reviewer]).fetchall()
        return frozenset(row[0] for row in rows)

    def keys(self, reviewer: str) -> bool:
        """Whether single keys answer."""
        with self._reading() as connection:
            row = connection.execute("SELECT keys FROM reviewers WHERE name = ?", [reviewer]).fetchone()
        return row is None or bool(row[0])

    def set_up(self, reviewer: str, left_out: Collection[str], *, keys: bool) -> None:
        """Write what a reviewer wishes."""
        with self._transaction() as connection:
            connection.execute("UPDATE reviewers SET keys = ? WHERE name = ?", [keys, reviewer])
            connection.execute("DELETE FROM left_out WHERE reviewer = ?", [reviewer])
            connection.executemany(
                "INSERT INTO left_out VALUES (?, ?)", [(reviewer, name) for name in sorted(left_out)]
            )

    def _last(self, connection: sqlite3.Connection, reviewer: str, scope: str) -> list[Given]:
        return _given(
            connection.execute(
                f"{_SELECT} WHERE v.screen = (SELECT w.screen FROM votes w WHERE w.reviewer = ? "
                "AND w.scope = ? AND substr(w.screen, 1, ?) <> ? "
                "AND NOT EXISTS (SELECT 1 FROM undone x WHERE x.vote = w.id) "
                "ORDER BY w.id DESC LIMIT 1) ORDER BY v.id",
                [reviewer, scope, len(IMPORTED), IMPORTED],
            )
        )

    @contextmanager
    def _reading(self) -> Iterator[sqlite3.Connection]:
        with self._lock:
            try:
                yield self._connection
            except sqlite3.Error as error:
                raise StoreError(f"{self.path}: cannot be read: {error}") from error

    @contextmanager
    def _transaction(self) -> Iterator[sqlite3.Connection]:
        """A transaction that is committed at the end, or leaves nothing behind."""
        with self._lock:
            try:
                self._connection.execute("BEGIN IMMEDIATE")
                yield self._connection
                self._connection.execute("COMMIT")
            except sqlite3.Error as error:
                raise StoreError(
                    f"{self.path}: nothing was written: {error}; see that the disk has room and the file can "
                    "be written"
                ) from error
            finally:
                if self._connection.in_transaction:
                    self._connection.execute("ROLLBACK")


def counting(votes: Iterable[Given]) -> list[Given]:
    """Of what one reviewer said of one item the last that is not undone, in the order of the votes."""
    last = {(v.scope, v.reviewer, v.question, v.item_id): v for v in votes if not v.undone}
    return sorted(last.values(), key=lambda vote: vote.id)


def _utc(time: datetime) -> str:
    """A time as it is stored: always as long, so that times sort as texts."""
    return time.astimezone(UTC).isoformat(timespec="microseconds").replace("+00:00", "Z")


def _given(rows: Iterable[Sequence[Any]]) -> list[Given]:
    found = []
    for row in rows:
        told = dict(zip([*_COLUMNS, "undone"], row, strict=True))
        found.append(Given(**told | {name: bool(told[name]) for name in _FLAGS}))
    return found


def _statements(script: str) -> Iterator[str]:
    """The statements of a script, one by one, since `executescript` would end the transaction."""
    statement = ""
    for line in script.splitlines():
        statement += line + "\n"
        if sqlite3.complete_statement(statement):
            yield statement
            statement = ""


def _unusable(path: Path, error: Exception) -> InputError:
    return InputError(f"{path}: reviews cannot be stored here: {error}; name another file with --store")

"""What was fetched: bytes by hash, and a ledger that says which URL gave which.

The bytes are on disk before the ledger names them, and the ledger is committed before anybody counts on it.
So a process that is killed loses what was under way and nothing else.
"""

from __future__ import annotations

import sqlite3
import threading
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from types import TracebackType

from pipeline.store import Blobs, LostBlobError, told_as_of_file
from schemas.errors import InputError

__all__ = ["Fetched", "FetchedStore", "now"]

_SCHEMA = """
CREATE TABLE IF NOT EXISTS fetched (
    url TEXT PRIMARY KEY, sha256 TEXT NOT NULL, final_url TEXT NOT NULL, retrieved_at TEXT NOT NULL,
    status INTEGER NOT NULL, content_type TEXT NOT NULL
) WITHOUT ROWID
"""


@dataclass(frozen=True, slots=True)
class Fetched:
    """One line of the ledger."""

    url: str
    sha256: str
    final_url: str
    retrieved_at: str
    status: int
    content_type: str


def now() -> str:
    """The time as it stands in tables: UTC, to the second."""
    return datetime.now(UTC).isoformat(timespec="seconds")


class FetchedStore:
    """The store in a folder; for threads of one process, which holds the workspace."""

    def __init__(self, folder: Path) -> None:
        """Open it, or begin it.

        Raises:
            InputError: when the ledger is no ledger.
        """
        folder.mkdir(parents=True, exist_ok=True)
        self._blobs = Blobs(folder / "blobs")
        self._lock = threading.Lock()
        self._path = path = folder / "ledger.sqlite"
        self._connection = sqlite3.connect(path, check_same_thread=False, isolation_level=None)
        try:
            self._connection.execute("PRAGMA journal_mode=WAL")
            self._connection.execute("PRAGMA synchronous=FULL")
            self._connection.execute(_SCHEMA)
        except sqlite3.Error as error:
            self._connection.close()
            raise InputError(f"{path}: not usable as a ledger of what was fetched: {error}") from error
        for half in (folder / "blobs").glob("*/.*"):  # of a process that was killed as it wrote
            half.unlink(missing_ok=True)

    def get(self, url: str) -> Fetched | None:
        """What is known of a URL."""
        with (
            self._lock,
            told_as_of_file(self._path),
            closing(self._connection.execute("SELECT * FROM fetched WHERE url = ?", [url])) as rows,
        ):
            row = rows.fetchone()
        return None if row is None else Fetched(*row)

    def data(self, fetched: Fetched) -> bytes | None:
        """The bytes; None where somebody has deleted or changed them."""
        try:
            return self._blobs(fetched.sha256)
        except LostBlobError:
            self._blobs.delete(fetched.sha256)
            return None

    def put(self, url: str, data: bytes, final_url: str, status: int, content_type: str) -> Fetched:
        """Keep what a URL gave; it is on disk for good when this returns.

        Raises:
            OSError: when it cannot be kept.
        """
        fetched = Fetched(url, self._blobs.put(data), final_url, now(), status, content_type)
        with self._lock, told_as_of_file(self._path):
            self._connection.execute(
                "INSERT OR REPLACE INTO fetched VALUES (?, ?, ?, ?, ?, ?)",
                [url, fetched.sha256, final_url, fetched.retrieved_at, status, content_type],
            )
        return fetched

    def hashes(self) -> Iterator[str]:
        """The hash of every file."""
        return self._blobs.hashes()

    def bytes_of(self, sha256: str) -> bytes | None:
        """The bytes of a hash; None where somebody has deleted or changed them."""
        try:
            return self._blobs(sha256)
        except LostBlobError:
            return None

    def forget(self, sha256: str) -> list[str]:
        """Delete bytes and every line that leads to them; gives the URLs of those."""
        with self._lock:
            rows = self._connection.execute("SELECT url FROM fetched WHERE sha256 = ?", [sha256])
            urls = [url for (url,) in rows.fetchall()]
            self._connection.execute("DELETE FROM fetched WHERE sha256 = ?", [sha256])
        self._blobs.delete(sha256)
        return urls

    def __enter__(self) -> FetchedStore:
        """Use as a context that closes the ledger."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close the ledger."""
        self._connection.close()

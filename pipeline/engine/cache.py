"""The call cache: what was answered, kept from the moment it counts as answered.

One thread writes, and commits together what has gathered since its last commit, so that the disk is synced
once for many answers. Errors are never stored; a truncated or refused answer is, because it was paid for, and
is told from a good one by its `finish_reason` at every read.

There are two stores behind one interface: `sqlite`, a file, and `postgres`, which several machines share.
"""

from __future__ import annotations

import queue
import re
import threading
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future
from dataclasses import astuple, dataclass, fields, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, ClassVar, Self

__all__ = ["BatchNote", "Call", "CallCache", "CallCacheError", "Record", "Usage", "open_cache"]

VERSION = 4
PAGE = 1000
MOST_AT_ONCE = 2000
"""Answers in one commit."""


class CallCacheError(Exception):
    """The cache cannot be read or written."""


@dataclass(frozen=True, slots=True)
class Call:
    """A call that is to be answered. `attempt` is 1 for a question, 2 and more where it is asked again."""

    key: str
    backend_id: str
    model: str
    stage: str
    attempt: int
    request_json: str


@dataclass(frozen=True, slots=True)
class Record:
    """One answered call.

    Attributes:
        key: the call key.
        backend_id: who answered.
        model: the model's name there.
        stage: who asked.
        attempt: 1 for a question, 2 and more where it was asked again.
        request_json: the canonical request.
        response_text: the answer as it came.
        finish_reason: why it ends; only `stop` is the end of an answer.
        prompt_tokens: as the endpoint counted them.
        completion_tokens: as the endpoint counted them.
        logprobs: the JSON that came with the answer where log-probabilities were asked for, else empty.
        cost_usd: at the price of its day.
        created_at: when it was stored, in UTC.
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
    cost_usd: float = 0.0
    created_at: str = ""


@dataclass(frozen=True, slots=True)
class Usage:
    """What the calls of one stage to one model took, those that are deleted by now among them."""

    stage: str
    model: str
    backend_id: str
    calls: int
    prompt_tokens: int
    completion_tokens: int
    cost_usd: float


@dataclass(frozen=True, slots=True)
class BatchNote:
    """How far a batch of calls is.

    Attributes:
        name: ours; the provider keeps it as metadata.
        backend_id: who answers.
        model: the model's name there.
        file_id: the provider's, once it has the calls.
        batch_id: the provider's, once it works on them.
        state: planned, uploaded, submitted or done.
        calls: how many calls it holds.
        worst_usd: the most that they can cost.
        created_at: when it was first written down.
    """

    name: str
    backend_id: str
    model: str
    file_id: str
    batch_id: str
    state: str
    calls: int
    worst_usd: float = 0.0
    created_at: str = ""


RECORD_COLUMNS = tuple(f.name for f in fields(Record))
CALL_COLUMNS = tuple(f.name for f in fields(Call))
NOTE_COLUMNS = tuple(f.name for f in fields(BatchNote))
SPENT_COLUMNS = tuple(f.name for f in fields(Usage))
SELECT = f"SELECT {', '.join(RECORD_COLUMNS)} FROM calls"
SPENT_BEFORE = f"""
INSERT INTO spent ({", ".join(SPENT_COLUMNS)})
SELECT stage, model, backend_id, count(*), sum(prompt_tokens), sum(completion_tokens), sum(cost_usd)
FROM calls GROUP BY stage, model, backend_id"""
"""Fills the books of a cache that was written before there were any."""

Job = tuple[Record, "Future[Record]"]
Statement = tuple[str, Sequence[Sequence[object]]]
"""What to run, with "?" for each value, and the rows of values to run it for."""


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="milliseconds")


def _marks(columns: Sequence[str]) -> str:
    return ", ".join("?" * len(columns))


INSERT = (
    f"INSERT INTO calls ({', '.join(RECORD_COLUMNS)}) VALUES ({_marks(RECORD_COLUMNS)}) "
    "ON CONFLICT (key) DO NOTHING"
)
_SPEND = (
    f"INSERT INTO spent ({', '.join(SPENT_COLUMNS)}) VALUES ({_marks(SPENT_COLUMNS)}) "
    "ON CONFLICT (stage, model, backend_id) DO UPDATE SET calls = spent.calls + excluded.calls, "
    "prompt_tokens = spent.prompt_tokens + excluded.prompt_tokens, "
    "completion_tokens = spent.completion_tokens + excluded.completion_tokens, "
    "cost_usd = spent.cost_usd + excluded.cost_usd"
)


def spending(records: Iterable[Record]) -> Statement:
    """What puts new records into the books, always in one order: two machines do not wait in a ring."""
    sums: dict[tuple[str, str, str], list[float]] = {}
    for record in records:
        sum_ = sums.setdefault((record.stage, record.model, record.backend_id), [0, 0, 0, 0.0])
        sum_[0] += 1
        sum_[1] += record.prompt_tokens
        sum_[2] += record.completion_tokens
        sum_[3] += record.cost_usd
    return _SPEND, [(*name, *sums[name]) for name in sorted(sums)]


class CallCache(ABC):
    """Answers by call key, kept in a store that several processes may use at once."""

    unstorable: ClassVar[re.Pattern[str]] = re.compile("[\ud800-\udfff]")
    """Characters that the store cannot hold: half of a pair, where a model was cut off inside an emoji."""

    def __init__(self, name: str) -> None:
        """Start the writer; the store is open.

        Args:
            name: what errors call the store; never a URL with a password.
        """
        self.name = name
        self._jobs: queue.SimpleQueue[Job | None] = queue.SimpleQueue()
        self._closing = threading.Lock()
        self._closed = False
        # A daemon, so that a program that forgot `close` still ends: an answer counts after its commit only.
        self._writer = threading.Thread(target=self._write, name="call-cache", daemon=True)
        self._writer.start()

    def get(self, key: str) -> Record | None:
        """The committed answer to a call, if there is one."""
        return self.get_many([key]).get(key)

    @abstractmethod
    def get_many(self, keys: Iterable[str]) -> dict[str, Record]:
        """The committed answers to many calls."""

    @abstractmethod
    def has(self, keys: Sequence[str]) -> set[str]:
        """Which of the calls are answered."""

    @abstractmethod
    def hold(self, name: str) -> Callable[[], None] | None:
        """Take a name against every other holder of this cache, in whatever process.

        Returns:
            What lets go of it, or None where another has it.
        """

    @abstractmethod
    def _read(self, statement: str, values: Sequence[object] = ()) -> list[tuple[Any, ...]]:
        """The rows of a statement, whose values are marked by "?"."""

    @abstractmethod
    def _change(self, statements: Sequence[Statement]) -> None:
        """Run statements in one transaction, committed when it returns."""

    @abstractmethod
    def _store(self, records: Sequence[Record]) -> list[Record]:
        """Commit records, and what they cost, together; a key that is there keeps its record.

        Returns what is stored now. Runs in the writer's thread. Raises CallCacheError and stores nothing when
        it fails.
        """

    @abstractmethod
    def _close_store(self) -> None:
        """Close every connection."""

    def keys(self, start: str = "") -> list[str]:
        """The keys of all answered calls that start with `start`, in their order."""
        # "~" comes after every hexadecimal digit.
        between = [start, f"{start}~"]
        rows = self._read("SELECT key FROM calls WHERE key >= ? AND key < ? ORDER BY key", between)
        return [row[0] for row in rows]

    def page(self, after: tuple[str, str], stage: str | None) -> list[Record]:
        """The next records after a (created_at, key), oldest first; empty at the end."""
        where, values = (" AND stage = ?", [stage]) if stage is not None else ("", [])
        rows = self._read(
            f"{SELECT} WHERE (created_at, key) > (?, ?){where} ORDER BY created_at, key LIMIT {PAGE}",
            [*after, *values],
        )
        return [Record(*row) for row in rows]

    def newest(self, stage: str | None, limit: int) -> list[Record]:
        """The last calls that were answered, of one stage or of all; the last one comes last."""
        where, values = (" WHERE stage = ?", [stage]) if stage is not None else ("", [])
        rows = self._read(f"{SELECT}{where} ORDER BY created_at DESC, key DESC LIMIT ?", [*values, limit])
        return [Record(*row) for row in reversed(rows)]

    def usage(self) -> list[Usage]:
        """What was ever answered and what it took: the books, which no `delete` touches."""
        rows = self._read(f"SELECT {', '.join(SPENT_COLUMNS)} FROM spent ORDER BY stage, model, backend_id")
        return [Usage(*row) for row in rows]

    def count(self) -> int:
        """How many calls are answered."""
        return int(self._read("SELECT count(*) FROM calls")[0][0])

    def delete(self, keys: Sequence[str]) -> None:
        """Forget calls; committed when it returns. What they cost stays in the books."""
        self._change([("DELETE FROM calls WHERE key = ?", [[key] for key in keys])])

    def note_batch(self, note: BatchNote, calls: Sequence[Call] = ()) -> None:
        """Write down how far a batch is, and the calls that it holds; committed when it returns.

        The calls of a batch that is done are forgotten.
        """
        statements: list[Statement] = [
            (
                f"INSERT INTO batches ({', '.join(NOTE_COLUMNS)}) VALUES ({_marks(NOTE_COLUMNS)}) "
                "ON CONFLICT (name) DO UPDATE SET file_id = excluded.file_id, "
                "batch_id = excluded.batch_id, state = excluded.state",
                [(*astuple(note)[:-1], note.created_at or _now())],
            ),
            (
                f"INSERT INTO batch_calls (batch, {', '.join(CALL_COLUMNS)}) "
                f"VALUES (?, {_marks(CALL_COLUMNS)}) ON CONFLICT DO NOTHING",
                [(note.name, *astuple(call)) for call in calls],
            ),
        ]
        if note.state == "done":
            statements.append(("DELETE FROM batch_calls WHERE batch = ?", [[note.name]]))
        self._change(statements)

    def batches(self, backend_id: str | None) -> list[BatchNote]:
        """The batches of a backend, or of all, oldest first."""
        where, values = (" WHERE backend_id = ?", [backend_id]) if backend_id is not None else ("", [])
        rows = self._read(
            f"SELECT {', '.join(NOTE_COLUMNS)} FROM batches{where} ORDER BY created_at, name", values
        )
        return [BatchNote(*row) for row in rows]

    def batch_calls(self, name: str) -> list[Call]:
        """The calls of a batch that is not done."""
        rows = self._read(
            f"SELECT {', '.join(CALL_COLUMNS)} FROM batch_calls WHERE batch = ? ORDER BY key", [name]
        )
        return [Call(*row) for row in rows]

    def put(self, record: Record) -> Future[Record]:
        """Store an answer. It counts once the future is done, which is after the commit.

        The future gives the stored record: another process's, if that was first.
        """
        future: Future[Record] = Future()
        with self._closing:
            if self._closed:
                raise CallCacheError(f"{self.name}: the call cache is closed")
            self._jobs.put((record, future))
        return future

    def records(self, *, stage: str | None = None) -> Iterator[Record]:
        """All answered calls, oldest first, of one stage or of all; read page by page."""
        after = ("", "")
        while found := self.page(after, stage):
            yield from found
            after = (found[-1].created_at, found[-1].key)

    def close(self) -> None:
        """Commit what was put, and close the store."""
        with self._closing:
            if self._closed:
                return
            self._closed = True
            self._jobs.put(None)
        self._writer.join()
        self._close_store()

    def __enter__(self) -> Self:
        """It is open already."""
        return self

    def __exit__(self, *_: object) -> None:
        """Commit and close."""
        self.close()

    def _write(self) -> None:
        while (job := self._jobs.get()) is not None:
            jobs = [job]
            last = False
            while len(jobs) < MOST_AT_ONCE:
                try:
                    more = self._jobs.get_nowait()
                except queue.Empty:
                    break
                if more is None:
                    last = True
                    break
                jobs.append(more)
            self._commit(jobs)
            if last:
                break

    def _commit(self, jobs: list[Job]) -> None:
        # A waiter that was cancelled does not hear of its answer, but the answer is paid for: it is kept.
        waiting = [future.set_running_or_notify_cancel() for _, future in jobs]
        time = _now()
        try:
            stored = self._store([self._fitting(record, time) for record, _ in jobs])
        except Exception as failure:  # noqa: BLE001 - told to everybody who waits
            for (_, future), heard in zip(jobs, waiting, strict=True):
                if heard:
                    future.set_exception(failure)
            return
        for (_, future), heard, record in zip(jobs, waiting, stored, strict=True):
            if heard:
                future.set_result(record)

    def _fitting(self, record: Record, time: str) -> Record:
        # One character must not cost the answers that are committed with it, nor its own.
        text, end = (self.unstorable.sub("\ufffd", t) for t in (record.response_text, record.finish_reason))
        return replace(record, response_text=text, finish_reason=end, created_at=record.created_at or time)


def open_cache(where: str | Path) -> CallCache:
    """Open the call cache in a file, or in the PostgreSQL database of a `postgresql://` URL.

    Raises:
        CallCacheError: when it cannot be used.
    """
    if str(where).startswith(("postgresql://", "postgres://")):
        from pipeline.engine.postgres import PostgresCache

        return PostgresCache(str(where))
    if isinstance(where, str) and ("://" in where or "password=" in where):
        raise CallCacheError(
            "the call cache is neither a file nor a postgresql:// URL; write "
            "postgresql://user:password@host:port/database"
        )
    from pipeline.engine.sqlite import SqliteCache

    return SqliteCache(Path(where))

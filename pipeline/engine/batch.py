"""The Batch API: many calls in one file, answered within a day at a lower price, into the same cache.

A batch is written down with its calls before it is sent, and carries its name as metadata. So a restart finds
it wherever it was stopped:

| stopped | the restart |
|---|---|
| before the provider had it | submits it |
| after, but before we knew its id | finds it among the provider's batches by its name |
| while it was being answered | waits for it |
| while its answers were being stored | stores them; those that are there stay |

Calls that come back with an error, or not at all, are not kept: the next run asks them again.
"""

from __future__ import annotations

import asyncio
import json
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import IO, TYPE_CHECKING, Any

from pipeline.engine.answers import BadReplyError, judge, parsed, record_of
from pipeline.engine.budget import Budget
from pipeline.engine.cache import BatchNote, Call, CallCache, Record
from pipeline.engine.endpoint import Endpoint, EndpointError
from pipeline.engine.request import Request, body_of
from pipeline.engine.sending import AGAIN, RowError, Sender
from pipeline.store import canonical_json, sha256_text

if TYPE_CHECKING:
    from openai import AsyncOpenAI
    from openai.types import Batch

__all__ = ["Batches"]

MOST_CALLS = 50_000
MOST_BYTES = 190_000_000
"""OpenAI takes 50,000 calls and 200 MB in one file."""

POLL_S = 1.0
POLL_MOST_S = 60.0
NAME = "holisafe"
"""The metadata field that holds a batch's name."""
_ENDED = {"completed", "failed", "expired", "cancelled"}
_URL: Any = "/v1/chat/completions"


class Batches:
    """Answers requests by the Batch API until the cache has each, or there is a reason why not."""

    def __init__(self, cache: CallCache, endpoint: Endpoint, sender: Sender, budget: Budget | None) -> None:
        """Bind it to a run."""
        self._cache, self._endpoint, self._sender, self._budget = cache, endpoint, sender, budget
        self._reasons: dict[str, RowError] = {}
        self._reserved: dict[str, tuple[str, float]] = {}
        self.asked: set[str] = set()
        """Keys of the requests that something was sent for."""

    async def fill(self, requests: Sequence[Request], stage: str, reasks: int) -> dict[str, RowError]:
        """Have every request answered that the cache does not answer.

        Returns:
            Why a call was not answered, by its key.

        Raises:
            EndpointError: when the provider does not take batches, or the budget is spent.
        """
        for model in sorted({request.model for request in requests}):
            mine = [request for request in requests if request.model == model]
            # One at a time for a model, whoever asks: two that write down batches at once would each find
            # the other's and submit it.
            name = f"batch {self._endpoint.backend_id} {model}"
            while (let_go := self._cache.hold(name)) is None:
                await asyncio.sleep(POLL_S)
            try:
                await self._fill(mine, model, stage, reasks)
            finally:
                let_go()
                self._settle_rest()
        return self._reasons

    async def _fill(self, requests: Sequence[Request], model: str, stage: str, reasks: int) -> None:
        known = dict(self._reasons)
        for note in self._cache.batches(self._endpoint.backend_id):
            if note.state != "done" and note.model == model:
                if self._budget is not None:
                    self._budget.claim(stage, note.worst_usd)
                    self._reserved[note.name] = stage, note.worst_usd
                await self._finish(note)
        # What a batch of an earlier run did not answer is asked again.
        self._reasons = known
        while calls := list(self._open_calls(requests, stage, reasks)):
            notes: list[BatchNote] = []
            for part in self._parts(calls):
                worst = sum(usd for _, usd in part)
                while notes and self._budget is not None and not self._budget.fits(stage, worst):
                    await self._finish(notes.pop(0))
                notes.append(await self._submit([call for call, _ in part], model, stage, worst))
            for note in notes:
                await self._finish(note)

    def _settle_rest(self) -> None:
        """Settle what is still reserved when a run ends early: a batch under way may cost its worst case."""
        for stage, worst in self._reserved.values():
            if self._budget is not None:
                self._budget.settle(stage, worst, worst, lost=True)
        self._reserved.clear()

    def _open_calls(
        self, requests: Sequence[Request], stage: str, reasks: int
    ) -> Iterator[tuple[Call, float]]:
        """The calls still to be made, with the most that each can cost.

        For each request that is its question, or the re-ask where the last answer was wrong.
        """
        seen = set(self._reasons)
        for request in requests:
            current = request
            for attempt in range(1, reasks + 2):
                record = self._cache.get(current.key)
                if record is None:
                    if current.key not in seen:
                        seen.add(current.key)
                        self.asked.add(request.key)
                        yield current.call(stage, attempt), current.worst_cost(self._endpoint.terms)
                    break
                status, _, why = judge(record, current.schema)
                if status != "wrong":
                    break
                current = current.asked_again(record.response_text, why)

    def _parts(self, calls: Sequence[tuple[Call, float]]) -> Iterator[list[tuple[Call, float]]]:
        """The calls in files of the size that is taken; calls that cannot be sent get their reason here."""
        part: list[tuple[Call, float]] = []
        size = 0
        for call, worst in calls:
            try:
                length = len(self._line(call))
            except (RowError, EndpointError) as error:
                self._reasons[call.key] = RowError("error", str(error))
                continue
            if part and (len(part) == MOST_CALLS or size + length > MOST_BYTES):
                yield part
                part, size = [], 0
            part.append((call, worst))
            size += length
        if part:
            yield part

    def _line(self, call: Call) -> bytes:
        body = self._sender.with_images(body_of(call.request_json))
        line = {"custom_id": call.key, "method": "POST", "url": _URL, "body": body}
        return json.dumps(line).encode() + b"\n"

    async def _submit(self, calls: list[Call], model: str, stage: str, worst: float) -> BatchNote:
        backend_id = self._endpoint.backend_id
        # Not by its calls alone: those of a batch that failed may be sent again.
        number = len(self._cache.batches(backend_id))
        name = sha256_text(canonical_json([number, [call.key for call in calls]]))[:32]
        if self._budget is not None:
            await self._budget.reserve(stage, worst)
            self._reserved[name] = stage, worst
        note = BatchNote(name, backend_id, model, "", "", "planned", len(calls), worst)
        self._cache.note_batch(note, calls)
        return await self._hand_over(note)

    async def _hand_over(self, note: BatchNote) -> BatchNote:
        if not note.file_id:
            with tempfile.TemporaryFile() as file:
                for call in self._cache.batch_calls(note.name):
                    try:
                        file.write(self._line(call))
                    except (RowError, EndpointError) as error:  # its image is gone, or too large by now
                        self._reasons[call.key] = RowError("error", str(error))
                uploaded = await self._sender.retried(lambda client: self._upload(client, note, file))
            note = replace(note, file_id=uploaded, state="uploaded")
            self._cache.note_batch(note)
        batch = await self._sender.retried(lambda client: self._found_or_created(client, note))
        note = replace(note, batch_id=batch.id, state="submitted")
        self._cache.note_batch(note)
        return note

    async def _upload(self, client: AsyncOpenAI, note: BatchNote, file: IO[bytes]) -> str:
        file.seek(0)
        return (await client.files.create(file=(f"{note.name}.jsonl", file), purpose="batch")).id

    async def _found_or_created(self, client: AsyncOpenAI, note: BatchNote) -> Batch:
        # Looked for first: an answer to `create` that was lost is no reason to pay twice.
        async for batch in client.batches.list(limit=100):
            if (batch.metadata or {}).get(NAME) == note.name:
                return batch
        return await client.batches.create(
            input_file_id=note.file_id,
            endpoint=_URL,
            completion_window="24h",
            metadata={NAME: note.name},
        )

    async def _finish(self, note: BatchNote) -> None:
        """Wait for a batch, store its answers, and note why others are missing."""
        if not note.batch_id:
            note = await self._hand_over(note)
        wait = POLL_S
        while (batch := await self._retrieve(note)).status not in _ENDED:
            await asyncio.sleep(wait)
            wait = min(POLL_MOST_S, wait * 1.5)
        calls = {call.key: call for call in self._cache.batch_calls(note.name)}
        cost = 0.0
        tokens = (0, 0)
        answered: set[str] = set()
        lines = await self._lines(batch.output_file_id)
        for start in range(0, len(lines), 1000):
            some = lines[start : start + 1000]
            records = [record for line in some if (record := self._record(line, calls)) is not None]
            await asyncio.gather(*(asyncio.wrap_future(self._cache.put(record)) for record in records))
            cost += sum(record.cost_usd for record in records)
            tokens = (
                tokens[0] + sum(record.prompt_tokens for record in records),
                tokens[1] + sum(record.completion_tokens for record in records),
            )
            answered |= {record.key for record in records}
        for line in await self._lines(batch.error_file_id):
            self._record(line, calls)
        why = "; ".join(e.message or "" for e in (batch.errors and batch.errors.data) or [])
        for key in calls.keys() - answered - self._reasons.keys():
            reason = f"the batch {batch.status} without it. {why}".strip()
            self._reasons[key] = RowError("error", reason, again=True)
        self._cache.note_batch(replace(note, state="done"))
        if self._budget is not None and note.name in self._reserved:
            stage, worst = self._reserved.pop(note.name)
            self._budget.settle(stage, worst, cost)
            self._sender.hold_to_worst(stage, worst, cost, tokens)
        if batch.status == "failed":
            raise EndpointError(
                f"{self._endpoint.backend_id} has refused a batch of {note.calls} calls ({why}). Nothing was "
                "answered, so nothing was paid; mend what it names and run again"
            )

    async def _retrieve(self, note: BatchNote) -> Batch:
        return await self._sender.retried(lambda client: client.batches.retrieve(note.batch_id))

    async def _lines(self, file_id: str | None) -> list[dict[str, Any]]:
        if not file_id:
            return []
        content = await self._sender.retried(lambda client: client.files.content(file_id))
        # Not splitlines: an answer may hold other line separators than the file's.
        return [json.loads(line) for line in content.text.split("\n") if line.strip()]

    def _record(self, line: dict[str, Any], calls: dict[str, Call]) -> Record | None:
        """The record that a line of a result file is, or None, with its reason noted."""
        call = calls.get(line["custom_id"])
        if call is None:
            return None
        response = line.get("response") or {}
        problem = (line.get("error") or {}).get("message")
        code = response.get("status_code") or 0
        again = problem is not None or code in AGAIN or code >= 500
        if problem is None and response.get("status_code") == 200:
            try:
                return record_of(call, parsed(json.dumps(response["body"])), self._endpoint.terms)
            except BadReplyError as error:
                problem = str(error)
        if problem is None:
            body = response.get("body") or {}
            problem = f"HTTP {response.get('status_code')}: {(body.get('error') or {}).get('message', '')}"
        self._reasons[call.key] = RowError("error", self._sender.redact(problem), again=again)
        return None

"""Asking: cache first, one flight a question, checked answers, honest failures.

An answer is handed on only after its commit, and only then is its place at the endpoint given to the next
call, so kill -9 loses at most the calls that were under way.

| what happened | what the caller gets | kept |
|---|---|---|
| an answer that fits the schema | `ok` | yes |
| cut off (`length`), or still wrong after the re-asks | `unscorable` | yes: it was paid for |
| refused or filtered | `blocked` | yes; a filter's HTTP 400 is not an answer and is not kept |
| the endpoint rejects this request, or fails at it again and again | `error` | no |
| nobody answers, the key is wrong, the server died | an EndpointError; nothing more is sent | no |
"""

from __future__ import annotations

import asyncio
import base64
import email.utils
import hashlib
import json
import random
import time
from collections.abc import Callable, Coroutine, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal, Self

from pydantic import BaseModel, ValidationError

from pipeline.engine.cache import CallCache, Record
from pipeline.engine.endpoint import Endpoint, EndpointError
from pipeline.engine.request import Message, Request

if TYPE_CHECKING:
    from openai import APIStatusError, AsyncOpenAI

__all__ = ["Answer", "Engine", "Stats"]

REASKS = 2
RETRIES = 6
BACKOFF_S = 0.5
BACKOFF_MOST_S = 30.0
# A longer wait is no pause but an outage or an exhausted quota: the row fails with that reason.
RETRY_AFTER_MOST_S = 300.0
# So many rows in a row that fail for the endpoint's reasons are not the rows' fault.
FAILURES_TO_OPEN = 5
# How long a stopped run waits for answers that are already being paid for.
GRACE_S = 20.0

Status = Literal["ok", "unscorable", "blocked", "error"]


@dataclass(frozen=True)
class Answer:
    """What came of a request. `value` is there exactly when the status is ok and a schema was given.

    Attributes:
        status: ok, unscorable (cut off or never valid), blocked (refused or filtered), or error.
        value: the checked answer.
        raw: the text of the last attempt, as it came.
        key: the request's call key.
        cached: nothing was sent for it.
        attempts: how many answers were looked at, re-asks included.
        prompt_tokens: of all attempts.
        completion_tokens: of all attempts.
        error: why it is not ok.
        first_tokens: log-probability of each likely first token of the answer, where the request asked for
            `logprobs` and the endpoint gave them; else empty.
    """

    status: Status
    value: BaseModel | None
    raw: str
    key: str
    cached: bool
    attempts: int
    prompt_tokens: int
    completion_tokens: int
    error: str = ""
    first_tokens: Mapping[str, float] = field(default_factory=dict)


@dataclass
class Stats:
    """What an engine did so far."""

    sent: int = 0
    answered: int = 0
    cached: int = 0
    retried: int = 0
    reasked: int = 0
    prompt_tokens: int = 0
    completion_tokens: int = 0
    statuses: dict[str, int] = field(default_factory=dict)


class _RowError(Exception):
    """This request cannot be answered now; others may."""

    def __init__(self, status: Status, message: str) -> None:
        super().__init__(message)
        self.status: Status = status


class Engine:
    """Asks one endpoint, through one cache.

    `ask_all` is for plain code. Async code uses `async with engine:` and `ask`.
    """

    def __init__(
        self,
        cache: CallCache,
        endpoint: Endpoint,
        *,
        concurrency: int | None = None,
        timeout_s: float = 600.0,
        reasks: int = REASKS,
        retries: int = RETRIES,
        blobs: Callable[[str], bytes] | None = None,
    ) -> None:
        """Bind a cache and an endpoint; nothing is started or sent.

        Args:
            cache: where answers are kept.
            endpoint: who is asked, when the cache has no answer.
            concurrency: calls under way at once; the endpoint's own number by default.
            timeout_s: how long one call may take.
            reasks: how often a wrong answer is asked for again, with the error.
            retries: how often a failed call is sent again.
            blobs: gives an image's bytes by SHA-256; needed for requests with images.
        """
        self.stats = Stats()
        self._cache = cache
        self._endpoint = endpoint
        self._concurrency = concurrency or endpoint.concurrency
        self._timeout_s = timeout_s
        self._reasks = reasks
        self._retries = retries
        self._blobs = blobs
        self._run: _Run | None = None

    def ask_all(
        self,
        requests: Sequence[Request],
        *,
        stage: str,
        on_progress: Callable[[int, int], None] | None = None,
        warm: Sequence[Message] | None = None,
    ) -> list[Answer]:
        """Ask many requests and wait; answers come in the order of the requests.

        Args:
            requests: what to ask. Equal requests are sent once.
            stage: who asks, recorded with each answer.
            on_progress: called with how many are done, of how many.
            warm: the messages that all requests begin with. They are sent once before the first call, with
                a full stop for an item and one token of answer that is thrown away, so that a local model's
                answers do not depend on which item came first. Leave it out where calls cost money.

        Raises:
            EndpointError: when the endpoint cannot be used. What was answered is kept; run again to go on.
        """
        return asyncio.run(self._ask_all(requests, stage, on_progress, warm))

    async def ask(self, request: Request, *, stage: str) -> Answer:
        """Ask one request. Use it inside `async with engine:`.

        Raises:
            EndpointError: when the endpoint cannot be used.
        """
        if request.backend_id != self._endpoint.backend_id:
            raise ValueError(
                f"the request is for {request.backend_id}, the endpoint is {self._endpoint.backend_id}: "
                "make requests with the endpoint's backend_id"
            )
        answer = await self._ask(request, stage)
        self._count(answer)
        return answer

    async def __aenter__(self) -> Self:
        """Begin a run in this event loop. The endpoint is not started yet."""
        if self._run is not None:
            raise RuntimeError("the engine is in use by another run; make one engine a run")
        self._run = _Run(asyncio.Semaphore(self._concurrency))
        return self

    async def __aexit__(self, *_: object) -> None:
        """End the run: nothing more is sent, and answers that are under way may still come in."""
        run, self._run = self._run, None
        if run is not None:
            await run.finish()

    async def _ask_all(
        self,
        requests: Sequence[Request],
        stage: str,
        on_progress: Callable[[int, int], None] | None,
        warm: Sequence[Message] | None,
    ) -> list[Answer]:
        answers: list[Answer | None] = [None] * len(requests)
        done = 0

        async def one(index: int) -> None:
            nonlocal done
            answers[index] = await self.ask(requests[index], stage=stage)
            done += 1
            if on_progress:
                on_progress(done, len(requests))

        async with self:
            assert self._run is not None  # noqa: S101 - made by __aenter__
            self._run.warm = warm
            # Not a task for each of a hundred thousand rows: a window that keeps all places busy while
            # some requests sit out a Retry-After.
            window = asyncio.Semaphore(max(16, 4 * self._concurrency))
            tasks: set[asyncio.Task[None]] = set()
            failed: list[BaseException] = []

            def over(task: asyncio.Task[None]) -> None:
                tasks.discard(task)
                window.release()
                if not task.cancelled() and (error := task.exception()) is not None:
                    failed.append(error)

            try:
                for index in range(len(requests)):
                    await window.acquire()
                    if failed:
                        break
                    task = asyncio.create_task(one(index))
                    tasks.add(task)
                    task.add_done_callback(over)
                while tasks and not failed:
                    await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
            finally:
                for task in tasks:
                    task.cancel()
                await asyncio.gather(*tasks, return_exceptions=True)
            if failed:
                # The circuit's error before those that follow from it.
                raise self._run.broken or failed[0]
        return [answer for answer in answers if answer is not None]

    async def _ask(self, request: Request, stage: str) -> Answer:
        current = request
        sent = False
        prompt_tokens = completion_tokens = 0
        attempt = 0
        while True:
            attempt += 1
            try:
                record, fresh = await self._call(current, stage, attempt)
            except _RowError as error:
                raw = "" if attempt == 1 else record.response_text
                counts = (attempt - 1, prompt_tokens, completion_tokens)
                return Answer(error.status, None, raw, request.key, False, *counts, str(error))
            sent = sent or fresh
            prompt_tokens += record.prompt_tokens
            completion_tokens += record.completion_tokens
            status, value, why = _judge(record, request.schema)
            if status != "wrong":
                counts = (attempt, prompt_tokens, completion_tokens)
                first = _first_tokens(record)
                return Answer(status, value, record.response_text, request.key, not sent, *counts, why, first)
            if attempt > self._reasks:
                counts = (attempt, prompt_tokens, completion_tokens)
                why = f"no valid answer in {attempt} attempts; the last: {why}"
                return Answer("unscorable", None, record.response_text, request.key, not sent, *counts, why)
            if fresh:
                self.stats.reasked += 1
            current = current.followed_by(
                record.response_text,
                f"That answer is not valid: {why}\n"
                "Answer the same question again, as JSON that fits the schema.",
            )

    async def _call(self, request: Request, stage: str, attempt: int) -> tuple[Record, bool]:
        """One answered call, from the cache or sent now; equal calls under way are one flight."""
        if (record := self._cache.get(request.key)) is not None:
            return record, False
        run = self._run
        if run is None:
            raise RuntimeError("use `async with engine:` around ask, or ask_all")
        flight = run.flights.get(request.key)
        mine = flight is None
        if flight is None:
            flight = run.start(request.key, self._send(run, request, stage, attempt))
        # Shielded: an asker that goes away does not take the answer from the others, nor from the cache.
        return await asyncio.shield(flight), mine

    async def _send(self, run: _Run, request: Request, stage: str, attempt: int) -> Record:
        body = self._with_images(request.body())
        failures = 0
        while True:
            # The place is held until the commit, and not while a failed call waits for its next try.
            async with run.places:
                run.check()
                try:
                    await self._connect(run, request)
                    self.stats.sent += 1
                    reply = await self._post(run, body)
                    record = _record(request, stage, attempt, reply)
                except Exception as error:  # noqa: BLE001 - sorted by kind, and raised again or returned below
                    failure = error
                else:
                    record = await asyncio.wrap_future(self._cache.put(record))
                    run.failures = 0
                    self.stats.answered += 1
                    self.stats.prompt_tokens += record.prompt_tokens
                    self.stats.completion_tokens += record.completion_tokens
                    return record
            failures += 1
            wait = self._wait_after(run, failure, failures)
            self.stats.retried += 1
            await asyncio.sleep(wait)

    async def _post(self, run: _Run, body: Mapping[str, Any]) -> dict[str, Any]:
        import httpx2

        assert run.client is not None  # noqa: S101 - made by _connect
        # The plain response: building the client's typed objects costs a third of the throughput.
        response = await run.client.post("/chat/completions", body=body, cast_to=httpx2.Response)
        return _parsed(response.text)

    async def _connect(self, run: _Run, request: Request) -> None:
        """Start the endpoint and open the client, once a run; then warm the prefix."""
        async with run.connecting:
            run.check()
            if run.client is None:
                from openai import AsyncOpenAI, DefaultAioHttpClient

                connection = await asyncio.to_thread(self._endpoint.start)
                run.secret = connection.api_key
                run.client = AsyncOpenAI(
                    base_url=connection.base_url,
                    api_key=connection.api_key,
                    max_retries=0,
                    timeout=self._timeout_s,
                    http_client=DefaultAioHttpClient(timeout=self._timeout_s),
                )
            if run.warm:
                warm = [*run.warm, {"role": "user", "content": "."}]
                body = Request(request.backend_id, request.model, warm, {**request.params, "max_tokens": 1})
                await self._post(run, self._with_images(body.body()))
                run.warm = None

    def _wait_after(self, run: _Run, failure: Exception, failures: int) -> float:
        """How long to wait before the next try; or raise what the failure means."""
        import openai

        if isinstance(failure, EndpointError):
            raise run.open(failure)
        if isinstance(failure, openai.APIStatusError):
            asked = self._asked_wait(run, failure)
        elif isinstance(failure, openai.APIConnectionError | _BadReplyError):
            asked = None
            try:
                self._endpoint.check()
            except EndpointError as error:
                raise run.open(error) from failure
        else:
            raise failure
        if failures > self._retries:
            self._give_up(run, failure, failures)
        backoff = min(BACKOFF_MOST_S, BACKOFF_S * 2 ** (failures - 1)) * random.uniform(0.75, 1.25)  # noqa: S311
        return backoff if asked is None else asked

    def _asked_wait(self, run: _Run, failure: APIStatusError) -> float | None:
        code = failure.status_code
        message = run.redact(f"HTTP {code}: {_message(failure)}")
        if code in (401, 403, 404):
            raise run.open(
                EndpointError(
                    f"{self._endpoint.backend_id} refuses every call ({message}); check the endpoint's URL, "
                    "its key and the model's name"
                )
            )
        if code not in (408, 409, 425, 429) and code < 500:
            blocked = str(getattr(failure, "code", "")) in ("content_filter", "content_policy_violation")
            raise _RowError("blocked" if blocked else "error", message)
        asked = _retry_after(failure.response.headers)
        if asked is not None and asked > RETRY_AFTER_MOST_S:
            raise _RowError("error", f"{message}; it asks to wait {asked:.0f} s")
        return asked

    def _give_up(self, run: _Run, failure: Exception, failures: int) -> None:
        import openai

        message = run.redact(f"{failures} tries, the last: {type(failure).__name__}: {failure}")
        lost = isinstance(failure, openai.APIConnectionError) and not isinstance(
            failure, openai.APITimeoutError
        )
        run.failures += 1
        if lost or run.failures >= FAILURES_TO_OPEN:
            raise run.open(
                EndpointError(
                    f"{self._endpoint.backend_id} does not answer ({message}). "
                    "What was answered is kept: run the same command again to go on"
                )
            ) from failure
        raise _RowError("error", message) from failure

    def _with_images(self, body: dict[str, Any]) -> dict[str, Any]:
        for message in body["messages"]:
            if isinstance(message["content"], list):
                message["content"] = [self._image(part) for part in message["content"]]
        return body

    def _image(self, part: dict[str, Any]) -> dict[str, Any]:
        if part["type"] != "image":
            return part
        if self._blobs is None:
            raise ValueError("a request has images: give the engine `blobs`")
        data = self._blobs(part["sha256"])
        if (found := hashlib.sha256(data).hexdigest()) != part["sha256"]:
            raise ValueError(f"blobs gave bytes with SHA-256 {found} for {part['sha256']}")
        url = f"data:{_media_type(data)};base64,{base64.b64encode(data).decode()}"
        return {"type": "image_url", "image_url": {"url": url}}

    def _count(self, answer: Answer) -> None:
        self.stats.cached += answer.cached
        self.stats.statuses[answer.status] = self.stats.statuses.get(answer.status, 0) + 1


class _Run:
    """What lives as long as one event loop's use of an engine."""

    def __init__(self, places: asyncio.Semaphore) -> None:
        self.places = places
        self.connecting = asyncio.Lock()
        self.client: AsyncOpenAI | None = None
        self.secret = ""
        self.warm: Sequence[Message] | None = None
        self.flights: dict[str, asyncio.Task[Record]] = {}
        self.failures = 0
        self.broken: EndpointError | None = None
        self.stopping = False

    def start(self, key: str, sending: Coroutine[Any, Any, Record]) -> asyncio.Task[Record]:
        flight = asyncio.create_task(sending)
        self.flights[key] = flight

        def landed(task: asyncio.Task[Record]) -> None:
            self.flights.pop(key, None)
            # Seen by us even when every asker has gone; the askers get it too.
            if not task.cancelled():
                task.exception()

        flight.add_done_callback(landed)
        return flight

    def check(self) -> None:
        """Raise if nothing more may be sent."""
        if self.broken is not None:
            raise self.broken
        if self.stopping:
            raise asyncio.CancelledError

    def open(self, error: EndpointError) -> EndpointError:
        """Open the circuit: the first reason stands for all that follow."""
        self.broken = self.broken or error
        return self.broken

    def redact(self, text: str) -> str:
        """The text without the key, which providers like to quote."""
        return text.replace(self.secret, "[key]") if self.secret else text

    async def finish(self) -> None:
        """Send nothing more, let paid answers come in for a while, and close the client."""
        self.stopping = True
        flights = list(self.flights.values())
        try:
            if flights:
                await asyncio.wait(flights, timeout=GRACE_S)
        finally:
            for flight in flights:
                flight.cancel()
            await asyncio.gather(*flights, return_exceptions=True)
            if self.client is not None:
                await self.client.close()


class _BadReplyError(Exception):
    """A reply with status 200 that is no chat completion."""


def _parsed(text: str) -> dict[str, Any]:
    try:
        reply = json.loads(text)
    except json.JSONDecodeError as error:
        raise _BadReplyError(f"the reply is not JSON ({error}): {text[:200]!r}") from error
    if not isinstance(reply, dict) or not reply.get("choices"):
        raise _BadReplyError(f"the reply has no choices: {text[:200]!r}")
    return reply


def _record(request: Request, stage: str, attempt: int, reply: Mapping[str, Any]) -> Record:
    choice = reply["choices"][0]
    message = choice.get("message") or {}
    usage = reply.get("usage") or {}
    # A refusal comes in a field of its own, with the finish reason of an answer.
    refusal = message.get("refusal")
    return Record(
        key=request.key,
        backend_id=request.backend_id,
        model=request.model,
        stage=stage,
        attempt=attempt,
        request_json=request.canonical,
        response_text=refusal or message.get("content") or "",
        finish_reason="refusal" if refusal else str(choice.get("finish_reason") or "unknown"),
        prompt_tokens=int(usage.get("prompt_tokens") or 0),
        completion_tokens=int(usage.get("completion_tokens") or 0),
        logprobs=json.dumps(choice["logprobs"]) if choice.get("logprobs") else "",
    )


def _first_tokens(record: Record) -> dict[str, float]:
    content = (json.loads(record.logprobs) if record.logprobs else {}).get("content") or []
    return {t["token"]: float(t["logprob"]) for t in content[0].get("top_logprobs") or []} if content else {}


def _judge(
    record: Record, schema: type[BaseModel] | None
) -> tuple[Status | Literal["wrong"], BaseModel | None, str]:
    if record.finish_reason in ("content_filter", "refusal"):
        return "blocked", None, f"finish_reason {record.finish_reason}"
    if record.finish_reason != "stop":
        # `length` may have cut JSON where it still parses, so its text is never looked at.
        return "unscorable", None, f"finish_reason {record.finish_reason}"
    if schema is None:
        return ("ok", None, "") if record.response_text.strip() else ("unscorable", None, "an empty answer")
    try:
        return "ok", schema.model_validate_json(record.response_text), ""
    except ValidationError as error:
        problems = (f"{'.'.join(map(str, p['loc'])) or 'answer'}: {p['msg']}" for p in error.errors()[:5])
        return "wrong", None, "; ".join(problems)


def _message(failure: APIStatusError) -> str:
    body = failure.body
    if isinstance(body, dict) and body.get("message"):
        return str(body["message"])
    return failure.message


def _retry_after(headers: Mapping[str, str]) -> float | None:
    value = headers.get("retry-after-ms")
    if value is not None:
        try:
            return max(0.0, float(value) / 1000)
        except ValueError:
            pass  # the other header may be right
    value = headers.get("retry-after")
    if value is None:
        return None
    try:
        return max(0.0, float(value))
    except ValueError:
        parsed = email.utils.parsedate_tz(value)
        return None if parsed is None else max(0.0, email.utils.mktime_tz(parsed) - time.time())


def _media_type(data: bytes) -> str:
    for start, kind in ((b"\x89PNG", "png"), (b"\xff\xd8\xff", "jpeg"), (b"GIF8", "gif")):
        if data.startswith(start):
            return f"image/{kind}"
    if data[:4] == b"RIFF" and data[8:12] == b"WEBP":
        return "image/webp"
    raise ValueError("an image is not PNG, JPEG, GIF or WebP; send the normalised file")

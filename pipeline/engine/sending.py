"""One call, from its place in the queue to its commit.

| what happened | what the caller gets |
|---|---|
| an answer of any kind | its Record, after the commit |
| 408, 409, 425, 429, 5xx, a timeout, a lost connection | tried again, after Retry-After or a growing pause |
| the endpoint rejects this call, or fails at it again and again | a RowError |
| nobody answers, the key or the model is wrong, the server died | an EndpointError; nothing more is sent |

Until an endpoint has answered once, one call is under way: what is wrong with all calls is said once.
"""

from __future__ import annotations

import asyncio
import base64
import hashlib
import json
import random
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, NoReturn, TypeVar

from pipeline.engine.answers import BadReplyError, Status, image_record_of, parsed, record_of
from pipeline.engine.budget import Budget, BudgetError
from pipeline.engine.cache import CallCache, Record
from pipeline.engine.endpoint import Endpoint, EndpointError
from pipeline.engine.limits import Limiter, retry_after
from pipeline.engine.request import FORMS, Form, ImageRequest, Message, Request
from pipeline.extras import needs

if TYPE_CHECKING:
    from openai import APIStatusError, AsyncOpenAI

__all__ = ["Learned", "RowError", "Sender", "Stats"]

T = TypeVar("T")

JSON = {"Content-Type": "application/json"}
# A shorter key is a word that stands for none.
SECRET_CHARS = 8
BACKOFF_S = 0.5
BACKOFF_MOST_S = 30.0
# A longer wait is no pause but an outage or an exhausted quota: the row fails with that reason.
RETRY_AFTER_MOST_S = 300.0
# So many rows in a row that fail for the endpoint's reasons are not the rows' fault.
FAILURES_TO_OPEN = 5
# So many calls in a row that it rejects, though it has answered others.
REJECTIONS_TO_OPEN = 20
AGAIN = {408, 409, 425, 429}
REFUSES_ALL = {401, 402}
# These too, until it has answered once; later they are about one call.
REFUSES_FIRST = {403, 404}
FILTERED = {
    "content_filter",
    "content_policy_violation",
    "data_inspection_failed",
    "invalid_prompt",
    "moderation_blocked",
}


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
    cost_usd: float = 0.0
    statuses: dict[str, int] = field(default_factory=dict)


class RowError(Exception):
    """This request cannot be answered now; others may."""

    def __init__(self, status: Status, message: str, *, again: bool = False) -> None:
        """Say what the row gets, and whether another run may get an answer."""
        super().__init__(message)
        self.status: Status = status
        self.again = again


@dataclass
class Learned:
    """What is known of an endpoint from earlier calls; it outlives the event loop that learned it.

    Attributes:
        limiter: what was sent in the last minute.
        proven: it has answered once.
        form: in which form it gives structured answers.
    """

    limiter: Limiter
    proven: bool = False
    form: Form | None = None


class Sender:
    """Sends calls to one endpoint while one event loop runs."""

    def __init__(
        self,
        cache: CallCache,
        endpoint: Endpoint,
        stats: Stats,
        learned: Learned,
        *,
        retries: int,
        budget: Budget | None,
        blobs: Callable[[str], bytes] | None,
        keep: Callable[[bytes], str] | None,
    ) -> None:
        """Bind it; nothing is started or sent."""
        needs("aiohttp", "openai")
        self.warm: Sequence[Message] | None = None
        self._before: bytes | None = None
        """How the last item began after the prefix that is warm; None where it has not been sent yet."""
        self.stopping = False
        self.posted: set[asyncio.Task[Any] | None] = set()
        """The calls that are at the endpoint or on their way into the cache."""
        self._cache, self._endpoint, self._stats = cache, endpoint, stats
        self._retries, self._budget, self._blobs, self._keep = retries, budget, blobs, keep
        self._terms = endpoint.terms
        self._places = asyncio.Semaphore(self._terms.concurrency)
        self._learned = learned
        self._limiter = learned.limiter
        self._limiter.new_loop()
        self._connecting = asyncio.Lock()
        self._first = asyncio.Lock()
        self._client: AsyncOpenAI | None = None
        self._secret = ""
        self._failures = 0
        self._failed_first = 0
        self._rejected = 0
        self.broken: Exception | None = None
        """Why nothing more may be sent."""

    async def send(self, request: Request, stage: str, attempt: int) -> Record:
        """Send a call until it is answered, and store the answer.

        Raises:
            RowError: when it cannot be answered.
            EndpointError: when the endpoint cannot be used, or the budget is spent.
        """
        failures = 0
        me = asyncio.current_task()
        while True:
            # The place is held until the commit, and not while a failed call waits for its next try.
            async with self._place():
                self._check()
                try:
                    record = await self._paid(request, stage, attempt)
                except Exception as error:  # noqa: BLE001 - sorted by kind, and raised again below
                    failure = error
                else:
                    self._answered(record)
                    return record
                finally:
                    self.posted.discard(me)
            failures += 1
            wait = self._wait_after(request.model, failure, failures)
            self._stats.retried += 1
            await asyncio.sleep(wait)

    async def retried(self, act: Callable[[AsyncOpenAI], Awaitable[T]]) -> T:
        """Do something else at the endpoint than a call, and try again where that may help.

        Raises:
            EndpointError: when the endpoint does not do it.
        """
        failures = 0
        while True:
            try:
                return await act(await self.client())
            except Exception as error:  # noqa: BLE001 - sorted by kind, and raised again below
                failure = error
            failures += 1
            try:
                wait = self._wait_after("", failure, failures)
            except RowError as error:
                raise self._open(EndpointError(f"{self._endpoint.backend_id}: {error}")) from None
            await asyncio.sleep(wait)

    async def client(self) -> AsyncOpenAI:
        """The openai client, with the endpoint started."""
        async with self._connecting:
            self._check()
            if self._client is None:
                from openai import AsyncOpenAI, DefaultAioHttpClient

                connection = await asyncio.to_thread(self._endpoint.start)
                self._secret = connection.api_key
                self._client = AsyncOpenAI(
                    base_url=connection.base_url,
                    api_key=connection.api_key,
                    max_retries=0,
                    timeout=self._terms.timeout_s,
                    http_client=DefaultAioHttpClient(timeout=self._terms.timeout_s),
                )
        return self._client

    def with_images(self, body: dict[str, Any]) -> dict[str, Any]:
        """A body with the images in it that it names by hash.

        Raises:
            RowError: when one is larger than the endpoint takes.
        """
        for message in body.get("messages", ()):
            if isinstance(message["content"], list):
                message["content"] = [self._image(part) for part in message["content"]]
        return body

    def redact(self, text: str) -> str:
        """The text without the key, which providers like to quote."""
        return text.replace(self._secret, "[key]") if len(self._secret) >= SECRET_CHARS else text

    async def close(self) -> None:
        """Close the client."""
        if self._client is not None:
            await self._client.close()

    @asynccontextmanager
    async def _place(self) -> AsyncIterator[None]:
        async with self._places:
            if self._learned.proven:
                yield
                return
            async with self._first:
                if not self._learned.proven:
                    yield
                    return
            yield

    def _check(self) -> None:
        """Raise if nothing more may be sent."""
        if self.broken is not None:
            raise self.broken
        if self.stopping:
            raise asyncio.CancelledError

    async def _paid(self, request: Request, stage: str, attempt: int) -> Record:
        """The stored record of a call that the budget and the limits let go."""
        import openai

        terms = self._terms
        worst = request.worst_cost(terms)
        if self._budget is not None:
            await self._budget.reserve(stage, worst)
        cost, lost = 0.0, False
        try:
            await self._warm_up(request)
            self._check()
            try:
                slot = await self._limiter.acquire(request.likely_tokens(terms))
            except ValueError as error:
                raise RowError("error", f"{error}: raise the endpoint's tokens_per_minute") from error
            self._check()
            self._stats.sent += 1
            self.posted.add(asyncio.current_task())
            try:
                # The client's own timeout starts anew with every byte that trickles in.
                async with asyncio.timeout(terms.timeout_s):
                    reply = await self._in_some_form(request)
                record = await self._record(request, stage, attempt, reply)
            except (openai.APIStatusError, RowError):
                raise
            except BaseException:
                # It may have been answered and billed on the way.
                cost, lost = worst, True
                raise
            slot.tokens = record.prompt_tokens + record.completion_tokens or slot.tokens
            cost, lost = record.cost_usd, True
            try:
                stored = await asyncio.wrap_future(self._cache.put(record))
            except Exception as error:
                # What else is answered may be lost too: none of those that wait is sent.
                self.broken = self.broken or error
                raise
            lost = False
        finally:
            if self._budget is not None:
                self._budget.settle(stage, worst, cost, lost=lost)
        self.hold_to_worst(stage, worst, cost, (record.prompt_tokens, record.completion_tokens))
        return stored

    def hold_to_worst(self, stage: str, worst: float, cost: float, tokens: tuple[int, int]) -> None:
        """Send nothing more where an answer has cost more than it could, and a cap relies on that."""
        if self._budget is not None and self._budget.caps(stage) and cost > worst * (1 + 1e-9):
            self._open(
                BudgetError(
                    f"{self._endpoint.backend_id} counted {tokens[0]} tokens of prompt and {tokens[1]} of "
                    f"answer, which cost {cost:.6f} USD where {worst:.6f} was the most: no cap can "
                    "be held so. Raise the endpoint's image_tokens, or take the budget away, and run the "
                    "same command again"
                )
            )

    async def _record(self, request: Request, stage: str, attempt: int, reply: dict[str, Any]) -> Record:
        call = request.call(stage, attempt)
        if not isinstance(request, ImageRequest):
            return record_of(call, reply, self._terms)
        if self._keep is None:
            raise ValueError("a request makes a picture: give the engine `keep`")
        # The picture is on the disk before the record that names it.
        return await asyncio.to_thread(image_record_of, call, reply, self._terms, self._keep)

    async def _in_some_form(self, request: Request) -> dict[str, Any]:
        """Ask for a structured answer in the best form that the endpoint knows."""
        form = self._learned.form
        if request.schema is None or form is not None:
            return await self._post(request.body(form or FORMS[0]), request.path)
        import openai

        rejected: Exception | None = None
        for form in FORMS:
            try:
                reply = await self._post(request.body(form), request.path)
            except (openai.BadRequestError, openai.UnprocessableEntityError) as error:
                if _reason(error) in FILTERED:
                    raise
                rejected = rejected or error
            else:
                self._learned.form = form
                return reply
        assert rejected is not None  # noqa: S101 - no form was answered
        raise rejected

    async def _post(self, body: dict[str, Any], path: str) -> dict[str, Any]:
        import httpx2

        client = await self.client() if self._client is None else self._client
        # Bytes in and the plain response out: else the client copies every body and builds typed objects.
        response = await client.post(
            path,
            content=json.dumps(self.with_images(body)).encode(),
            options={"headers": JSON},
            cast_to=httpx2.Response,
        )
        self._limiter.replied(limited=False, wait_s=None, headers=response.headers)
        reply = parsed(response.text, "data" if path == ImageRequest.path else "choices")
        self._learned.proven = True
        return reply

    async def _warm_up(self, request: Request) -> None:
        """See that a local server's cache shares the prefix of all requests with this one, and no more.

        What is computed for an item differs in its last digits with the number of its tokens that are in the
        cache already. An item that begins like the one before it would share its first token too; the
        prefix is sent once more before it, which costs a few tokens.
        """
        if self.warm is None:
            return
        await self.client()
        async with self._connecting:
            content = request.messages[len(self.warm)]["content"]
            # The first byte: tokens are made of bytes, so what differs in it differs in its first token.
            begins = str(content).encode()[:1]
            if self._before is None or self._before == begins:
                warm = [*self.warm, {"role": "user", "content": "."}]
                body = Request(request.backend_id, request.model, warm, {**request.params, "max_tokens": 1})
                await self._post(body.body(), body.path)
            self._before = begins

    def _answered(self, record: Record) -> None:
        self._failures = self._rejected = 0
        self._stats.answered += 1
        self._stats.prompt_tokens += record.prompt_tokens
        self._stats.completion_tokens += record.completion_tokens
        self._stats.cost_usd += record.cost_usd

    def _wait_after(self, model: str, failure: Exception, failures: int) -> float:
        """How long to wait before the next try; or raise what the failure means."""
        import openai

        if isinstance(failure, EndpointError):
            raise self._open(failure)
        asked: float | None = None
        if isinstance(failure, openai.APIStatusError):
            asked = self._asked_wait(model, failure)
        elif isinstance(failure, BadReplyError) and not self._learned.proven:
            raise self._open(
                EndpointError(
                    f"{self._endpoint.backend_id} does not speak the OpenAI protocol: "
                    f"{self.redact(str(failure))}; check base_url, which usually ends in /v1"
                )
            ) from None
        elif isinstance(failure, openai.APIConnectionError | BadReplyError | TimeoutError):
            try:
                self._endpoint.check()
            except EndpointError as error:
                raise self._open(error) from None
        else:
            raise failure
        if not self._learned.proven and getattr(failure, "status_code", 0) != 429:
            self._failed_first += 1
        if failures > self._retries or self._failed_first > self._retries:
            self._give_up(failure, failures)
        backoff: float = min(BACKOFF_MOST_S, BACKOFF_S * 2 ** (failures - 1))
        backoff *= random.uniform(0.75, 1.25)  # noqa: S311 - no secret
        return max(backoff, asked or 0.0)

    def _asked_wait(self, model: str, failure: APIStatusError) -> float | None:
        code = failure.status_code
        reason = _reason(failure)
        message = self.redact(f"HTTP {code}: {_message(failure)}")
        first = not self._learned.proven and code in REFUSES_FIRST
        if code in REFUSES_ALL or first or reason == "model_not_found":
            what = f"every call to {model!r}" if model else "this"
            raise self._open(
                EndpointError(
                    f"{self._endpoint.backend_id} refuses {what} ({message}); "
                    "check the endpoint's base_url, its key and the model's name"
                )
            ) from None
        if code not in AGAIN and code < 500:
            if reason in FILTERED:
                raise RowError("blocked", message)
            self._reject(message)
        asked = retry_after(failure.response.headers)
        if asked is not None and asked > RETRY_AFTER_MOST_S:
            self._fail(f"{message}; it asks to wait {asked:.0f} s")
        self._limiter.replied(limited=code == 429, wait_s=asked, headers=failure.response.headers)
        return asked

    def _reject(self, message: str) -> None:
        """The endpoint does not take this call. If it takes none, it is not this call's fault."""
        self._rejected += 1
        if self._rejected >= (REJECTIONS_TO_OPEN if self._learned.proven else FAILURES_TO_OPEN):
            raise self._open(
                EndpointError(
                    f"{self._endpoint.backend_id} has rejected {self._rejected} calls in a row ({message}); "
                    "check the endpoint's model and what it takes: images, answer schema, parameters"
                )
            )
        raise RowError("error", message)

    def _give_up(self, failure: Exception, failures: int) -> None:
        import openai

        message = self.redact(f"{failures} tries, the last: {type(failure).__name__}: {failure}")
        lost = isinstance(failure, openai.APIConnectionError) and not isinstance(
            failure, openai.APITimeoutError
        )
        self._fail(message, at_once=lost or not self._learned.proven)

    def _fail(self, message: str, *, at_once: bool = False) -> NoReturn:
        """A call was not answered for the endpoint's reasons; after some in a row it is given up."""
        self._failures += 1
        if at_once or self._failures >= FAILURES_TO_OPEN:
            raise self._open(
                EndpointError(
                    f"{self._endpoint.backend_id} does not answer ({message}). "
                    "What was answered is kept: run the same command again to go on"
                )
            )
        raise RowError("error", message, again=True)

    def _open(self, error: EndpointError) -> Exception:
        """Open the circuit: the first reason stands for all that follow."""
        self.broken = self.broken or error
        return self.broken

    def _image(self, part: dict[str, Any]) -> dict[str, Any]:
        if part["type"] != "image":
            return part
        if self._blobs is None:
            raise ValueError("a request has images: give the engine `blobs`")
        data = self._blobs(part["sha256"])
        if (found := hashlib.sha256(data).hexdigest()) != part["sha256"]:
            raise ValueError(f"blobs gave bytes with SHA-256 {found} for {part['sha256']}")
        most = self._terms.max_image_bytes
        if most is not None and len(data) > most:
            raise RowError(
                "error", f"image {part['sha256'][:12]} has {len(data)} bytes, and the endpoint takes {most}"
            )
        url = f"data:{_media_type(data)};base64,{base64.b64encode(data).decode()}"
        return {"type": "image_url", "image_url": {"url": url}}


def _reason(failure: APIStatusError) -> str:
    return str(getattr(failure, "code", "") or "")


def _message(failure: APIStatusError) -> str:
    body = failure.body
    if isinstance(body, dict) and body.get("message"):
        return str(body["message"])
    return failure.message


def _media_type(data: bytes) -> str:
    for start, kind in ((b"\x89PNG", "png"), (b"\xff\xd8\xff", "jpeg"), (b"GIF8", "gif")):
        if data.startswith(start):
            return f"image/{kind}"
    if data[:4] == b"RIFF" and data[8:12] == b"WEBP":
        return "image/webp"
    raise ValueError("an image is not PNG, JPEG, GIF or WebP; send the normalised file")

"""Asking: cache first, one flight a question, checked answers, honest failures.

An answer is handed on only after its commit, and only then is its place at the endpoint given to the next
call, so kill -9 loses at most the calls that were under way. What a call goes through is in `sending`, what
an answer is worth in `answers`.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextvars import copy_context
from functools import partial
from itertools import islice
from threading import current_thread, main_thread
from typing import Self

from pipeline.engine.answers import Answer, first_tokens, judge
from pipeline.engine.batch import Batches
from pipeline.engine.budget import Budget
from pipeline.engine.cache import CallCache, Record
from pipeline.engine.endpoint import Endpoint, EndpointError
from pipeline.engine.limits import Limiter
from pipeline.engine.request import Message, Request
from pipeline.engine.sending import Learned, RowError, Sender, Stats

__all__ = ["Engine"]

REASKS = 2
RETRIES = 7  # more than a minute in all, which is what providers count by
# Looked up in the cache together.
CHUNK = 256
# How long a stopped run waits for answers that are already being paid for.
GRACE_S = 20.0


class Engine:
    """Asks one endpoint, through one cache.

    `ask_all` and `ask_each` are for plain code. Async code uses `async with engine:` and `ask`.
    """

    def __init__(
        self,
        cache: CallCache,
        endpoint: Endpoint,
        *,
        budget: Budget | None = None,
        reasks: int = REASKS,
        retries: int = RETRIES,
        blobs: Callable[[str], bytes] | None = None,
        keep: Callable[[bytes], str] | None = None,
    ) -> None:
        """Bind a cache and an endpoint; nothing is started or sent.

        Args:
            cache: where answers are kept.
            endpoint: who is asked, when the cache has no answer.
            budget: what may be spent, shared by the engines of a build; None for no cap.
            reasks: how often a wrong answer is asked for again, with the error.
            retries: how often a failed call is sent again.
            blobs: gives an image's bytes by SHA-256; needed for requests with images.
            keep: keeps the bytes of a picture and gives its SHA-256; needed for requests that make pictures.
        """
        self.stats = Stats()
        self._cache = cache
        self._endpoint = endpoint
        self._budget = budget
        self._reasks = reasks
        self._retries = retries
        self._blobs = blobs
        self._keep = keep
        self._learned = Learned(Limiter(endpoint.terms))
        self._run: _Run | None = None
        self._stop: Callable[[], object] | None = None

    def stop(self) -> None:
        """End `ask_all` or `ask_each` from another thread: nothing more is sent, paid answers come in."""
        if (stop := self._stop) is not None:
            stop()

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
            warm: the messages that all requests begin with. They are sent before the first call, and before
                one that begins like the call before it, with a full stop for an item and one token of answer
                that is thrown away, so that a local model's answers do not depend on which item came before.
                Leave it out where calls cost money.

        Raises:
            EndpointError: when the endpoint cannot be used. What was answered is kept; run again to go on.
        """
        answers: list[Answer | None] = [None] * len(requests)
        done = 0

        def take(index: int, answer: Answer) -> None:
            nonlocal done
            answers[index] = answer
            done += 1
            if on_progress:
                on_progress(done, len(requests))

        self.ask_each(requests, take, stage=stage, warm=warm)
        return [answer for answer in answers if answer is not None]

    def ask_each(
        self,
        requests: Iterable[Request],
        on_answer: Callable[[int, Answer], None],
        *,
        stage: str,
        warm: Sequence[Message] | None = None,
    ) -> None:
        """Ask any number of requests in bounded memory.

        Args:
            requests: what to ask; read as places become free, and not kept.
            on_answer: called with the request's position and its answer, as answers come.
            stage: who asks, recorded with each answer.
            warm: as in `ask_all`.

        Raises:
            EndpointError: when the endpoint cannot be used. What was answered is kept; run again to go on.
        """

        def run() -> None:
            asyncio.run(self._ask_each(requests, on_answer, stage, warm))

        if current_thread() is not main_thread():
            run()
            return
        # Signals are heard in the main thread alone, and what their handlers raise there, be it Ctrl-C or
        # Prefect's, may land anywhere. In the event loop it would be lost, or paid answers would.
        self._stop = None
        with ThreadPoolExecutor(1) as pool:
            running = pool.submit(copy_context().run, run)
            try:
                running.result()
            except BaseException:
                while self._stop is None and not running.done():  # it is about to begin
                    time.sleep(0.01)
                self.stop()
                raise

    async def ask(self, request: Request, *, stage: str) -> Answer:
        """Ask one request. Use it inside `async with engine:`.

        Raises:
            EndpointError: when the endpoint cannot be used.
        """
        self._belongs(request)
        answer = await self._ask(request, stage)
        self._count(answer)
        return answer

    async def __aenter__(self) -> Self:
        """Begin a run in this event loop. The endpoint is not started yet."""
        if self._run is not None:
            raise RuntimeError("the engine is in use by another run; make one engine a run")
        sender = Sender(
            self._cache,
            self._endpoint,
            self.stats,
            self._learned,
            retries=self._retries,
            budget=self._budget,
            blobs=self._blobs,
            keep=self._keep,
        )
        self._run = _Run(sender)
        return self

    async def __aexit__(self, *_: object) -> None:
        """End the run: nothing more is sent, and answers that are under way may still come in."""
        run, self._run = self._run, None
        if run is not None:
            await run.finish()

    async def _ask_each(
        self,
        requests: Iterable[Request],
        on_answer: Callable[[int, Answer], None],
        stage: str,
        warm: Sequence[Message] | None,
    ) -> None:
        loop, me = asyncio.get_running_loop(), asyncio.current_task()
        assert me is not None  # noqa: S101 - a coroutine runs in a task
        self._stop = partial(_cancel, loop, me)
        async with self:
            assert self._run is not None  # noqa: S101 - made by __aenter__
            self._run.sender.warm = warm
            self._refuse_open_batches()
            if self._endpoint.terms.batch:
                requests = list(requests)
                batches = Batches(self._cache, self._endpoint, self._run.sender, self._budget)
                self._run.reasons = await batches.fill(requests, stage, self._reasks)
                self._run.asked = batches.asked
            # Not a task for each of a hundred thousand rows: a window that keeps all places busy while
            # some requests sit out a Retry-After.
            window = asyncio.Semaphore(max(16, 4 * self._endpoint.terms.concurrency))
            tasks: set[asyncio.Task[None]] = set()
            failed: list[BaseException] = []

            async def one(index: int, request: Request) -> None:
                on_answer(index, await self.ask(request, stage=stage))

            def over(task: asyncio.Task[None]) -> None:
                tasks.discard(task)
                window.release()
                if not task.cancelled() and (error := task.exception()) is not None:
                    failed.append(error)

            try:
                for index, request, known in self._looked_up(requests):
                    if known is not None:
                        on_answer(index, known)
                        if index % CHUNK == 0:
                            await asyncio.sleep(0)  # those under way go on meanwhile
                        continue
                    await window.acquire()
                    if failed:
                        break
                    task = asyncio.create_task(one(index, request))
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
                raise self._run.sender.broken or failed[0]

    def _looked_up(self, requests: Iterable[Request]) -> Iterator[tuple[int, Request, Answer | None]]:
        """The requests with the answers that the cache has; those that must be asked come without."""
        numbered = enumerate(requests)
        while chunk := list(islice(numbered, CHUNK)):
            records = self._cache.get_many(request.key for _, request in chunk)
            for index, request in chunk:
                self._belongs(request)
                record = records.get(request.key)
                answer = None if record is None else _settled(request, record, self._sent_for(request))
                if answer is not None:
                    self._count(answer)
                yield index, request, answer

    async def _ask(self, request: Request, stage: str) -> Answer:
        current = request
        sent = self._sent_for(request)
        prompt_tokens = completion_tokens = 0
        attempt = 0
        while True:
            attempt += 1
            try:
                record, fresh = await self._call(current, stage, attempt)
            except RowError as error:
                raw = "" if attempt == 1 else record.response_text
                counts = (attempt - 1, prompt_tokens, completion_tokens)
                why = str(error)
                return Answer(error.status, None, raw, request.key, False, *counts, why, again=error.again)
            sent = sent or fresh
            prompt_tokens += record.prompt_tokens
            completion_tokens += record.completion_tokens
            status, value, why = judge(record, request.schema)
            counts = (attempt, prompt_tokens, completion_tokens)
            if status != "wrong":
                first = first_tokens(record)
                return Answer(status, value, record.response_text, request.key, not sent, *counts, why, first)
            if attempt > self._reasks:
                why = f"no valid answer in {attempt} attempts; the last: {why}"
                return Answer("unscorable", None, record.response_text, request.key, not sent, *counts, why)
            if fresh:
                self.stats.reasked += 1
            current = current.asked_again(record.response_text, why)

    async def _call(self, request: Request, stage: str, attempt: int) -> tuple[Record, bool]:
        """One answered call, from the cache or sent now; equal calls under way are one flight."""
        if (record := self._cache.get(request.key)) is not None:
            return record, False
        run = self._run
        if run is None:
            raise RuntimeError("use `async with engine:` around ask, or ask_all")
        if self._endpoint.terms.batch:
            raise run.reasons.get(request.key) or RowError("error", "no batch holds this call")
        flight = run.flights.get(request.key)
        mine = flight is None
        if flight is None:
            flight = run.start(request, stage, attempt)
        # Shielded: an asker that goes away does not take the answer from the others, nor from the cache.
        return await asyncio.shield(flight), mine

    def _refuse_open_batches(self) -> None:
        """A batch under way is collected by batches alone; asking its calls again would pay twice."""
        if not self._endpoint.terms.batch:
            for note in self._cache.batches(self._endpoint.backend_id):
                if note.state != "done":
                    raise EndpointError(
                        f"a batch of {note.calls} calls to {note.model} is under way at {note.backend_id}: "
                        "set `batch: true` for this endpoint until it is collected"
                    )

    def _sent_for(self, request: Request) -> bool:
        """Whether a batch of this run has asked it."""
        return self._run is not None and request.key in self._run.asked

    def _belongs(self, request: Request) -> None:
        if request.backend_id != self._endpoint.backend_id:
            raise ValueError(
                f"the request is for {request.backend_id}, the endpoint is {self._endpoint.backend_id}: "
                "make requests with the endpoint's backend_id"
            )

    def _count(self, answer: Answer) -> None:
        self.stats.cached += answer.cached
        self.stats.statuses[answer.status] = self.stats.statuses.get(answer.status, 0) + 1


def _settled(request: Request, record: Record, sent: bool) -> Answer | None:
    """The answer that a kept record is, or None where it was asked again."""
    status, value, why = judge(record, request.schema)
    if status == "wrong":
        return None
    return Answer(
        status,
        value,
        record.response_text,
        request.key,
        not sent,
        1,
        record.prompt_tokens,
        record.completion_tokens,
        why,
        first_tokens(record) if record.logprobs else {},
    )


def _cancel(loop: asyncio.AbstractEventLoop, task: asyncio.Task[None]) -> None:
    if not loop.is_closed():
        loop.call_soon_threadsafe(task.cancel)


class _Run:
    """One event loop's use of an engine: the calls under way, and why others were not answered."""

    def __init__(self, sender: Sender) -> None:
        self.sender = sender
        self.flights: dict[str, asyncio.Task[Record]] = {}
        self.reasons: dict[str, RowError] = {}
        self.asked: set[str] = set()

    def start(self, request: Request, stage: str, attempt: int) -> asyncio.Task[Record]:
        flight = asyncio.create_task(self.sender.send(request, stage, attempt))
        self.flights[request.key] = flight

        def landed(task: asyncio.Task[Record]) -> None:
            self.flights.pop(request.key, None)
            # Seen by us even when every asker has gone; the askers get it too.
            if not task.cancelled():
                task.exception()

        flight.add_done_callback(landed)
        return flight

    async def finish(self) -> None:
        """Send nothing more, let paid answers come in for a while, and close the client."""
        self.sender.stopping = True
        flights = list(self.flights.values())
        paid = [flight for flight in flights if flight in self.sender.posted]
        for flight in flights:
            if flight not in paid:
                flight.cancel()
        try:
            if paid:
                await asyncio.wait(paid, timeout=GRACE_S)
        finally:
            for flight in flights:
                flight.cancel()
            await asyncio.gather(*flights, return_exceptions=True)
            await self.sender.close()

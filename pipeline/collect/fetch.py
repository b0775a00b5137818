"""Fetches URLs: many at once, politely, from public addresses only, and nothing twice.

| danger | what is done |
|---|---|
| a URL or redirect leads into a private network | addresses are checked, and those are connected to |
| a host asks not to be crawled | robots.txt (RFC 9309) of each origin; `X-Robots-Tag: noai, noimageai` |
| an answer that never ends, or unpacks to gigabytes | caps on bytes as sent, on bytes unpacked, on time |
| a host that is slow, busy or dead | limits and a delay a host, Retry-After, given up after five failures |
| the process is killed | each answer is committed to the store before it counts |
"""

from __future__ import annotations

import asyncio
import time
import zlib
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from datetime import UTC
from email.utils import parsedate_to_datetime
from types import TracebackType
from typing import TYPE_CHECKING

from pipeline.collect.blocklist import BLOCKED
from pipeline.collect.fetched import FetchedStore
from pipeline.collect.sources.base import Problem, Received, looks_like_an_image
from pipeline.store import printable, sha256_bytes
from schemas.params import Fetch

if TYPE_CHECKING:
    from aiohttp import ClientResponse, ClientSession
    from protego import Protego
    from yarl import URL

__all__ = ["Fetcher"]

LOOK_UPS = 64  # names that are looked up at once: dead ones wait for seconds, and hold up no others
CHUNK = 1000  # URLs that wait or are under way together
FAILURES_IN_A_ROW = 5
ROBOTS_BYTES = 512 * 1024  # RFC 9309: at least 500 KiB are read, the rest may be left
ROBOTS_REDIRECTS = 5
_REDIRECTS = frozenset({301, 302, 303, 307, 308})


class _RefusedError(Exception):
    """Final: asking again would not help."""

    def __init__(self, reason: str, detail: str = "") -> None:
        super().__init__(reason)
        self.problem = Problem(reason, detail)


class _PassingError(_RefusedError):
    """May pass: worth another try, after `after` seconds where the host said so."""

    def __init__(
        self, reason: str, detail: str = "", after: float | None = None, url: URL | None = None
    ) -> None:
        super().__init__(reason, detail)
        self.after, self.url = after, url


@dataclass(frozen=True, slots=True)
class _Answer:
    url: URL
    status: int
    headers: Mapping[str, str]
    tags: Sequence[str]
    body: bytes


_Keep = Callable[[_Answer], Awaitable[None]]


@dataclass
class _Host:
    """Requests to one host: how many at once, and when the next may go."""

    slots: asyncio.Semaphore
    delay: float
    next_at: float = 0.0


@dataclass
class _Origin:
    """Scheme, host and port: what its robots.txt says, and whether anybody answers."""

    robots: asyncio.Task[Protego | None] | None = None
    failures: int = 0
    given_up: str = ""


@dataclass
class _Clock:
    """Time on the network that is left for one URL; waiting for a turn does not count."""

    left: float

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        started = time.monotonic()
        try:
            async with asyncio.timeout(max(0.0, self.left)):
                yield
        finally:
            self.left -= time.monotonic() - started


class Fetcher:
    """Fetches into a store. Use as a context; what it learns of hosts lasts as long as it does."""

    def __init__(
        self,
        params: Fetch,
        store: FetchedStore,
        max_bytes: int,
        refuse: Callable[[bytes], str | None],
        hosts: Mapping[str, str] | None = None,
    ) -> None:
        """Prepare to fetch.

        Args:
            params: limits.
            store: where it goes.
            max_bytes: of one file, as sent and as unpacked.
            refuse: looks at bytes before they are stored, and says why they must not be.
            hosts: addresses of names that are not looked up and not checked.
        """
        self._params, self._store, self._max_bytes, self._refuse = params, store, max_bytes, refuse
        self._known_hosts = dict(hosts or {})
        self._token = params.user_agent.split("/")[0].split()[0]
        self._hosts: dict[str, _Host] = {}
        self._origins: dict[str, _Origin] = {}
        self._session: ClientSession | None = None

    def __enter__(self) -> Fetcher:
        """Start the loop that the requests run in."""
        self._runner = asyncio.Runner()
        self._runner.get_loop().set_default_executor(ThreadPoolExecutor(LOOK_UPS))
        self._keepers = ThreadPoolExecutor(2)
        self._at_once = asyncio.Semaphore(self._params.at_once)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close connections and loop."""
        if self._session is not None:
            self._runner.run(self._session.close())
        self._keepers.shutdown()
        self._runner.close()

    def fetch(self, urls: Sequence[str]) -> Iterator[Received | Problem]:
        """What each URL gives, in their order; what the store has is not asked for again.

        Bytes that must not be stored are a problem with the reason `BLOCKED`, and then no more is begun.
        """
        for start in range(0, len(urls), CHUNK):
            some = urls[start : start + CHUNK]
            problems = self._runner.run(self._fetch_some(some))
            for url in some:
                yield problems.get(url) or self._stored(url)
            if any(p.reason == BLOCKED for p in problems.values()):
                return

    def _stored(self, url: str) -> Received | Problem:
        fetched = self._store.get(url)
        data = None if fetched is None else self._store.data(fetched)
        if fetched is None or data is None:
            return Problem("cannot be read", "it was fetched, and has been deleted since")
        return Received(data, fetched.retrieved_at)

    async def _fetch_some(self, urls: Sequence[str]) -> dict[str, Problem]:
        if self._session is None:
            self._session = self._open()
        problems: dict[str, Problem] = {}

        async def one(text: str) -> None:
            try:
                await self._fetch_one(text)
            except _RefusedError as error:
                problems[text] = error.problem
                if error.problem.reason == BLOCKED:
                    for other in tasks.values():
                        if other is not asyncio.current_task():
                            other.cancel()

        # Whoever is stored already costs no task.
        missing = []
        for text in dict.fromkeys(urls):
            known = self._store.get(text)
            if known is None or self._store.data(known) is None:
                missing.append(text)
        tasks: dict[str, asyncio.Task[None]] = {}
        try:
            async with asyncio.TaskGroup() as group:
                for text in missing:
                    tasks[text] = group.create_task(one(text))
        except ExceptionGroup as errors:
            raise errors.exceptions[0] from None  # a full disk, for instance: one of them says it
        stopped = Problem("source stopped", "another image of it is on a block list")
        problems |= {text: stopped for text, task in tasks.items() if task.cancelled()}
        return problems

    async def _fetch_one(self, text: str) -> None:
        async def keep(answer: _Answer) -> None:
            await asyncio.get_running_loop().run_in_executor(self._keepers, self._keep, text, answer)

        await self._get(_parsed(text), keep)

    def _keep(self, text: str, answer: _Answer) -> None:
        """Store what a URL gave, if it may be stored."""
        for tag in answer.tags:
            # Whichever crawler a tag is addressed to: who does not want that one does not want us.
            for part in tag.split(","):
                if part.rsplit(":", 1)[-1].strip().lower() in {"noai", "noimageai"}:
                    raise _RefusedError("noai", f"X-Robots-Tag: {tag[:200]}")
        kind = answer.headers.get("Content-Type", "")
        if not looks_like_an_image(answer.body):
            raise _RefusedError("not an image", f"{kind[:100]} that begins with {answer.body[:12]!r}")
        if reason := self._refuse(answer.body):
            raise _RefusedError(BLOCKED, f"{sha256_bytes(answer.body)} {reason}")
        self._store.put(text, answer.body, str(answer.url), answer.status, printable(kind[:200]))

    def _open(self) -> ClientSession:
        from aiohttp import ClientSession, ClientTimeout, DummyCookieJar, TCPConnector

        from pipeline.collect.address import CheckedResolver

        resolver = CheckedResolver(self._params.allow_private, self._known_hosts)
        return ClientSession(
            connector=TCPConnector(resolver=resolver, use_dns_cache=False, limit=0),
            cookie_jar=DummyCookieJar(),
            auto_decompress=False,
            timeout=ClientTimeout(total=None),  # the clock of each URL says when to stop
            headers={"User-Agent": self._params.user_agent, "Accept-Encoding": "identity", "Accept": "*/*"},
        )

    async def _get(self, url: URL, keep: _Keep | None) -> _Answer:
        """The final answer, redirects followed, with retries.

        Args:
            url: what to get.
            keep: stores the answer; where None, it is a robots.txt that is asked for.
        """
        params = self._params
        clock = _Clock(params.total_s)
        for attempt in range(params.retries + 1):
            try:
                return await self._follow(url, clock, keep)
            except _PassingError as error:
                if attempt == params.retries:
                    raise
                pause = params.pause_s * 2**attempt if error.after is None else error.after
                pause = min(pause, params.max_pause_s)
                if error.after is not None:
                    host = self._host(error.url or url)  # a redirect's target speaks for itself
                    host.next_at = max(host.next_at, time.monotonic() + pause)
                await asyncio.sleep(pause)
        raise AssertionError("the last try returns or raises")

    async def _follow(self, url: URL, clock: _Clock, keep: _Keep | None) -> _Answer:
        robots = keep is None
        hops = max(self._params.redirects, ROBOTS_REDIRECTS) if robots else self._params.redirects
        for _ in range(hops + 1):
            self._check(url)
            if not robots:
                await self._ask_robots(url)
            answer = await self._request(url, clock, keep)
            if answer.status not in _REDIRECTS:
                return answer
            target = answer.headers.get("Location", "")
            try:
                url = url.join(_parsed(target, relative=True))
            except ValueError:
                raise _RefusedError("not a URL", f"a redirect to {target[:200]!r}") from None
        raise _RefusedError("too many redirects", f"more than {hops}")

    def _check(self, url: URL) -> None:
        from pipeline.collect.address import is_public, literal

        try:
            host = url.host or ""
        except ValueError as error:
            raise _RefusedError("not a URL", f"its host is no name: {error}") from None
        if url.scheme not in {"http", "https"} or not host or not host.isprintable() or " " in host:
            raise _RefusedError("not a URL", f"{str(url)[:200]!r}: only http and https are fetched")
        if url.user or url.password:
            raise _RefusedError("not a URL", "it holds a user or password")
        try:
            address = literal(host)
        except ValueError as error:
            raise _RefusedError("address refused", str(error)) from None
        if address and not self._params.allow_private and not is_public(address):
            raise _RefusedError("address refused", f"{address} is not public")

    async def _ask_robots(self, url: URL) -> None:
        """Wait for the origin's robots.txt and do as it says."""
        origin = self._origin(url)
        if origin.robots is None:
            origin.robots = asyncio.create_task(self._read_robots(url.origin() / "robots.txt"))
        rules = await asyncio.shield(origin.robots)
        if rules is None:
            return
        if not rules.can_fetch(str(url), self._token):
            raise _RefusedError("refused by robots.txt", str(url.origin() / "robots.txt"))
        delay = rules.crawl_delay(self._token)
        if delay is not None:
            if delay > self._params.max_delay_s:
                raise _RefusedError(
                    "crawl-delay too long", f"{delay} s; max_delay_s is {self._params.max_delay_s}"
                )
            host = self._host(url)
            host.delay = max(host.delay, float(delay))

    async def _read_robots(self, url: URL) -> Protego | None:
        """What an origin allows; None for everything.

        Raises:
            _RefusedError: nothing is allowed, since nobody can say what would be.
        """
        from protego import Protego

        try:
            answer = await self._get(url, None)
        except _RefusedError as error:
            reason, detail = error.problem.reason, error.problem.detail
            if reason == "too many redirects" or reason.startswith("HTTP 4"):
                return None  # RFC 9309, 2.3.1: unavailable is not unreachable
            said = "robots.txt unreachable" if reason.startswith("HTTP") else reason
            raise _RefusedError(said, f"robots.txt: {reason}: {detail}") from None
        return Protego.parse(answer.body.decode("utf-8-sig", "replace"))

    async def _request(self, url: URL, clock: _Clock, keep: _Keep | None) -> _Answer:
        """One request and its answer, without following redirects.

        The turn lasts until the answer is stored, so that no more answers wait for the disk than may be under
        way.
        """
        async with self._turn(url):
            answer = await self._ask(url, clock, robots=keep is None)
            if keep is not None and answer.status == 200:
                await keep(answer)
            return answer

    async def _ask(self, url: URL, clock: _Clock, *, robots: bool) -> _Answer:
        from aiohttp import ClientConnectionError, ClientError, ClientPayloadError, ClientSSLError, InvalidURL

        from pipeline.collect.address import AddressRefusedError

        assert self._session is not None  # noqa: S101 - opened by `_fetch_some`
        origin = self._origin(url)
        if origin.given_up:
            raise _RefusedError("host given up", origin.given_up)
        answered = False
        try:
            async with clock.running(), self._session.get(url, allow_redirects=False) as response:
                answered = True
                origin.failures = 0
                body = b""
                if response.status == 200:
                    body = await _body(response, ROBOTS_BYTES if robots else self._max_bytes, cut=robots)
                elif response.status not in _REDIRECTS:
                    raise _bad_status(response, url)
                tags = response.headers.getall("X-Robots-Tag", [])
                return _Answer(url, response.status, response.headers, tags, body)
        except AddressRefusedError as error:
            raise _RefusedError("address refused", str(error)) from None
        except TimeoutError:
            if not answered:
                self._count_failure(origin, "no answer in time")
            raise _RefusedError("timed out", f"after {self._params.total_s} s") from None
        except ClientPayloadError as error:
            raise _PassingError("incomplete body", str(error)) from None
        except InvalidURL as error:
            raise _RefusedError("not a URL", str(error)) from None
        except ClientSSLError as error:
            self._count_failure(origin, str(error))
            raise _RefusedError("certificate refused", str(error)) from None
        except (ClientConnectionError, OSError) as error:
            detail = f"{type(error).__name__}: {error}"
            if not answered:
                self._count_failure(origin, detail)
            raise _PassingError("cannot connect", detail) from None
        except (ClientError, ValueError) as error:
            raise _RefusedError("bad answer", f"{type(error).__name__}: {error}"[:300]) from None

    def _count_failure(self, origin: _Origin, detail: str) -> None:
        origin.failures += 1
        if origin.failures >= FAILURES_IN_A_ROW:
            origin.given_up = f"{FAILURES_IN_A_ROW} failures in a row; the last: {detail}"

    @asynccontextmanager
    async def _turn(self, url: URL) -> AsyncIterator[None]:
        """Wait until the host may be asked again, then until there is room among all requests."""
        host = self._host(url)
        async with host.slots:
            while True:
                while (wait := host.next_at - time.monotonic()) > 0 and not self._origin(url).given_up:
                    await asyncio.sleep(wait)
                async with self._at_once:
                    # Another may have gone to this host while this one waited for room.
                    if host.next_at > time.monotonic() and not self._origin(url).given_up:
                        continue
                    host.next_at = max(host.next_at, time.monotonic() + host.delay)
                    yield
                    return

    def _host(self, url: URL) -> _Host:
        name = url.host or ""
        if name not in self._hosts:
            slots = asyncio.Semaphore(self._params.at_once_per_host)
            self._hosts[name] = _Host(slots, self._params.delay_s)
        return self._hosts[name]

    def _origin(self, url: URL) -> _Origin:
        return self._origins.setdefault(str(url.origin()), _Origin())


def _parsed(text: str, relative: bool = False) -> URL:
    from yarl import URL

    try:
        url = URL(text.strip())
        if not relative:
            _ = url.port, url.origin()
    except (ValueError, UnicodeError) as error:
        raise _RefusedError("not a URL", str(error)) from None
    return url.with_fragment(None)


def _bad_status(response: ClientResponse, url: URL) -> _RefusedError:
    reason = f"HTTP {response.status}"
    if response.status == 429 or response.status >= 500:
        after = _retry_after(response.headers.get("Retry-After", ""))
        return _PassingError(reason, after=after, url=url)
    return _RefusedError(reason)


def _retry_after(text: str) -> float | None:
    """Seconds, written as such or as a date."""
    if text.strip().isdecimal():
        return float(text)
    with suppress(ValueError, TypeError, OverflowError):
        date = parsedate_to_datetime(text)
        # One of the three forms of HTTP dates names no zone: all are of UTC.
        date = date if date.tzinfo else date.replace(tzinfo=UTC)
        return max(0.0, date.timestamp() - time.time())
    return None


async def _body(response: ClientResponse, max_bytes: int, *, cut: bool) -> bytes:
    """The body, unpacked; no more of it is held than `max_bytes`.

    Args:
        response: whose body is read.
        max_bytes: as sent, and as unpacked.
        cut: whether a longer body is cut off; it is refused where not.
    """
    encoding = response.headers.get("Content-Encoding", "").strip().lower()
    if encoding not in {"", "identity", "gzip", "x-gzip", "deflate"}:
        raise _RefusedError("bad answer", f"Content-Encoding {encoding[:50]!r}; identity was asked for")
    too_large = _RefusedError("too large", f"more than {max_bytes} bytes; collect.max_bytes is the limit")
    if not cut and (response.content_length or 0) > max_bytes:
        raise too_large
    unpacker = None if encoding in {"", "identity"} else _Unpacker(encoding)
    body = bytearray()
    received = 0
    async for chunk in response.content.iter_any():
        received += len(chunk)
        body += chunk if unpacker is None else unpacker.unpack(chunk, max_bytes - len(body) + 1)
        if max(received, len(body)) > max_bytes:
            if cut:
                return bytes(body[:max_bytes])
            raise too_large
    if unpacker is not None and not unpacker.complete:
        raise _PassingError("incomplete body", "the compressed body breaks off")
    return bytes(body)


class _Unpacker:
    """Unpacks gzip and deflate, also deflate without its header, which some servers send."""

    def __init__(self, encoding: str) -> None:
        self._bits = zlib.MAX_WBITS | (0 if encoding == "deflate" else 16)
        self._stream = zlib.decompressobj(self._bits)
        self._raw_possible = encoding == "deflate"

    def unpack(self, chunk: bytes, most: int) -> bytes:
        """The next part of the body, or more than `most` bytes of it."""
        data = bytearray()
        while chunk and len(data) <= most:
            if self._stream.eof:  # gzip may come in several members, one after the other
                self._stream = zlib.decompressobj(self._bits)
            data += self._some(chunk, most - len(data) + 1)
            chunk = self._stream.unused_data or (b"" if self._stream.eof else self._stream.unconsumed_tail)
        return bytes(data)

    def _some(self, chunk: bytes, most: int) -> bytes:
        try:
            data = self._stream.decompress(chunk, most)
        except zlib.error as error:
            if not self._raw_possible:
                raise _RefusedError("bad answer", f"the body cannot be unpacked: {error}") from None
            self._bits, self._raw_possible = -zlib.MAX_WBITS, False
            self._stream = zlib.decompressobj(self._bits)
            return self._some(chunk, most)
        self._raw_possible = False
        return data

    @property
    def complete(self) -> bool:
        return self._stream.eof

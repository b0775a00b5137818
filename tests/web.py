"""A local web server with faults, in a thread, for tests."""

from __future__ import annotations

import asyncio
import gzip
import ssl
import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager

from aiohttp import web

from tests.images import encoded, picture

PIXELS = "/picture/{n}.png"


def image(n: int) -> bytes:
    """The picture that the server gives as number `n`."""
    return encoded(picture(48, 40, seed=n), "PNG")


class Site:
    """The running server: what was asked of it, and what its robots.txt says."""

    def __init__(self, scheme: str = "http") -> None:
        self.scheme = scheme
        self.asked: Counter[str] = Counter()
        self.times: list[float] = []
        self.agents: set[str] = set()
        self.robots: str | int = 404
        self.released = asyncio.Event()
        self.pause = 0.0
        self.under_way = self.most_at_once = 0
        self.port = 0

    def url(self, path: str, host: str = "site.test") -> str:
        return f"{self.scheme}://{host}:{self.port}{path}"

    async def answer(self, request: web.Request) -> web.StreamResponse:
        path = request.path
        self.asked[request.host.split(":")[0] + path] += 1
        self.agents.add(request.headers.get("User-Agent", ""))
        if path == "/robots.txt":
            if isinstance(self.robots, int):
                return web.Response(status=self.robots)
            return web.Response(text=self.robots)
        self.times.append(asyncio.get_running_loop().time())
        if self.pause:
            self.under_way += 1
            self.most_at_once = max(self.most_at_once, self.under_way)
            await asyncio.sleep(self.pause)
            self.under_way -= 1
        kind, _, rest = path[1:].partition("/")
        if kind in {"picture", "private"}:
            return web.Response(body=image(int(rest.split(".")[0])), content_type="image/png")
        if kind == "to":
            return web.Response(status=302, headers={"Location": request.query["u"]})
        if kind == "loop":
            return web.Response(status=302, headers={"Location": "/loop/"})
        if kind == "endless":
            return await self.endless(request)
        if kind == "silent":
            await self.released.wait()
        if kind == "bomb":
            body = gzip.compress(b"\x89PNG\r\n\x1a\n" + bytes(50_000_000))
            return web.Response(body=body, headers={"Content-Encoding": "gzip"}, content_type="image/png")
        if kind == "zipped":
            return web.Response(
                body=gzip.compress(image(5)), headers={"Content-Encoding": "gzip"}, content_type="image/png"
            )
        if kind == "members":
            cut = len(image(5)) // 2
            body = gzip.compress(image(5)[:cut]) + gzip.compress(image(5)[cut:])
            return web.Response(body=body, headers={"Content-Encoding": "gzip"}, content_type="image/png")
        if kind == "later":
            return web.Response(status=503, headers={"Retry-After": rest})
        if kind == "odd":
            return web.Response(body=b"?", headers={"Content-Encoding": "br"}, content_type="image/png")
        if kind == "short":
            response = web.StreamResponse(headers={"Content-Length": "5000", "Content-Type": "image/png"})
            await response.prepare(request)
            await response.write(image(1)[:50])
            request.transport.close() if request.transport else None
            return response
        if kind == "huge":
            return web.Response(body=b"\x89PNG\r\n\x1a\n" + bytes(3_000_000), content_type="image/png")
        if kind == "noai":
            return web.Response(
                body=image(1),
                headers={"X-Robots-Tag": f"otherbot: nofollow, {rest}"},
                content_type="image/png",
            )
        if kind == "busy" and self.asked[request.host.split(":")[0] + path] < 3:
            return web.Response(status=503)
        if kind == "wait" and self.asked[request.host.split(":")[0] + path] < 2:
            return web.Response(status=429, headers={"Retry-After": "1"})
        if kind in {"busy", "wait"}:
            return web.Response(body=image(2), content_type="image/png")
        if kind == "page":
            return web.Response(text="<html>moved</html>", content_type="image/png")
        return web.Response(status=404)

    async def endless(self, request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse(headers={"Content-Type": "image/png"})
        await response.prepare(request)
        await response.write(b"\x89PNG\r\n\x1a\n")
        try:
            while not self.released.is_set():
                await response.write(b"0")
                await asyncio.sleep(0.02)
        except ConnectionError:
            pass
        return response


@contextmanager
def site(tls: ssl.SSLContext | None = None) -> Iterator[Site]:
    """Serve until the end of the block, by HTTPS where there is a context."""
    served = Site("https" if tls else "http")
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever)
    thread.start()
    app = web.Application()
    app.router.add_route("*", "/{path:.*}", served.answer)
    runner = web.AppRunner(app, shutdown_timeout=1)

    async def up() -> None:
        await runner.setup()
        listener = web.TCPSite(runner, "127.0.0.1", 0, ssl_context=tls)
        await listener.start()
        served.port = runner.addresses[0][1]

    async def down() -> None:
        served.released.set()
        await runner.cleanup()
        await loop.shutdown_default_executor()

    asyncio.run_coroutine_threadsafe(up(), loop).result()
    try:
        yield served
    finally:
        asyncio.run_coroutine_threadsafe(down(), loop).result()
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        loop.close()

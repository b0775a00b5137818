"""The endpoint itself: sockets around what `replies` and `batches` decide."""

from __future__ import annotations

import asyncio
import json
import signal
from collections.abc import Callable
from typing import Any

from aiohttp import web

from pipeline.engine.scripted.batches import BatchApi
from pipeline.engine.scripted.http import Handler, json_response
from pipeline.engine.scripted.replies import Answerer, RejectedError
from pipeline.engine.scripted.script import Script, backend_id
from schemas.errors import InputError

__all__ = ["ScriptedServer", "serve"]

# Batch files are large, and so are images in base64.
BODY_BYTES_MOST = 256 * 2**20
PICTURES = "/v1/images/generations"
GARBLED = b"<html><body>upstream error</body></html>"


class ScriptedServer:
    """The endpoint. It listens on 127.0.0.1 only.

    Besides the OpenAI protocol (chat completions, images, models, files, batches) it has `GET /stats` and
    `POST /reset`, which sets to zero what was counted.
    """

    def __init__(self, script: Script) -> None:
        """Take note of the script; nothing listens yet."""
        self._script = script
        self._answerer = Answerer(script)
        self._batches = BatchApi(script, self._answerer)
        self._runner: web.AppRunner | None = None
        self._under_way = 0
        self._reset()

    async def start(self, port: int = 0) -> str:
        """Listen, on any free port by default, and return the base URL.

        Raises:
            OSError: when the port is taken.
        """
        app = web.Application(client_max_size=BODY_BYTES_MOST)
        app.router.add_post("/v1/chat/completions", self._answer)
        app.router.add_post(PICTURES, self._answer)
        app.router.add_get("/v1/models", self._guarded(self._models))
        for method, path, handler in self._batches.routes():
            app.router.add_route(method, path, self._guarded(handler))
        app.router.add_get("/stats", self._get_stats)
        app.router.add_post("/reset", self._post_reset)
        # Handlers that stall end when their client leaves, and do not hold up the stop.
        self._runner = web.AppRunner(app, access_log=None, handler_cancellation=True, shutdown_timeout=0.1)
        try:
            await self._runner.setup()
            await web.TCPSite(self._runner, "127.0.0.1", port, backlog=1024).start()
        except OSError:
            await self.stop()
            raise
        return f"http://127.0.0.1:{self._runner.addresses[0][1]}/v1"

    async def stop(self) -> None:
        """Close every connection and listen no more."""
        if self._runner is not None:
            await self._runner.cleanup()
            self._runner = None

    def stats(self) -> dict[str, Any]:
        """What was counted since the start or the last reset.

        `requests` and `peak_under_way` are chat completions and pictures over HTTP; `distinct`, `repeated`
        (receptions of a body that was received before) and `by_outcome` count the lines of batches as well.
        """
        counted = {"requests": self._requests, "peak_under_way": self._peak}
        return {**counted, **self._answerer.stats(), **self._batches.stats()}

    def _reset(self) -> None:
        self._requests = 0
        self._peak = self._under_way
        self._answerer.reset()
        self._batches.reset()

    async def _answer(self, request: web.Request) -> web.Response:
        self._requests += 1
        self._under_way += 1
        self._peak = max(self._peak, self._under_way)
        try:
            raw = await request.read()
            try:
                self._authorise(request)
            except RejectedError as error:
                reply = self._answerer.reject(error)
            else:
                reply = self._answerer.receive(_parsed(raw), picture=request.path == PICTURES)
            if reply.wait_s:
                await asyncio.sleep(reply.wait_s)
            if not reply.status:
                if reply.outcome == "stalled":
                    await asyncio.sleep(self._script.faults.stall_s)
                if request.transport is not None:
                    request.transport.abort()
                return web.Response()  # which nobody gets
            headers = {**reply.headers, **self._answerer.rate_headers()}
            if reply.outcome == "garbled":
                return web.Response(body=GARBLED, content_type="text/html", headers=headers)
            return json_response(reply.body, reply.status, headers)
        finally:
            self._under_way -= 1

    async def _models(self, request: web.Request) -> web.Response:  # noqa: ARG002 - a handler's signature
        own = {"object": "model", "created": 0, "owned_by": backend_id(self._script)}
        models = [{"id": name, **own} for name in self._script.models]
        return json_response({"object": "list", "data": models})

    async def _get_stats(self, request: web.Request) -> web.Response:  # noqa: ARG002
        return json_response(self.stats())

    async def _post_reset(self, request: web.Request) -> web.Response:  # noqa: ARG002
        self._reset()
        return json_response(self.stats())

    def _authorise(self, request: web.Request) -> None:
        key = self._script.api_key
        if key is not None and request.headers.get("Authorization") != f"Bearer {key}":
            raise RejectedError(401, "Incorrect API key provided", code="invalid_api_key")

    def _guarded(self, handler: Handler) -> Handler:
        async def guarded(request: web.Request) -> web.StreamResponse:
            try:
                self._authorise(request)
                return await handler(request)
            except RejectedError as error:
                return json_response(error.body, error.status, error.headers)

        return guarded


def serve(script: Script, port: int, ready: Callable[[str], None]) -> None:
    """Serve until SIGINT or SIGTERM; `ready` is called with the base URL once it listens.

    Raises:
        InputError: when the port is taken.
    """

    async def run() -> None:
        stop = asyncio.Event()
        for number in (signal.SIGINT, signal.SIGTERM):
            asyncio.get_running_loop().add_signal_handler(number, stop.set)
        server = ScriptedServer(script)
        try:
            base_url = await server.start(port)
        except OSError as error:
            raise InputError(f"port {port}: cannot listen there: {error.strerror}") from error
        try:
            ready(base_url)
            await stop.wait()
        finally:
            await server.stop()

    asyncio.run(run())


def _parsed(raw: bytes) -> Any:
    try:
        return json.loads(raw)
    except (ValueError, RecursionError):
        return raw.decode("latin-1")  # told apart from others like it, and rejected as no JSON object

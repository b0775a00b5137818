"""A scripted endpoint in a thread, for tests."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from pydantic import BaseModel, ConfigDict

from pipeline.engine import Request, Terms
from pipeline.engine.scripted import Script, ScriptedEndpoint, ScriptedServer

ITEMS = [{"match": r"item (\d+)", "earlier": True, "answer": {"reason": r"item \1", "unsafe": False}}]


class Verdict(BaseModel):
    """What `ITEMS` answer."""

    model_config = ConfigDict(extra="forbid")

    reason: str
    unsafe: bool


class Scripted:
    """The running server and how to reach it."""

    def __init__(self, script: Script, server: ScriptedServer, base_url: str) -> None:
        self.script, self.server, self.base_url = script, server, base_url

    def endpoint(self, **terms: Any) -> ScriptedEndpoint:
        return ScriptedEndpoint.of(self.script, self.base_url, Terms(**terms))

    def stats(self) -> dict[str, Any]:
        return self.server.stats()


def items(served: Scripted, count: int, **params: Any) -> list[Request]:
    """Questions about `item 0`, `item 1` and so on."""
    backend = served.endpoint().backend_id
    params = {"temperature": 0, "max_tokens": 50, **params}
    return [
        Request(backend, "m", [{"role": "user", "content": f"item {i}"}], params, Verdict)
        for i in range(count)
    ]


@contextmanager
def scripted(**script: Any) -> Iterator[Scripted]:
    """Serve a script, by default one that answers `item N`."""
    told = Script.model_validate({"version": 1, "seed": 1, "models": ["m"], "answers": ITEMS} | script)
    server = ScriptedServer(told)
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever)
    thread.start()
    try:
        yield Scripted(told, server, asyncio.run_coroutine_threadsafe(server.start(), loop).result())
    finally:

        async def down() -> None:
            await server.stop()
            await loop.shutdown_default_executor()

        asyncio.run_coroutine_threadsafe(down(), loop).result()
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        loop.close()

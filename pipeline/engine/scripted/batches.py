"""The scripted endpoint's Batch API: files and batches in memory, with OpenAI's shapes.

A batch's lines are decided when it is made, by the same script as single calls, and can be had when its time
is up. Lines that failed are in the error file; a batch with lines that ran out of time ends as `expired`.
"""

from __future__ import annotations

import asyncio
import json
import math
import random
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from aiohttp import BodyPartReader, web

from pipeline.engine.scripted.http import Handler, json_response
from pipeline.engine.scripted.replies import Answerer, RejectedError
from pipeline.engine.scripted.script import Script

__all__ = ["BatchApi"]

ENDPOINT = "/v1/chat/completions"
EXPIRED = "This request could not be executed before the completion window expired."
# So many lines are decided at a time before other requests get their turn.
LINES_AT_ONCE = 200


@dataclass
class _Batch:
    id: str
    request: dict[str, Any]
    lines: int
    created_at: int
    ends: float = math.inf  # until its lines are decided
    outputs: list[str] = field(default_factory=list)
    errors: list[str] = field(default_factory=list)
    expired: int = 0
    problems: list[dict[str, Any]] = field(default_factory=list)
    cancelled_at: int | None = None
    ended_at: int | None = None
    files: dict[str, str] = field(default_factory=dict)


class BatchApi:
    """The handlers of files and batches."""

    def __init__(self, script: Script, answerer: Answerer) -> None:
        """Begin without files and batches."""
        self._script = script
        self._answerer = answerer
        self._files: dict[str, tuple[dict[str, Any], bytes]] = {}
        self._batches: dict[str, _Batch] = {}
        self.reset()

    def routes(self) -> list[tuple[str, str, Handler]]:
        """Method, path and handler of each."""
        return [
            ("POST", "/v1/files", self._upload),
            ("GET", "/v1/files/{id}/content", self._content),
            ("POST", "/v1/batches", self._create),
            ("GET", "/v1/batches", self._list),
            ("GET", "/v1/batches/{id}", self._retrieve),
            ("POST", "/v1/batches/{id}/cancel", self._cancel),
        ]

    def reset(self) -> None:
        """Count from zero; files and batches stay."""
        self._made = self._lines = 0

    def stats(self) -> dict[str, int]:
        """How many batches were made, and how many lines were in them."""
        return {"batches": self._made, "batch_lines": self._lines}

    async def _upload(self, request: web.Request) -> web.Response:
        purpose, name, content = "", "", None
        if request.content_type != "multipart/form-data":
            raise RejectedError(400, "A file is sent as multipart/form-data")
        async for part in await request.multipart():
            if isinstance(part, BodyPartReader) and part.name == "purpose":
                purpose = await part.text()
            elif isinstance(part, BodyPartReader) and part.name == "file":
                name, content = part.filename or "file", bytes(await part.read())
        if content is None:
            raise RejectedError(400, "There is no file", "file")
        if purpose != "batch":
            raise RejectedError(400, "The purpose is not batch", "purpose")
        return json_response(self._keep(name, content, purpose))

    async def _content(self, request: web.Request) -> web.Response:
        _, content = self._file(request.match_info["id"], 404)
        return web.Response(body=content, content_type="application/octet-stream")

    async def _create(self, request: web.Request) -> web.Response:
        try:
            asked = json.loads(await request.read())
            file_id, metadata = str(asked["input_file_id"]), asked.get("metadata")
            given = (asked.get("endpoint"), asked.get("completion_window"))
        except (ValueError, KeyError, TypeError, AttributeError):
            raise RejectedError(400, "The body is not a batch") from None
        if given != (ENDPOINT, "24h"):
            raise RejectedError(
                400, f"endpoint is not {ENDPOINT}, or completion_window is not 24h", "endpoint"
            )
        _, content = self._file(file_id, 400)
        lines, problems = _read(content)
        batch = _Batch(
            id=f"batch_{len(self._batches) + 1:06d}",
            request={
                "input_file_id": file_id,
                "endpoint": ENDPOINT,
                "completion_window": "24h",
                "metadata": metadata,
            },
            lines=len(lines),
            created_at=int(time.time()),
            problems=problems,
        )
        self._batches[batch.id] = batch
        self._made += 1
        if not problems:
            self._lines += len(lines)
            # Shielded: a batch that was received is made, whether or not its client lives to see it.
            await asyncio.shield(self._run(batch, lines))
        return json_response(self._shown(batch, "validating"))

    async def _run(self, batch: _Batch, lines: list[dict[str, Any]]) -> None:
        for number, line in enumerate(lines):
            if number % LINES_AT_ONCE == 0:
                await asyncio.sleep(0)
            reply = self._answerer.receive(line["body"], batch=True)
            result = {"id": f"batch_req_{batch.id}_{number:06d}", "custom_id": line["custom_id"]}
            if reply.status:
                request_id = f"req_{batch.id}_{number:06d}"
                response = {"status_code": reply.status, "request_id": request_id, "body": reply.body}
                result |= {"response": response, "error": None}
            else:
                batch.expired += 1
                result |= {"response": None, "error": {"code": reply.outcome, "message": EXPIRED}}
            (batch.outputs if reply.status == 200 else batch.errors).append(json.dumps(result))
        for kept in (batch.outputs, batch.errors):
            in_order = list(kept)
            random.Random(f"{self._script.seed}:{batch.id}").shuffle(kept)  # noqa: S311 - to be repeated
            if kept == in_order:
                kept.reverse()  # who relies on the order is to notice
        batch.ends = time.monotonic() + self._script.batch_s

    async def _retrieve(self, request: web.Request) -> web.Response:
        return json_response(self._shown(self._batch(request)))

    async def _list(self, request: web.Request) -> web.Response:
        newest_first = list(reversed(self._batches.values()))
        after, limit = request.query.get("after"), request.query.get("limit", "20")
        if not limit.isascii() or not limit.isdigit() or not 1 <= int(limit) <= 100:
            raise RejectedError(400, "limit is not a number from 1 to 100", "limit")
        if after is not None:
            if after not in self._batches:
                raise RejectedError(400, "after is not a batch", "after")
            newest_first = newest_first[newest_first.index(self._batches[after]) + 1 :]
        page = [self._shown(batch) for batch in newest_first[: int(limit)]]
        return json_response(
            {
                "object": "list",
                "data": page,
                "first_id": page[0]["id"] if page else None,
                "last_id": page[-1]["id"] if page else None,
                "has_more": len(newest_first) > len(page),
            }
        )

    async def _cancel(self, request: web.Request) -> web.Response:
        batch = self._batch(request)
        if (status := self._status(batch)) not in ("validating", "in_progress"):
            raise RejectedError(409, f"A batch that is {status} cannot be cancelled")
        batch.cancelled_at = int(time.time())
        return json_response(self._shown(batch, "cancelling"))

    def _status(self, batch: _Batch) -> str:
        if batch.problems:
            return "failed"
        if batch.cancelled_at is not None:
            return "cancelled"
        left = batch.ends - time.monotonic()
        if left <= 0:
            return "expired" if batch.expired else "completed"
        return "validating" if left > 0.9 * self._script.batch_s else "in_progress"

    def _shown(self, batch: _Batch, status: str = "") -> dict[str, Any]:
        """The batch as OpenAI shows it; with the status that it really has, unless another is given."""
        status = status or self._status(batch)
        done = status in ("completed", "expired")
        ended = done or status == "failed"
        if ended and batch.ended_at is None:
            batch.ended_at = int(time.time())
            for which, lines in (("output", batch.outputs), ("error", batch.errors)):
                if done and lines:
                    content = "".join(f"{line}\n" for line in lines).encode()
                    kept = self._keep(f"{batch.id}_{which}.jsonl", content, "batch_output")
                    batch.files[which] = kept["id"]
        return {
            "id": batch.id,
            "object": "batch",
            **batch.request,
            "status": status,
            "errors": {"object": "list", "data": batch.problems} if status == "failed" else None,
            "created_at": batch.created_at,
            "in_progress_at": None if status in ("validating", "failed") else batch.created_at,
            "expires_at": batch.created_at + 24 * 3600,
            "cancelling_at": batch.cancelled_at,
            "cancelled_at": batch.cancelled_at if status == "cancelled" else None,
            **({f"{status}_at": batch.ended_at} if ended else {}),
            "output_file_id": batch.files.get("output"),
            "error_file_id": batch.files.get("error"),
            "request_counts": {
                "total": 0 if status == "failed" else batch.lines,
                "completed": len(batch.outputs) if done else 0,
                "failed": len(batch.errors) if done else 0,
            },
        }

    def _batch(self, request: web.Request) -> _Batch:
        batch = self._batches.get(request.match_info["id"])
        if batch is None:
            raise RejectedError(404, "There is no such batch")
        return batch

    def _keep(self, name: str, content: bytes, purpose: str) -> dict[str, Any]:
        shown = {
            "id": f"file-{len(self._files) + 1:06d}",
            "object": "file",
            "bytes": len(content),
            "created_at": int(time.time()),
            "filename": name,
            "purpose": purpose,
            "status": "processed",
        }
        self._files[str(shown["id"])] = (shown, content)
        return shown

    def _file(self, file_id: str, status: int) -> tuple[dict[str, Any], bytes]:
        if file_id not in self._files:
            raise RejectedError(status, "There is no such file")
        return self._files[file_id]


def _read(content: bytes) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """The lines of an input file, and what is wrong with it."""
    lines: list[dict[str, Any]] = []
    problems: list[dict[str, Any]] = []
    seen: set[str] = set()
    for number, text in enumerate(content.splitlines(), 1):
        try:
            line = json.loads(text)
        except ValueError:
            line = None
        for code, message in _problems(line, seen):
            problems.append({"code": code, "message": message, "line": number, "param": None})
        if isinstance(line, dict):
            seen.add(str(line.get("custom_id")))
            lines.append(line)
    if not lines and not problems:
        problems.append({"code": "empty_file", "message": "The file is empty", "line": None, "param": None})
    return lines, problems


def _problems(line: Any, seen: set[str]) -> Iterator[tuple[str, str]]:
    if not isinstance(line, dict):
        yield "invalid_json_line", "This line is not a JSON object"
    elif not isinstance(line.get("custom_id"), str) or "body" not in line:
        yield "missing_required_parameter", "This line has no custom_id or no body"
    elif line["custom_id"] in seen:
        yield "duplicate_custom_id", "Another line has the same custom_id"
    elif (line.get("method"), line.get("url")) != ("POST", ENDPOINT):
        yield "invalid_url", f"This line is not a POST to {ENDPOINT}"

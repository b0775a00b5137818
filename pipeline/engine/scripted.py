r"""An OpenAI-compatible endpoint that answers from a file and fails by seed: for tests, demos and benchmarks.

A script is YAML or JSON:

    version: 1
    seed: 7
    models: [judge]
    latency_ms: 200
    answers:
      - match: "item (\\d+)"          # searched in the text of the last user message; the first that fits
        answer: {reason: 'item \1', unsafe: false}
      - answer: I do not know.        # no match: fits everything
    faults: {status_429: 0.02, truncated: 0.01}

In answers and refusals `\1` and `\g<name>` stand for what the groups of `match` caught, and every other
backslash for itself. An answer that is a mapping is sent as JSON; in one that is text nothing is escaped.

Whether a request fails, and how, depends on the seed, on what its body says and on how often that body came
before: not on the order of requests, and a retry is rolled anew.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import math
import re
import signal
import struct
import time
from collections import Counter, deque
from collections.abc import Awaitable, Callable, Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, NamedTuple, get_args

from aiohttp import web
from pydantic import BaseModel, ConfigDict, Field, JsonValue, PlainSerializer, model_validator

from pipeline.store import sha256_text
from schemas.errors import InputError, load_yaml, validated

__all__ = [
    "Answerer",
    "Faults",
    "RejectedError",
    "Reply",
    "Rule",
    "Script",
    "ScriptedServer",
    "backend_id",
    "json_response",
    "load_script",
    "serve",
]

WINDOW_S = 60.0
# Batch files are large, and so are images in base64.
BODY_BYTES_MOST = 256 * 2**20
INVALID = ("I would rather not answer in that form.", '{"unexpected": true}')
GARBLED = b"<html><body>upstream error</body></html>"

Share = Annotated[float, Field(ge=0, le=1)]
Duration = Annotated[float, Field(ge=0, allow_inf_nan=False)]
Feature = Literal["json_schema", "tools", "logprobs"]
Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]

_REFERENCE = re.compile(r"\\(?:[1-9]\d?|g<\w+>)")


class _Strict(BaseModel):
    # Inputs stay out of error messages, as one of them is a key.
    model_config = ConfigDict(extra="forbid", frozen=True, hide_input_in_errors=True)


class Rule(_Strict):
    """What is answered to the messages that `match` is found in."""

    match: str | None = Field(default=None, description="a regular expression; null fits everything")
    earlier: bool = Field(
        default=False, description="search earlier user messages too, as for questions that are asked again"
    )
    answer: str | dict[str, JsonValue] = ""
    logprobs: dict[str, Annotated[float, Field(le=0)]] = Field(
        default={}, description="of the tokens that the answer might begin with"
    )
    finish_reason: str = "stop"
    refusal: str | None = Field(default=None, description="sent as a refusal, in place of the answer")

    @model_validator(mode="after")
    def _complete(self) -> Rule:
        if self.refusal is None and "answer" not in self.model_fields_set:
            raise ValueError("give an answer or a refusal")
        try:
            pattern = self.pattern()
        except re.error as error:
            raise ValueError(f"match is not a regular expression: {error}") from error

        def check(text: str) -> str:
            for reference in _REFERENCE.findall(text):
                pattern.sub(reference, "")  # looks at the reference although there is nothing to replace
            return text

        try:
            _each_text([self.answer, self.refusal], check)
        except (re.error, IndexError) as error:
            raise ValueError(f"refers to a group that match does not have: {error}") from error
        return self

    def pattern(self) -> re.Pattern[str]:
        """The compiled `match`."""
        return re.compile("(?s).*" if self.match is None else self.match)

    def expanded(self, found: re.Match[str]) -> str:
        """The refusal or the answer as text, with what the groups caught."""

        def fill(text: str) -> str:
            return _REFERENCE.sub(lambda reference: found.expand(reference[0]), text)

        if self.refusal is not None:
            return fill(self.refusal)
        if isinstance(self.answer, str):
            return fill(self.answer)
        return json.dumps(_each_text(self.answer, fill), ensure_ascii=False)


class Faults(_Strict):
    """The share of requests that each fault strikes."""

    status_429: Share = 0
    retry_after_s: Duration = 1
    status_500: Share = 0
    stalled: Share = Field(default=0, description="nothing is sent for stall_s, then the connection closes")
    stall_s: Duration = 60
    closed: Share = Field(default=0, description="the connection closes without a reply")
    truncated: Share = Field(default=0, description="half an answer, with the finish reason length")
    invalid: Share = Field(default=0, description="prose or the wrong JSON, with the finish reason stop")
    garbled: Share = Field(default=0, description="status 200 and a body that is not JSON")

    @model_validator(mode="after")
    def _at_most_all(self) -> Faults:
        if sum(share for _, share in self.shares()) > 1 + 1e-9:
            raise ValueError("the shares sum up to more than 1")
        return self

    def shares(self) -> list[tuple[str, float]]:
        """Each fault, as statistics call it, and its share."""
        names = ("status_429", "status_500", "stalled", "closed", "truncated", "invalid", "garbled")
        return [(name.removeprefix("status_"), getattr(self, name)) for name in names]


class Script(_Strict):
    """The whole file."""

    version: Literal[1]
    seed: int
    models: list[str] = Field(min_length=1, description="another model is HTTP 404")
    api_key: str | None = Field(default=None, repr=False, description="null: any key will do")
    latency_ms: Duration = 0
    jitter_ms: Duration = Field(default=0, description="at most so much is added to the latency")
    supports: Annotated[frozenset[Feature], PlainSerializer(sorted)] = frozenset(get_args(Feature))
    max_image_bytes: int | None = Field(default=None, ge=0)
    requests_per_minute: int | None = Field(default=None, ge=1)
    answers: list[Rule]
    faults: Faults = Faults()
    batch_s: Duration = Field(default=0, description="how long a batch takes")
    batch_expires: Share = Field(default=0, description="the share of a batch's lines that run out of time")


def load_script(path: Path) -> Script:
    """Read a script.

    Raises:
        InputError: naming the file and the field.
    """
    return validated(Script, load_yaml(path), path)


def backend_id(script: Script) -> str:
    """Who answers, as calls are keyed by: the script itself, whatever its key."""
    # Not sorted: the order of an answer's fields is part of the answer.
    canonical = json.dumps(script.model_dump(mode="json", exclude={"api_key"}), separators=(",", ":"))
    return f"scripted:{sha256_text(canonical)[:16]}"


class RejectedError(Exception):
    """A request that is answered with an HTTP error, in OpenAI's form."""

    def __init__(
        self, status: int, message: str, param: str | None = None, code: str | None = None, wait: str = ""
    ) -> None:
        """Say what is wrong; `param` names the field, and `wait` is the Retry-After."""
        super().__init__(message)
        self.status = status
        kind = "server_error" if status >= 500 else "invalid_request_error"
        self.body = {"error": {"message": message, "type": kind, "param": param, "code": code}}
        self.headers = {"Retry-After": wait} if wait else {}


class Reply(NamedTuple):
    """What becomes of a request. Status 0 is no reply at all."""

    outcome: str
    status: int = 0
    body: Mapping[str, Any] = {}
    headers: Mapping[str, str] = {}
    wait_s: float = 0.0


class Answerer:
    """Decides what becomes of a request's body; knows nothing of connections."""

    def __init__(self, script: Script) -> None:
        """Begin with nothing received."""
        self._script = script
        self._rules = [(rule.pattern(), rule) for rule in script.answers]
        self._bounds: list[tuple[float, str]] = []
        bound = 0.0
        for name, share in script.faults.shares():
            bound += share
            self._bounds.append((bound, name))
        self.reset()

    def reset(self) -> None:
        """Forget what was received."""
        names = [name for _, name in self._bounds]
        self._outcomes = Counter(dict.fromkeys(["ok", "refused", *names], 0))
        self._received: dict[str, int] = {}
        self._window: deque[float] = deque()

    def stats(self) -> dict[str, Any]:
        """Bodies that were received, and what became of them."""
        distinct = len(self._received)
        return {
            "distinct": distinct,
            "repeated": sum(self._received.values()) - distinct,
            "by_outcome": dict(self._outcomes),
        }

    def receive(self, body: Any, *, batch: bool = False) -> Reply:
        """Decide on one body, and count it.

        Args:
            body: the parsed JSON.
            batch: it is a line of a batch: there is no limit to run into and no connection to lose.
        """
        digest = sha256_text(json.dumps(body, sort_keys=True, separators=(",", ":")))
        before = self._received.get(digest, 0)
        self._received[digest] = before + 1
        rolled = hashlib.sha256(f"{self._script.seed}:{digest}:{before}".encode()).digest()
        strike, delay, kind, expiry = (number / 2**64 for number in struct.unpack(">4Q", rolled))
        if batch and expiry < self._script.batch_expires:
            reply = Reply("batch_expired")
        else:
            fault = next((name for bound, name in self._bounds if strike < bound), "")
            if batch and fault in ("stalled", "closed", "garbled"):
                fault = "500"
            try:
                reply = self._decide(body, fault, INVALID[kind < 0.5], digest, limited=not batch)
            except RejectedError as error:
                return self.reject(error)
        self._outcomes[reply.outcome] += 1
        wait_ms = self._script.latency_ms + delay * self._script.jitter_ms
        return reply._replace(wait_s=wait_ms / 1000)

    def reject(self, error: RejectedError) -> Reply:
        """The reply to a request that is in error, counted."""
        self._outcomes[str(error.status)] += 1
        return Reply(str(error.status), error.status, error.body, error.headers)

    def rate_headers(self) -> dict[str, str]:
        """How much of the limit is left, and in how long more is; empty without a limit."""
        if (limit := self._script.requests_per_minute) is None:
            return {}
        more_in = self._more_in()
        return {
            "x-ratelimit-limit-requests": str(limit),
            "x-ratelimit-remaining-requests": str(limit - len(self._window)),
            "x-ratelimit-reset-requests": _duration(more_in),
        }

    def _more_in(self) -> float:
        """Seconds until the oldest request leaves the window."""
        now = time.monotonic()
        while self._window and self._window[0] <= now - WINDOW_S:
            self._window.popleft()
        return self._window[0] + WINDOW_S - now if self._window else 0.0

    def _admit(self) -> None:
        if (limit := self._script.requests_per_minute) is None:
            return
        more_in = self._more_in()
        if len(self._window) >= limit:
            message = f"Rate limit reached: {limit} requests a minute"
            raise RejectedError(429, message, code="rate_limit_exceeded", wait=str(math.ceil(more_in)))
        self._window.append(time.monotonic())

    def _decide(self, body: Any, fault: str, invalid: str, digest: str, *, limited: bool) -> Reply:
        if not isinstance(body, dict):
            raise RejectedError(400, "The body is not a JSON object")
        if (model := body.get("model")) not in self._script.models:
            raise RejectedError(404, f"The model {model!r} does not exist", "model", "model_not_found")
        if limited:
            self._admit()
        self._check_features(body)
        user_texts, characters = self._read(body.get("messages"))
        if fault == "429":
            wait = f"{self._script.faults.retry_after_s:g}"
            raise RejectedError(429, "Too many requests", code="rate_limit_exceeded", wait=wait)
        if fault == "500":
            raise RejectedError(500, "The server had an error while processing your request")
        if fault in ("stalled", "closed"):
            return Reply(fault)
        rule, text = self._answer(user_texts)
        if fault == "garbled":
            return Reply(fault, 200)
        if fault == "truncated":
            text = text[: len(text) // 2]
        elif fault == "invalid":
            text = invalid
        finish = {"truncated": "length", "invalid": "stop"}.get(fault, rule.finish_reason)
        message: dict[str, Any] = {"role": "assistant", "content": text, "refusal": None}
        if refused := rule.refusal is not None and fault != "invalid":
            message.update(content=None, refusal=text)
        elif (tool := _forced_tool(body)) is not None:
            call = {"type": "function", "function": {"name": tool, "arguments": text}}
            message.update(content=None, tool_calls=[{"id": f"call_{digest[:24]}", **call}])
            finish = "tool_calls" if finish == "stop" else finish
        choice = {"index": 0, "message": message, "logprobs": None, "finish_reason": finish}
        if body.get("logprobs") and rule.logprobs and "logprobs" in self._script.supports:
            choice["logprobs"] = _logprobs(rule.logprobs, body.get("top_logprobs"))
        sent, got = math.ceil(characters / 4), math.ceil(len(text) / 4)
        completion = {
            "id": f"chatcmpl-{digest[:24]}",
            "object": "chat.completion",
            "created": int(time.time()),
            "model": model,
            "choices": [choice],
            "usage": {"prompt_tokens": sent, "completion_tokens": got, "total_tokens": sent + got},
        }
        return Reply(fault or ("refused" if refused else "ok"), 200, completion)

    def _answer(self, user_texts: list[str]) -> tuple[Rule, str]:
        for pattern, rule in self._rules:
            for text in reversed(user_texts) if rule.earlier else user_texts[-1:]:
                if found := pattern.search(text):
                    return rule, rule.expanded(found)
        last = user_texts[-1] if user_texts else ""
        raise RejectedError(400, f"No rule of the script matches {last[:200]!r}", "messages")

    def _check_features(self, body: dict[str, Any]) -> None:
        supports = self._script.supports
        form = body.get("response_format")
        if body.get("stream"):
            raise RejectedError(400, "stream is not supported", "stream")
        if "tools" not in supports and body.get("tools"):
            raise RejectedError(400, "tools are not supported with this model", "tools")
        if "json_schema" not in supports and isinstance(form, dict) and form.get("type") == "json_schema":
            message = "response_format of type json_schema is not supported with this model"
            raise RejectedError(400, message, "response_format")

    def _read(self, messages: Any) -> tuple[list[str], int]:
        """The texts of the user messages, and how many characters there are in all."""
        if not isinstance(messages, list) or not all(isinstance(message, dict) for message in messages):
            raise RejectedError(400, "messages is not a list of messages", "messages")
        user_texts, characters = [], 0
        for message in messages:
            content = message.get("content") or ""
            text = content if isinstance(content, str) else "\n".join(self._texts(content))
            characters += len(text)
            if message.get("role") == "user":
                user_texts.append(text)
        return user_texts, characters

    def _texts(self, parts: Any) -> Iterator[str]:
        most = self._script.max_image_bytes
        try:
            for part in parts:
                if part["type"] == "text":
                    yield str(part["text"])
                elif part["type"] == "image_url":
                    size = _data_bytes(part["image_url"]["url"])
                    if most is not None and size > most:
                        message = f"An image has {size} bytes, and {most} are allowed"
                        raise RejectedError(413, message, "messages")
        except (KeyError, TypeError, AttributeError):
            raise RejectedError(400, "messages has a part without its content", "messages") from None


class ScriptedServer:
    """The endpoint. It listens on 127.0.0.1 only.

    Besides the OpenAI protocol (chat completions, models, files, batches) it has `GET /stats` and
    `POST /reset`, which sets to zero what was counted.
    """

    def __init__(self, script: Script) -> None:
        """Take note of the script; nothing listens yet."""
        from pipeline.engine.scripted_batch import BatchApi  # it is built on this module

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
        app.router.add_post("/v1/chat/completions", self._chat)
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

        `requests` and `peak_under_way` are chat completions over HTTP; `distinct`, `repeated` (receptions of
        a body that was received before) and `by_outcome` count the lines of batches as well.
        """
        counted = {"requests": self._requests, "peak_under_way": self._peak}
        return {**counted, **self._answerer.stats(), **self._batches.stats()}

    def _reset(self) -> None:
        self._requests = 0
        self._peak = self._under_way
        self._answerer.reset()
        self._batches.reset()

    async def _chat(self, request: web.Request) -> web.Response:
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
                reply = self._answerer.receive(_parsed(raw))
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
        own = {"object": "model", "created": 0, "owned_by": "script"}
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


def json_response(
    body: Mapping[str, Any], status: int = 200, headers: Mapping[str, str] | None = None
) -> web.Response:
    """A response with a JSON body."""
    return web.Response(
        body=json.dumps(body).encode(), status=status, headers=headers, content_type="application/json"
    )


def _parsed(raw: bytes) -> Any:
    try:
        return json.loads(raw)
    except (ValueError, RecursionError):
        return raw.decode("latin-1")  # told apart from others like it, and rejected as no JSON object


def _each_text(value: Any, change: Callable[[str], str]) -> Any:
    """The JSON value with each text in it changed; keys stay."""
    if isinstance(value, str):
        return change(value)
    if isinstance(value, list):
        return [_each_text(item, change) for item in value]
    if isinstance(value, dict):
        return {key: _each_text(item, change) for key, item in value.items()}
    return value


def _forced_tool(body: dict[str, Any]) -> str | None:
    """The name of the tool that the request insists on."""
    try:
        choice = body.get("tool_choice")
        if choice == "required":
            return str(body["tools"][0]["function"]["name"])
        return str(choice["function"]["name"]) if isinstance(choice, dict) else None
    except (KeyError, IndexError, TypeError):
        raise RejectedError(400, "tool_choice names no tool", "tool_choice") from None


def _logprobs(tokens: Mapping[str, float], most: Any) -> dict[str, Any]:
    """The first token's log-probability, and those of the `most` likely ones."""
    ranked = sorted(tokens.items(), key=lambda item: -item[1])
    likely = [{"token": token, "logprob": value, "bytes": list(token.encode())} for token, value in ranked]
    return {"content": [{**likely[0], "top_logprobs": likely[: most if isinstance(most, int) else 0]}]}


def _data_bytes(url: str) -> int:
    """How many bytes a base64 data URL holds; 0 for other URLs."""
    head, _, data = url.partition(",")
    if not (head.startswith("data:") and head.endswith(";base64")):
        return 0
    return len(data) * 3 // 4 - data[-2:].count("=")


def _duration(seconds: float) -> str:
    """As OpenAI spells it: `120ms`, `1.2s`, `1m0s`. Rounded up: who waits so long has waited enough."""
    if seconds < 1:
        return f"{math.ceil(seconds * 1000)}ms"
    minutes, rest = divmod(math.ceil(seconds * 10) / 10, 60)
    return f"{minutes:.0f}m{rest:g}s" if minutes else f"{rest:g}s"

"""What becomes of a request's body: which answer, or which fault. Nothing here knows of connections."""

from __future__ import annotations

import base64
import hashlib
import io
import json
import math
import re
import struct
import time
from collections import Counter, deque
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

from pipeline.engine.scripted.script import Rule, Script
from pipeline.store import sha256_text

__all__ = ["INVALID", "Answerer", "RejectedError", "Reply"]

WINDOW_S = 60.0
INVALID = ("I would rather not answer in that form.", '{"unexpected": true}')


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

    def receive(self, body: Any, *, batch: bool = False, picture: bool = False) -> Reply:
        """Decide on one body, and count it.

        Args:
            body: the parsed JSON.
            picture: it asks for a picture, and not for a chat completion.
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
                self._check_model(body, limited=not batch)
                if picture:
                    reply = self._picture(body, fault)
                else:
                    reply = self._decide(body, fault, INVALID[kind < 0.5], digest)
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

    def _check_model(self, body: Any, *, limited: bool) -> None:
        if not isinstance(body, dict):
            raise RejectedError(400, "The body is not a JSON object")
        if (model := body.get("model")) not in self._script.models:
            raise RejectedError(404, f"The model {model!r} does not exist", "model", "model_not_found")
        if limited:
            self._admit()

    def _struck(self, fault: str) -> bool:
        """Whether the fault leaves no reply at all; those that are HTTP errors are raised."""
        if fault == "429":
            wait = f"{self._script.faults.retry_after_s:g}"
            raise RejectedError(429, "Too many requests", code="rate_limit_exceeded", wait=wait)
        if fault == "500":
            raise RejectedError(500, "The server had an error while processing your request")
        return fault in ("stalled", "closed")

    def _picture(self, body: dict[str, Any], fault: str) -> Reply:
        """A picture, unless the first rule that fits its prompt refuses it."""
        prompt = body.get("prompt")
        size = re.fullmatch(r"(\d{2,4})x(\d{2,4})", str(body.get("size", "64x64")))
        if not isinstance(prompt, str) or not prompt or body.get("n", 1) != 1:
            raise RejectedError(400, "There is no prompt, or n is not 1", "prompt")
        if size is None:
            raise RejectedError(400, "size is not WIDTHxHEIGHT", "size")
        if self._struck(fault):
            return Reply(fault)
        fitting = next((rule for pattern, rule in self._rules if pattern.search(prompt)), None)
        if fitting is not None and fitting.refusal is not None:
            message = "Your request was rejected by the safety system"
            raise RejectedError(400, message, "prompt", "content_policy_violation")
        if fault == "garbled":
            return Reply(fault, 200)
        data = _drawn(f"{self._script.seed}:{body.get('seed', 0)}:{prompt}", (int(size[1]), int(size[2])))
        if fault == "truncated":
            data = data[: len(data) // 2]
        made = {"b64_json": base64.b64encode(data).decode()}
        if fault == "invalid":
            made = {"url": "https://images.example/1.png"}
        return Reply(fault or "ok", 200, {"created": int(time.time()), "data": [made]})

    def _decide(self, body: dict[str, Any], fault: str, invalid: str, digest: str) -> Reply:
        self._check_features(body)
        user_texts, characters = self._read(body.get("messages"))
        if self._struck(fault):
            return Reply(fault)
        rule, text = self._answer(user_texts, digest)
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
            "model": body["model"],
            "choices": [choice],
            "usage": {"prompt_tokens": sent, "completion_tokens": got, "total_tokens": sent + got},
        }
        return Reply(fault or ("refused" if refused else "ok"), 200, completion)

    def _answer(self, user_texts: list[str], digest: str) -> tuple[Rule, str]:
        for pattern, rule in self._rules:
            for text in reversed(user_texts) if rule.earlier else user_texts[-1:]:
                if found := pattern.search(text):
                    return rule, rule.expanded(found, f"{self._script.seed}:{digest}")
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


def _drawn(seed: str, size: tuple[int, int]) -> bytes:
    """A PNG of coloured squares, the same for the same seed."""
    from PIL import Image

    colours = hashlib.shake_256(seed.encode()).digest(8 * 8 * 3)
    buffer = io.BytesIO()
    Image.frombytes("RGB", (8, 8), colours).resize(size, Image.Resampling.NEAREST).save(buffer, "PNG")
    return buffer.getvalue()


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

"""A call, and its key: what makes two calls the same call.

The key is the SHA-256 of the canonical JSON of what is sent, and what is sent is made from that JSON, so
the two cannot drift apart. Left out of it, and why:

| left out | why |
|---|---|
| endpoint URL, API key | where an answer came from is not the question; `backend_id` says who answers |
| prompt name and version, code | the same rendered request is the same request, whatever rendered it |
| stage, row ids | two stages that ask the same thing share the answer |
| retries, timeouts, concurrency | how it was sent changes nothing in what was asked |
| the answer model's name, titles and docstring | they are for programmers, and are not sent either |
| validators in code | they are run again on the kept answer at each read |
| image bytes | their SHA-256 stands for them |
| order of dict keys, `1.0` or `1` | the same value; a schema's order does count: models answer in it |

Honest limits: a provider may change the model behind a name, so pin dated names; and a question that is
asked again quotes pydantic's complaint, so another wording there asks that second question anew.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from typing import Any, ClassVar, Literal

from pydantic import BaseModel

from pipeline.engine.cache import Call
from pipeline.engine.endpoint import Terms
from pipeline.store import canonical_json, sha256_text

__all__ = ["FORMS", "SCHEME", "Form", "ImageRequest", "Message", "Request", "body_of", "render_schema"]

SCHEME = 1
"""Raised when the same request gets another key. Every kept answer is lost to it then: avoid."""

Message = Mapping[str, Any]
"""`{"role": …, "content": …}`. Content is text, or parts: `{"type": "text", "text": …}` and
`{"type": "image", "sha256": …}`."""

Form = Literal["json_schema", "tool", "plain"]
FORMS: tuple[Form, ...] = ("json_schema", "tool", "plain")
"""How a structured answer can be asked for, best first."""

UNLIMITED_TOKENS = 16_384
"""Taken for the length of an answer where a request does not limit it."""

_LIMITS = {"max_tokens", "max_completion_tokens"}
_IMAGES = "/images/generations"


@dataclass(frozen=True)
class Request:
    """One call to a model.

    Attributes:
        backend_id: who answers: the provider's name, or `sha256:` and the weights' hash. Never a URL.
        model: the model's name there.
        messages: the rendered messages; images by hash.
        params: sampling parameters as in the OpenAI API; those beyond it in `extra_body`
            (for llama.cpp `cache_prompt`, `id_slot`).
        schema: the pydantic model of the answer; None for free text.
        sample: index of the answer, where the same question is asked several times.
        canonical: the JSON that the key is the hash of, and that is sent.
        key: the call key.
    """

    backend_id: str = field(compare=False)
    model: str = field(compare=False)
    messages: Sequence[Message] = field(compare=False, repr=False)
    params: Mapping[str, Any] = field(default_factory=dict, compare=False)
    schema: type[BaseModel] | None = field(default=None, compare=False)
    sample: int = field(default=0, compare=False)
    canonical: str = field(init=False, repr=False, compare=False)
    key: str = field(init=False)

    path: ClassVar[str] = "/chat/completions"
    """Where it is sent, below the endpoint's base URL."""
    reserved: ClassVar[frozenset[str]] = frozenset({"model", "messages", "response_format", "stream", "n"})
    """What the engine sets itself."""

    def __post_init__(self) -> None:
        """Check it and compute its key."""
        if "://" in self.backend_id or not self.backend_id:
            raise ValueError(
                f"backend_id {self.backend_id!r}: give the provider's name or sha256:…, never a URL"
            )
        if not self.messages:
            raise ValueError("messages: there are none")
        if taken := self.reserved & set(self.params):
            raise ValueError(f"params: {', '.join(sorted(taken))} is set by the engine")
        extra = self.params.get("extra_body") or {}
        if taken := (self.reserved | _LIMITS) & set(extra):
            # What is sent beside the parameters must not undo what they promise.
            raise ValueError(f"params: extra_body: {', '.join(sorted(taken))} has no place there")
        for message in self.messages:
            _check_parts(message.get("content"))
        canonical = canonical_json(
            {
                **self._kind,
                "scheme": SCHEME,
                "backend_id": self.backend_id,
                "model": self.model,
                "messages": list(self.messages),
                "params": dict(self.params),
                # As text: sorting its keys would make two schemas with another order of fields one.
                "schema": None if self.schema is None else render_schema(self.schema),
                "sample": self.sample,
            }
        )
        object.__setattr__(self, "canonical", canonical)
        object.__setattr__(self, "key", sha256_text(canonical))

    def likely_tokens(self, terms: Terms) -> int:
        """About how many tokens it takes: four bytes each, and the whole length that the answer may have."""
        return (
            len(self.canonical.encode()) // 4
            + self.images * terms.image_tokens
            + self._most_completion_tokens
        )

    def worst_cost(self, terms: Terms) -> float:
        """The most that it can cost in US dollars: a text has at most as many tokens as bytes."""
        prompt = len(self.canonical.encode()) + self.images * terms.image_tokens
        return terms.cost(prompt, self._most_completion_tokens)

    @property
    def _kind(self) -> dict[str, str]:
        """What the canonical request has beside that of a chat completion."""
        return {}

    @property
    def _most_completion_tokens(self) -> int:
        limits = [int(self.params[name]) for name in _LIMITS if self.params.get(name)]
        return max(limits, default=UNLIMITED_TOKENS)

    @property
    def images(self) -> int:
        """How many images it shows."""
        return sum(
            part["type"] == "image"
            for message in self.messages
            if not isinstance(message.get("content"), str | None)
            for part in message["content"]
        )

    def call(self, stage: str, attempt: int) -> Call:
        """This request as it is kept with its answer: who asks, and which attempt it is."""
        return Call(self.key, self.backend_id, self.model, stage, attempt, self.canonical)

    def body(self, form: Form = "json_schema") -> dict[str, Any]:
        """The JSON body to send, with images still by hash.

        Args:
            form: how a structured answer is asked for. It is not in the key: the question is the same.
        """
        return body_of(self.canonical, form)

    def asked_again(self, answer: str, why: str) -> Request:
        """The request that asks again after a wrong answer: a request like any other, with its own key."""
        complaint = (
            f"That answer is not valid: {why}\nAnswer the same question again, as JSON that fits the schema."
        )
        more = [{"role": "assistant", "content": answer}, {"role": "user", "content": complaint}]
        return Request(
            self.backend_id, self.model, [*self.messages, *more], self.params, self.schema, self.sample
        )


@dataclass(frozen=True)
class ImageRequest(Request):
    """One picture to be made. Its one message is the prompt; its answer names the picture by hash."""

    path: ClassVar[str] = _IMAGES
    reserved: ClassVar[frozenset[str]] = frozenset({"model", "messages", "prompt", "stream", "n"})

    def __post_init__(self) -> None:
        """Check it and compute its key."""
        if len(self.messages) != 1 or not isinstance(self.messages[0].get("content"), str):
            raise ValueError("messages: a picture has one message, whose content is the prompt")
        super().__post_init__()

    def likely_tokens(self, terms: Terms) -> int:  # noqa: ARG002 - as of every request
        """About how many tokens the prompt takes."""
        return len(self.canonical.encode()) // 4

    def worst_cost(self, terms: Terms) -> float:
        """What it costs in US dollars: pictures have one price."""
        return terms.made_image_price

    @property
    def _kind(self) -> dict[str, str]:
        return {"path": _IMAGES}


def body_of(canonical: str, form: Form = "json_schema") -> dict[str, Any]:
    """The JSON body of a call from its canonical request, with images still by hash."""
    kept = json.loads(canonical)
    params = kept["params"]
    extra = params.pop("extra_body", {})
    if kept.get("path") == _IMAGES:
        return {"model": kept["model"], "prompt": kept["messages"][0]["content"], "n": 1, **params, **extra}
    body = {"model": kept["model"], "messages": kept["messages"], **params, **extra}
    if kept["schema"] is None:
        return body
    schema = json.loads(kept["schema"])
    if form == "json_schema":
        answer = {"name": "answer", "strict": True, "schema": schema}
        body["response_format"] = {"type": "json_schema", "json_schema": answer}
    elif form == "tool":
        body["tools"] = [{"type": "function", "function": {"name": "answer", "parameters": schema}}]
        body["tool_choice"] = {"type": "function", "function": {"name": "answer"}}
    else:
        told = f"Answer with JSON alone, that fits this schema:\n{kept['schema']}"
        body["messages"] = [*body["messages"], {"role": "system", "content": told}]
    return body


@cache
def render_schema(model: type[BaseModel]) -> str:
    """The JSON schema that is sent: without what is meant for programmers (titles, class docstrings)."""
    return json.dumps(_schema(model.model_json_schema()))


def _schema(node: Any) -> Any:
    if isinstance(node, list):
        return [_schema(item) for item in node]
    if not isinstance(node, dict):
        return node
    result: dict[str, Any] = {}
    for key, value in node.items():
        if key in ("properties", "$defs"):
            # These hold names, and a field may well be called `title`.
            result[key] = {name: _schema(item) for name, item in value.items()}
        elif key in ("enum", "const", "default", "examples", "required"):
            result[key] = value
        elif key != "title" and not (key == "description" and ("properties" in node or "enum" in node)):
            result[key] = _schema(value)
    return result


def _check_parts(content: Any) -> None:
    if content is None or isinstance(content, str):
        return
    if not isinstance(content, Sequence):
        raise ValueError("messages: content is text or a list of parts")  # noqa: TRY004 - a wrong request
    for part in content:
        kind = part.get("type")
        if kind == "image":
            if not re.fullmatch(r"[0-9a-f]{64}", str(part.get("sha256"))):
                raise ValueError("messages: an image part needs the sha256 of its bytes")
        elif kind != "text":
            raise ValueError(f"messages: part of type {kind!r}; there are text and image (by sha256)")

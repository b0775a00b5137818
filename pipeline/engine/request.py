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
from typing import Any

from pydantic import BaseModel

from pipeline.store import canonical_json, sha256_text

__all__ = ["SCHEME", "Message", "Request", "render_schema"]

SCHEME = 1
"""Raised when the same request gets another key. Every kept answer is lost to it then: avoid."""

Message = Mapping[str, Any]
"""`{"role": …, "content": …}`. Content is text, or parts: `{"type": "text", "text": …}` and
`{"type": "image", "sha256": …}`."""

_RESERVED = {"model", "messages", "response_format", "stream", "n"}


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

    def __post_init__(self) -> None:
        """Check it and compute its key."""
        if "://" in self.backend_id or not self.backend_id:
            raise ValueError(
                f"backend_id {self.backend_id!r}: give the provider's name or sha256:…, never a URL"
            )
        if not self.messages:
            raise ValueError("messages: there are none")
        if taken := _RESERVED & set(self.params):
            raise ValueError(f"params: {', '.join(sorted(taken))} is set by the engine")
        for message in self.messages:
            _check_parts(message.get("content"))
        canonical = canonical_json(
            {
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

    def body(self) -> dict[str, Any]:
        """The JSON body to send, with images still by hash."""
        kept = json.loads(self.canonical)
        params = kept["params"]
        extra = params.pop("extra_body", {})
        body = {"model": kept["model"], "messages": kept["messages"], **params, **extra}
        if kept["schema"] is not None:
            body["response_format"] = {
                "type": "json_schema",
                "json_schema": {"name": "answer", "strict": True, "schema": json.loads(kept["schema"])},
            }
        return body

    def followed_by(self, answer: str, complaint: str) -> Request:
        """The request that asks again after a wrong answer: a request like any other, with its own key."""
        more = [{"role": "assistant", "content": answer}, {"role": "user", "content": complaint}]
        return Request(
            self.backend_id, self.model, [*self.messages, *more], self.params, self.schema, self.sample
        )


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

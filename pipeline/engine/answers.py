"""From a reply to a record, and from a record to an answer.

| what came | the answer's status |
|---|---|
| text that fits the schema | `ok` |
| cut off (`length`), empty, or never valid | `unscorable` |
| a refusal, or a filter's stop | `blocked`: a verdict of its own, neither an error nor "safe" |
| nothing that can be used | `error` |

What was cut off is never looked at: it may parse and still lack its end. All but errors were paid for and are
kept; what they are worth is decided at every reading, from the finish reason and the schema.
"""

from __future__ import annotations

import base64
import binascii
import json
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from pydantic import BaseModel, ValidationError

from pipeline.engine.cache import Call, Record
from pipeline.engine.endpoint import EndpointError, Terms
from pipeline.store import canonical_json

__all__ = [
    "Answer",
    "BadReplyError",
    "Status",
    "all_answered",
    "first_tokens",
    "image_record_of",
    "judge",
    "parsed",
    "record_of",
]

Status = Literal["ok", "unscorable", "blocked", "error"]


@dataclass(frozen=True, slots=True)
class Answer:
    """What came of a request. `value` is there exactly when the status is ok and a schema was given.

    Attributes:
        status: ok, unscorable (cut off or never valid), blocked (refused or filtered), or error.
        value: the checked answer.
        raw: the text of the last attempt, as it came.
        key: the request's call key.
        cached: nothing was sent for it.
        attempts: how many answers were looked at, re-asks included.
        prompt_tokens: of all attempts.
        completion_tokens: of all attempts.
        error: why it is not ok.
        again: another run may get an answer: what failed was not the request.
        first_tokens: log-probability of each likely first token of the answer, where the request asked for
            `logprobs` and the endpoint gave them; else empty.
    """

    status: Status
    value: BaseModel | None
    raw: str
    key: str
    cached: bool
    attempts: int
    prompt_tokens: int
    completion_tokens: int
    error: str = ""
    first_tokens: Mapping[str, float] = field(default_factory=dict)
    again: bool = False


def all_answered(who: str, answers: Sequence[Answer], of: int | None = None) -> None:
    """See that no call was left without an answer by an outage, which is none.

    Args:
        who: asked, for the message.
        answers: of the calls.
        of: how many calls there were, where `answers` are not those of all.

    Raises:
        EndpointError: when some may still get one in another run.
    """
    if missing := [answer for answer in answers if answer.again]:
        raise EndpointError(
            f"{who}: {len(missing)} of {of or len(answers)} calls were not answered (the last: "
            f"{missing[-1].error}). The others are kept: run the same command again to ask only these"
        )


class BadReplyError(Exception):
    """A reply with status 200 that is not what was asked for."""


def parsed(text: str, part: Literal["choices", "data"] = "choices") -> dict[str, Any]:
    """A reply's JSON.

    Args:
        text: the reply.
        part: what holds the answer: `choices` in a chat completion, `data` where a picture was made.

    Raises:
        BadReplyError: when it has no such part.
    """
    try:
        reply = json.loads(text)
    except json.JSONDecodeError as error:
        raise BadReplyError(f"the reply is not JSON ({error}): {text[:200]!r}") from error
    answers = reply.get(part) if isinstance(reply, dict) else None
    if not isinstance(answers, list) or not answers or not isinstance(answers[0], dict):
        raise BadReplyError(f"the reply has no {part}: {text[:200]!r}")
    return dict(reply)


def record_of(call: Call, reply: Mapping[str, Any], terms: Terms) -> Record:
    """What is kept of a reply to a call, with what it cost.

    A reply that does not say how many tokens it took is taken to have cost a token for each byte.

    Raises:
        BadReplyError: when its parts are not what the protocol says.
    """
    try:
        choice = reply["choices"][0]
        message = choice.get("message") or {}
        usage = reply.get("usage") or {}
        text, finish = message.get("content") or "", str(choice.get("finish_reason") or "unknown")
        if message.get("refusal"):
            # A refusal comes in a field of its own, with the finish reason of an answer.
            text, finish = message["refusal"], "refusal"
        elif message.get("tool_calls"):
            text = message["tool_calls"][0]["function"]["arguments"]
            finish = "stop" if finish == "tool_calls" else finish
        prompt_tokens = int(usage.get("prompt_tokens") or 0)
        completion_tokens = int(usage.get("completion_tokens") or 0)
    except (LookupError, TypeError, ValueError, AttributeError) as error:
        raise BadReplyError(f"the reply has an odd shape ({error!r}): {str(reply)[:200]}") from None
    if not isinstance(text, str):
        raise BadReplyError(f"the reply's text is no text: {str(text)[:200]}")
    billed = (prompt_tokens, completion_tokens)
    if not any(billed):
        billed = len(call.request_json.encode()), len(text.encode())
    logprobs = json.dumps(choice["logprobs"]) if choice.get("logprobs") else ""
    tokens = prompt_tokens, completion_tokens
    return _record(call, text, finish, tokens, terms.cost(*billed), logprobs)


def image_record_of(
    call: Call, reply: Mapping[str, Any], terms: Terms, keep: Callable[[bytes], str]
) -> Record:
    """What is kept of a picture that was made: its hash, and its bytes where `keep` puts them.

    Whether the bytes are a picture is for its reader to find out: they are paid for in any case.

    Raises:
        EndpointError: when the reply holds no bytes. To ask for the same again would pay again for nothing.
    """
    made = reply["data"][0]
    try:
        data = base64.b64decode(made["b64_json"], validate=True)
    except (KeyError, TypeError, ValueError, binascii.Error):
        raise EndpointError(
            f"{call.backend_id} answers with {', '.join(sorted(made)) or 'nothing'}, and not with the bytes "
            "of a picture in b64_json; add `response_format: b64_json` to the endpoint's parameters"
        ) from None
    usage = reply.get("usage") or {}
    answer = {"sha256": keep(data), "bytes": len(data)}
    if isinstance(made.get("revised_prompt"), str):
        answer["revised_prompt"] = made["revised_prompt"]
    tokens = _count(usage, "input_tokens"), _count(usage, "output_tokens")
    return _record(call, canonical_json(answer), "stop", tokens, terms.made_image_price)


def _record(
    call: Call, text: str, finish: str, tokens: tuple[int, int], cost: float, logprobs: str = ""
) -> Record:
    """What is kept of a call with its answer and its tokens, of prompt and answer."""
    return Record(
        key=call.key,
        backend_id=call.backend_id,
        model=call.model,
        stage=call.stage,
        attempt=call.attempt,
        request_json=call.request_json,
        response_text=text,
        finish_reason=finish,
        prompt_tokens=tokens[0],
        completion_tokens=tokens[1],
        logprobs=logprobs,
        cost_usd=cost,
    )


def _count(usage: Any, name: str) -> int:
    value = usage.get(name) if isinstance(usage, dict) else None
    return value if isinstance(value, int) else 0


def judge(
    record: Record, schema: type[BaseModel] | None
) -> tuple[Status | Literal["wrong"], BaseModel | None, str]:
    """What a record is worth: a status, or `wrong` where it may be asked again; the value; and why not."""
    if record.finish_reason in ("content_filter", "refusal"):
        return "blocked", None, f"finish_reason {record.finish_reason}"
    if record.finish_reason != "stop":
        return "unscorable", None, f"finish_reason {record.finish_reason}"
    if schema is None:
        return ("ok", None, "") if record.response_text.strip() else ("unscorable", None, "an empty answer")
    try:
        return "ok", schema.model_validate_json(_unfenced(record.response_text)), ""
    except ValidationError as error:
        problems = (f"{'.'.join(map(str, p['loc'])) or 'answer'}: {p['msg']}" for p in error.errors()[:5])
        return "wrong", None, "; ".join(problems)


_FENCED = re.compile(r"\s*```(?:json)?\s*\n(.*)\n\s*```\s*", re.DOTALL)


def _unfenced(text: str) -> str:
    """JSON without the code fence that chat models like to put around the whole of it."""
    fenced = _FENCED.fullmatch(text) if "```" in text else None
    return fenced[1] if fenced else text


def first_tokens(record: Record) -> dict[str, float]:
    """The likely first tokens of an answer and their log-probabilities, where they were asked for."""
    content = (json.loads(record.logprobs) if record.logprobs else {}).get("content") or []
    return {t["token"]: float(t["logprob"]) for t in content[0].get("top_logprobs") or []} if content else {}

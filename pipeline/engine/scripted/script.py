"""What a script may say; the package's own docstring has an example."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Callable, Iterator
from itertools import count, islice
from pathlib import Path
from typing import Annotated, Any, Literal, get_args

from pydantic import BaseModel, ConfigDict, Field, JsonValue, PlainSerializer, model_validator

from pipeline.store import sha256_text
from schemas.errors import load_yaml, validated

__all__ = ["Faults", "Rule", "Script", "backend_id", "load_script"]

Share = Annotated[float, Field(ge=0, le=1)]
Duration = Annotated[float, Field(ge=0, allow_inf_nan=False)]
Feature = Literal["json_schema", "tools", "logprobs"]

_REFERENCE = re.compile(r"\\(?:[1-9]\d?|g<\w+>)")
_SYLLABLES = [c + v for c in "bdfgklmnprstvz" for v in "aeiou"]
_INVENTED = re.compile(r"\\w\{([1-9]\d?)\}")


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

    def expanded(self, found: re.Match[str], salt: str) -> str:
        """The refusal or the answer as text, with what the groups caught, and words invented from `salt`."""
        words = _invented(salt)

        def fill(text: str) -> str:
            text = _INVENTED.sub(lambda said: " ".join(islice(words, int(said[1]))), text)
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


def _invented(salt: str) -> Iterator[str]:
    """Words that mean nothing, always the same for the same salt."""
    for n in count():
        bits = hashlib.sha256(f"{salt}:{n}".encode()).digest()
        yield "".join(_SYLLABLES[byte % len(_SYLLABLES)] for byte in bits[1 : 2 + bits[0] % 3])


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


def _each_text(value: Any, change: Callable[[str], str]) -> Any:
    """The JSON value with each text in it changed; keys stay."""
    if isinstance(value, str):
        return change(value)
    if isinstance(value, list):
        return [_each_text(item, change) for item in value]
    if isinstance(value, dict):
        return {key: _each_text(item, change) for key, item in value.items()}
    return value

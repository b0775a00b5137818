"""Annotation prompts: `prompts/annotate/<question>.yaml`, one a question."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, StringConstraints, model_validator

from pipeline.annotators.base import describe
from schemas.errors import load_yaml, validated

__all__ = ["BinaryAnswer", "Example", "GradedAnswer", "Prompt", "load_prompt", "ticket"]

Text = Annotated[str, StringConstraints(strip_whitespace=True, min_length=1)]
Verdict = Literal["safe", "borderline", "unsafe"]
REASON_CHARS = 90
ANSWER_TOKENS = 40  # a reason of 90 characters, the verdict, and what JSON adds


class BinaryAnswer(BaseModel):
    """What a model says about a text or a pair: the reason first."""

    model_config = ConfigDict(extra="forbid")
    reason: str = Field(max_length=REASON_CHARS)
    verdict: Literal["safe", "unsafe"]


class GradedAnswer(BaseModel):
    """What a model says about an image in words: the reason first."""

    model_config = ConfigDict(extra="forbid")
    reason: str = Field(max_length=REASON_CHARS)
    verdict: Verdict


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Example(_Strict):
    """An item as the model sees it, and the answer wanted."""

    text: Text | None = None
    picture: Text | None = None
    text_in_picture: Text | None = None
    query: Text | None = None
    reason: Annotated[Text, Field(max_length=REASON_CHARS)]
    verdict: Verdict

    def shown(self) -> str:
        """The item in the words that real items are put in."""
        parts = [describe(self.picture, self.text_in_picture)]
        parts += [
            f"Message: {self.text}" if self.text else None,
            f"Request: {self.query}" if self.query else None,
        ]
        return "\n".join(part for part in parts if part)


class Prompt(_Strict):
    """One question to a language model.

    Attributes:
        version: raised when the wording changes.
        note: what was tried and measured.
        question: the question it asks.
        scores: P(unsafe) that each verdict stands for, measured on gold labels.
        system: the policy in short.
        examples: items with reasons and verdicts, on both sides of the line.
    """

    version: int = Field(ge=1)
    note: Text
    question: Literal["text_safe", "image_safe", "pair_safe"]
    scores: Mapping[Verdict, Annotated[float, Field(ge=0, le=1)]]
    system: Text
    examples: list[Example] = Field(min_length=2)

    @model_validator(mode="after")
    def _consistent(self) -> Prompt:
        verdicts = ("safe", "borderline", "unsafe") if self.question == "image_safe" else ("safe", "unsafe")
        if set(self.scores) != set(verdicts):
            raise ValueError(f"scores: needs exactly {', '.join(verdicts)}")
        wanted = {"text_safe": {"text"}, "image_safe": {"picture"}, "pair_safe": {"picture", "query"}}[
            self.question
        ]
        for i, example in enumerate(self.examples):
            given = {name for name in ("text", "picture", "query") if getattr(example, name)}
            if given != wanted or example.verdict not in verdicts:
                needs = f"{' and '.join(sorted(wanted))} and a verdict out of {', '.join(verdicts)}"
                raise ValueError(f"examples.{i}: needs {needs}")
        return self

    @property
    def answer(self) -> type[BinaryAnswer | GradedAnswer]:
        """The model that answers are checked with."""
        return GradedAnswer if self.question == "image_safe" else BinaryAnswer

    def messages(self, shown: str) -> list[dict[str, str]]:
        """The messages that ask about one item; all but the last are the same for every item."""
        messages = [{"role": "system", "content": self.system}]
        for example in self.examples:
            answer = {"reason": example.reason, "verdict": example.verdict}
            messages.append({"role": "user", "content": ticket(example.shown())})
            messages.append({"role": "assistant", "content": json.dumps(answer, ensure_ascii=False)})
        return [*messages, {"role": "user", "content": ticket(shown)}]


def ticket(shown: str) -> str:
    """`shown` below four letters made from it.

    Items that begin alike would share more than the static prefix in the server's cache, and the numbers
    behind an answer would then depend on which item came before.
    """
    number = int.from_bytes(hashlib.sha256(shown.encode()).digest()[:6])
    letters = ""
    for _ in range(4):
        number, letter = divmod(number, 26)
        letters += chr(ord("a") + letter)
    return f"{letters}\n{shown}"


def load_prompt(path: Path) -> Prompt:
    """Read and check a prompt.

    Raises:
        InputError: naming the file and the path of every wrong field.
    """
    return validated(Prompt, load_yaml(path), path)

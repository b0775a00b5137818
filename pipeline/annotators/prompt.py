"""Annotation prompts: `prompts/annotate/<question>.yaml`, one a question."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, StringConstraints, model_validator

from pipeline.annotators.base import describe
from pipeline.annotators.clauses import Clause
from schemas.errors import load_yaml, validated

__all__ = ["ANSWER_TOKENS", "Calibration", "Example", "Prompt", "leaning", "load_prompt", "said", "ticket"]

Text = Annotated[str, StringConstraints(strip_whitespace=True, min_length=1)]
ANSWER_TOKENS = 4  # one word and its end


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Calibration(_Strict):
    """What a model's leaning says of an item, measured on gold labels (scripts/calibrate.py).

    P(unsafe) = 1 / (1 + exp(-(slope * leaning + offset))), as in Platt scaling, at even odds.

    Attributes:
        slope: how much the leaning is worth.
        offset: moves the line between the verdicts.
    """

    slope: float = Field(default=1.0, gt=0, le=10)
    offset: float = Field(default=0.0, ge=-20, le=20)

    def score(self, leaning: float) -> float:
        """P(unsafe), 0..1."""
        return 1 / (1 + math.exp(-(self.slope * leaning + self.offset)))


FLOOR = 1e-9
"""Stands for the probability of a word that is not among the likeliest."""


def leaning(first_tokens: Mapping[str, float]) -> float | None:
    """How far a model leans to "unsafe": log P("unsafe") - log P("safe") as the first word of its answer.

    Args:
        first_tokens: log-probability of each likely first token.

    Returns:
        The leaning, within ±21; None where no token begins either word.
    """
    mass = {
        word: sum(math.exp(p) for token, p in first_tokens.items() if _begins(word, token))
        for word in ("safe", "unsafe")
    }
    if not any(mass.values()):
        return None
    return math.log(mass["unsafe"] + FLOOR) - math.log(mass["safe"] + FLOOR)


def said(answer: str) -> float | None:
    """The verdict of an answer without log-probabilities: 1 for unsafe, 0 for safe, None for neither."""
    word = answer.strip().strip(".*\"'`").lower()
    return {"unsafe": 1.0, "safe": 0.0}.get(word)


def _begins(word: str, token: str) -> bool:
    start = token.strip().lower()
    return bool(start) and word.startswith(start)


class Example(_Strict):
    """An item as the model sees it, and the answer wanted. `why` is for readers and is not sent."""

    clause: Clause | None = None
    text: Text | None = None
    picture: Text | None = None
    text_in_picture: Text | None = None
    query: Text | None = None
    why: Text
    verdict: Literal["safe", "unsafe"]

    def shown(self) -> str:
        """The item in the words that real items are put in, without its clause."""
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
        calibration: from a model's leaning to P(unsafe), by the model's name.
        system: the policy in short.
        examples: items with verdicts, on both sides of the line.
    """

    version: int = Field(ge=1)
    note: Text
    question: Literal["text_safe", "image_safe", "pair_safe"]
    calibration: dict[str, Calibration]
    system: Text
    examples: list[Example] = Field(min_length=2)

    @model_validator(mode="after")
    def _consistent(self) -> Prompt:
        wanted = {"text_safe": {"text"}, "image_safe": {"picture"}, "pair_safe": {"picture", "query"}}[
            self.question
        ]
        for i, example in enumerate(self.examples):
            given = {name for name in ("text", "picture", "query") if getattr(example, name)}
            if given != wanted:
                raise ValueError(f"examples.{i}: needs {' and '.join(sorted(wanted))}")
            if (example.clause is None) == self.with_clauses:
                raise ValueError(f"examples.{i}.clause: give one to every example or to none")
        return self

    @property
    def with_clauses(self) -> bool:
        """Whether each item comes with the clause of its class."""
        return self.examples[0].clause is not None

    def score(self, model: str, first_tokens: Mapping[str, float], answer: str) -> tuple[float, str] | None:
        """P(unsafe) by an answer, and what to note of it; None where the answer holds no verdict."""
        leans = leaning(first_tokens)
        if leans is None:
            verdict = said(answer)
            return None if verdict is None else (verdict, "no log-probabilities: the word counts")
        known = self.calibration.get(model)
        return (known or Calibration()).score(leans), "" if known else "not calibrated for this model"

    def messages(self, shown: str, image: str | None = None, clause: str = "") -> list[dict[str, Any]]:
        """The messages that ask about one item; all but the last are the same for every item.

        Args:
            shown: the item in words.
            image: the SHA-256 of a picture that is shown before the words.
            clause: the clause that decides about the item, where items come with theirs.
        """
        messages: list[dict[str, Any]] = [{"role": "system", "content": self.system}]
        for example in self.examples:
            rules = example.clause.shown() if example.clause else ""
            messages.append({"role": "user", "content": ticket(_below(rules, example.shown()))})
            messages.append({"role": "assistant", "content": example.verdict})
        content: Any = ticket(_below(clause, shown))
        if image is not None:
            content = [{"type": "image", "sha256": image}, {"type": "text", "text": content}]
        return [*messages, {"role": "user", "content": content}]


def _below(clause: str, shown: str) -> str:
    return f"{clause}\n\n{shown}" if clause else shown


def ticket(shown: str) -> str:
    """`shown` below four letters made from it.

    Items that begin alike would share more than the static prefix in a local server's cache, which the engine
    then has to warm anew; with these few neighbours do.
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

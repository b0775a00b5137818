"""Prompts that have responses written: `prompts/respond/<kind>.yaml`, one an expected answer."""

from __future__ import annotations

import json
import string
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, StringConstraints, model_validator

from pipeline.annotators.prompt import ticket
from pipeline.store import sha256_text
from schemas.errors import load_yaml, validated
from schemas.responses import WrittenResponse, WrittenWithRationale
from schemas.taxonomy import ClassInfo

__all__ = ["KINDS", "Asked", "WriterPrompt", "load_writer_prompts"]

KINDS: Mapping[str, str] = {
    "refuse": "refuse",
    "support": "support",
    "safe_complete": "complete",
    "comply": "comply",
}
"""The file of each expected answer."""

Text = Annotated[str, StringConstraints(strip_whitespace=True, min_length=1)]
SLOTS = frozenset(
    {
        "class",
        "title",
        "policy",
        "protective",
        "harm",
        "safer",
        "help",
        "style",
        "picture",
        "picture_is",
        "request",
        "request_is",
    }
)
NEEDED = frozenset({"picture", "request", "style"})


def _template(text: str) -> str:
    try:
        named = {name for _, name, _, _ in string.Formatter().parse(text) if name is not None}
    except ValueError as error:
        raise ValueError(f"broken slot: {error}") from error
    if unknown := named - SLOTS:
        raise ValueError(f"unknown slot {sorted(unknown)}; there are {sorted(SLOTS)}")
    if missing := NEEDED - named:
        raise ValueError(f"the slot {sorted(missing)[0]!r} is missing")
    return text


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


@dataclass(frozen=True, slots=True)
class Asked:
    """What a response is written for.

    Attributes:
        pair_id: decides, with the seed, in which style.
        info: the class of the harm.
        evidence: the image in words; for a model that sees its pixels, a line that points to it.
        query: the request.
        image_safe: whether the image is safe by itself.
        text_safe: whether the request is.
    """

    pair_id: str
    info: ClassInfo
    evidence: str
    query: str
    image_safe: bool
    text_safe: bool


class _Example(_Strict):
    """A question, slot by slot, with its answer."""

    slots: dict[str, Text]
    answer: dict[str, Any]


class WriterPrompt(_Strict):
    """One kind of response.

    Attributes:
        version: raised when the wording changes.
        note: what was tried and measured.
        form: what the answer holds, as `schema` in the file.
        system: what a writer is told.
        user: the question, with slots.
        styles: ways to word a response, by name; a pair gets one of them.
        examples: questions with answers.
    """

    version: int = Field(ge=1)
    note: Text
    form: Literal["response", "rationale, response"] = Field(alias="schema")
    system: Text
    user: Annotated[Text, AfterValidator(_template)]
    styles: dict[str, Text] = Field(min_length=2)
    examples: list[_Example] = Field(min_length=1)

    @model_validator(mode="after")
    def _examples_fit(self) -> WriterPrompt:
        wanted = {name for _, name, _, _ in string.Formatter().parse(self.user) if name is not None}
        for i, example in enumerate(self.examples):
            if example.slots.keys() != wanted:
                odd = sorted(example.slots.keys() ^ wanted)
                raise ValueError(f"examples.{i}.slots: differ from those of `user` in {odd}")
            if example.slots["style"] not in self.styles:
                raise ValueError(f"examples.{i}.slots.style: there is no style {example.slots['style']!r}")
            try:
                self.answer.model_validate(example.answer)
            except ValueError as error:
                raise ValueError(f"examples.{i}.answer: {error}") from error
        return self

    @property
    def answer(self) -> type[WrittenResponse] | type[WrittenWithRationale]:
        """The model of the answer."""
        return WrittenResponse if self.form == "response" else WrittenWithRationale

    def style_of(self, pair_id: str, seed: int) -> str:
        """The name of a pair's style. A style that is added takes its share of pairs and moves no other."""
        return max(self.styles, key=lambda name: sha256_text(f"{seed}:{pair_id}:{name}"))

    @cached_property
    def prefix(self) -> list[dict[str, Any]]:
        """The messages that all questions begin with."""
        messages = [{"role": "system", "content": self.system}]
        for example in self.examples:
            slots = example.slots | {"style": self.styles[example.slots["style"]]}
            messages.append({"role": "user", "content": ticket(self.user.format(**slots))})
            messages.append({"role": "assistant", "content": json.dumps(example.answer, ensure_ascii=False)})
        return messages

    def messages(self, asked: Asked, seed: int, image: str | None = None) -> list[dict[str, Any]]:
        """The messages that ask for one response.

        Args:
            asked: what it is written for.
            seed: decides, with the pair, in which style.
            image: the SHA-256 of a picture that is shown before the words.
        """
        spec = asked.info.spec
        words = self.user.format(
            **{
                "class": asked.info.name,
                "title": spec.title,
                # The summary, not a clause that annotators judge by: one that is put better must not have
                # responses written and paid for again.
                "policy": spec.policy.summary,
                "protective": spec.policy.protective,
                "harm": spec.rationale.harm,
                "safer": " ".join(spec.rationale.safer),
                "help": spec.rationale.resource or "a doctor, a counsellor or a crisis line",
                "style": self.styles[self.style_of(asked.pair_id, seed)],
                "picture": asked.evidence,
                "picture_is": "safe" if asked.image_safe else "unsafe",
                "request": asked.query,
                "request_is": "safe" if asked.text_safe else "unsafe",
            }
        )
        content: Any = ticket(words)
        if image is not None:
            content = [{"type": "image", "sha256": image}, {"type": "text", "text": content}]
        return [*self.prefix, {"role": "user", "content": content}]


def load_writer_prompts(folder: Path) -> dict[str, WriterPrompt]:
    """Read and check the prompt of each expected answer.

    Raises:
        InputError: naming the file and the path of every wrong field.
    """
    found = {}
    for expected, name in KINDS.items():
        path = folder / f"{name}.yaml"
        found[expected] = validated(WriterPrompt, load_yaml(path), path)
    return found

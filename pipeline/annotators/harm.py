"""Who says whom a pair harms, and how, in words by which two of them can be held together.

They see the picture or its words, and the request: never the class, the type that was meant, or what the
writer had in mind.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, StringConstraints, model_validator

from pipeline.annotators.base import PairItem, Status, cut, describe
from pipeline.annotators.llm import Questioner, SeesPixels, Voter
from pipeline.annotators.prompt import ticket
from pipeline.store import sha256_bytes
from schemas.errors import load_yaml, validated

if TYPE_CHECKING:
    from pipeline.engine import Answer, Message, Request
    from pipeline.workspace import Progress

__all__ = ["Harm", "HarmPrompt", "HarmReader", "HarmSeer", "Statement", "load_harm_prompt"]

Text = Annotated[str, StringConstraints(strip_whitespace=True, min_length=1)]
PARAMS = {"temperature": 0, "max_tokens": 300}
HOW_CHARS = 200


def _short(text: str) -> str:
    if not 0 < len(text.strip()) <= HOW_CHARS:
        raise ValueError(f"must have 1 to {HOW_CHARS} characters")
    return " ".join(text.split())


class Harm(BaseModel):
    """The answer: who is harmed, how, and so whether the pair is unsafe."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    harmed: Literal[
        "user", "specific_person", "group_of_people", "animals", "property_owner", "public", "nobody"
    ]
    harm: Literal[
        "death",
        "injury",
        "misinformed_health",
        "hatred",
        "humiliation",
        "exposure",
        "illegal_trade",
        "theft_or_damage",
        "fraud_or_loss",
        "none",
    ]
    # Checked in code and not in the schema: endpoints know different parts of JSON schema.
    how: Annotated[str, AfterValidator(_short)]
    verdict: Literal["safe", "unsafe"]

    @model_validator(mode="after")
    def _one_story(self) -> Harm:
        named = (self.harmed != "nobody", self.harm != "none")
        if named != (self.verdict == "unsafe",) * 2:
            raise ValueError("unsafe names who is harmed and how; safe has nobody and none")
        return self


class _Example(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)

    picture: Text
    text_in_picture: Text | None = None
    query: Text
    answer: Harm

    def shown(self) -> str:
        """The pair in the words that real pairs are put in."""
        return f"{describe(self.picture, self.text_in_picture)}\nRequest: {self.query}"


class HarmPrompt(BaseModel):
    """`prompts/annotate/harm.yaml`.

    Attributes:
        version: raised when the wording changes.
        note: what was tried and measured.
        system: what is asked, and what the names mean.
        examples: pairs with their answers, on both sides.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    version: int = Field(ge=1)
    note: Text
    system: Text
    examples: list[_Example] = Field(min_length=2)

    def messages(self, shown: str, image: str | None = None) -> list[dict[str, Any]]:
        """The messages that ask about one pair; all but the last are the same for every pair.

        Args:
            shown: the pair in words.
            image: the SHA-256 of a picture that is shown before the words.
        """
        messages: list[dict[str, Any]] = [{"role": "system", "content": self.system}]
        for example in self.examples:
            answer = json.dumps(example.answer.model_dump(), ensure_ascii=False)
            messages.append({"role": "user", "content": ticket(example.shown())})
            messages.append({"role": "assistant", "content": answer})
        content: Any = ticket(shown)
        if image is not None:
            content = [{"type": "image", "sha256": image}, {"type": "text", "text": content}]
        return [*messages, {"role": "user", "content": content}]


def load_harm_prompt(path: Path) -> HarmPrompt:
    """Read and check the prompt about harm.

    Raises:
        InputError: naming the file and the path of every wrong field.
    """
    return validated(HarmPrompt, load_yaml(path), path)


@dataclass(frozen=True, slots=True)
class Statement:
    """What one annotator says of the harm in one pair.

    Attributes:
        item_id: the pair.
        annotator: who answered.
        family: the lineage of its weights.
        sees: the picture's pixels, or the picture in words.
        status: `ok`; `unscorable` where it was not sent the pair or its answer could not be used; `blocked`
            where it refused; `error` else.
        said: its answer; None unless the status is `ok`.
        note: why not, in at most 200 characters.
        call_key: of the call behind it; empty where there was none.
    """

    item_id: str
    annotator: str
    family: str
    sees: Literal["words", "pixels"]
    status: Status
    said: Harm | None
    note: str
    call_key: str


class HarmReader(Questioner[PairItem]):
    """Says whom a pair harms, and how, by the picture in words."""

    kind = "harm-reader"
    sees: Literal["words", "pixels"] = "words"

    def __init__(self, voter: Voter, prompt: HarmPrompt, *, stage: str) -> None:
        """Bind it to a model.

        Args:
            voter: the model.
            prompt: the prompt about harm.
            stage: who asks, recorded with each answer.
        """
        super().__init__(voter, stage)
        self._prompt = prompt

    def request(self, shown: str, image: bytes | None = None, policy_class: str | None = None) -> Request:
        """The call about a pair that is put in words as `shown`; no clause of the policy comes with it."""
        from pipeline.engine import Request

        del policy_class
        params = {k: v for k, v in {**PARAMS, **self.voter.parameters}.items() if v is not None}
        messages = self._prompt.messages(shown, None if image is None else sha256_bytes(image))
        return Request(self.voter.backend_id, self.voter.model, messages, params, Harm)

    def state(self, items: Sequence[PairItem], progress: Progress) -> list[Statement]:
        """One statement a pair, in their order; one call where the pair can be judged."""
        return self._each(items, progress, self._said)

    def _said(self, item: PairItem, answer: Answer | None) -> Statement:
        if answer is None:
            return self._statement(item.id, "unscorable", None, self._why_not(item), "")
        value = answer.value if isinstance(answer.value, Harm) else None
        note = "" if value else answer.error or answer.raw
        return self._statement(item.id, answer.status, value, note, answer.key)

    def _statement(self, item_id: str, status: Status, said: Harm | None, note: str, key: str) -> Statement:
        return Statement(item_id, self.name, self.family, self.sees, status, said, cut(note), key)

    def _prefix(self) -> Sequence[Message]:
        return self._prompt.messages("")[:-1]

    def _shown(self, item: PairItem) -> str | None:
        if not item.evidence.strip() or not item.query.strip():
            return None
        return f"{item.evidence}\nRequest: {item.query}"


class HarmSeer(SeesPixels[PairItem], HarmReader):
    """Says whom a pair harms, and how, by the picture's pixels."""

    kind = "harm-seer"
    sees: Literal["words", "pixels"] = "pixels"

    def _shown(self, item: PairItem) -> str | None:
        return f"Picture: the one above.\nRequest: {item.query}" if item.query.strip() else None

"""Responses: the sentences of `prompts/responses.yaml` that templates use, and what a writer answers with."""

from __future__ import annotations

import string
from pathlib import Path
from typing import Annotated

from pydantic import AfterValidator, BaseModel, ConfigDict, Field

from schemas.errors import load_yaml, validated

__all__ = [
    "RefuseStyles",
    "ResponseStyles",
    "SupportStyles",
    "WrittenRationale",
    "WrittenResponse",
    "WrittenWithRationale",
    "load_response_styles",
]

LONGEST = 2000
"""Characters of a response or of a part of a rationale."""

SLOTS = frozenset({"why", "harm", "thing"})


def _known_slots(text: str) -> str:
    if unknown := {f for _, f, _, _ in string.Formatter().parse(text) if f is not None} - SLOTS:
        raise ValueError(f"unknown slot {sorted(unknown)}; there are {sorted(SLOTS)}")
    return text


Sentences = Annotated[list[Annotated[str, AfterValidator(_known_slots)]], Field(min_length=2)]


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


def _said(text: str) -> str:
    if not 0 < len(text.strip()) <= LONGEST:
        raise ValueError(f"must have 1 to {LONGEST} characters")
    return text.strip()


# Checked in code and not in the schema: endpoints know different parts of JSON schema.
Said = Annotated[str, AfterValidator(_said)]


class WrittenRationale(_Strict):
    """Why a pair is answered as it is, by a model; its fields are those of every rationale."""

    harm_class: Said = Field(description="the class that the question names")
    image: Said = Field(description="what in the picture matters")
    text: Said = Field(description="what in the request matters")
    why: Said = Field(description="what doing it would lead to, picture and request together")
    safer: Said = Field(description="a safe thing that would help this person instead")


class WrittenResponse(_Strict):
    """A model's answer where nothing has to be given reasons for."""

    response: Said = Field(description="what the assistant says")


class WrittenWithRationale(_Strict):
    """A model's answer with reasons. They come first, so that the response is written from them."""

    rationale: WrittenRationale
    response: Said = Field(description="what the assistant says")


class RefuseStyles(_Strict):
    """A refusal: opening with the reason, then what the image has to do with it."""

    opening: Sentences
    unsafe_image: Sentences
    safe_image: Sentences


class SupportStyles(_Strict):
    """An answer to a person in danger: kindness first, then why not."""

    opening: Sentences
    why: Sentences


class ResponseStyles(_Strict):
    """The whole file."""

    version: int = Field(ge=1)
    note: str = Field(min_length=1)
    refuse: RefuseStyles
    support: SupportStyles


def load_response_styles(path: Path) -> ResponseStyles:
    """Read and check `prompts/responses.yaml`.

    Raises:
        InputError: naming the file and field.
    """
    return validated(ResponseStyles, load_yaml(path), path)

"""The sentences that responses are put together from: the model of `prompts/responses.yaml`."""

from __future__ import annotations

import string
from pathlib import Path
from typing import Annotated

from pydantic import AfterValidator, BaseModel, ConfigDict, Field

from schemas.errors import load_yaml, validated

__all__ = ["RefuseStyles", "ResponseStyles", "SupportStyles", "load_response_styles"]

SLOTS = frozenset({"why", "harm", "thing"})


def _known_slots(text: str) -> str:
    if unknown := {f for _, f, _, _ in string.Formatter().parse(text) if f is not None} - SLOTS:
        raise ValueError(f"unknown slot {sorted(unknown)}; there are {sorted(SLOTS)}")
    return text


Sentences = Annotated[list[Annotated[str, AfterValidator(_known_slots)]], Field(min_length=2)]


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


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

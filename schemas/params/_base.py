"""What params models share."""

from __future__ import annotations

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

__all__ = ["PerClass", "Share", "Strict"]

Share = Annotated[float, Field(gt=0, lt=1)]


class Strict(BaseModel):
    """Written by people, so that an unknown field is an error; frozen."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class PerClass(Strict):
    """The most images of one class to take for each side; labelling every image costs a call."""

    safe: int = Field(ge=0)
    unsafe: int = Field(ge=0)

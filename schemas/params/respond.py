"""Params of respond: who writes the responses."""

from __future__ import annotations

from pydantic import Field

from schemas.params._base import Strict

__all__ = ["Respond"]


class Respond(Strict):
    """Who writes the responses, and how often a bad one is asked for again."""

    writer: str | None = Field(
        default=None, description="the endpoint that writes them; null: templates of the query scenes"
    )
    attempts: int = Field(
        default=3, ge=1, le=10, description="how often one is asked for, each time with what was wrong"
    )

"""Params of the models that are asked: endpoints with prices and limits, who votes, and the budget."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal, get_args

from pydantic import Field

from schemas.params._base import Strict

__all__ = [
    "ASKED",
    "HARM_PROMPT",
    "VOTED",
    "Annotators",
    "Budget",
    "EmbeddedEndpoint",
    "Endpoint",
    "Prices",
    "RemoteEndpoint",
    "ScriptedEndpoint",
    "Trained",
]


class Prices(Strict):
    """US dollars for a million tokens, and for one image that is made; 0 where nothing is charged."""

    prompt: float = Field(ge=0)
    completion: float = Field(ge=0)
    made_image: float = Field(default=0, ge=0)


class _Endpoint(Strict):
    model: str = Field(min_length=1)
    family: str = Field(min_length=1, description="lineage of the weights: two sizes of one model are one")
    parameters: dict[str, Any] = Field(
        default={}, description="request parameters over those of the annotator; null takes one away"
    )
    sees: Literal["words", "pixels"] = Field(
        default="words", description="whether it is sent images, or captions and the text read from them"
    )


_DECIDES = {"model", "family", "parameters", "sees"}
"""The fields of every endpoint that decide what it answers."""


class EmbeddedEndpoint(_Endpoint):
    """A model of the registry, served on this machine by the build itself."""

    kind: Literal["embedded"]
    context_tokens: int = Field(ge=1024)
    threads: int = Field(ge=1)

    def identity(self) -> dict[str, Any]:
        """What decides its answers."""
        return self.model_dump(mode="json")


class _Served(_Endpoint):
    concurrency: int = Field(default=16, ge=1)
    requests_per_minute: int | None = Field(default=None, ge=1)
    tokens_per_minute: int | None = Field(default=None, ge=1)
    timeout_s: float = Field(default=120.0, gt=0)
    batch: bool = Field(default=False, description="ask through the Batch API; the price is then its price")


class RemoteEndpoint(_Served):
    """An OpenAI-compatible endpoint that somebody else runs."""

    kind: Literal["remote"]
    provider: Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9._-]*$")] = Field(
        description="who answers; part of every call's key, so never a URL"
    )
    base_url: str = Field(pattern=r"^https?://")
    api_key_env: str | None = Field(description="the environment variable that holds the key; null for none")
    price: Prices
    image_tokens: int = Field(default=2000, ge=0, description="the most that one image counts for")
    max_image_bytes: int | None = Field(default=None, ge=1)

    def identity(self) -> dict[str, Any]:
        """What decides its answers: not where it is, how fast it is asked, or what it costs."""
        return self.model_dump(mode="json", include={"kind", "provider", *_DECIDES})


class ScriptedEndpoint(_Served):
    """An endpoint that answers from a file, started with `holisafe endpoint script`; for demos and tests."""

    kind: Literal["scripted"]
    script: Path
    base_url: str = Field(pattern=r"^http://(127\.0\.0\.1|localhost)[:/]")
    price: Prices = Prices(prompt=0, completion=0)

    def identity(self) -> dict[str, Any]:
        """What decides its answers; the script itself is hashed where it is read."""
        return self.model_dump(mode="json", include={"kind", "script", *_DECIDES})


Endpoint = Annotated[EmbeddedEndpoint | RemoteEndpoint | ScriptedEndpoint, Field(discriminator="kind")]
"""Where a model answers."""


Trained = Literal["encoder", "nudity", "nearest_class", "text_head", "pair_head"]
"""What votes without being asked through an endpoint: networks that run here."""

VOTED = ("image_safe", "text_safe", "pair_safe")
"""The questions on which endpoints vote."""
ASKED = (*VOTED, "harm")
"""What endpoints are asked as annotators: these, and who is harmed how by a pair."""


HARM_PROMPT = Path("annotate/harm.yaml")
"""The prompt about harm, below the prompts."""


class Annotators(Strict):
    """Which endpoints vote on each question, and which networks of our own beside them."""

    image_safe: list[str] = Field(min_length=1)
    text_safe: list[str] = Field(min_length=1)
    pair_safe: list[str] = Field(min_length=1)
    trained: list[Trained] = Field(default=list(get_args(Trained)))
    safety_head: Path | None = Field(
        default=None,
        description="what `holisafe safellava folds` wrote: it votes on images (docs/safellava.md)",
    )
    harm: list[str] = Field(
        default=[], description="who says whom an SSU pair harms, and how (docs/policy.md); empty: nobody"
    )
    policy: Literal["short", "clauses"] = Field(
        default="short",
        description="what voters are told: the short policy of their prompt, or the clause "
        "of the item's class in the taxonomy",
    )


class Budget(Strict):
    """The most that model calls may cost, over all runs; null for no cap."""

    total: float | None = Field(default=None, ge=0, description="US dollars")
    stages: dict[Literal["generate", "label_images", "synthesize", "label_pairs", "respond"], float] = Field(
        default={}, description="US dollars, by stage"
    )

    def caps(self) -> dict[str, float]:
        """The caps by name."""
        caps: dict[str, float] = dict(self.stages.items())
        return caps if self.total is None else {**caps, "total": self.total}

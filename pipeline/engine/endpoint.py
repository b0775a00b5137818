"""Where calls go: the seam between the engine and whatever serves the OpenAI protocol."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Protocol, Self

__all__ = [
    "Connection",
    "Endpoint",
    "EndpointError",
    "PlannedEndpoint",
    "RemoteEndpoint",
    "ServerDiedError",
    "Terms",
]


class EndpointError(Exception):
    """An endpoint cannot be used: nothing more is sent to it. What was answered stays answered."""


class ServerDiedError(EndpointError):
    """The local model server has ended."""


@dataclass(frozen=True)
class Connection:
    """How to reach a running endpoint. The key stays out of `repr`, logs and the cache."""

    base_url: str
    api_key: str = field(repr=False)


@dataclass(frozen=True, slots=True)
class Terms:
    """What an endpoint takes and what it costs.

    Attributes:
        concurrency: calls under way at once.
        requests_per_minute: in any 60 seconds; None where there is no limit.
        tokens_per_minute: of prompt and answer together, in any 60 seconds.
        timeout_s: how long one call may take.
        prompt_price: US dollars for a million tokens of prompt.
        completion_price: US dollars for a million tokens of answer.
        image_tokens: the most tokens that one image counts for.
        max_image_bytes: the largest image that it takes.
        made_image_price: US dollars for one image that it makes.
        batch: calls go through the Batch API, at its price.
    """

    concurrency: int = 16
    requests_per_minute: int | None = None
    tokens_per_minute: int | None = None
    timeout_s: float = 600.0
    prompt_price: float = 0.0
    completion_price: float = 0.0
    image_tokens: int = 2000
    max_image_bytes: int | None = None
    made_image_price: float = 0.0
    batch: bool = False

    def cost(self, prompt_tokens: int, completion_tokens: int) -> float:
        """US dollars for so many tokens."""
        return (prompt_tokens * self.prompt_price + completion_tokens * self.completion_price) / 1e6


class Endpoint(Protocol):
    """Something that serves chat completions."""

    @property
    def backend_id(self) -> str:
        """The provider's name, or `sha256:` and the weights' hash. Never the URL. Known before the start."""
        ...

    @property
    def terms(self) -> Terms:
        """What it takes and what it costs."""
        ...

    def start(self) -> Connection:
        """Make it ready, if it is not. Called before the first call that the cache cannot answer."""
        ...

    def check(self) -> None:
        """Called after a failed connection. Raises EndpointError when trying again is of no use."""
        ...

    def close(self) -> None:
        """Let go of it."""
        ...


@dataclass(frozen=True)
class PlannedEndpoint:
    """An endpoint whose calls are written out and never sent: it needs no key and no weights."""

    backend_id: str
    terms: Terms = Terms()

    def start(self) -> Connection:
        """Raise EndpointError."""
        raise EndpointError(f"{self.backend_id}: this command plans calls, and sends none")

    def check(self) -> None:
        """There is nothing that could fail."""

    def close(self) -> None:
        """There is nothing to stop."""


@dataclass(frozen=True)
class RemoteEndpoint:
    """An endpoint that somebody else runs.

    `provider` names who answers, for example `openai`; two URLs of one provider share their answers.
    A scripted endpoint has a name of its own, so that its answers are never taken for a model's.
    """

    provider: str
    base_url: str
    api_key: str = field(repr=False)
    terms: Terms = Terms()

    @property
    def backend_id(self) -> str:
        """The provider's name."""
        return self.provider

    def start(self) -> Connection:
        """There is nothing to start."""
        return Connection(self.base_url, self.api_key)

    def check(self) -> None:
        """Nothing is known about it but what calls tell."""

    def close(self) -> None:
        """There is nothing to stop."""

    def __enter__(self) -> Self:
        """Nothing starts."""
        return self

    def __exit__(self, *_: object) -> None:
        """Let go of it."""
        self.close()

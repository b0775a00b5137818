"""Annotators that ask a language model, through the engine and its cache.

The model answers with one word. What counts is not the word but how far it leans to it: the word alone is
biased, and its log-probability, calibrated on gold labels, ranks items better than a verdict after a written
reason did, in less than half the time (docs/quality.md).
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import chain
from typing import TYPE_CHECKING, Any, Generic, Protocol, TypeVar

from pipeline.annotators.base import (
    ImageItem,
    PairItem,
    Question,
    TextItem,
    Vote,
    describe,
    failed_vote,
    vote,
)
from pipeline.annotators.prompt import ANSWER_TOKENS, Prompt
from pipeline.store import sha256_bytes
from schemas.errors import InputError

if TYPE_CHECKING:
    from pipeline.engine import Answer, BlobStore, Message, Request, Terms
    from pipeline.workspace import Progress

__all__ = [
    "MAX_CHARS",
    "Asking",
    "Asks",
    "CaptionReader",
    "ImageVLM",
    "LanguageModel",
    "PairLLM",
    "PairVLM",
    "Questioner",
    "SeesPixels",
    "TextLLM",
    "Voter",
]

MAX_CHARS = 6000
"""Longer items are not cut but called unscorable: with the examples they would not fit 4,096 tokens."""

PARAMS = {"temperature": 0, "max_tokens": ANSWER_TOKENS, "logprobs": True, "top_logprobs": 20}

Item = TypeVar("Item", bound=TextItem | ImageItem | PairItem)
Said = TypeVar("Said")


class Asking(Protocol):
    """Somebody who asks an endpoint: an annotator, or who has prompts written or pictures made."""

    @property
    def name(self) -> str:
        """What plans call it."""
        ...

    @property
    def voter(self) -> Voter:
        """The endpoint that it asks."""
        ...


class Asks(Protocol):
    """What is used of the engine."""

    def ask_all(
        self,
        requests: Sequence[Request],
        *,
        stage: str,
        on_progress: Callable[[int, int], None] | None = None,
        warm: Sequence[Message] | None = None,
    ) -> list[Answer]:
        """Ask all requests; answers in their order."""
        ...

    def ask_each(
        self,
        requests: Iterable[Request],
        on_answer: Callable[[int, Answer], None],
        *,
        stage: str,
        warm: Sequence[Message] | None = None,
    ) -> None:
        """Ask any number of requests in bounded memory; answers go to `on_answer` as they come."""
        ...

    def stop(self) -> None:
        """Send nothing more."""
        ...


@dataclass(frozen=True)
class Voter:
    """A model that can be asked, as params name it.

    Attributes:
        name: the endpoint's name in params.
        engine: asks and remembers.
        backend_id: who answers, as the engine's endpoint calls itself.
        model: the model's name there.
        family: the lineage of its weights.
        terms: what its endpoint takes and costs.
        parameters: request parameters over the annotator's own; None takes one away.
        local: it runs here, one item after the other, and profits from a shared prefix.
        blobs: keeps the images that it is sent; None where it is sent none.
        egress: the classes whose images it may be sent; None for all.
    """

    name: str
    engine: Asks
    backend_id: str
    model: str
    family: str
    terms: Terms
    parameters: Mapping[str, Any] = field(default_factory=dict)
    local: bool = False
    blobs: BlobStore | None = None
    egress: frozenset[str] | None = None


class Questioner(ABC, Generic[Item]):
    """Asks a model about each item, one call an item that can be judged."""

    kind: str

    def __init__(self, voter: Voter, stage: str) -> None:
        """Bind it to a model; `stage` is who asks, recorded with each answer."""
        self.name = f"{self.kind}@{voter.name}"
        self.family = voter.family
        self.voter = voter
        self._stage = stage

    @abstractmethod
    def _shown(self, item: Item) -> str | None:
        """The item in words; None where there is nothing to judge by."""

    @abstractmethod
    def request(self, shown: str, image: bytes | None = None, policy_class: str | None = None) -> Request:
        """The call about an item that is put in words as `shown`, with an image or without.

        Args:
            shown: the item in words.
            image: its file, for those that see pixels.
            policy_class: the class whose clause comes with it, where items come with theirs; None for the
                longest clause, as of an item that is not there yet.
        """

    @abstractmethod
    def _prefix(self) -> Sequence[Message]:
        """The messages with which every call begins."""

    def _image(self, item: Item) -> bytes | None:  # noqa: ARG002 - those that see pixels use it
        """The image that is sent with the words."""
        return None

    def requests(self, items: Iterable[Item]) -> Iterator[Request | None]:
        """The call about each item; None where the item cannot be judged."""
        for item in items:
            yield (
                None
                if self._why_not(item)
                else self.request(self._shown(item) or "", self._image(item), item.policy_class)
            )

    def _each(
        self, items: Sequence[Item], progress: Progress, said: Callable[[Item, Answer | None], Said]
    ) -> list[Said]:
        """What `said` makes of the answer about each item; it gets None where the item cannot be judged.

        Calls are made as they are sent, and answers go as they come: each is some 15 kB, and none is kept.
        """
        from pipeline.engine import all_answered

        found: dict[int, Said] = {}
        places: list[int] = []
        outage: list[Answer] = []

        def calls() -> Iterator[Request]:
            for place, call in enumerate(self.requests(items)):
                if call is None:
                    found[place] = said(items[place], None)
                    progress.advance()
                else:
                    places.append(place)
                    yield call

        def take(number: int, answer: Answer) -> None:
            place = places[number]
            found[place] = said(items[place], answer)
            progress.advance()
            if answer.again:
                outage.append(answer)

        asked = calls()
        if (first := next(asked, None)) is not None:
            warm = self._prefix() if self.voter.local else None
            self.voter.engine.ask_each(chain([first], asked), take, stage=self._stage, warm=warm)
        # An outage is no vote: labels made without one would stand for good.
        all_answered(self.name, outage, of=len(places))
        return [found[place] for place in range(len(items))]

    def _why_not(self, item: Item) -> str:
        """Why an item cannot be judged; empty where it can."""
        shown = self._shown(item)
        if shown is None:
            return "nothing to judge by"
        return "" if len(shown) <= MAX_CHARS else f"longer than {MAX_CHARS} characters"


class LanguageModel(Questioner[Item]):
    """Asks one question about each item: few examples, one word."""

    question: Question

    def __init__(
        self, voter: Voter, prompt: Prompt, *, stage: str, clauses: Mapping[str, str] | None = None
    ) -> None:
        """Bind it to a model.

        Args:
            voter: the model.
            prompt: the prompt of this annotator's question.
            stage: who asks, recorded with each answer.
            clauses: the clauses of the policy, by class, where the prompt gives each item that of its class.

        Raises:
            InputError: when the prompt is that of another question, or needs clauses that are not there.
        """
        if prompt.question != self.question:
            raise InputError(f"prompt: question: {prompt.question}, but {self.kind} answers {self.question}")
        if prompt.with_clauses != (clauses is not None):
            given = "come with a clause" if prompt.with_clauses else "have no clause"
            raise InputError(f"prompt: examples: they {given}, and params say otherwise (annotators.policy)")
        super().__init__(voter, stage)
        self._prompt = prompt
        self._clauses = clauses

    def request(self, shown: str, image: bytes | None = None, policy_class: str | None = None) -> Request:
        """The call about an item that is put in words as `shown`, as of `Questioner`."""
        from pipeline.engine import Request

        params = {k: v for k, v in {**PARAMS, **self.voter.parameters}.items() if v is not None}
        picture = None if image is None else sha256_bytes(image)
        messages = self._prompt.messages(shown, picture, self._clause(policy_class))
        return Request(self.voter.backend_id, self.voter.model, messages, params)

    def annotate(self, items: Sequence[Item], progress: Progress) -> list[Vote]:
        """One vote an item; one call where the item can be judged."""
        return self._each(items, progress, self._vote)

    def _prefix(self) -> Sequence[Message]:
        return self._prompt.messages("")[:-1]

    def _clause(self, policy_class: str | None) -> str:
        if self._clauses is None:
            return ""
        if policy_class is None:
            return max(self._clauses.values(), key=len)
        if policy_class not in self._clauses:
            raise InputError(
                f"{self.name}: an item is filed under {policy_class!r}, which is no class of the taxonomy; "
                "run `holisafe build`, so that everything follows the taxonomy that is there now"
            )
        return self._clauses[policy_class]

    def _vote(self, item: Item, answer: Answer | None) -> Vote:
        if answer is None:
            return failed_vote(item.id, self, "unscorable", self._why_not(item))
        if answer.status != "ok":
            return failed_vote(item.id, self, answer.status, answer.error or answer.raw, answer.key)
        scored = self._prompt.score(self.voter.model, answer.first_tokens, answer.raw)
        if scored is None:
            return failed_vote(item.id, self, "unscorable", f"no verdict: {answer.raw}", answer.key)
        score, note = scored
        return vote(item.id, self, "unsafe" if score >= 0.5 else "safe", score, note, answer.key)


class TextLLM(LanguageModel[TextItem]):
    """Is a query unsafe as text? It sees the query and nothing else."""

    kind = "text-llm"
    question: Question = "text_safe"

    def _shown(self, item: TextItem) -> str | None:
        return f"Message: {item.text}" if item.text.strip() else None


class PairLLM(LanguageModel[PairItem]):
    """Is a query unsafe together with an image? It sees the image in words, and the query."""

    kind = "pair-llm"
    question: Question = "pair_safe"

    def _shown(self, item: PairItem) -> str | None:
        if not item.evidence.strip() or not item.query.strip():
            return None
        return f"{item.evidence}\nRequest: {item.query}"


class CaptionReader(LanguageModel[ImageItem]):
    """Is an image unsafe? It sees its caption and the text read from it, never a query nor the pixels."""

    kind = "caption-reader"
    question: Question = "image_safe"

    def _shown(self, item: ImageItem) -> str | None:
        return describe(item.caption, item.ocr_text)


Seen = TypeVar("Seen", bound=ImageItem | PairItem)


class SeesPixels(Questioner[Seen]):
    """Is sent the image itself, where `egress` allows that for the image's class."""

    def _each(
        self, items: Sequence[Seen], progress: Progress, said: Callable[[Seen, Answer | None], Said]
    ) -> list[Said]:
        """As of `Questioner`; the images that are sent are kept by their hash."""
        assert self.voter.blobs is not None  # noqa: S101 - given to every voter that sees pixels
        for item in items:
            if not self._why_not(item) and (image := self._image(item)) is not None:
                self.voter.blobs.put(image)
        return super()._each(items, progress, said)

    def _image(self, item: Seen) -> bytes | None:
        return None if item.jpeg is None else item.jpeg()

    def _why_not(self, item: Seen) -> str:
        allowed = self.voter.egress
        if item.jpeg is None or (allowed is not None and item.egress_class not in allowed):
            return "the image may not be sent to this endpoint"
        return super()._why_not(item)


class ImageVLM(SeesPixels[ImageItem], LanguageModel[ImageItem]):
    """Is an image unsafe? It sees the pixels, and neither caption nor query."""

    kind = "image-vlm"
    question: Question = "image_safe"

    def _shown(self, item: ImageItem) -> str | None:  # noqa: ARG002 - all that is said of every image
        return "Picture: the one above."


class PairVLM(SeesPixels[PairItem], LanguageModel[PairItem]):
    """Is a query unsafe together with an image? It sees the pixels and the query."""

    kind = "pair-vlm"
    question: Question = "pair_safe"

    def _shown(self, item: PairItem) -> str | None:
        return f"Picture: the one above.\nRequest: {item.query}" if item.query.strip() else None

"""Annotators that ask a language model, through the engine and its cache.

The model answers with one word. What counts is not the word but how far it leans to it: the word alone is
biased, and its log-probability, calibrated on gold labels, ranks items better than a verdict after a written
reason did, in less than half the time (docs/quality.md).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
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
from schemas.errors import InputError

if TYPE_CHECKING:
    from pipeline.engine import Answer, Message, Request, Terms
    from pipeline.workspace import Progress

__all__ = ["MAX_CHARS", "Asks", "CaptionReader", "LanguageModel", "PairLLM", "TextLLM", "Voter"]

MAX_CHARS = 6000
"""Longer items are not cut but called unscorable: with the examples they would not fit 4,096 tokens."""

PARAMS = {"temperature": 0, "max_tokens": ANSWER_TOKENS, "logprobs": True, "top_logprobs": 20}

Item = TypeVar("Item", TextItem, ImageItem, PairItem)


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
    """

    name: str
    engine: Asks
    backend_id: str
    model: str
    family: str
    terms: Terms
    parameters: Mapping[str, Any] = field(default_factory=dict)
    local: bool = False


class LanguageModel(Generic[Item]):
    """Asks one question about each item: few examples, one word."""

    kind: str
    question: Question

    def __init__(self, voter: Voter, prompt: Prompt, *, stage: str) -> None:
        """Bind it to a model.

        Args:
            voter: the model.
            prompt: the prompt of this annotator's question.
            stage: who asks, recorded with each answer.
        """
        if prompt.question != self.question:
            raise InputError(f"prompt: question: {prompt.question}, but {self.kind} answers {self.question}")
        self.name = f"{self.kind}@{voter.name}"
        self.family = voter.family
        self.voter = voter
        self._prompt = prompt
        self._stage = stage

    def _shown(self, item: Item) -> str | None:
        """The item in words; None where there is nothing to judge by."""
        raise NotImplementedError

    def requests(self, items: Sequence[Item]) -> list[Request | None]:
        """The call about each item; None where the item cannot be judged."""
        shown = [self._shown(item) for item in items]
        return [self.request(text) if text is not None and len(text) <= MAX_CHARS else None for text in shown]

    def request(self, shown: str) -> Request:
        """The call about an item that is put in words as `shown`."""
        from pipeline.engine import Request

        params = {k: v for k, v in {**PARAMS, **self.voter.parameters}.items() if v is not None}
        return Request(self.voter.backend_id, self.voter.model, self._prompt.messages(shown), params)

    def annotate(self, items: Sequence[Item], progress: Progress) -> list[Vote]:
        """One vote an item; one call where the item can be judged."""
        calls = self.requests(items)
        asked = [call for call in calls if call is not None]
        progress.advance(len(items) - len(asked))
        answers = iter(
            self.voter.engine.ask_all(
                asked,
                stage=self._stage,
                on_progress=lambda _done, _total: progress.advance(),
                warm=self._prompt.messages("")[:-1] if self.voter.local else None,
            )
            if asked
            else []
        )
        return [
            self._unscorable(item) if call is None else self._vote(item.id, next(answers))
            for item, call in zip(items, calls, strict=True)
        ]

    def _unscorable(self, item: Item) -> Vote:
        why = "nothing to judge by" if self._shown(item) is None else f"longer than {MAX_CHARS} characters"
        return failed_vote(item.id, self, "unscorable", why)

    def _vote(self, item_id: str, answer: Answer) -> Vote:
        if answer.status != "ok":
            return failed_vote(item_id, self, answer.status, answer.error or answer.raw, answer.key)
        scored = self._prompt.score(self.voter.model, answer.first_tokens, answer.raw)
        if scored is None:
            return failed_vote(item_id, self, "unscorable", f"no verdict: {answer.raw}", answer.key)
        score, note = scored
        return vote(item_id, self, "unsafe" if score >= 0.5 else "safe", score, note, answer.key)


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

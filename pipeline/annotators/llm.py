"""Annotators that ask a language model, through the engine and its cache.

The model answers with one word. What counts is not the word but how far it leans to it: the word alone is
biased, and its log-probability, calibrated on gold labels, ranks items better than a verdict after a written
reason did, in less than half the time (docs/quality.md).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Generic, Protocol, TypeVar

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
from pipeline.annotators.prompt import ANSWER_TOKENS, Prompt, leaning
from schemas.errors import InputError

if TYPE_CHECKING:
    from pipeline.engine import Answer, Message, Request
    from pipeline.workspace import Progress

__all__ = ["MAX_CHARS", "Asks", "CaptionReader", "PairLLM", "TextLLM"]

FAMILY = "qwen2.5"
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


class _LanguageModel(Generic[Item]):
    """Asks one question about each item: few examples, one word."""

    name: str
    question: Question

    def __init__(
        self,
        engine: Asks,
        backend_id: str,
        model: str,
        prompt: Prompt,
        *,
        stage: str,
        family: str = FAMILY,
    ) -> None:
        """Bind it to a model.

        Args:
            engine: asks and remembers.
            backend_id: who answers, as the engine's endpoint calls itself.
            model: the model's name there.
            prompt: the prompt of this annotator's question.
            stage: who asks, recorded with each answer.
            family: the lineage of the model's weights.
        """
        if prompt.question != self.question:
            raise InputError(f"prompt: question: {prompt.question}, but {self.name} answers {self.question}")
        self.family = family
        self._engine = engine
        self._backend_id = backend_id
        self._model = model
        self._prompt = prompt
        self._stage = stage

    def _shown(self, item: Item) -> str | None:
        """The item in words; None where there is nothing to judge by."""
        raise NotImplementedError

    def annotate(self, items: Sequence[Item], progress: Progress) -> list[Vote]:
        """One vote an item; one call where the item can be judged."""
        from pipeline.engine import Request

        shown = [self._shown(item) for item in items]
        asked = [text for text in shown if text is not None and len(text) <= MAX_CHARS]
        progress.advance(len(items) - len(asked))
        requests = [
            Request(self._backend_id, self._model, self._prompt.messages(text), PARAMS) for text in asked
        ]
        answers = iter(
            self._engine.ask_all(
                requests,
                stage=self._stage,
                on_progress=lambda _done, _total: progress.advance(),
                warm=self._prompt.messages("")[:-1],
            )
            if requests
            else []
        )
        votes = []
        for item, text in zip(items, shown, strict=True):
            if text is None:
                votes.append(failed_vote(item.id, self, "unscorable", "nothing to judge by"))
            elif len(text) > MAX_CHARS:
                votes.append(failed_vote(item.id, self, "unscorable", f"longer than {MAX_CHARS} characters"))
            else:
                votes.append(self._vote(item.id, next(answers)))
        return votes

    def _vote(self, item_id: str, answer: Answer) -> Vote:
        if answer.status != "ok":
            return failed_vote(item_id, self, answer.status, answer.error or answer.raw)
        leans = leaning(answer.first_tokens)
        if leans is None:
            return failed_vote(item_id, self, "unscorable", f"no leaning to a verdict: {answer.raw}")
        score = self._prompt.calibration.score(leans)
        return vote(item_id, self, "unsafe" if score >= 0.5 else "safe", score)


class TextLLM(_LanguageModel[TextItem]):
    """Is a query unsafe as text? It sees the query and nothing else."""

    name = "text-llm"
    question: Question = "text_safe"

    def _shown(self, item: TextItem) -> str | None:
        return f"Message: {item.text}" if item.text.strip() else None


class PairLLM(_LanguageModel[PairItem]):
    """Is a query unsafe together with an image? It sees the image in words, and the query."""

    name = "pair-llm"
    question: Question = "pair_safe"

    def _shown(self, item: PairItem) -> str | None:
        if not item.evidence.strip() or not item.query.strip():
            return None
        return f"{item.evidence}\nRequest: {item.query}"


class CaptionReader(_LanguageModel[ImageItem]):
    """Is an image unsafe? It sees its caption and the text read from it, never a query nor the pixels."""

    name = "caption-reader"
    question: Question = "image_safe"

    def _shown(self, item: ImageItem) -> str | None:
        return describe(item.caption, item.ocr_text)

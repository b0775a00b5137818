"""Which class a harmful item belongs to: the class whose description is nearest.

The class is not asked of the language model. A list of classes in its request would change every request,
and so pay for every answer again, when a class is added; and it costs a quarter of a second an item.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Generic, Literal, TypeVar

import numpy as np
from numpy.typing import NDArray

from pipeline.annotators.base import ImageItem, Question, TextItem, Vote, describe, failed_vote, vote
from pipeline.annotators.heads import Embeds, Floats

if TYPE_CHECKING:
    from pipeline.workspace import Progress
    from schemas.taxonomy import SafetyClass, Taxonomy

__all__ = ["NearestClass", "image_classes", "softmax", "text_classes"]

Item = TypeVar("Item", TextItem, ImageItem)

NEAREST = 3
TEMPERATURE = 0.05
"""Turns cosines into support. Classes are chosen by the cosines alone, whatever it is."""


class NearestClass(Generic[Item]):
    """Names the class that an item would belong to if it were unsafe; it does not say whether it is.

    The support of a class is a softmax over the mean cosine of the item and the class's three nearest
    sentences: its title, where its policy draws the line, and the examples beyond the line.
    """

    name = "nearest-class"
    family = "minilm"

    def __init__(
        self,
        encoder: Embeds,
        taxonomy: Taxonomy,
        question: Literal["text_class", "image_class"],
        read: Callable[[Item], str | None],
    ) -> None:
        """Embed the descriptions.

        Args:
            encoder: MiniLM.
            taxonomy: where the classes stand; cut down or not.
            question: which of the two it answers.
            read: gives an item in words, or None.
        """
        self.question: Question = question
        self._read: Callable[[Item], str | None] = read
        self._encoder = encoder
        self._names = [info.name for info in taxonomy.classes()]
        sentences = [_sentences(info.spec, question) for info in taxonomy.classes()]
        vectors = encoder.embed([s for few in sentences for s in few])
        ends = np.cumsum([len(few) for few in sentences])[:-1]
        self._vectors: list[Floats] = np.split(vectors, ends)

    def annotate(self, items: Sequence[Item], progress: Progress) -> list[Vote]:
        """One vote an item: the nearest class and its support."""
        words = [self._read(item) for item in items]
        embedded = self._encoder.embed([text or "" for text in words])
        votes = []
        for item, text, row in zip(items, words, embedded, strict=True):
            if text and text.strip():
                near = np.array([np.sort(v @ row)[-NEAREST:].mean() for v in self._vectors], np.float64)
                support = softmax(near.round(4) / TEMPERATURE)
                best = int(support.argmax())
                votes.append(vote(item.id, self, self._names[best], float(support[best])))
            else:
                votes.append(failed_vote(item.id, self, "unscorable", "no words to judge by"))
            progress.advance()
        return votes


def text_classes(encoder: Embeds, taxonomy: Taxonomy) -> NearestClass[TextItem]:
    """Classes of queries, from their words."""
    return NearestClass(encoder, taxonomy, "text_class", lambda item: item.text)


def image_classes(encoder: Embeds, taxonomy: Taxonomy) -> NearestClass[ImageItem]:
    """Classes of images, from the caption and the text read from them."""
    return NearestClass(encoder, taxonomy, "image_class", lambda item: describe(item.caption, item.ocr_text))


def softmax(logits: NDArray[np.float64]) -> NDArray[np.float64]:
    """Shares that sum to 1."""
    weights = np.exp(logits - logits.max())
    shares: NDArray[np.float64] = weights / weights.sum()
    return shares


def _sentences(spec: SafetyClass, question: Literal["text_class", "image_class"]) -> list[str]:
    line = spec.policy.text if question == "text_class" else spec.policy.image
    return [spec.title, line.unsafe, *line.examples_unsafe]

"""Annotators that look at pixels and at nothing else."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import cache
from typing import TYPE_CHECKING, Protocol, TypeVar

import numpy as np
from numpy.typing import NDArray

from pipeline.annotators.base import ImageItem, Question, Vote, failed_vote, vote
from pipeline.annotators.classes import softmax
from pipeline.parallel import WorkerDied, elsewhere, in_processes

if TYPE_CHECKING:
    from PIL.Image import Image

    from pipeline.annotators.heads import Floats
    from pipeline.encoders import EncoderAt, FeatureStore
    from pipeline.encoders.calibrate import Calibration
    from pipeline.workspace import Progress
    from schemas.taxonomy import Taxonomy

__all__ = ["Compares", "EncoderAnnotator", "NudityAnnotator", "ScoresNudity", "embedded"]

BATCH = 16
LOOKED_UP = 1024
"""Images whose kept embeddings are looked up together."""
COMMITTED = 64
"""New embeddings that are kept together: what a kill can cost."""

Seen = TypeVar("Seen")


class Compares(Protocol):
    """An image-text encoder."""

    @property
    def identity(self) -> str:
        """Name of what turns images into embeddings."""
        ...

    def embed_each(self, loads: Iterable[Callable[[], Image]]) -> Iterator[Floats | str]:
        """The embedding of each image, of length 1, or why it did not load; few are in memory at once."""
        ...

    def embed_texts(self, texts: Sequence[str]) -> Floats:
        """Embeddings of texts in the same space, of length 1."""
        ...


class ScoresNudity(Protocol):
    """A nudity classifier."""

    def score(self, images: Sequence[Image]) -> list[float]:
        """P(pornographic) of each image."""
        ...


def embedded(
    encoder: Compares, items: Sequence[ImageItem], kept: FeatureStore | None, at: EncoderAt | None = None
) -> Iterator[tuple[ImageItem, Floats | str]]:
    """Each item with its embedding, or with why its image did not load.

    Args:
        encoder: an image-text encoder.
        items: their images are loaded as they are needed.
        kept: where embeddings are kept and looked up; None for nowhere.
        at: how others load the encoder, where they work for the build; None where it stays here.
    """

    def embed_each(some: Iterable[ImageItem]) -> Iterator[Floats | str]:
        if at is not None and elsewhere():
            return at.embed_each(item.jpeg() for item in some if item.jpeg)
        return encoder.embed_each(item.load for item in some)

    if kept is None:
        yield from zip(items, embed_each(items), strict=True)
        return
    who = encoder.identity
    for start in range(0, len(items), LOOKED_UP):
        some = items[start : start + LOOKED_UP]
        contents = {item.id: hashlib.sha256(item.jpeg()).hexdigest() for item in some if item.jpeg}
        known = kept.get(who, contents)
        seen = embed_each(item for item in some if item.id not in known)
        new: list[tuple[str, str, Floats]] = []
        for item in some:
            row = known[item.id] if item.id in known else next(seen)
            if item.id in contents and item.id not in known and not isinstance(row, str):
                new.append((item.id, contents[item.id], row))
            if len(new) == COMMITTED:
                kept.put(who, new)
                new = []
            yield item, row
        kept.put(who, new)


class EncoderAnnotator:
    """Is an image unsafe, and of which class? Zero-shot, against the taxonomy's encoder prompts.

    P(unsafe) is the share that the unsafe sentences of all classes have in a softmax over the best sentence
    of each class and side. The class is the one whose unsafe sentences are nearest.
    """

    name = "encoder"
    question: Question = "image_safe"

    def __init__(
        self,
        encoder: Compares,
        taxonomy: Taxonomy,
        *,
        family: str = "efficientnet-lite2",
        temperature: float = 0.05,
        offset: float = 0.0,
        threshold: float = 0.5,
        kept: FeatureStore | None = None,
        calibration: Calibration | None = None,
        at: EncoderAt | None = None,
    ) -> None:
        """Embed the sentences.

        Args:
            encoder: an image-text encoder.
            taxonomy: where the sentences stand.
            family: the lineage of its weights.
            temperature: turns cosines into shares.
            offset: taken from the cosine of every unsafe sentence; calibrates the encoder.
            threshold: P(unsafe) from which its own value is `unsafe`.
            kept: where embeddings are kept; by default they are not.
            calibration: thresholds by class; with them P(unsafe) is that of the likeliest class, .5 at its
                threshold.
            at: how others load the encoder, where they work for the build; by default it stays here.
        """
        self.family = family
        self._at = at
        self._kept = kept
        self._calibration = calibration
        self.encoder = encoder
        self._temperature = temperature
        self._offset = offset
        self._threshold = threshold
        self._unsafe = [
            (info.name, encoder.embed_texts(info.spec.encoder_prompts.unsafe))
            for info in taxonomy.classes()
            if info.spec.encoder_prompts.unsafe
        ]
        self._safe = [encoder.embed_texts(info.spec.encoder_prompts.safe) for info in taxonomy.classes()]

    def annotate(self, items: Sequence[ImageItem], progress: Progress) -> list[Vote]:
        """Two votes an item, on `image_safe` and on `image_class`."""
        votes: list[Vote] = []
        for item, row in embedded(self.encoder, items, self._kept, self._at):
            if isinstance(row, str):
                votes.append(failed_vote(item.id, self, "error", row))
            else:
                votes += self._votes(item.id, row.astype(np.float64))
            progress.advance()
        return votes

    def shares(self, row: NDArray[np.float64]) -> NDArray[np.float64]:
        """What the unsafe sentences of each of `unsafe_classes` have in the softmax, for one embedding."""
        unsafe = self._nearest_unsafe(row)
        safe = np.array([(vectors @ row).max() for vectors in self._safe])
        return softmax(np.concatenate([unsafe, safe]).round(4) / self._temperature)[: len(unsafe)]

    def _nearest_unsafe(self, row: NDArray[np.float64]) -> NDArray[np.float64]:
        return np.array([(vectors @ row).max() - self._offset for _, vectors in self._unsafe])

    @property
    def unsafe_classes(self) -> list[str]:
        """The classes that have unsafe sentences."""
        return [name for name, _ in self._unsafe]

    def _votes(self, item_id: str, row: NDArray[np.float64]) -> list[Vote]:
        shares = self.shares(row)
        score = float(shares.sum())
        best = int(self._nearest_unsafe(row).argmax())
        support = float(shares[best] / score) if score else 0.0
        if self._calibration is not None:
            score = self._calibration.score(self.unsafe_classes, shares)
        value = "unsafe" if round(score, 3) >= self._threshold else "safe"
        name = self.unsafe_classes[best]
        return [
            vote(item_id, self, value, score),
            Vote(item_id, "image_class", self.name, self.family, "ok", name, round(support, 3)),
        ]


class NudityAnnotator:
    """Is an image pornographic? It knows no other harm, so that a low score is no vote for `safe`."""

    name = "nudity"
    family = "open-nsfw"
    question: Question = "image_safe"

    def __init__(self, classifier: ScoresNudity, *, borderline: float = 0.2, unsafe: float = 0.8) -> None:
        """Bind the classifier; its makers read less than .2 as safe and more than .8 as unsafe."""
        self._classifier = classifier
        self._borderline = borderline
        self._unsafe = unsafe

    def _scored(self, items: Sequence[ImageItem]) -> Iterator[tuple[ImageItem, float | str]]:
        """Each item with its score, or with why it has none."""
        if not elsewhere():
            yield from _looked_at(items, self._classifier.score)
            return
        scores = in_processes(_nudity_of, (item.jpeg() for item in items if item.jpeg), chunk=BATCH)
        for item, (_, score) in zip(items, scores, strict=True):
            yield item, "killed the process that looked at it" if isinstance(score, WorkerDied) else score

    def annotate(self, items: Sequence[ImageItem], progress: Progress) -> list[Vote]:
        """One vote an item, and one for `sexual_content` where nudity was found."""
        votes: list[Vote] = []
        for item, score in self._scored(items):
            if isinstance(score, str):
                votes.append(failed_vote(item.id, self, "error", score))
            elif score < self._borderline:
                note = f"no nudity ({score:.3f}); other harms are not judged"
                votes.append(failed_vote(item.id, self, "unscorable", note))
            else:
                votes.append(vote(item.id, self, "unsafe" if score >= self._unsafe else "borderline", score))
                votes.append(
                    Vote(
                        item.id,
                        "image_class",
                        self.name,
                        self.family,
                        "ok",
                        "sexual_content",
                        round(score, 3),
                    )
                )
            progress.advance()
        return votes


@cache
def _nudity() -> ScoresNudity:
    from pipeline.encoders import load_nudity_classifier

    return load_nudity_classifier()


def _nudity_of(data: bytes) -> float | str:
    from pipeline.encoders import decoded

    try:
        return _nudity().score([decoded(data)])[0]
    except (OSError, ValueError) as error:
        return f"the image does not load: {error}"


def _looked_at(
    items: Sequence[ImageItem], look: Callable[[Sequence[Image]], list[Seen]]
) -> Iterator[tuple[ImageItem, Seen | str]]:
    """Each item with what `look` saw in its image, or with why the image did not load. A few at a time."""
    for start in range(0, len(items), BATCH):
        seen: dict[int, Seen | str] = {}
        images = []
        for i, item in enumerate(items[start : start + BATCH]):
            try:
                images.append((i, item.load()))
            except (OSError, ValueError) as error:
                seen[i] = f"the image does not load: {error}"
        results = look([image for _, image in images])
        seen.update({i: result for (i, _), result in zip(images, results, strict=True)})
        for i, item in enumerate(items[start : start + BATCH]):
            yield item, seen[i]

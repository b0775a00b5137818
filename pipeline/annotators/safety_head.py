"""The safety head as an annotator of images; of one that it was trained on it says what it said unseen.

The file is written by `holisafe safellava folds`. It holds a head that was trained on all images of a
dataset, and of each of these what a head said that had not seen it, nor any of its leak group.
"""

from __future__ import annotations

import hashlib
import io
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Protocol
from zipfile import BadZipFile

import numpy as np
from numpy.typing import NDArray

from pipeline.annotators.base import ImageItem, Question, Vote, failed_vote, vote
from pipeline.store import write_bytes
from schemas.errors import InputError

if TYPE_CHECKING:
    from PIL.Image import Image

    from pipeline.workspace import Progress

__all__ = ["FAMILY", "SafetyHead", "SafetyHeadAnnotator", "Sees", "load_safety_head", "save_safety_head"]

FAMILY = "safellava"
MEND = "write it again with `holisafe safellava folds`"

Floats = NDArray[np.float32]
_ERF = np.vectorize(math.erf, otypes=[np.float64])


class Sees(Protocol):
    """An image encoder with features below its heads."""

    @property
    def identity(self) -> str:
        """Name of the weights."""
        ...

    def features(self, images: Sequence[Image]) -> Floats:
        """Features (n, width) of images."""
        ...


@dataclass(frozen=True)
class SafetyHead:
    """Linear(h, h/2), GELU, Linear(h/2, classes) on standardised features, and what it says out of fold.

    Attributes:
        encoder: the identity of the encoder whose features it reads.
        mean: of the features it was trained on (h).
        scale: their standard deviations (h).
        hidden: weights (h/2, h).
        hidden_bias: intercepts (h/2).
        out: weights (classes, h/2); class 0 is that of safe images.
        out_bias: intercepts (classes).
        known: of what it was trained on the SHA-256 of each file, and the image id where there is one.
        known_unsafe: P(unsafe) of each by a head that had not seen it, 0..1.
    """

    encoder: str
    mean: Floats
    scale: Floats
    hidden: Floats
    hidden_bias: Floats
    out: Floats
    out_bias: Floats
    known: list[str]
    known_unsafe: Floats

    def probabilities(self, features: Floats) -> NDArray[np.float64]:
        """The classes' probabilities of features (n, h): (n, classes)."""
        x = (features.astype(np.float64) - self.mean) / self.scale
        layer = x @ self.hidden.T + self.hidden_bias
        layer = layer * (1 + _ERF(layer / math.sqrt(2))) / 2
        logits = layer @ self.out.T + self.out_bias
        shares = np.exp(logits - logits.max(1, keepdims=True))
        return np.asarray(shares / shares.sum(1, keepdims=True), np.float64)


def save_safety_head(path: Path, head: SafetyHead) -> None:
    """Write a head; the same head gives the same bytes."""
    buffer = io.BytesIO()
    arrays = {name: getattr(head, name) for name in SafetyHead.__dataclass_fields__}
    arrays |= {"known": np.array(head.known, "S64"), "encoder": np.array(head.encoder)}
    np.savez(buffer, **arrays)
    write_bytes(path, buffer.getvalue())


def load_safety_head(path: Path) -> SafetyHead:
    """Read what `save_safety_head` wrote.

    Raises:
        InputError: when the file is missing or holds something else.
    """
    try:
        with np.load(path, allow_pickle=False) as arrays:
            found = {name: arrays[name] for name in SafetyHead.__dataclass_fields__}
        known = [name.decode() for name in found.pop("known").tolist()]
        head = SafetyHead(encoder=str(found.pop("encoder")), known=known, **found)
        wide, narrow = head.mean.shape[0], head.hidden_bias.shape[0]
    except FileNotFoundError:
        raise InputError(f"{path}: annotators.safety_head: no such file; {MEND}") from None
    except (OSError, EOFError, BadZipFile, KeyError, ValueError, IndexError, TypeError) as error:
        raise InputError(f"{path}: annotators.safety_head: cannot be read ({error}); {MEND}") from error
    shapes = [head.hidden.shape, head.out.shape, head.scale.shape, head.known_unsafe.shape]
    if shapes != [(narrow, wide), (len(head.out_bias), narrow), (wide,), (len(known),)]:
        raise InputError(f"{path}: annotators.safety_head: arrays do not go together: {shapes}; {MEND}")
    numbers = (head.mean, head.hidden, head.hidden_bias, head.out, head.out_bias, head.known_unsafe)
    # A channel that says nothing has an infinite scale.
    if np.isnan(head.scale).any() or not all(np.isfinite(some).all() for some in numbers):
        raise InputError(f"{path}: annotators.safety_head: has numbers that are none; {MEND}")
    return head


class SafetyHeadAnnotator:
    """Is an image unsafe, by the safety head?"""

    name = "safety-head"
    family = FAMILY
    question: Question = "image_safe"

    def __init__(self, encoder: Sees, head: SafetyHead, threshold: float = 0.5) -> None:
        """Bind an encoder and a head.

        Args:
            encoder: whose features the head was trained on.
            head: the head.
            threshold: P(unsafe) from which its own value is `unsafe`.

        Raises:
            InputError: when the head was trained on another encoder.
        """
        if head.encoder != encoder.identity:
            raise InputError(
                f"annotators.safety_head: trained on {head.encoder}, and here is {encoder.identity}; {MEND}"
            )
        self._encoder, self._head, self._threshold = encoder, head, threshold
        self._known = dict(zip(head.known, head.known_unsafe.tolist(), strict=True))

    def annotate(self, items: Sequence[ImageItem], progress: Progress) -> list[Vote]:
        """One vote an item, three places; an image that does not load is unscorable."""
        votes = []
        for item in items:
            blind = self._known.get(item.id)
            if blind is None and item.jpeg:
                blind = self._known.get(hashlib.sha256(item.jpeg()).hexdigest())
            try:
                score = round(self._unsafe(item) if blind is None else blind, 3)
            except (OSError, ValueError) as error:
                votes.append(failed_vote(item.id, self, "unscorable", str(error)))
            else:
                value = "unsafe" if score >= self._threshold else "safe"
                votes.append(vote(item.id, self, value, score))
            progress.advance()
        return votes

    def _unsafe(self, item: ImageItem) -> float:
        return float(1 - self._head.probabilities(self._encoder.features([item.load()]))[0, 0])

"""Small heads on MiniLM embeddings: quick, and of another family than the language model.

A text is judged by a logistic regression. A pair needs more: whether a query is harmful depends on the image,
which no sum of the two can say, so it is judged by a network with one hidden layer.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

import numpy as np
from numpy.typing import NDArray

from pipeline.annotators.base import PairItem, Question, TextItem, Vote, failed_vote, vote
from schemas.errors import InputError

if TYPE_CHECKING:
    from pipeline.workspace import Progress

__all__ = [
    "PAIR_HEAD",
    "TEXT_HEAD",
    "Embeds",
    "LinearHead",
    "PairHead",
    "PairNetwork",
    "TextHead",
    "load_head",
    "load_pair_network",
    "pair_features",
    "save_head",
    "save_pair_network",
]

TEXT_HEAD = Path(__file__).with_name("text_head.npz")
"""The regression that ships, for texts."""
PAIR_HEAD = Path(__file__).with_name("pair_head.npz")
"""The heads that ship with the package; the JSON beside each says what they were trained on."""

FAMILY = "minilm"
DIM = 384
"""Length of a sentence's embedding."""

Floats = NDArray[np.float32]


class Embeds(Protocol):
    """A sentence encoder."""

    def embed(self, texts: Sequence[str]) -> Floats:
        """Embeddings (n, 384) of length 1."""
        ...


@dataclass(frozen=True)
class LinearHead:
    """P(unsafe) from features: a logistic regression.

    Attributes:
        weight: one weight a feature.
        bias: the intercept.
    """

    weight: Floats
    bias: float

    def scores(self, features: Floats) -> list[float]:
        """P(unsafe) of each row, rounded to three places."""
        logits = features.astype(np.float64) @ self.weight.astype(np.float64) + self.bias
        return [round(float(p), 3) for p in 1 / (1 + np.exp(-logits))]


def load_head(path: Path, features: int) -> LinearHead:
    """Read a head: `features` weights and the bias, float32, in the array `head`.

    Raises:
        InputError: when the file is missing or holds something else.
    """
    mend = f"train it again with scripts/train_{path.stem}.py"
    try:
        with np.load(path, allow_pickle=False) as arrays:
            values = arrays["head"]
    except (OSError, KeyError, ValueError) as error:
        raise InputError(f"{path}: head: cannot be read ({error}); {mend}") from error
    if values.shape != (features + 1,) or values.dtype != np.float32 or not np.isfinite(values).all():
        found = f"{values.dtype}{list(values.shape)}"
        raise InputError(f"{path}: head: {found}, but {features + 1} finite float32 are needed; {mend}")
    return LinearHead(values[:-1], float(values[-1]))


def save_head(path: Path, head: LinearHead, about: dict[str, object]) -> None:
    """Write a head, and beside it in JSON what it was trained on."""
    np.savez(path, head=np.append(head.weight, np.float32(head.bias)).astype(np.float32))
    path.with_suffix(".json").write_text(json.dumps(about, ensure_ascii=False, indent=2) + "\n", "utf-8")


@dataclass(frozen=True)
class PairNetwork:
    """P(unsafe) from features: one hidden layer of rectified units.

    Attributes:
        hidden: weights (features, units) into the layer.
        hidden_bias: its intercepts (units).
        out: weights (units) out of it.
        bias: the last intercept.
    """

    hidden: Floats
    hidden_bias: Floats
    out: Floats
    bias: float

    def scores(self, features: Floats) -> list[float]:
        """P(unsafe) of each row, rounded to three places."""
        layer = np.maximum(features.astype(np.float64) @ self.hidden + self.hidden_bias, 0)
        return [round(float(p), 3) for p in 1 / (1 + np.exp(-(layer @ self.out + self.bias)))]


def load_pair_network(path: Path) -> PairNetwork:
    """Read a pair network: the arrays `hidden`, `hidden_bias`, `out` and `bias`.

    Raises:
        InputError: when the file is missing or holds something else.
    """
    mend = f"train it again with scripts/train_{path.stem}.py"
    try:
        with np.load(path, allow_pickle=False) as arrays:
            hidden, hidden_bias, out, bias = (
                arrays[name].astype(np.float64) for name in ("hidden", "hidden_bias", "out", "bias")
            )
    except (OSError, KeyError, ValueError) as error:
        raise InputError(f"{path}: cannot be read ({error}); {mend}") from error
    units = out.shape[0] if out.ndim == 1 else -1
    shapes = hidden.shape == (PAIR_FEATURES, units) and hidden_bias.shape == (units,) and bias.shape == ()
    if not shapes or not all(np.isfinite(part).all() for part in (hidden, hidden_bias, out, bias)):
        raise InputError(
            f"{path}: hidden: {list(hidden.shape)}, but [{PAIR_FEATURES}, units] is needed; {mend}"
        )
    return PairNetwork(hidden, hidden_bias, out, float(bias))


def save_pair_network(path: Path, network: PairNetwork, about: dict[str, object]) -> None:
    """Write a pair network in half precision, and beside it in JSON what it was trained on."""
    np.savez(
        path,
        hidden=network.hidden.astype(np.float16),
        hidden_bias=network.hidden_bias.astype(np.float16),
        out=network.out.astype(np.float16),
        bias=np.float32(network.bias),
    )
    path.with_suffix(".json").write_text(json.dumps(about, ensure_ascii=False, indent=2) + "\n", "utf-8")


def pair_features(encoder: Embeds, items: Sequence[tuple[str, str]]) -> Floats:
    """Features (n, 1152) of (evidence, query) pairs: the embeddings of each and of both together, scaled."""
    parts = [[e for e, _ in items], [q for _, q in items], [f"{q}\n{e}" for e, q in items]]
    return np.hstack([encoder.embed(texts) for texts in parts]) * np.float32(DIM**0.5)


PAIR_FEATURES = 3 * DIM
"""Length of what the network of pairs is given."""


class TextHead:
    """Is a query unsafe as text?

    Args:
        encoder: MiniLM.
        head: 384 weights and a bias.
        threshold: P(unsafe) from which its own value is `unsafe`.
    """

    name = "text-head"
    family = FAMILY
    question: Question = "text_safe"

    def __init__(self, encoder: Embeds, head: LinearHead, threshold: float = 0.5) -> None:
        """Bind encoder and head."""
        self._encoder = encoder
        self._head = head
        self._threshold = threshold

    def annotate(self, items: Sequence[TextItem], progress: Progress) -> list[Vote]:
        """One vote an item; an empty text is unscorable."""
        scores = self._head.scores(self._encoder.embed([item.text for item in items]))
        votes: list[Vote] = []
        for item, score in zip(items, scores, strict=True):
            if item.text.strip():
                votes.append(vote(item.id, self, "unsafe" if score >= self._threshold else "safe", score))
            else:
                votes.append(failed_vote(item.id, self, "unscorable", "the text is empty"))
            progress.advance()
        return votes


class PairHead:
    """Is a query unsafe together with an image in words?

    Args:
        encoder: MiniLM.
        head: for `pair_features`.
        threshold: P(unsafe) from which its own value is `unsafe`.
    """

    name = "pair-head"
    family = FAMILY
    question: Question = "pair_safe"

    def __init__(self, encoder: Embeds, head: PairNetwork, threshold: float = 0.5) -> None:
        """Bind encoder and head."""
        self._encoder = encoder
        self._head = head
        self._threshold = threshold

    def annotate(self, items: Sequence[PairItem], progress: Progress) -> list[Vote]:
        """One vote an item; a pair without evidence or query is unscorable."""
        pairs = [(item.evidence, item.query) for item in items]
        scores = self._head.scores(pair_features(self._encoder, pairs))
        votes: list[Vote] = []
        for item, score in zip(items, scores, strict=True):
            if not item.evidence.strip():
                votes.append(failed_vote(item.id, self, "unscorable", "nothing is known of the image"))
            elif not item.query.strip():
                votes.append(failed_vote(item.id, self, "unscorable", "the query is empty"))
            else:
                votes.append(vote(item.id, self, "unsafe" if score >= self._threshold else "safe", score))
            progress.advance()
        return votes

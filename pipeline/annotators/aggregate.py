"""Votes on one item become one label."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

from pipeline.annotators.base import Vote
from pipeline.annotators.reliability import Posterior, posteriors

__all__ = ["ClassLabel", "Label", "aggregate", "aggregate_class"]


@dataclass(frozen=True, slots=True)
class Label:
    """What the votes on one item say together.

    Attributes:
        value: `safe` or `unsafe`; None when nobody could score the item, which is not `safe`.
        score: P(unsafe) by all families that voted, rounded to three places.
        agreement: share of those families that say the same by themselves.
        n: how many families voted.
    """

    value: Literal["safe", "unsafe"] | None
    score: float | None
    agreement: float | None
    n: int


@dataclass(frozen=True, slots=True)
class ClassLabel:
    """The class that the votes support most.

    Attributes:
        value: the class; None when nobody named one.
        support: its share of the support of all classes, 0..1.
        n: how many votes named a class.
    """

    value: str | None
    support: float | None
    n: int


def aggregate(votes: Iterable[Vote], threshold: float) -> dict[str, Label]:
    """The label of each item from all votes on one `…_safe` question.

    Give the votes of one class at a time: how far families can be trusted is estimated from them
    (`reliability`), and a new class must not move the labels of another.

    Args:
        votes: every vote on the items, whatever its status.
        threshold: the score from which an item is unsafe, from params.

    Raises:
        ValueError: when the votes are on several questions.
    """
    found, _ = posteriors(votes, threshold)
    return {item_id: _label(posterior, threshold) for item_id, posterior in found.items()}


def _label(posterior: Posterior, threshold: float) -> Label:
    p = posterior.p_unsafe
    if p is None:
        return Label(None, None, None, 0)
    return Label("unsafe" if p >= threshold else "safe", p, posterior.agreement, posterior.n)


def aggregate_class(votes: Iterable[Vote]) -> ClassLabel:
    """The class of one item, from its votes on one `…_class` question: the most support in sum.

    Votes for `safe` name no class. Of two classes with the same support the first in the alphabet wins.
    """
    support: dict[str, float] = defaultdict(float)
    n = 0
    for v in _usable(votes):
        if v.value != "safe":
            support[str(v.value)] += v.score or 0.0
            n += 1
    if not support:
        return ClassLabel(None, None, 0)
    best = min(support, key=lambda name: (-round(support[name], 6), name))
    total = sum(support.values())
    return ClassLabel(best, round(support[best] / total, 3) if total else None, n)


def _usable(votes: Iterable[Vote]) -> list[Vote]:
    known = list(votes)
    if len({(v.item_id, v.question) for v in known}) > 1:
        raise ValueError("votes on several items or questions; aggregate one item and one question at a time")
    return [v for v in known if v.status == "ok"]

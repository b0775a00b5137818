"""Votes on one item become one label."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

from pipeline.annotators.base import Vote

__all__ = ["ClassLabel", "Label", "aggregate", "aggregate_class"]


@dataclass(frozen=True, slots=True)
class Label:
    """What the votes on one item say together.

    Attributes:
        value: `safe` or `unsafe`; None when nobody could score the item, which is not `safe`.
        score: mean P(unsafe) over the families that voted, rounded to three places.
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


def aggregate(votes: Iterable[Vote], threshold: float) -> Label:
    """The label of one item from its votes on one `…_safe` question.

    The score is the mean P(unsafe), first within a family and then over families, so that two sizes of one
    model do not outvote another. Votes without a score do not count.

    Args:
        votes: every vote on the item, whatever its status.
        threshold: the score from which the item is unsafe, from params.

    Raises:
        ValueError: when the votes are on several items or questions.
    """
    scores = _by_family(votes)
    if not scores:
        return Label(None, None, None, 0)
    means = [sum(values) / len(values) for _, values in sorted(scores.items())]
    score = round(sum(means) / len(means), 3)
    unsafe = score >= threshold
    agreeing = sum((mean >= threshold) == unsafe for mean in means)
    return Label("unsafe" if unsafe else "safe", score, round(agreeing / len(means), 3), len(means))


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


def _by_family(votes: Iterable[Vote]) -> dict[str, list[float]]:
    scores: dict[str, list[float]] = defaultdict(list)
    for v in _usable(votes):
        if v.score is not None:
            scores[v.family].append(v.score)
    return scores


def _usable(votes: Iterable[Vote]) -> list[Vote]:
    known = list(votes)
    if len({(v.item_id, v.question) for v in known}) > 1:
        raise ValueError("votes on several items or questions; aggregate one item and one question at a time")
    return [v for v in known if v.status == "ok"]

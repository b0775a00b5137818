"""Votes on one item become one label.

A majority of the people that voted on an item decides it, whatever models say; where people are divided, or
none has voted, models decide. How far models can be trusted is estimated from their votes alone, so that a
person's vote moves the label of that item and of no other.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
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
        score: P(unsafe) by all families of models that voted, rounded to three places; where people decide,
            the share of them that says unsafe.
        agreement: share of all families, people among them, that say the same by themselves.
        n: how many families voted, people among them.
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
        support: its share of the support of all classes, 0..1; where people decide, of the people.
        n: how many votes named a class; where people decide, of people.
        by_people: whether people decide.
    """

    value: str | None
    support: float | None
    n: int
    by_people: bool = False


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
    given = list(votes)
    if len(questions := {v.question for v in given}) > 1:
        raise ValueError(f"votes on {', '.join(sorted(questions))}: aggregate one question at a time")
    found, _ = posteriors((v for v in given if not v.by_person), threshold)
    labels = {item_id: _label(posterior, threshold) for item_id, posterior in found.items()}
    people: dict[str, list[Vote]] = defaultdict(list)
    for v in given:
        if v.by_person:
            people[v.item_id].append(v)
    for item_id, own in people.items():
        labels[item_id] = _with_people(labels.get(item_id, Label(None, None, None, 0)), own)
    return labels


def _with_people(label: Label, people: Sequence[Vote]) -> Label:
    """What people make of the label that models give an item."""
    unsafe = sum(v.value == "unsafe" for v in people)
    value, score = label.value, label.score
    if 2 * unsafe != len(people):
        value = "unsafe" if 2 * unsafe > len(people) else "safe"
        score = round(unsafe / len(people), 3)
    if value is None:
        return label
    same = unsafe if value == "unsafe" else len(people) - unsafe
    if label.agreement is not None:
        agreeing = round(label.agreement * label.n)
        same += agreeing if value == label.value else label.n - agreeing
    n = label.n + len(people)
    return Label(value, score, round(same / n, 3), n)


def _label(posterior: Posterior, threshold: float) -> Label:
    p = posterior.p_unsafe
    if p is None:
        return Label(None, None, None, 0)
    return Label("unsafe" if p >= threshold else "safe", p, posterior.agreement, posterior.n)


def aggregate_class(votes: Iterable[Vote]) -> ClassLabel:
    """The class of one item, from its votes on one `…_class` question.

    It is the class that more than half of the people name, or else the one with the most support in sum.
    Votes for `safe` name no class. Of two classes with the same support the first in the alphabet wins.
    """
    support: dict[str, float] = defaultdict(float)
    n = 0
    usable = _usable(votes)
    named = Counter(str(v.value) for v in usable if v.by_person)
    for name, count in named.items():
        if 2 * count > named.total():
            return ClassLabel(name, round(count / named.total(), 3), named.total(), by_people=True)
    for v in usable:
        if v.by_person:
            continue
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

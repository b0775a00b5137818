"""What people said of items drawn at random, first and blind, and how often all others say the same."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

import pandas as pd

from pipeline.agreement.report import HUMAN
from pipeline.annotators import Vote, aggregate
from pipeline.annotators.base import PEOPLE
from pipeline.audit.ballots import ASKED, columns_of, votes_of
from pipeline.intervals import wilson
from schemas.reviews import HumanVote
from schemas.rows import CLASS_NONE

__all__ = ["ANY", "LABEL", "STRATA", "Gold", "equal_to_gold", "gold_of", "labels_without_people", "marked"]

Raters = Literal["one", "all agree", "most agree"]
STRATA: tuple[Raters, ...] = ("one", "all agree", "most agree")
"""By how many people an item is gold, and whether they agree: the surer, the more an error counts."""
ANY = "any"
"""All items that are gold."""
LABEL = "label"
"""Stands where an annotator does, for what all votes together, or whoever made the dataset, gave."""


@dataclass(frozen=True, slots=True)
class Gold:
    """What most people say of an item.

    Attributes:
        value: `safe` or `unsafe`.
        raters: how many say so.
    """

    value: str
    raters: Raters


def marked(votes: pd.DataFrame, said: Iterable[HumanVote]) -> pd.DataFrame:
    """The votes of a build with `gold`, as the lines that people's votes come from say.

    Args:
        votes: the columns of `VOTES`, items called as in the tables of the stages.
        said: the lines; of two by one person on the same the later counts.
    """
    last = {(vote.item_id, vote.question, PEOPLE + vote.annotator): vote for vote in said}
    # With the value, so that a line that has changed since the labels were made marks nothing.
    gold = {(*key, vote.value) for key, vote in last.items() if vote.gold}
    if not gold:
        return votes.assign(gold=False)
    keys = columns_of(votes, "item_id", "question", "family", "value")
    return votes.assign(gold=[key in gold for key in keys])


def gold_of(votes: pd.DataFrame, question: str) -> dict[str, Gold]:
    """What most people say, by item, of votes that are gold; an item on which they are divided is none."""
    if "gold" not in votes or votes.empty:
        return {}
    said: dict[str, Counter[str]] = defaultdict(Counter)
    some = votes[(votes["question"] == question) & votes["gold"].astype(bool)]
    for _, family, item, value in _answers(some):
        if value in (CLASS_NONE, "unsafe") and _is_person(family):
            said[item][value] += 1
    found = {}
    for item, counts in said.items():
        (value, most), *rest = counts.most_common()
        if not rest:
            found[item] = Gold(value, "one" if most == 1 else "all agree")
        elif rest[0][1] < most:
            found[item] = Gold(value, "most agree")
    return found


def equal_to_gold(
    votes: pd.DataFrame, labels: Mapping[str, Mapping[str, str]]
) -> dict[str, list[dict[str, Any]]]:
    """By question, how often each annotator, and the label, says of an item what gold says.

    People are left out: their votes are the gold. An answer `borderline` is neither safe nor unsafe.

    Args:
        votes: with `gold`, where any are.
        labels: by question and item; in a build those that annotators without people would give.

    Returns:
        For each annotator and each of `STRATA` that has items, and for `ANY`, of `n` answers the `equal` ones
        with the Wilson interval; the label, which has no family, comes first.
    """
    told: dict[str, list[dict[str, Any]]] = {}
    for question in ASKED:
        gold, known = gold_of(votes, question), labels.get(question, {})
        some = votes[(votes["question"] == question) & votes["item_id"].isin(gold.keys())]
        given: list[tuple[str, str | None, str, str]] = []
        given += ((LABEL, None, item, known[item]) for item in gold if item in known)
        given += sorted(answer for answer in _answers(some) if not _is_person(answer[1]))
        right: dict[tuple[str, str | None, str], list[bool]] = defaultdict(list)
        for annotator, family, item, value in given:
            for raters in (gold[item].raters, ANY):
                right[annotator, family, raters].append(value == gold[item].value)
        told[question] = [
            _row(annotator, family, raters, right[annotator, family, raters])
            for annotator, family in dict.fromkeys(who[:2] for who in right)
            for raters in (*STRATA, ANY)
            if (annotator, family, raters) in right
        ]
    return told


def _row(annotator: str, family: str | None, raters: str, right: list[bool]) -> dict[str, Any]:
    low, high = wilson(sum(right), len(right))
    return {
        "annotator": annotator,
        "family": family,
        "raters": raters,
        "n": len(right),
        "equal": sum(right),
        "low": round(low, 4),
        "high": round(high, 4),
    }


def labels_without_people(
    votes: pd.DataFrame,
    labels: Mapping[str, Mapping[str, str]],
    classes: Mapping[str, Mapping[str, str]],
    thresholds: Mapping[str, float],
) -> dict[str, dict[str, str]]:
    """The labels of a build as annotators give them without people, whose votes would decide.

    Only items that people voted on are labelled anew, from the votes of all others on their class. One that
    nobody else could score has no label.

    Args:
        votes: of the build, of models and people.
        labels: by question and item, as the build gave them.
        classes: by question and item, the class whose votes were taken together.
        thresholds: by question, P(unsafe) from which an item is unsafe.
    """
    found = {question: dict(of) for question, of in labels.items()}
    for question, threshold in thresholds.items():
        mine = votes[votes["question"] == question]
        if not mine["family"].fillna("").str.startswith(PEOPLE).any():
            continue
        given = votes_of(mine)
        judged = dict.fromkeys(vote.item_id for vote in given if vote.by_person)
        by_class: dict[str, list[Vote]] = defaultdict(list)
        for vote in given:
            if not vote.by_person:
                by_class[classes[question].get(vote.item_id, "")].append(vote)
        alone = {i: label for some in by_class.values() for i, label in aggregate(some, threshold).items()}
        for item in judged:
            label = alone.get(item)
            if label is not None and label.value is not None:
                found[question][item] = label.value
            else:
                found[question].pop(item, None)
    return found


def _answers(votes: pd.DataFrame) -> list[tuple[str, str, str, str]]:
    """Annotator, family, item and value, where there is one; each annotator once on an item."""
    names = ["annotator", "family", "item_id", "value"]
    once = votes[(votes["status"] == "ok") & votes["value"].notna()].drop_duplicates(names[:3])
    return [(who, family or who, item, value) for who, family, item, value in columns_of(once, *names)]


def _is_person(family: str) -> bool:
    return family == HUMAN or family.startswith(PEOPLE)

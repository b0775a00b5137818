"""Which labels to doubt, how many are wrong, and how many items are truly unsafe, question by question."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import pandas as pd

from pipeline.annotators.dawid_skene import confusions
from pipeline.anyset import AnySet
from pipeline.audit.ballots import ASKED, columns_of, items_of, labels_of, votes_of
from pipeline.audit.features import PIXELS, number_probabilities, text_probabilities
from pipeline.audit.gold import gold_of
from pipeline.audit.judging import Bools, Floats, Ints
from pipeline.audit.noise import noise_rate, suspects, vote_evidence
from pipeline.audit.pictures import Looks
from pipeline.audit.prevalence import Counts, needed_gold, prevalence
from pipeline.audit.probes import enough
from schemas.rows import CLASS_NONE

__all__ = ["confusion_matrices", "doubts", "true_shares"]

SUSPECTS = 300
"""Labels that are named, of all questions together."""
WIDTH = 0.10
"""Width of the interval for which more gold is asked."""
FEW_GOLD = 10
"""Gold on either side below which a class's own errors are not told: the interval would say nothing."""
_NONE = {"shares": None, "families": None}


def doubts(
    found: AnySet,
    looks: Looks,
    embeddings: Mapping[str, Floats],
    votes: pd.DataFrame,
    *,
    made: bool,
    seed: int,
) -> dict[str, Any]:
    """Estimated noise and suspects.

    The label of a text is guessed from its words, that of an image from its embedding or else from statistics
    of its pixels, that of a pair from the words of its query, each by a model that did not see it; votes are
    evidence beside. None of them saw the label, unless votes made it.

    Args:
        found: the dataset.
        looks: of its images.
        embeddings: of its images, by key; empty where there are none.
        votes: as `ballots` takes them.
        made: whether these votes made the labels.
        seed: of folds and resamples.

    Returns:
        `noise` by question, and `suspects`: those likeliest to be wrong first.
    """
    labels = labels_of(found.rows)
    first = _first_ids(found.rows)
    noise: dict[str, Any] = {}
    named: list[dict[str, Any]] = []
    for question in ASKED:
        items = list(labels[question])
        unsafe = np.array([labels[question][item] != CLASS_NONE for item in items], bool)
        guess = _guessed(question, items, unsafe, found, looks, embeddings, seed)
        if guess.p is None:
            noise[question] = {"source": guess.source, "reason": guess.reason, "rate": None}
        else:
            seen = np.isfinite(guess.p).all(1)
            rate = noise_rate(unsafe[seen], guess.p[seen], guess.groups[seen], seed)
            noise[question] = {"source": guess.source} | asdict(rate)
        given = votes_of(votes[votes["question"] == question])
        said = vote_evidence(given, items, unsafe if made else None) if given else None
        if guess.p is None and said is None:
            continue
        named += [
            {
                "item_id": items[one.index],
                "question": question,
                "id": first[question][items[one.index]],
                "given": "unsafe" if one.given else CLASS_NONE,
                "p_given": round(one.p_given, 3),
                "margin": round(one.margin, 4),
            }
            for one in suspects(unsafe, guess.p, said, SUSPECTS)
            if one.p_given < 0.5
        ]
    named.sort(key=lambda one: one["margin"])
    return {"noise": noise, "suspects": named[:SUSPECTS]}


@dataclass(frozen=True)
class _Guess:
    """P(label) of each item out of fold, NaN where nothing is seen of it, or why there is none."""

    p: Floats | None
    groups: Ints
    source: str
    reason: str


def _guessed(
    question: str,
    items: list[str],
    unsafe: Bools,
    found: AnySet,
    looks: Looks,
    embeddings: Mapping[str, Floats],
    seed: int,
) -> _Guess:
    if question == "image_safe":
        numbers, source = _of_images(items, looks, embeddings)
        seen = np.isfinite(numbers).any(1)
        alone = np.arange(len(items))
        if reason := enough(unsafe[seen], alone[seen]):
            return _Guess(None, alone, source, reason)
        p = np.full((len(items), 2), np.nan)
        p[seen] = number_probabilities(numbers[seen], unsafe[seen], seed=seed)
        return _Guess(p, alone, source, "")
    rows = found.rows
    queries = dict(zip(items_of(rows)[question], rows["query"], strict=True))
    texts = [queries[item] for item in items]
    kept: dict[str, int] = {}
    groups = np.array([kept.setdefault(text, len(kept)) for text in texts], np.int64)
    reason = enough(unsafe, groups)
    told = None if reason else text_probabilities(texts, unsafe, groups, seed)
    return _Guess(told, groups, "words of the query", reason)


def _of_images(items: list[str], looks: Looks, embeddings: Mapping[str, Floats]) -> tuple[Floats, str]:
    """What the labels of images are guessed from, NaN where it is missing, and its name."""
    if embeddings:
        width = len(next(iter(embeddings.values())))
        return np.array([embeddings.get(item, np.full(width, np.nan)) for item in items]), "embeddings"
    seen = [looks.seen[item].pixels if item in looks.seen else None for item in items]
    return np.array([[np.nan] * len(PIXELS) if row is None else row for row in seen], np.float64), "pixels"


def _first_ids(rows: pd.DataFrame) -> dict[str, dict[str, int]]:
    """The first row with each item, by question."""
    found: dict[str, dict[str, int]] = {}
    for question, items in items_of(rows).items():
        ids = found[question] = {}
        for item, id_ in zip(items, rows["id"], strict=True):
            ids.setdefault(item, int(id_))
    return found


def confusion_matrices(votes: pd.DataFrame) -> dict[str, Any]:
    """By question, each family's answers by what is true, from the votes alone (Dawid and Skene 1979).

    Returns:
        `values`, `shares` of each, and `families`: by name, true value -> answer -> P; both null with a
        `reason`.
    """
    told: dict[str, Any] = {}
    for question, some in votes[votes["status"] == "ok"].groupby("question", sort=True):
        made = confusions(
            (item, str(family or annotator), str(value))
            for item, annotator, family, value in columns_of(some, "item_id", "annotator", "family", "value")
            if value is not None
        )
        if made.estimate is None:
            told[str(question)] = {"values": made.values, "reason": made.reason} | _NONE
            continue
        told[str(question)] = {
            "values": made.values,
            "shares": [round(float(share), 4) for share in made.estimate.shares],
            "families": {
                name: {
                    true: {said: round(float(p), 4) for said, p in zip(made.values, row, strict=True)}
                    for true, row in zip(made.values, matrix, strict=True)
                }
                for name, matrix in zip(made.raters, made.estimate.matrices, strict=True)
            },
            "reason": "",
        }
    return told


def true_shares(
    votes: pd.DataFrame,
    labels: Mapping[str, Mapping[str, str]],
    classes: Mapping[str, Mapping[str, str]],
    within: Mapping[str, Collection[str]],
) -> dict[str, dict[str, Any]]:
    """By question, the share of unsafe items, corrected for the errors that gold shows in the labels.

    Gold is what most of the people say whose votes are marked as gold; an item on which they are divided is
    none. It shows errors also where an item is not in the dataset any more: in a build those are left out
    whose label turned out wrong, and without them labels would look better than they are.

    Args:
        votes: with `gold`, where any are.
        labels: by question and item; in a build those that annotators without people would give.
        classes: by question and item, the class of the harm.
        within: by question, the items of the dataset, whose share is told.

    Returns:
        The figures of `prevalence`, `gold` items, how many `more_gold` make the interval as narrow as
        `width`, and the shares `by_class`.
    """
    told: dict[str, dict[str, Any]] = {}
    for question in ASKED:
        known = labels.get(question, {})
        if not known:
            continue
        gold = {item: one.value for item, one in gold_of(votes, question).items() if item in known}
        # What is gold is not counted again.
        counted = [item for item in dict.fromkeys(within[question]) if item in known and item not in gold]
        counts = _counts(known, gold, counted)
        more = needed_gold(WIDTH, *counts)
        right = counts[1].hits + counts[2].hits
        told[question] = _share(counts) | {
            "gold": len(gold),
            "accuracy": round(right / len(gold), 4) if gold else None,
            "width": WIDTH,
            "more_gold": more.more,
            "more_gold_reason": more.reason,
            "by_class": _shares_by_class(known, gold, counted, classes[question], counts),
        }
    return told


def _shares_by_class(
    known: Mapping[str, str],
    gold: Mapping[str, str],
    counted: Sequence[str],
    classes: Mapping[str, str],
    whole: tuple[Counts, Counts, Counts],
) -> list[dict[str, Any]]:
    """The share of each class, by its own errors where its gold suffices, else by those of all classes."""
    told = []
    for name in sorted({classes[item] for item in (*counted, *gold) if item in classes}):
        own = {item: value for item, value in gold.items() if classes.get(item) == name}
        called, *errors = _counts(known, own, [item for item in counted if classes.get(item) == name])
        enough = min(side.n for side in errors) >= FEW_GOLD
        share = _share((called, *(errors if enough else whole[1:])))
        told.append(
            {"class": name, "n": called.n, "gold": len(own)}
            | {key: share[key] for key in ("apparent", "corrected", "low", "high", "reason")}
            | {"errors_of": None if share["corrected"] is None else "class" if enough else "question"}
        )
    return told


def _counts(
    known: Mapping[str, str], gold: Mapping[str, str], counted: Sequence[str]
) -> tuple[Counts, Counts, Counts]:
    """Items called unsafe of those that are counted, and those called right of either side of gold."""
    right = Counter(value for item, value in gold.items() if known[item] == value)
    of = Counter(gold.values())
    return (
        Counts(sum(known[item] != CLASS_NONE for item in counted), len(counted)),
        Counts(right["unsafe"], of["unsafe"]),
        Counts(right[CLASS_NONE], of[CLASS_NONE]),
    )


def _share(counts: tuple[Counts, Counts, Counts]) -> dict[str, Any]:
    share = asdict(prevalence(*counts))
    if not counts[0].n and (counts[1].n or counts[2].n):
        share["reason"] = "all items are gold"
    return share

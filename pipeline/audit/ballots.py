"""What votes say: how far annotators agree, what each said of which label, and who can be trusted."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

import numpy as np
import pandas as pd

from pipeline.agreement import Block, Votes, agreement_of
from pipeline.agreement.problems import Problems as VoteProblems
from pipeline.agreement.scales import Scale
from pipeline.annotators import Vote, effective_number, posteriors
from pipeline.anyset import AnySet
from pipeline.audit.coverage import classes_of
from pipeline.intervals import wilson
from pipeline.store import sha256_text
from schemas.rows import CLASS_NONE

__all__ = ["ASKED", "ballots", "columns_of", "items_of", "labels_of", "votes_of"]

ASKED = ("image_safe", "text_safe", "pair_safe")
"""The questions that a row's type answers, by the place of its letters."""
ROUNDS = 300
ELSEWHERE = "not in the dataset"
_LEFT_OUT = ("pairs", "prevalence", "raters_left_out")


def items_of(rows: pd.DataFrame) -> dict[str, list[str]]:
    """What each row's questions are about: its image's key, the SHA-256 of its query, its id."""
    return {
        "image_safe": list(rows["image"]),
        "text_safe": [sha256_text(query) for query in rows["query"]],
        "pair_safe": [str(id_) for id_ in rows["id"]],
    }


def labels_of(rows: pd.DataFrame) -> dict[str, dict[str, str]]:
    """The label that each item was given, by question: `safe` or `unsafe`, as the first row with it says."""
    word = {"S": CLASS_NONE, "U": "unsafe"}
    found: dict[str, dict[str, str]] = {}
    for letter, (question, items) in enumerate(items_of(rows).items()):
        labels = found[question] = {}
        for item, kind in zip(items, rows["type"], strict=True):
            labels.setdefault(item, word[kind[letter]])
    return found


def ballots(
    found: AnySet,
    votes: pd.DataFrame,
    labels: Mapping[str, Mapping[str, str]],
    order: Sequence[str],
    seed: int,
) -> dict[str, Any]:
    """Agreement, answers by label and reliability, by question.

    Args:
        found: the dataset, whose rows say which class and type an item is of.
        votes: `item_id`, `question`, `annotator`, `family`, `status`, `value`, `score`.
        labels: by question and item, the label that was given in the end.
        order: values in the order to show.
        seed: of the resamples.
    """
    groups = _groups(found.rows)
    questions = [
        q for q in (*ASKED, *sorted(set(votes["question"]) - set(ASKED))) if (votes["question"] == q).any()
    ]
    told: dict[str, Any] = {"agreement": {}, "annotators": {}, "reliability": {}, "accuracy": {}}
    for question in questions:
        mine = votes[votes["question"] == question]
        # An image's class is a question about the image, too.
        of_item = groups.get(question) or groups[f"{question.split('_')[0]}_safe"]
        known = labels.get(question, {})
        told["agreement"][question] = _agreement(mine, of_item, seed)
        told["annotators"][question] = _answers(mine, known, order)
        told["accuracy"][question] = _accuracy(mine, known, of_item)
        if question.endswith("_safe"):
            told["reliability"][question] = _reliability(mine)
    return told


def _groups(rows: pd.DataFrame) -> dict[str, dict[str, str]]:
    """Class and type of each item, by question; those of the first row that has it."""
    names = [f"{name} {kind}" for name, kind in zip(classes_of(rows)[1], rows["type"], strict=True)]
    found: dict[str, dict[str, str]] = {}
    for question, items in items_of(rows).items():
        groups = found[question] = {}
        for item, name in zip(items, names, strict=True):
            groups.setdefault(item, name)
    return found


def _agreement(votes: pd.DataFrame, of_item: Mapping[str, str], seed: int) -> dict[str, Any]:
    some = votes[(votes["status"] == "ok") & votes["value"].notna()].drop_duplicates(["item_id", "annotator"])
    table, groups = _as_votes(some, some["item_id"].map(lambda item: of_item.get(item, ELSEWHERE)))
    told = agreement_of(table, "", ROUNDS, seed)
    by_group = told.groups if groups else {}
    return {
        "overall": asdict(told.overall),
        "groups": {name: _short(block) for name, block in by_group.items()},
    }


def _short(block: Block) -> dict[str, Any]:
    return {name: value for name, value in asdict(block.all).items() if name not in _LEFT_OUT}


def _as_votes(some: pd.DataFrame, group: pd.Series) -> tuple[Votes, list[str]]:
    codes = {
        name: pd.factorize(column, sort=True)
        for name, column in (
            ("item", some["item_id"]),
            ("annotator", some["annotator"]),
            ("family", some["family"].fillna(some["annotator"])),
            ("value", some["value"]),
            ("group", group),
        )
    }
    number = {name: code.astype(np.int64) for name, (code, _) in codes.items()}
    names = {name: [str(one) for one in known] for name, (_, known) in codes.items()}
    table = Votes(
        rows=len(some),
        missing=0,
        **number,
        annotators=names["annotator"],
        families=names["family"],
        groups=names["group"],
        values=names["value"],
        number=np.full(len(names["value"]), np.nan),
        scales=[Scale("nominal")] * max(1, len(names["group"])),
        has_families=True,
        name=number["item"],
        names=names["item"],
        question=np.zeros(len(some), np.int64),
        questions=[],
        gold=np.zeros(len(some), np.bool_),
        problems=VoteProblems(),
    )
    return table, names["group"]


def _answers(
    votes: pd.DataFrame, labels: Mapping[str, str], order: Sequence[str]
) -> dict[str, dict[str, dict[str, int]]]:
    """Annotator -> label -> answer (or status, where it gave none) -> count."""

    def rank(value: str) -> tuple[int, str]:
        return (order.index(value) if value in order else len(order)), value

    counts: Counter[tuple[str, str, str]] = Counter()
    for item, annotator, status, value in columns_of(votes, "item_id", "annotator", "status", "value"):
        if item in labels:
            counts[annotator, labels[item], value if status == "ok" else status] += 1
    told: dict[str, dict[str, dict[str, int]]] = {}
    for annotator, label, answer in sorted(counts, key=lambda key: (key[0], rank(key[1]), rank(key[2]))):
        told.setdefault(annotator, {}).setdefault(label, {})[answer] = counts[annotator, label, answer]
    return told


def _accuracy(
    votes: pd.DataFrame, labels: Mapping[str, str], of_item: Mapping[str, str]
) -> dict[str, list[dict[str, Any]]]:
    """By annotator and group, how often its answer is the label that was given, worst first."""
    n: Counter[tuple[str, str]] = Counter()
    equal: Counter[tuple[str, str]] = Counter()
    for item, annotator, status, value in columns_of(votes, "item_id", "annotator", "status", "value"):
        if status == "ok" and item in labels and item in of_item:
            n[annotator, of_item[item]] += 1
            equal[annotator, of_item[item]] += value == labels[item]
    told: dict[str, list[dict[str, Any]]] = {}
    for key in sorted(n, key=lambda key: (key[0], equal[key] / n[key], key[1])):
        low, high = wilson(equal[key], n[key])
        told.setdefault(key[0], []).append(
            {"group": key[1], "n": n[key], "equal": equal[key], "low": round(low, 4), "high": round(high, 4)}
        )
    return told


def _reliability(votes: pd.DataFrame) -> dict[str, Any]:
    """How far each family can be trusted, and how many independent ones the panel is worth."""
    given = votes_of(votes)
    _, families = posteriors(given)
    return {
        "effective_number": effective_number(given),
        "families": [asdict(family) | {"informedness": family.informedness} for family in families],
    }


def votes_of(votes: pd.DataFrame) -> list[Vote]:
    """Votes as annotators give them; one without a score is sure of what it says."""
    names = ("item_id", "question", "annotator", "family", "status", "value", "score")
    given = []
    for item, question, annotator, family, status, value, score in columns_of(votes, *names):
        if status == "ok" and score is None and value in (CLASS_NONE, "unsafe"):
            score = float(value == "unsafe")
        if status != "ok" or value is None or score is None:
            status, value, score = ("unscorable" if status == "ok" else status), None, None
        told = None if score is None else round(score, 3)
        given.append(Vote(item, question, annotator, family or annotator, status, value, told))
    return given


def columns_of(votes: pd.DataFrame, *names: str) -> Any:
    """Columns side by side, None where there is nothing."""
    return zip(*(_cells(votes[n]) if n in votes else [None] * len(votes) for n in names), strict=True)


def _cells(column: pd.Series) -> Any:
    """The values of a column; equal ones are one object, since votes say little that is new."""
    codes, values = pd.factorize(column)
    return np.append(np.asarray(values, object), [None])[codes]

"""Which rows come up, and in which order: the same for every reviewer, and after every stop."""

from __future__ import annotations

import json
from collections import Counter, defaultdict
from collections.abc import Collection, Iterable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from pipeline.review.items import ASKED, ReviewSet
from pipeline.store import sha256_text
from schemas.errors import InputError

__all__ = ["CLASS", "RANDOM", "Queue", "build_queues", "read_suspects"]

RANDOM = "random"
"""The queue whose first votes are gold."""
CLASS = "class:"
METRICS = "metrics.json"


@dataclass(frozen=True)
class Queue:
    """Rows in an order.

    Attributes:
        name: how the page and the store call it.
        title: how people call it.
        about: what is in it, or why nothing is.
        order: places of rows in the dataset.
    """

    name: str
    title: str
    about: str
    order: tuple[int, ...]

    @cached_property
    def members(self) -> frozenset[int]:
        """The rows, without their order."""
        return frozenset(self.order)

    def by_classes(self, items: ReviewSet) -> Counter[tuple[str, ...]]:
        """How many rows have to do with which classes."""
        return Counter(items.classes[at] for at in self.order)


def build_queues(
    items: ReviewSet, suspects: Iterable[tuple[str, str]] | None, seed: int, sample: int
) -> dict[str, Queue]:
    """All queues of a dataset, by name.

    Args:
        items: the dataset.
        suspects: items and questions of an audit, worst first; None where there is no audit.
        seed: decides the random order.
        sample: rows in the random queue at most.
    """
    order = _shuffled(items, seed)
    made = [
        _random(items, order, sample),
        _suspects(items, suspects),
        _disagreements(items),
        *_classes(items, order),
    ]
    return {queue.name: queue for queue in made}


def read_suspects(folder: Path) -> list[tuple[str, str]] | None:
    """The suspects of an audit, worst first; None where it names none.

    Raises:
        InputError: when there is no such audit, or its file is damaged.
    """
    path = folder / METRICS
    try:
        told = json.loads(path.read_bytes())
    except OSError as error:
        raise InputError(f"{path}: cannot be read: {error}; --audit names the folder of an audit") from error
    except (ValueError, RecursionError) as error:
        raise InputError(f"{path}: not JSON: {error}; run the audit again") from error
    listed = told.get("suspects") if isinstance(told, dict) else None
    if listed is None:
        return None
    if not isinstance(listed, list):
        raise InputError(f"{path}: suspects: {type(listed).__name__}, not a list; run the audit again")
    return [_suspect(path, number, one) for number, one in enumerate(listed, 1)]


def _suspect(path: Path, number: int, told: Any) -> tuple[str, str]:
    item, question = (told.get("item_id"), told.get("question")) if isinstance(told, dict) else (None, None)
    if not isinstance(item, str) or not isinstance(question, str):
        raise InputError(
            f"{path}: suspects: number {number} has no item_id and question; run the audit again"
        )
    return item, question


def _shuffled(items: ReviewSet, seed: int) -> list[int]:
    keys = [sha256_text(f"{seed}:{id_}") for id_ in items.ids]
    return sorted(range(len(keys)), key=keys.__getitem__)


def _random(items: ReviewSet, order: Collection[int], sample: int) -> Queue:
    """One row of every cell of class and type, then a second of each, and so on."""
    names, types = items.data.rows["subcategory"].tolist(), items.data.rows["type"].tolist()
    drawn: Counter[tuple[str, str]] = Counter()
    rounds: dict[int, list[int]] = defaultdict(list)
    for at in order:
        cell = names[at], types[at]
        rounds[drawn[cell]].append(at)
        drawn[cell] += 1
    rows = [at for number in sorted(rounds) for at in rounds[number]][:sample]
    return Queue(
        RANDOM,
        "Random",
        "Drawn evenly from every class and type. First votes from here are gold, so it is best done first.",
        tuple(rows),
    )


def _suspects(items: ReviewSet, suspects: Iterable[tuple[str, str]] | None) -> Queue:
    rows: list[int] = []
    if suspects is None:
        about = "The audit names no suspects, or none was given."
    else:
        unknown = 0
        for item, question in suspects:
            at = items.position_of_vote(question, item)
            if at is None:
                unknown += 1
            else:
                rows.append(at)
        about = "Labels that the audit doubts most, worst first."
        if not rows:
            about = "The audit found no suspects in this dataset."
        if unknown:
            about += f" {unknown:,} that it names are not in this dataset."
    return Queue("suspects", "Suspects", about, tuple(dict.fromkeys(rows)))


def _disagreements(items: ReviewSet) -> Queue:
    """A row for every item on which votes differ, the most evenly divided first."""
    title, votes = "Disagreements", items.data.votes
    if votes.empty:
        return Queue("disagreements", title, "This dataset came without votes.", ())
    said = votes[
        votes["question"].isin(ASKED)
        & votes["value"].notna()
        & (votes["status"].isna() | (votes["status"] == "ok"))
    ]
    counts = said.groupby(["item_id", "question", "value"]).size().groupby(level=["item_id", "question"])
    shares = counts.max() / counts.sum()
    contested = shares[counts.size() > 1].sort_index().sort_values(kind="stable")
    rows: dict[int, None] = {}
    covered: set[tuple[str, str]] = set()
    for item, question in contested.index:
        at = items.position_of_vote(question, item)
        if at is None or (question, item) in covered:
            continue
        rows[at] = None
        covered |= {(q, items.public_item(q, i)) for q, i in items.keys(at)}
    about = (
        "Votes that came with the dataset differ here, the most evenly divided first."
        if rows
        else "No votes that came with the dataset differ."
    )
    return Queue("disagreements", title, about, tuple(rows))


def _classes(items: ReviewSet, order: Iterable[int]) -> list[Queue]:
    by_class: dict[str, list[int]] = defaultdict(list)
    for at in order:
        for name in items.classes[at]:
            by_class[name].append(at)
    return [
        Queue(f"{CLASS}{name}", name, "All rows that have to do with this class.", tuple(by_class[name]))
        for name in sorted(by_class)
    ]

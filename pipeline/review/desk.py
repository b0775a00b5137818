"""What the page knows: which row is next for whom, how far they are, and what they may see."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from pipeline.review.items import ASKED, Asked, ReviewSet
from pipeline.review.pictures import Gallery
from pipeline.review.queues import CLASS, Queue
from pipeline.review.store import ReviewStore
from pipeline.review.votes import Target, Written, flow_back, pending
from schemas.errors import InputError
from schemas.taxonomy import PAIR_TYPES

__all__ = ["NAME", "NOTE_CHARS", "Desk", "Progress", "Said"]

NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,63}")
NOTE_CHARS = 200
_UNSAFE_AT = {"image_safe": 0, "text_safe": 1, "pair_safe": 2}
MEANINGS = dict(
    zip(
        PAIR_TYPES,
        (
            "safe picture, safe text, safe together",
            "safe picture, safe text, unsafe together",
            "safe picture, unsafe text",
            "unsafe picture, safe text",
            "unsafe picture, unsafe text",
        ),
        strict=True,
    )
)


@dataclass(frozen=True)
class Progress:
    """How far a reviewer is in a queue."""

    queue: Queue
    done: int
    total: int


@dataclass(frozen=True)
class Said:
    """What somebody said of one question, for the page that shows it."""

    who: str
    kind: str
    value: str
    score: float | None
    note: str


@dataclass
class Desk:
    """A dataset, its queues, the store, and how many rows a day are enough."""

    items: ReviewSet
    queues: Mapping[str, Queue]
    store: ReviewStore
    target: Target
    cap: int
    gallery: Gallery = field(init=False)
    _by_classes: dict[str, Counter[tuple[str, ...]]] = field(init=False, repr=False)

    def __post_init__(self) -> None:
        """Count what each queue holds once."""
        self.gallery = Gallery(self.items.data)
        # Made now, so that the first page is as quick as the others.
        _ = self.items.with_item, self.items.position
        self._by_classes = {name: queue.by_classes(self.items) for name, queue in self.queues.items()}

    @property
    def classes(self) -> list[str]:
        """The classes of the dataset."""
        return [name.removeprefix(CLASS) for name in self.queues if name.startswith(CLASS)]

    def own(self, reviewer: str) -> dict[tuple[str, str], str]:
        """What a reviewer says now, by question and item."""
        return self.store.own(reviewer, self.items.scope)

    def is_done(self, at: int, own: Mapping[tuple[str, str], str]) -> bool:
        """Whether somebody has answered all that a row asks."""
        return all(key in own for key in self.items.keys(at))

    def done(self, own: Mapping[tuple[str, str], str]) -> set[int]:
        """The rows that somebody has answered."""
        pairs = [item for question, item in own if question == "pair_safe"]
        rows = [at for item in pairs for at in self.items.with_item.get(("pair_safe", item), ())]
        return {at for at in rows if self.is_done(at, own)}

    def progress(self, reviewer: str) -> list[Progress]:
        """How far a reviewer is in every queue; rows that never come up for them do not count."""
        out = self.store.left_out(reviewer)
        done = {at for at in self.done(self.own(reviewer)) if out.isdisjoint(self.items.classes[at])}
        return [self._progress(queue, done, out) for queue in self.queues.values()]

    def progress_in(self, queue: Queue, reviewer: str) -> Progress:
        """How far a reviewer is in one queue."""
        out = self.store.left_out(reviewer)
        done = {at for at in self.done(self.own(reviewer)) if out.isdisjoint(self.items.classes[at])}
        return self._progress(queue, done, out)

    def _progress(self, queue: Queue, done: set[int], out: frozenset[str]) -> Progress:
        total = sum(n for names, n in self._by_classes[queue.name].items() if out.isdisjoint(names))
        return Progress(queue, len(done & queue.members), total)

    def following(self, queue: Queue, reviewer: str) -> int | None:
        """The next row of a queue for a reviewer; None at its end."""
        own, out = self.own(reviewer), self.store.left_out(reviewer)
        done = self.done(own)
        return next(
            (at for at in queue.order if at not in done and out.isdisjoint(self.items.classes[at])), None
        )

    def today(self, reviewer: str) -> int:
        """The rows that a reviewer has answered since midnight, where this machine is."""
        midnight = datetime.now().astimezone().replace(hour=0, minute=0, second=0, microsecond=0)
        return self.store.screens(reviewer, midnight)

    def others(self, at: int, reviewer: str) -> dict[Asked, list[Said]]:
        """What everybody but a reviewer says of a row: people on this page, then votes of the dataset."""
        found: dict[Asked, list[Said]] = {question: [] for question in ASKED}
        for vote in self.store.on(self.items.scope, self.items.keys(at)):
            if vote.reviewer != reviewer:
                value = "cannot say" if vote.value == "skip" else vote.value
                found[_asked(vote.question)].append(Said(vote.reviewer, "person", value, None, vote.note))
        for told in self.items.votes_on(at):
            if told["question"] not in found:
                continue
            value = _text(told.get("value")) or _text(told.get("status")) or "no answer"
            score = told.get("score")
            found[told["question"]].append(
                Said(
                    _text(told.get("annotator")),
                    _text(told.get("family")),
                    value,
                    float(score) if isinstance(score, float | int) and score == score else None,
                    "",
                )
            )
        return found

    def label(self, at: int) -> dict[Asked, str]:
        """What the row's type says of each question."""
        kind = self.items.row(at)["type"]
        return {question: "safe" if kind[_UNSAFE_AT[question]] == "S" else "unsafe" for question in ASKED}

    def unwritten(self) -> tuple[int, str]:
        """How many votes are not in the file they go to, and what keeps them from it."""
        try:
            return pending(self.store, self.items, self.target), ""
        except (InputError, OSError) as error:
            return 0, str(error)

    def write(self) -> Written:
        """Bring the file of votes up to date."""
        return flow_back(self.store, self.items, self.target)


def _asked(question: str) -> Asked:
    return next(one for one in ASKED if one == question)


def _text(value: Any) -> str:
    return value if isinstance(value, str) else ""

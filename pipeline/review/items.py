"""The rows of a dataset as reviewers are given them, and what each question of a row is about."""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Literal, get_args

import pandas as pd

from pipeline.anyset import AnySet, open_anyset
from pipeline.store import sha256_text
from pipeline.synthesize.squares import pair_id_of, row_id_of

__all__ = ["ANSWERS", "ASKED", "Answer", "Asked", "ReviewSet", "open_review_set"]

Asked = Literal["text_safe", "image_safe", "pair_safe"]
ASKED: tuple[Asked, ...] = get_args(Asked)
"""The questions about a row, in the order in which they are asked."""
Answer = Literal["safe", "unsafe", "skip"]
ANSWERS: tuple[Answer, ...] = get_args(Answer)
"""What can be said to a question."""


@dataclass(frozen=True)
class ReviewSet:
    """A dataset that is reviewed.

    Attributes:
        data: the dataset.
        fingerprint: SHA-256 of which rows it has: their ids, images and queries, not their labels.
        ours: whether every row's ids are those of a build, so that votes mean the same in the next build.
        ids: the id of each row.
        items: by question, what each row's question is about.
    """

    data: AnySet
    fingerprint: str
    ours: bool
    ids: list[int]
    items: Mapping[Asked, list[str]] = field(repr=False)

    @property
    def scope(self) -> str:
        """Where its items are the same items: everywhere if ours, since ids are of content; else here."""
        return "" if self.ours else self.fingerprint

    @cached_property
    def position(self) -> dict[int, int]:
        """Where each row stands, by its id."""
        return {id_: at for at, id_ in enumerate(self.ids)}

    @cached_property
    def with_item(self) -> dict[tuple[str, str], list[int]]:
        """The rows that have an item, by question and item."""
        found: dict[tuple[str, str], list[int]] = defaultdict(list)
        for question, items in self.items.items():
            for at, item in enumerate(items):
                found[question, item].append(at)
        return dict(found)

    @cached_property
    def classes(self) -> list[tuple[str, ...]]:
        """The classes that each row has to do with: its subcategory, and the harm where that is another."""
        named = self.data.rows["subcategory"].tolist()
        if not self.data.has("class_key"):
            return [(name,) for name in named]
        keys = self.data.rows["class_key"].tolist()
        harms = [key.rsplit("/", 1)[-1] if isinstance(key, str) else name for key, name in self._both(keys)]
        return [(name,) if name == harm else (name, harm) for name, harm in zip(named, harms, strict=True)]

    def _both(self, keys: list[Any]) -> Iterable[tuple[Any, str]]:
        return zip(keys, self.data.rows["subcategory"].tolist(), strict=True)

    def item(self, at: int, question: Asked) -> str:
        """What a question about a row is about."""
        return self.items[question][at]

    def keys(self, at: int) -> list[tuple[Asked, str]]:
        """The questions of a row, each with its item."""
        return [(question, self.items[question][at]) for question in ASKED]

    def row(self, at: int) -> dict[str, Any]:
        """All fields of a row."""
        return {str(name): value for name, value in self.data.rows.iloc[at].items()}

    def position_of_vote(self, question: str, item: str) -> int | None:
        """The first row that a vote of the dataset is about; such a vote names a pair by its row's id."""
        if question == "pair_safe" and self.ours:
            return self.position.get(int(item)) if item.lstrip("-").isdigit() else None
        return next(iter(self.with_item.get((question, item), ())), None)

    def public_item(self, question: str, item: str) -> str:
        """What others call an item: as in the dataset's own votes, where a pair is its row's id."""
        return str(row_id_of(item)) if self.ours and question == "pair_safe" else item

    def votes_on(self, at: int) -> list[dict[str, Any]]:
        """The votes that came with the dataset on what a row asks."""
        if self.data.votes.empty:
            return []
        names = {(question, self.public_item(question, item)) for question, item in self.keys(at)}
        places = [place for _, item in names for place in self._vote_places.get(item, ())]
        rows: Any = self.data.votes.iloc[sorted(set(places))].to_dict("records")
        return [row for row in rows if (row["question"], row["item_id"]) in names]

    @cached_property
    def _vote_places(self) -> Mapping[str, Any]:
        places: Any = self.data.votes.groupby("item_id", sort=False).indices
        return dict(places)


def open_review_set(place: str) -> ReviewSet:
    """Open a dataset for review.

    Args:
        place: as for `open_anyset`.

    Raises:
        InputError: when nothing in it can be reviewed.
    """
    data = open_anyset(place)
    rows = data.rows
    ids, images, queries = rows["id"].tolist(), rows["image"].tolist(), rows["query"].tolist()
    texts = [sha256_text(query) for query in queries]
    whole = hashlib.sha256()
    for id_, image, text in zip(ids, images, texts, strict=True):
        whole.update(f"{id_}\t{text}\t{image}\n".encode())
    pairs = _pair_ids(data, images, queries)
    ours = pairs is not None
    items: dict[Asked, list[str]] = {
        "text_safe": texts,
        "image_safe": images,
        "pair_safe": pairs if pairs is not None else [str(id_) for id_ in ids],
    }
    return ReviewSet(data, whole.hexdigest(), ours, ids, items)


def _pair_ids(data: AnySet, images: list[str], queries: list[str]) -> list[str] | None:
    """The ids of a build's pairs; None where any row's cannot be known."""
    if not data.has("image_id", "query_id"):
        return None
    langs = data.rows["lang"].tolist() if data.has("lang") else ["en"] * len(images)
    told = data.rows["query_id"].tolist()
    made = [
        pair_id_of(image, query, "en" if pd.isna(lang) else lang)
        for image, query, lang in zip(images, queries, langs, strict=True)
    ]
    return made if made == told and data.rows["image_id"].tolist() == images else None

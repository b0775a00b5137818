"""The table that every finding reads, and the pictures beside it."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, Protocol

import pandas as pd

from pipeline.anyset.problems import Problems

__all__ = ["FIELDS", "FURTHER", "VOTES", "AnySet", "FilePictures", "Pictures"]

FIELDS = ("id", "image", "query", "type", "category", "subcategory", "image_safe", "image_safety_label")
"""HoliSafe's eight fields, which every table has."""
FURTHER = (
    "split", "response", "prediction", "rationale", "expected", "class_key", "contrast_square", "scene",
    "grade_image", "grade_text", "grade_joint", "ssu_unverified", "caption", "image_id", "query_id",
    "source_uri", "page_url", "source_package", "author", "licence", "redistributable", "generator",
    "query_writer", "response_writer", "lang", "tier", "leak_group",
)  # fmt: skip
"""Columns that a table has where the dataset has them; empty cells are null."""

VOTES = ("item_id", "question", "annotator", "family", "status", "value", "score", "note")
"""Columns of the votes that came with a dataset."""

Kind = Literal["bench", "parquet"]


class Pictures(Protocol):
    """The images of a dataset, by key."""

    def read(self, keys: Collection[str]) -> Iterator[tuple[str, bytes | None]]:
        """The bytes of some images, each once, in the order in which they are stored; None where missing."""
        ...


@dataclass(frozen=True)
class AnySet:
    """A dataset that was opened.

    Attributes:
        place: what was named.
        kind: how its rows are stored.
        rows: one row a pair, in the dataset's order, with `FIELDS` and those of `FURTHER` that there are.
            `image` is the key of an image, equal where rows share one; `row` is the place in the dataset,
            from 1.
        votes: votes that came with the rows: `item_id`, `question`, `annotator`, `family`, `status`, `value`,
            `score`, `note`; the item is an image's key, the SHA-256 of a query, or a row's id as text. May be
            empty.
        pictures: the images.
        problems: what was wrong with rows.
    """

    place: str
    kind: Kind
    rows: pd.DataFrame
    votes: pd.DataFrame
    pictures: Pictures
    problems: Problems

    def has(self, *columns: str) -> bool:
        """Whether the dataset has all of these columns, with a value somewhere."""
        return all(c in self.rows.columns and self.rows[c].notna().any() for c in columns)


@dataclass(frozen=True)
class FilePictures:
    """Images that are files; `paths` has only those that lie below the dataset's folder."""

    paths: Mapping[str, Path]

    def read(self, keys: Collection[str]) -> Iterator[tuple[str, bytes | None]]:
        """The bytes of some images; None for what is no readable file."""
        for key in sorted(keys):
            path = self.paths.get(key)
            try:
                yield key, None if path is None else path.read_bytes()
            except OSError:
                yield key, None

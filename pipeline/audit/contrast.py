"""Contrast: how many rows of harm that one half hides have the harmless neighbour beside them."""

from __future__ import annotations

from dataclasses import dataclass

import pandas as pd

__all__ = ["Contrast", "contrast"]

TYPES = ("SSU", "USU")


@dataclass(frozen=True, slots=True)
class Contrast:
    """Rows of one type and their SSS neighbours.

    Attributes:
        rows: how many.
        same_scene: of these, whose template, on the same side of the split, has an SSS row; None where no
            templates are told.
        same_query: whose query, word for word, is SSS with another image.
        same_image: whose image is SSS with another query.
        both: same_query and same_image.
    """

    rows: int
    same_scene: int | None
    same_query: int
    same_image: int
    both: int


def contrast(rows: pd.DataFrame) -> dict[str, Contrast]:
    """The neighbours of SSU and USU rows.

    An unsafe image is never SSS, so that a USU row can have `same_query` at the most.
    """
    safe = rows[rows["type"] == "SSS"]
    queries, images = set(safe["query"]), set(safe["image"])
    told = "scene" in rows and rows["scene"].notna().any()
    side = rows["split"] if "split" in rows else pd.Series("", rows.index)
    scenes = set(zip(safe["scene"], side[safe.index], strict=True)) if told else set()
    found = {}
    for kind in TYPES:
        some = rows[rows["type"] == kind]
        by_query, by_image = some["query"].isin(queries), some["image"].isin(images)
        found[kind] = Contrast(
            len(some),
            sum(pair in scenes for pair in zip(some["scene"], side[some.index], strict=True))
            if told
            else None,
            int(by_query.sum()),
            int(by_image.sum()),
            int((by_query & by_image).sum()),
        )
    return found

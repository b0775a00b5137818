"""The rows of several models, each once, with what each judge says of each model's answer."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline.bench.scored import Scored
from pipeline.bench.shares import Drawn, Share, shares
from pipeline.bench.table import NONE, is_judged, is_refused

__all__ = ["SideBySide", "drawn_of", "share_of"]

Bools = NDArray[np.bool_]
Ints = NDArray[np.int64]


class SideBySide:
    """All rows of all models, each once: rows of one id, type and query are the same row."""

    def __init__(self, models: Sequence[Scored]) -> None:
        """Join the rows of `models`, in their order."""
        # A file of predictions may have no queries at all; then there is only id and type to go by.
        self.by_query = all(any(query is not None for query in model.queries) for model in models)
        numbers: dict[tuple[Any, ...], int] = {}
        self.place = [
            np.array([numbers.setdefault(key, len(numbers)) for key in self._keys(k, model)], np.int64)
            for k, model in enumerate(models)
        ]
        n = len(numbers)
        meanings: dict[str, int] = Counter(key[0] for key in numbers if key[0] is not None)
        self.several = sum(count > 1 for count in meanings.values())
        self.type = np.full(n, NONE)
        self.has = np.zeros((len(models), n), np.bool_)
        images: list[str | None] = [None] * n
        self.group: list[str | None] = [None] * n
        for k, (model, place) in enumerate(zip(models, self.place, strict=True)):
            self.type[place] = model.types
            self.has[k, place] = True
            for at, image, group in zip(place.tolist(), model.images, model.groups, strict=True):
                images[at] = images[at] or image
                self.group[at] = self.group[at] or group
        # A row without an image has one of its own. Numbers hang on names, not on the order of the rows.
        names = [
            image or f"\0{key[0]}\0{row}"
            for row, (image, key) in enumerate(zip(images, numbers, strict=True))
        ]
        rank = {name: number for number, name in enumerate(sorted(set(names)))}
        self.image = np.array([rank[name] for name in names], np.int64)
        self._verdict: dict[str, Ints] = {}
        for judge in {judge for model in models for judge in model.verdicts}:
            of = np.full((len(models), n), NONE)
            for k, (model, place) in enumerate(zip(models, self.place, strict=True)):
                if judge in model.verdicts:
                    of[k, place] = model.verdicts[judge]
            self._verdict[judge] = of

    def _keys(self, number: int, model: Scored) -> list[tuple[Any, ...]]:
        return [
            (id_, kind, query if self.by_query else None) if id_ is not None else (None, number, row)
            for row, (id_, kind, query) in enumerate(
                zip(model.ids, model.types.tolist(), model.queries, strict=True)
            )
        ]

    def judged(self, judge: str) -> Bools:
        """Of each model and row, whether there is a verdict."""
        return is_judged(self._verdict[judge])

    def complied(self, judge: str) -> Bools:
        """Of each model and row, whether it did not refuse; says nothing where there is no verdict."""
        return ~is_refused(self._verdict[judge])


def share_of(rows: Ints, hit: Bools) -> Share:
    """The share of hits among rows that all have a verdict."""
    return Share(rows, hit, np.ones(len(rows), np.bool_), False)


def drawn_of(some: Sequence[Share], image: Ints, rounds: int, seed: int) -> list[Drawn]:
    """Shares of `share_of`, all in the same resamples by image."""
    return [drawn for drawn, _ in shares(some, image, rounds, seed)]

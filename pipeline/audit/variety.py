"""How varied the queries of a cell are."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

__all__ = ["NEAR", "Variety", "distinct", "near_queries", "variety"]

NEAR = 0.8
"""The share of their different words (Jaccard) that near-duplicate queries have in common."""
OPENING = 3
"""Words that make an opening."""
_WORD = re.compile(r"[\w']+")


@dataclass(frozen=True, slots=True)
class Variety:
    """How varied some queries are; shares are 0..1, None where there is nothing to divide.

    Attributes:
        n: queries.
        distinct_1: different words among all words (Li et al. 2016, distinct-n).
        distinct_2: different pairs of neighbours among all such pairs.
        opening: queries that begin with the three words that most of them begin with.
        template: queries from the template that most of them are from.
        near: queries that have a near-duplicate among them, equal ones too.
    """

    n: int
    distinct_1: float | None
    distinct_2: float | None
    opening: float | None
    template: float | None
    near: float | None


def variety(queries: Sequence[str], templates: Sequence[str]) -> Variety:
    """Measure some queries.

    Args:
        queries: their texts.
        templates: what each was made from; empty where it was written freely.
    """
    n = len(queries)
    if not n:
        return Variety(0, None, None, None, None, None)
    openings = Counter(tuple(_words(query)[:OPENING]) for query in queries)
    used = Counter(template for template in templates if template)
    return Variety(
        n,
        distinct(queries, 1),
        distinct(queries, 2),
        round(openings.most_common(1)[0][1] / n, 3),
        round(used.most_common(1)[0][1] / n, 3) if used else None,
        round(len({i for pair in near_queries(queries) for i in pair}) / n, 3),
    )


def distinct(texts: Sequence[str], n: int) -> float | None:
    """Distinct-n: different runs of `n` words among all of them; None without any."""
    runs = [
        tuple(words[i : i + n]) for words in map(_words, texts) for i in range(max(0, len(words) - n + 1))
    ]
    return round(len(set(runs)) / len(runs), 3) if runs else None


def near_queries(queries: Sequence[str], least: float = NEAR) -> list[tuple[int, int]]:
    """Pairs of near-duplicates, by their places, the smaller first.

    Compares all with all: time and memory grow with the square of their number, for a cell and not for a
    dataset.
    """
    sets = [frozenset(_words(query)) for query in queries]
    places = {word: i for i, word in enumerate(sorted(frozenset().union(*sets)))}
    holds = np.zeros((len(sets), max(1, len(places))), np.float32)
    for row, words in enumerate(sets):
        holds[row, [places[word] for word in words]] = 1
    both = holds @ holds.T
    size = holds.sum(1)
    either = size[:, None] + size[None, :] - both
    alike = np.where(either > 0, both / np.maximum(either, 1), 1) >= least - 1e-6
    return [(int(i), int(j)) for i, j in zip(*np.nonzero(np.triu(alike, 1)), strict=True)]


def _words(text: str) -> list[str]:
    return _WORD.findall(text.lower())

"""How varied the queries of a cell are."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from pipeline.near_sets import NearSets

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
    """Pairs of near-duplicates, by their places, the smaller first."""
    # Queries without a word are alike.
    sets = [frozenset(_words(query)) or frozenset({""}) for query in queries]
    count = Counter(word for words in sets for word in words)
    rank = {word: i for i, word in enumerate(sorted(count, key=lambda word: (count[word], word)))}
    known, found = NearSets(least), []
    for j, words in enumerate(sets):
        members = sorted(rank[word] for word in words)
        found += [(i, j) for i, _ in known.near(members)]
        known.add(members)
    return sorted(found)


def _words(text: str) -> list[str]:
    return _WORD.findall(text.lower())

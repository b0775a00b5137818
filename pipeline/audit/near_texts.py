"""Queries that are nearly one text: what they are compared by, and the near ones among many."""

from __future__ import annotations

import re
import unicodedata
from array import array
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence

from pipeline.near_sets import NearSets

__all__ = ["NEAR", "NearTexts", "plain", "shingles"]

NEAR = 0.8
"""The share of their different shingles (Jaccard) that near-duplicate queries have in common."""
LENGTH = 5
ENOUGH = 50
"""Near texts of one text that are looked at within a dataset."""
_WORD = re.compile(r"\w+")


def plain(text: str) -> str:
    """A text as it is compared: small letters and no punctuation; empty where it has no letter or digit."""
    return " ".join(_WORD.findall(unicodedata.normalize("NFKC", text).casefold()))


def shingles(text: str) -> frozenset[str]:
    """Its different runs of five letters; a shorter text is its own."""
    return frozenset(text[i : i + LENGTH] for i in range(max(1, len(text) - LENGTH + 1)))


class NearTexts:
    """Texts as sets of shingles, rare ones first, so that few texts share those that are looked up."""

    def __init__(self, texts: Iterable[str]) -> None:
        """Number the shingles of all texts that will be asked about."""
        different = set(texts)
        count = Counter(s for text in different for s in shingles(text))
        rank = {s: i for i, s in enumerate(sorted(count, key=lambda s: (count[s], s)))}
        # As numbers: the strings of a hundred thousand texts would take a gigabyte.
        self._of = {text: array("I", sorted(rank[s] for s in shingles(text))) for text in different}

    def within(self, texts: Sequence[str]) -> list[tuple[int, int]]:
        """Near pairs of different texts, by place."""
        index, pairs = NearSets(NEAR), []
        for j, text in enumerate(texts):
            pairs += [(i, j) for i, _ in index.near(self._of[text], ENOUGH)]
            index.add(self._of[text])
        return pairs

    def between(self, some: Sequence[str], others: Sequence[str]) -> dict[str, str]:
        """For each of some texts that is among others, or near one of them: itself, or the first near one."""
        index, same = self._index(others), set(others)
        found = {}
        for text in some:
            if text in same:
                found[text] = text
            elif near := index.near(self._of[text], 1):
                found[text] = others[near[0][0]]
        return found

    def pairs(self, some: Sequence[str], others: Sequence[str]) -> Iterator[tuple[str, str, float]]:
        """Each of some texts with all of others that it is near, itself too, and their Jaccard index."""
        index = self._index(others)
        for text in some:
            for place, jaccard in index.near(self._of[text]):
                yield text, others[place], jaccard

    def _index(self, texts: Sequence[str]) -> NearSets:
        index = NearSets(NEAR)
        for text in texts:
            index.add(self._of[text])
        return index

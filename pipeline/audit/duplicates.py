"""Images that are one picture, queries that are one question: in a dataset, across its split, in another."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pandas as pd

from pipeline.audit.near_texts import NearTexts, plain
from pipeline.audit.pictures import Looks
from pipeline.curate.clusters import clusters
from pipeline.curate.looks import one_picture

__all__ = ["CopiesOfImages", "CopiesOfQueries", "copies_of_images", "copies_of_queries"]

SHOWN = 20
ReadTexts = Callable[[Sequence[str]], Mapping[str, str]]


@dataclass(frozen=True, slots=True)
class CopiesOfImages:
    """Images that are one picture.

    Attributes:
        images: images that could be looked at.
        exact: images whose very bytes another has.
        near: images that have a near-duplicate, exact ones too.
        across: of these, images of which a copy stands on the other side of the split; None without sides.
        against: images that have a copy in the other dataset; None without one.
        clusters: the largest groups, each a list of keys.
        across_pairs: `train` and `test` keys of the first pairs.
        against_pairs: `here` and `there` keys of the first pairs.
    """

    images: int
    exact: int
    near: int
    across: int | None
    against: int | None
    clusters: list[list[str]]
    across_pairs: list[dict[str, str]]
    against_pairs: list[dict[str, str]]


@dataclass(frozen=True, slots=True)
class CopiesOfQueries:
    """Queries that are one question: at least .8 of their runs of five letters in common.

    Attributes:
        rows: rows.
        different: different queries, by their letters and digits.
        whole_rows: rows whose query and image another row has.
        exact: rows whose query stands in another row.
        near: rows whose query has a near-duplicate that is not the same. Of a query with more than 50 of
            them, 50 are looked at.
        across: test rows whose query, or nearly it, is trained on; None without sides.
        across_exact: of these, word for word.
        against: rows whose query, or nearly it, stands in the other dataset; None without one.
        clusters: `n` rows, `different` queries and a `query` of the largest groups.
        across_pairs: `test` and `train` queries of the first pairs.
        against_pairs: `here` and `there` queries of the first pairs.
    """

    rows: int
    different: int
    whole_rows: int
    exact: int
    near: int
    across: int | None
    across_exact: int | None
    against: int | None
    clusters: list[dict[str, Any]]
    across_pairs: list[dict[str, str]]
    against_pairs: list[dict[str, str]]


def copies_of_images(
    looks: Looks,
    read: ReadTexts,
    sides: Mapping[str, frozenset[str]],
    other: tuple[Looks, ReadTexts] | None = None,
) -> CopiesOfImages:
    """Find them by perceptual hashes; pictures that look printed must also hold the same text.

    Args:
        looks: of the dataset's images.
        read: reads the text of some of its images.
        sides: the sides of the split on which each image has rows; empty where there are none.
        other: the same of another dataset.
    """
    keys = list(looks.seen)
    theirs = list(other[0].seen) if other else []
    seen = [*looks.seen.values(), *(other[0].seen.values() if other else ())]
    n = len(keys)

    def texts(places: Sequence[int]) -> dict[int, str]:
        ours = read([keys[i] for i in places if i < n])
        there = other[1]([theirs[i - n] for i in places if i >= n]) if other else {}
        return {i: ours[keys[i]] if i < n else there[theirs[i - n]] for i in places}

    same = list(one_picture(seen, texts))
    inside = [(i, j) for i, j in same if j < n]
    to_other = [(i, j - n) for i, j in same if i < n <= j]
    groups = sorted(
        ([keys[i] for i in group] for group in clusters(n, inside) if len(group) > 1),
        key=lambda group: (-len(group), group),
    )
    times = Counter(look.sha256 for look in looks.seen.values())
    across = [(k, k) for k in keys if {"train", "test"} <= sides.get(k, frozenset())]
    for i, j in inside:
        across += [
            (keys[a], keys[b])
            for a, b in ((i, j), (j, i))
            if "train" in sides.get(keys[a], ()) and "test" in sides.get(keys[b], ())
        ]
    return CopiesOfImages(
        n,
        sum(times[look.sha256] > 1 for look in looks.seen.values()),
        sum(map(len, groups)),
        len({k for pair in across for k in pair}) if any(sides.values()) else None,
        len({i for i, _ in to_other}) if other else None,
        groups[:SHOWN],
        [{"train": a, "test": b} for a, b in across[:SHOWN]],
        [{"here": keys[i], "there": theirs[j]} for i, j in to_other[:SHOWN]],
    )


def copies_of_queries(rows: pd.DataFrame, other: pd.DataFrame | None = None) -> CopiesOfQueries:
    """Find them without comparing all with all.

    Args:
        rows: of an `AnySet`.
        other: the rows of another.
    """
    plain = [_plain(query) for query in rows["query"]]
    times = Counter(plain)
    texts = sorted(times)
    first: dict[str, str] = {}
    for text, query in zip(plain, rows["query"], strict=True):
        first.setdefault(text, query)
    near = NearTexts([*texts, *({_plain(query) for query in other["query"]} if other is not None else ())])
    pairs = near.within(texts)
    groups = sorted(
        ((sum(times[texts[i]] for i in group), group) for group in clusters(len(texts), pairs)),
        key=lambda group: (-group[0], group[1]),
    )
    wholes = Counter(zip(plain, rows["image"], strict=True))
    across = _across(rows, plain, near)
    copied = None if other is None else near.between(texts, sorted({_plain(q) for q in other["query"]}))
    return CopiesOfQueries(
        len(rows),
        len(texts),
        sum(n for n in wholes.values() if n > 1),
        sum(n for n in times.values() if n > 1),
        sum(times[texts[i]] for i in {i for pair in pairs for i in pair}),
        across and sum(across[0][text] for text in across[1]),
        across and sum(across[0][text] for text, twin in across[1].items() if text == twin),
        None if copied is None else sum(times[text] for text in copied),
        [
            {"n": n, "different": len(group), "query": first[texts[group[0]]]}
            for n, group in groups[:SHOWN]
            if n > 1
        ],
        [{"test": first[a], "train": first[b]} for a, b in sorted(across[1].items())[:SHOWN]]
        if across
        else [],
        [{"here": first[a], "there": b} for a, b in sorted((copied or {}).items())[:SHOWN]],
    )


def _across(
    rows: pd.DataFrame, plain: Sequence[str], near: NearTexts
) -> tuple[Counter[str], dict[str, str]] | None:
    """How often each text is tested on, and for those that are trained on, or nearly, by which."""
    if "split" not in rows or not {"train", "test"} <= set(rows["split"]):
        return None
    on: dict[str, Counter[str]] = defaultdict(Counter)
    for text, side in zip(plain, rows["split"], strict=True):
        on[side][text] += 1
    return on["test"], near.between(sorted(on["test"]), sorted(on["train"]))


def _plain(query: str) -> str:
    return plain(query) or query

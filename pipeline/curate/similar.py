"""Images that are near each other by their embeddings: the same scene again, which no hash finds."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

__all__ = ["NearPair", "near_pairs"]

Vectors = NDArray[np.float32]
Rows = NDArray[np.int64]

EXACT_UP_TO = 50_000
"""Rows up to which every pair is compared: that takes seconds, and the index would be slower."""
BLOCK = 2048
NEIGHBOURS = 16
"""Asked of the index at first; as long as all that it names are near, twice as many."""
MOST_NEIGHBOURS = 256
"""Of one row. Larger groups of near images stay linked through each other's nearest."""
LINKS, EXPANSION = 16, 64
"""How dense the index is and how far it looks, in adding as in asking (HNSW)."""


class NearPair(NamedTuple):
    """Two images and the cosine of their embeddings; `first` stands before `second` in the rows."""

    first: str
    second: str
    cosine: float


def near_pairs(ids: Sequence[str], vectors: Vectors, threshold: float) -> list[NearPair]:
    """The pairs of images whose cosine reaches the threshold, in the order of the rows.

    Up to 50,000 rows all of them; beyond, those that an approximate index finds. Each pair that is returned
    was compared exactly. The same rows give the same pairs. `vectors` may be mapped from a file: beside it,
    memory holds the index, 2 bytes a number and some 200 a row.

    Args:
        ids: one for each row.
        vectors: (n, d) embeddings with rows of length 1.
        threshold: the least cosine, above 0 and up to 1.

    Raises:
        ValueError: when ids and rows differ in number, or a row has not the length 1.
    """
    if vectors.ndim != 2 or len(vectors) != len(ids):
        raise ValueError(f"{len(ids)} ids for vectors of shape {vectors.shape}; give one id for each row")
    if not 0 < threshold <= 1:
        raise ValueError(f"threshold {threshold}: must be above 0 and at most 1")
    for start in range(0, len(vectors), BLOCK):
        lengths = np.linalg.norm(vectors[start : start + BLOCK], axis=1)
        if (wrong := np.flatnonzero(~(np.abs(lengths - 1) < 1e-3))).size:
            at = int(wrong[0])
            raise ValueError(f"{ids[start + at]}: its vector has the length {lengths[at]:.4f}; scale it to 1")
    candidates = _compared if len(vectors) <= EXACT_UP_TO else _indexed
    found = [pairs for pairs in candidates(vectors, threshold) if len(pairs)]
    if not found:
        return []
    return [
        NearPair(ids[i], ids[j], cosine)
        for i, j, cosine in _checked(vectors, np.unique(np.concatenate(found), axis=0), threshold)
    ]


def _checked(vectors: Vectors, pairs: Rows, threshold: float) -> Iterator[tuple[int, int, float]]:
    """Those of the pairs of rows that are near, by cosines summed in double precision."""
    for start in range(0, len(pairs), BLOCK):
        some = pairs[start : start + BLOCK]
        left, right = (vectors[some[:, side]].astype(np.float64) for side in (0, 1))
        cosines = (left * right).sum(1).round(6)
        for at in np.flatnonzero(cosines >= threshold):
            yield int(some[at, 0]), int(some[at, 1]), float(cosines[at])


def _compared(vectors: Vectors, threshold: float) -> Iterator[Rows]:
    """Candidates among all pairs, block by block."""
    for a in range(0, len(vectors), BLOCK):
        left = np.asarray(vectors[a : a + BLOCK])
        for b in range(a, len(vectors), BLOCK):
            near = np.argwhere(left @ np.asarray(vectors[b : b + BLOCK]).T >= threshold - 1e-5)
            near += np.array([a, b])
            yield near[near[:, 0] < near[:, 1]]


def _indexed(vectors: Vectors, threshold: float) -> Iterator[Rows]:
    """Candidates from the nearest neighbours of every row."""
    from usearch.index import Index

    index = Index(
        ndim=vectors.shape[1],
        metric="ip",
        dtype="f16",
        connectivity=LINKS,
        expansion_add=EXPANSION,
        expansion_search=EXPANSION,
    )
    keys = np.arange(len(vectors))
    for start in range(0, len(vectors), BLOCK):
        # On one thread: the order in which rows come decides how they are linked.
        index.add(keys[start : start + BLOCK], np.asarray(vectors[start : start + BLOCK]), threads=1)
    for start in range(0, len(vectors), BLOCK):
        yield from _neighbours(index, vectors, keys[start : start + BLOCK], threshold)


def _neighbours(index: Any, vectors: Vectors, rows: Rows, threshold: float) -> Iterator[Rows]:
    count = NEIGHBOURS
    while len(rows):
        matches = index.search(np.asarray(vectors[rows]), count)
        keys = np.asarray(matches.keys).astype(np.int64).reshape(len(rows), -1)
        # The index works in half precision; what it finds just below the threshold is looked at again.
        near = 1 - np.asarray(matches.distances).reshape(keys.shape) >= threshold - 2e-3
        at, column = np.nonzero(near)
        pairs = np.sort(np.stack([rows[at], keys[at, column]], axis=1), axis=1)
        yield pairs[pairs[:, 0] < pairs[:, 1]]
        count *= 2
        rows = rows[near.all(1)] if count <= min(MOST_NEIGHBOURS, len(vectors)) else rows[:0]

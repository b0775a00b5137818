"""Near pairs among many hashes, and the clusters that they join.

Two pictures are near when at most `bits` of their 64 coarse and `bits_fine` of their 256 fine bits differ; a
mirrored or rotated copy has to be nearer, since simple motifs resemble the mirror images of others.

Few hashes are all compared. Among many, candidates are found by sampled bits (locality-sensitive hashing for
the Hamming distance, after Indyk and Motwani 1998): pictures that agree in k chosen bits meet in a table, and
there are as many tables as two at the distance `bits` need to meet in one with probability `RECALL`. Nearer
ones meet with a higher one. Everything that meets is checked: no pair is false by the definition above.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterable, Iterator
from typing import Final

import numpy as np
from numpy.typing import NDArray

from pipeline.curate.hashing import COARSE_BITS, Hashes, coarse, variants

__all__ = ["Pairs", "clusters", "heads", "near_pairs"]

RECALL: Final = 0.985
"""Of pairs that are just near enough; of nearer ones more are found."""
COPY_SHARE: Final = 0.5
"""Of the distances that are allowed, for mirrored and rotated copies."""
EXACT: Final = 6000
"""So many pictures and fewer are all compared."""
NEIGHBOURS: Final = 64
"""So many are compared with each picture in one table, however many are alike; other tables bring others."""
AT_ONCE: Final = 1 << 20
_SEED: Final = 20250604

Pairs = NDArray[np.int64]
"""(m, 2): positions of two pictures, the smaller first; in order and each once."""


def near_pairs(
    hashes: Hashes, bits: int, bits_fine: int, *, mirrors: bool = True, rotations: bool = False
) -> Pairs:
    """The pairs of pictures that are near.

    Args:
        hashes: fine hashes, (n, 4).
        bits: how many of the 64 coarse bits may differ.
        bits_fine: how many of the 256 fine bits may differ.
        mirrors: whether mirrored copies count.
        rotations: whether copies turned by quarters count.

    Returns:
        All pairs of up to 6,000 pictures; of more pictures at least 98.5 % of them, always the same ones.
    """
    if len(hashes) < 2:
        return np.empty((0, 2), np.int64)
    kinds = variants(hashes, mirrors=mirrors, rotations=rotations)
    check = _Check(kinds, len(hashes), bits, bits_fine)
    candidates = _all(len(hashes), len(kinds)) if len(hashes) <= EXACT else _met(check.coarse, bits)
    found = [pairs for one, other in candidates if len(pairs := check(one, other))]
    if not found:
        return np.empty((0, 2), np.int64)
    keys = np.unique(np.concatenate(found))
    return np.stack([keys >> 32, keys & 0xFFFFFFFF], axis=1)


def heads(count: int, pairs: Iterable[tuple[int, int]]) -> list[int]:
    """For each of `count` pictures the first member of its cluster: the union of all pairs."""
    parent = list(range(count))

    def find(i: int) -> int:
        while parent[i] != i:
            parent[i] = parent[parent[i]]
            i = parent[i]
        return i

    for one, other in pairs:
        low, high = sorted((find(one), find(other)))
        parent[high] = low
    return [find(i) for i in range(count)]


def clusters(count: int, pairs: Iterable[tuple[int, int]]) -> list[list[int]]:
    """The positions in each cluster, in order; a picture that is like no other is a cluster of its own."""
    members: dict[int, list[int]] = defaultdict(list)
    for position, head in enumerate(heads(count, pairs)):
        members[head].append(position)
    return list(members.values())


class _Check:
    """Checks candidates on all bits. Candidates are positions in all kinds of copies laid end to end."""

    def __init__(self, kinds: list[Hashes], count: int, bits: int, bits_fine: int) -> None:
        self._fine = np.concatenate(kinds)
        self.coarse = coarse(self._fine)
        self._count = count
        self._most = (bits, bits_fine)
        self._most_copies = (int(bits * COPY_SHARE), int(bits_fine * COPY_SHARE))

    def __call__(self, one: NDArray[np.int64], other: NDArray[np.int64]) -> NDArray[np.int64]:
        """Those that are near, a pair as one number: the smaller position * 2 ** 32 + the larger one."""
        count = self._count
        # Of two copies the first would do as well; and no picture is a near-duplicate of itself.
        plain = (np.minimum(one, other) < count) & (one % count != other % count)
        one, other = one[plain], other[plain]
        copies = np.maximum(one, other) >= count
        for values, which in ((self.coarse[:, None], 0), (self._fine, 1)):
            most = np.where(copies, self._most_copies[which], self._most[which])
            near = np.bitwise_count(values[one] ^ values[other]).sum(axis=1) <= most
            one, other, copies = one[near], other[near], copies[near]
        one, other = one % count, other % count
        keys: NDArray[np.int64] = np.minimum(one, other) << 32 | np.maximum(one, other)
        return np.unique(keys)


def _all(count: int, kinds: int) -> Iterator[tuple[NDArray[np.int64], NDArray[np.int64]]]:
    """Every picture with every later one and every copy of one."""
    for first in range(count - 1):
        later = np.arange(first + 1, count)
        other = np.concatenate([later + kind * count for kind in range(kinds)])
        yield np.full(len(other), first), other


def _met(codes: NDArray[np.uint64], bits: int) -> Iterator[tuple[NDArray[np.int64], NDArray[np.int64]]]:
    """Those that agree in the sampled bits of a table, table by table."""
    rng = np.random.default_rng(_SEED)
    sampled = max(12, min(24, math.ceil(math.log2(len(codes))) - 2))
    agree = math.prod((COARSE_BITS - bits - i) / (COARSE_BITS - i) for i in range(sampled))
    for _ in range(math.ceil(math.log(1 - RECALL) / math.log1p(-agree))):
        chosen = rng.choice(COARSE_BITS, sampled, replace=False)
        # In another order each time: where more are alike than are compared, others are neighbours.
        order = rng.permutation(len(codes)).astype(np.uint64)
        rows = np.sort(_picked(codes, chosen)[order] << np.uint64(32) | order)
        keys, places = rows >> np.uint64(32), (rows & np.uint64(0xFFFFFFFF)).astype(np.int64)
        starts = np.arange(len(rows) - 1)
        for step in range(1, NEIGHBOURS + 1):
            starts = starts[: np.searchsorted(starts, len(rows) - step)]
            starts = starts[keys[starts] == keys[starts + step]]
            if not len(starts):
                break
            for at in range(0, len(starts), AT_ONCE):
                some = starts[at : at + AT_ONCE]
                yield places[some], places[some + step]


def _picked(codes: NDArray[np.uint64], chosen: NDArray[np.int64]) -> NDArray[np.uint64]:
    """The chosen bits of each code, side by side."""
    table = np.zeros((8, 256), np.uint64)
    for place, bit in enumerate(chosen):
        byte, inside = divmod(int(bit), 8)
        table[byte] |= (np.arange(256, dtype=np.uint64) >> np.uint64(inside) & np.uint64(1)) << np.uint64(
            place
        )
    octets = codes.view(np.uint8).reshape(-1, 8)
    keys: NDArray[np.uint64] = table[0][octets[:, 0]]
    for byte in range(1, 8):
        keys |= table[byte][octets[:, byte]]
    return keys

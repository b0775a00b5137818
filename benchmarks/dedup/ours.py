"""Our own deduplication of a folder, or of a number of random hashes; figures as the last line."""

from __future__ import annotations

import json
import resource
import sys
import time
from itertools import combinations
from pathlib import Path

import numpy as np

from pipeline.curate.clusters import heads, near_pairs
from pipeline.curate.folder import find_duplicates
from pipeline.curate.looks import BITS, BITS_FINE
from pipeline.workspace import Silent

COPIES = 0.2
"""Of the hashes are copies of others, with up to `BITS` of the coarse bits turned."""
REST = 0.15
"""Of their other bits are turned as well."""


def folder(path: Path) -> dict[str, object]:
    """Every pair of a cluster, clusters being what `holisafe dedup` gives."""
    began = time.monotonic()
    found = find_duplicates(path, Silent())
    seconds = time.monotonic() - began
    pairs = [sorted(pair) for cluster in found.clusters for pair in combinations(cluster, 2)]
    return {"seconds": seconds, "pairs": pairs}


def hashes(count: int) -> dict[str, object]:
    """Random hashes with planted copies: how long it takes, and how many of the copies are found."""
    rng = np.random.default_rng(3)
    base = rng.integers(0, 2**64, (count - int(count * COPIES), 4), dtype=np.uint64)
    of = rng.choice(len(base), count - len(base), replace=False)
    bits = np.unpackbits(base[of].view(np.uint8), axis=1).reshape(-1, 16, 16)
    turned = rng.integers(0, BITS + 1, len(of))
    flips = np.zeros(bits.shape, bool)
    flips[:, :8, :8] = (rng.random((len(of), 64)).argsort(1).argsort(1) < turned[:, None]).reshape(-1, 8, 8)
    rest = rng.random(bits.shape) < REST
    rest[:, :8, :8] = False
    bits ^= flips | rest
    near = (flips | rest).sum(axis=(1, 2)) <= BITS_FINE
    everything = np.concatenate([base, np.packbits(bits.reshape(len(of), -1), axis=1).view(np.uint64)])
    del bits, flips, rest
    began = time.monotonic()
    pairs = near_pairs(everything, BITS, BITS_FINE)
    heads(count, pairs.tolist())
    seconds = time.monotonic() - began
    planted = set(of[near] << 32 | (len(base) + np.flatnonzero(near)))
    found = set(pairs[:, 0] << 32 | pairs[:, 1])
    return {
        "seconds": seconds,
        "planted": len(planted),
        "recall": len(planted & found) / len(planted),
        "not_planted": len(found - planted),
        "peak_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e6,
    }


if __name__ == "__main__":
    what, value = sys.argv[1:]
    print(json.dumps(folder(Path(value)) if what == "folder" else hashes(int(value))))

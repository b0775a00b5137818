"""Rows to be typed blind, and what came of it.

    python -m scripts.blind_sample data/dataset --seed 1 --per-type 60 --out blind/
    python -m scripts.blind_sample blind/ --score verdicts.csv

The first writes `sample.csv` (key, image, caption, query, class; nothing that gives the type), a copy of each
image by its key, and `key.csv`, which the reader does not see. The verdicts are a CSV of `key` and `verdict`,
a type each.
"""

from __future__ import annotations

import argparse
import csv
import math
import random
import sys
from collections import Counter
from pathlib import Path
from typing import Any

from pipeline.built import check_columns, shard_rows, shards
from pipeline.store import new_text, sha256_text, write_bytes
from schemas.errors import InputError
from schemas.taxonomy import PAIR_TYPES

COLUMNS = ["id", "type", "caption", "query", "subcategory", "image.path"]


def sample(dataset: Path, seed: int, per_type: int, out: Path) -> int:
    """Write sample and key; returns the number of rows. A type with fewer rows gives all of them."""
    found = shards(dataset)
    check_columns(found, COLUMNS)
    rows = sorted((r for shard in found for r in shard_rows(shard, COLUMNS)), key=lambda r: r["id"])
    draw = random.Random(seed)  # noqa: S311
    chosen: list[dict[str, Any]] = []
    for kind in PAIR_TYPES:
        some = [r for r in rows if r["type"] == kind and r["image"]]
        chosen += draw.sample(some, min(per_type, len(some)))
    draw.shuffle(chosen)
    (out / "images").mkdir(parents=True, exist_ok=True)
    shown, keys = [], []
    for row in chosen:
        key = sha256_text(f"{seed} {row['id']}")[:12]
        source = dataset / "images" / row["image"]["path"]
        # By key: the same image under one name would show the reader which rows are neighbours.
        copy = out / "images" / f"{key}{source.suffix}"
        write_bytes(copy, source.read_bytes())
        shown.append([key, f"images/{copy.name}", row["caption"], row["query"], row["subcategory"]])
        keys.append([key, row["id"], row["type"]])
    _write(out / "sample.csv", ["key", "image", "caption", "query", "class"], shown)
    _write(out / "key.csv", ["key", "id", "type"], keys)
    return len(chosen)


def score(folder: Path, verdicts: Path) -> list[str]:
    """Lines: share right by type with its one-sided 95 % lower bound, then the confusion table.

    Raises:
        InputError: on a key that is not of the sample or given twice, a verdict that is no type, or rows
            without one.
    """
    with (folder / "key.csv").open(encoding="utf-8", newline="") as file:
        types = {r["key"]: r["type"] for r in csv.DictReader(file)}
    said: dict[str, str] = {}
    with verdicts.open(encoding="utf-8", newline="") as file:
        for number, row in enumerate(csv.DictReader(file), 2):
            key, verdict = (row.get("key") or "").strip(), (row.get("verdict") or "").strip().upper()
            if key not in types or key in said:
                raise InputError(f"{verdicts}:{number}: key {key!r} is not of the sample, or given twice")
            if verdict not in PAIR_TYPES:
                raise InputError(f"{verdicts}:{number}: verdict {verdict!r}: one of {', '.join(PAIR_TYPES)}")
            said[key] = verdict
    if left := types.keys() - said.keys():
        raise InputError(f"{verdicts}: {len(left)} rows have no verdict, {min(left)} is the first; type all")
    table = Counter((types[k], v) for k, v in said.items())
    lines = []
    for kind in PAIR_TYPES:
        n = sum(t == kind for t in types.values())
        if not n:
            lines.append(f"{kind}: no row")
            continue
        hits = table[kind, kind]
        lines.append(f"{kind}: {hits} of {n} right, {hits / n:.3f}, at least {lower_bound(hits, n):.3f}")
    lines.append("is \\ said " + " ".join(f"{t:>4}" for t in PAIR_TYPES))
    lines += [f"{kind:9} " + " ".join(f"{table[kind, t]:4}" for t in PAIR_TYPES) for kind in PAIR_TYPES]
    return lines


def lower_bound(hits: int, n: int, level: float = 0.95) -> float:
    """One-sided lower bound of a share (Clopper and Pearson 1934), by bisection."""
    low, high = 0.0, hits / n
    for _ in range(60):
        p = (low + high) / 2
        tail = sum(math.comb(n, k) * p**k * (1 - p) ** (n - k) for k in range(hits, n + 1))
        low, high = (p, high) if tail < 1 - level else (low, p)
    return low


def _write(path: Path, head: list[str], rows: list[list[Any]]) -> None:
    with new_text(path) as file:
        csv.writer(file, lineterminator="\n").writerows([head, *rows])


def main() -> int:
    """Entry point; 2 on bad input."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("folder", type=Path, help="the dataset, or with --score what --out named")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--per-type", type=int, default=60)
    parser.add_argument("--out", type=Path)
    parser.add_argument("--score", type=Path)
    given = parser.parse_args()
    if (given.out is None) == (given.score is None):
        parser.error("one of --out and --score")
    try:
        if given.score:
            print("\n".join(score(given.folder, given.score)))
        else:
            n = sample(given.folder, given.seed, given.per_type, given.out)
            print(f"{n} rows in {given.out}/sample.csv")
    except InputError as error:
        print(error, file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())

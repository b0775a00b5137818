"""Join datasets in HoliSafe's format into one folder, for instance HoliSafe-mini and the corpus, to train on.

    python -m scripts.join_sets mini=data/dataset corpus=DIR --out JOINED

Ids are dealt out anew. Rows that have a side of the split keep it; others get one by their leak group (or
their image), the same at every run. `holisafe safellava train JOINED --head-only-rows` takes the result.
"""

from __future__ import annotations

import argparse
import json
import shutil
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import Any

import pandas as pd

from pipeline.anyset import FIELDS, AnySet, open_anyset
from pipeline.store import new_text, sha256_text, write_bytes, write_json_list

KEPT = ("response", "expected", "caption", "split", "contrast_square", "leak_group")
APART = ("contrast_square", "leak_group")
"""Names that mean something else in another dataset."""


def side(name: str, row: dict[str, Any], share: float) -> str:
    """The side of a row without one: a function of its leak group."""
    group = row.get("leak_group")
    key = row["image"] if group is None or pd.isna(group) else group
    return "test" if int(sha256_text(f"{name} {key}")[:8], 16) / 16**8 < share else "train"


def joined(sets: dict[str, AnySet], share: float) -> Iterator[dict[str, Any]]:
    """The rows of all datasets, one after the other."""
    number = 0
    for name, found in sets.items():
        for row in found.rows.to_dict("records"):
            number += 1
            said = {k: row[k] for k in (*FIELDS, *KEPT) if k in row and not pd.isna(row[k])}
            said |= {k: f"{name} {said[k]}" for k in APART if k in said}
            said |= {"split": said.get("split") or side(name, row, share)}
            yield said | {"id": number, "image": f"{name}/{row['image']}", "source_set": name}


def main() -> None:
    """Join what the command line names."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("sets", nargs="+", metavar="NAME=DATASET")
    parser.add_argument("--out", type=Path, required=True, help="a folder that is not there yet")
    parser.add_argument("--test-share", type=float, default=0.26)
    args = parser.parse_args()
    if args.out.exists():
        parser.error(f"--out: {args.out} is there already")
    named = dict(given.partition("=")[::2] for given in args.sets)
    if len(named) < len(args.sets) or not all(named.values()):
        parser.error("give each dataset a name of its own: NAME=DATASET")
    sets = {name: open_anyset(place) for name, place in named.items()}
    rows = list(joined(sets, args.test_share))
    partial = args.out.with_name(f".{args.out.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)  # of a run that was killed
    for name, found in sets.items():
        for key, data in found.pictures.read(sorted(found.rows["image"].unique())):
            inside = PurePosixPath(key)
            # A dataset may come from anywhere: its paths must not lead out of the folder.
            if inside.is_absolute() or ".." in inside.parts:
                parser.error(f"{named[name]}: image: {key!r} is no path below a folder; rename it there")
            if data is None:
                parser.error(f"{named[name]}: image: {key} is missing; put it there, or take its rows out")
            write_bytes(partial / "images" / name / key, data)
    with new_text(partial / "holisafe_bench.json") as file:
        write_json_list(file, rows)
    partial.rename(args.out)
    sides = pd.Series([row["split"] for row in rows]).value_counts().to_dict()
    print(json.dumps({"rows": len(rows), "sides": sides, "out": str(args.out)}))


if __name__ == "__main__":
    main()

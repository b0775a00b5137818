"""Join datasets in HoliSafe's format into one folder, for instance HoliSafe-mini and the corpus, to train on.

    python -m scripts.join_sets mini=data/dataset corpus=DIR --ordinary corpus=DIR/ordinary.jsonl --out JOINED
    holisafe safellava train JOINED --ordinary JOINED/ordinary.jsonl --head-only-rows --base mini --out run

Ids are dealt out anew. Rows that have a side of the split keep it; others get one by their leak group (or
their image), the same at every run. Names of leak groups get the name of their dataset before them; ordinary
pairs that name leak groups of a dataset are therefore joined under its name.
"""

from __future__ import annotations

import argparse
import json
import shutil
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import Any

import pandas as pd

from pipeline.anyset import FIELDS, AnySet, open_anyset
from pipeline.anyset.table import FilePictures
from pipeline.bench.json_rows import Unreadable, json_rows
from pipeline.safellava.examples import image_files
from pipeline.store import new_text, sha256_text, write_bytes, write_json_list
from schemas.errors import InputError

KEPT = ("response", "expected", "caption", "split", "contrast_square", "leak_group")
APART = ("contrast_square", "leak_group")
"""Names that mean something else in another dataset."""
ORDINARY = "ordinary.jsonl"


def side(name: str, row: Mapping[str, Any], share: float) -> str:
    """The side of a row without one: a function of its leak group."""
    group = row.get("leak_group")
    key = row["image"] if group is None or pd.isna(group) else group
    return "test" if int(sha256_text(f"{name} {key}")[:8], 16) / 16**8 < share else "train"


def joined(sets: Mapping[str, AnySet], share: float) -> Iterator[dict[str, Any]]:
    """The rows of all datasets, one after the other."""
    number = 0
    for name, found in sets.items():
        for row in found.rows.to_dict("records"):
            number += 1
            said = {k: row[k] for k in (*FIELDS, *KEPT) if k in row and not pd.isna(row[k])}
            said |= {k: f"{name} {said[k]}" for k in APART if k in said}
            said |= {"split": said.get("split") or side(name, row, share)}
            yield said | {"id": number, "image": f"{name}/{row['image']}", "source_set": name}


def conversations(path: Path) -> list[dict[str, Any]]:
    """The rows of a file of ordinary pairs.

    Raises:
        InputError: when a row is no object, or its image no path.
    """
    rows: list[dict[str, Any]] = []
    for number, row in enumerate(json_rows(path), 1):
        if not isinstance(row, dict):
            told = row.problem if isinstance(row, Unreadable) else f"it is {type(row).__name__}"
            raise InputError(f"{path}: row {number}: no JSON object ({told}); mend it, or take it out")
        if not isinstance(row.get("image"), str | None):
            raise InputError(f"{path}: row {number}: image: {row['image']!r} is no path; name a file")
        rows.append(row)
    return rows


def renamed(name: str, rows: Iterable[Mapping[str, Any]]) -> Iterator[dict[str, Any]]:
    """Ordinary pairs with the names that `joined` gives images and leak groups of the same dataset."""
    for number, row in enumerate(rows, 1):
        said = {k: f"{name} {row[k]}" for k in APART if row.get(k) is not None}
        said |= {"image": f"{name}/{row['image']}"} if row.get("image") else {}
        yield dict(row) | said | {"id": f"{name} {row.get('id', number)}", "source_set": name}


def copy_images(target: Path, pictures: Any, keys: Iterable[str], place: str) -> None:
    """Copy images below a folder.

    Raises:
        InputError: when one leads out of it, is missing, or another one of its name is there already.
    """
    for key, data in pictures.read(sorted(keys)):
        inside = PurePosixPath(key)
        # A dataset may come from anywhere: its paths must not lead out of the folder.
        if inside.is_absolute() or ".." in inside.parts:
            raise InputError(f"{place}: image: {key!r} is no path below a folder; rename it there")
        if data is None:
            raise InputError(f"{place}: image: {key} is missing; put it there, or take its rows out")
        if not (target / key).is_file():
            write_bytes(target / key, data)
        elif (target / key).read_bytes() != data:
            raise InputError(
                f"{place}: image: {key} is another picture than the dataset's of that name; name it apart, "
                "as in --ordinary OTHER=FILE"
            )


def join(sets: Mapping[str, str], ordinary: Mapping[str, str], out: Path, share: float) -> dict[str, Any]:
    """Write the folder.

    Args:
        sets: datasets by name.
        ordinary: files of ordinary pairs, by the name of the dataset whose leak groups they name.
        out: a folder that is not there yet.
        share: of the leak groups without a side that go to the test side.

    Returns:
        Counts.

    Raises:
        InputError: naming the place and the mend.
    """
    opened = {name: open_anyset(place) for name, place in sets.items()}
    rows = list(joined(opened, share))
    talks = {name: conversations(Path(file)) for name, file in ordinary.items()}
    partial = out.with_name(f".{out.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)  # of a run that was killed
    for name, found in opened.items():
        copy_images(partial / "images" / name, found.pictures, found.rows["image"].unique(), sets[name])
    for name, said in talks.items():
        keys = {row["image"] for row in said if row.get("image")}
        files = FilePictures(dict(image_files(Path(ordinary[name]).parent, keys)))
        copy_images(partial / "images" / name, files, keys, ordinary[name])
    with new_text(partial / "holisafe_bench.json") as file:
        write_json_list(file, rows)
    if talks:
        with new_text(partial / ORDINARY) as file:
            for name, said in talks.items():
                file.writelines(json.dumps(row, ensure_ascii=False) + "\n" for row in renamed(name, said))
    partial.rename(out)
    sides = pd.Series([row["split"] for row in rows]).value_counts().to_dict()
    pairs = {"ordinary": sum(map(len, talks.values()))} if talks else {}
    return {"rows": len(rows), "sides": sides} | pairs | {"out": str(out)}


def by_name(given: Sequence[str], option: str) -> dict[str, str]:
    """What stands behind each `NAME=`.

    Raises:
        InputError: when a name is missing or stands twice.
    """
    named = dict(one.partition("=")[::2] for one in given)
    if len(named) < len(given) or not all(named) or not all(named.values()):
        raise InputError(f"{option}: each needs a name of its own, as in NAME=PLACE")
    return named


def main() -> None:
    """Join what the command line names."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("sets", nargs="+", metavar="NAME=DATASET")
    parser.add_argument(
        "--ordinary", action="append", default=[], metavar="NAME=FILE",
        help="ordinary pairs, which name leak groups of the dataset NAME; several times",
    )  # fmt: skip
    parser.add_argument("--out", type=Path, required=True, help="a folder that is not there yet")
    parser.add_argument("--test-share", type=float, default=0.26)
    args = parser.parse_args()
    if args.out.exists():
        parser.error(f"--out: {args.out} is there already")
    try:
        sets, ordinary = by_name(args.sets, "datasets"), by_name(args.ordinary, "--ordinary")
        print(json.dumps(join(sets, ordinary, args.out, args.test_share)))
    except InputError as error:
        parser.error(str(error))


if __name__ == "__main__":
    main()

"""A folder of one JSON list and its images, made beside its place and put there when it is complete."""

from __future__ import annotations

import shutil
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any

from pipeline.built import Shard, Side, check_columns, row_count, shard_rows, shards
from pipeline.store import new_text, write_bytes, write_json, write_json_list
from pipeline.workspace import Progress
from schemas.errors import InputError
from schemas.taxonomy import PAIR_TYPES

__all__ = ["Exported", "bad_row", "export_folder"]

NO_IMAGE = "image not released"
Row = dict[str, Any]


@dataclass
class Exported:
    """What went out and what did not.

    Attributes:
        split: the side that was asked for.
        rows: rows of that side.
        kept: rows written, by type.
        left_out: rows left out, by reason; a row counts once.
        images: files below `images/`.
    """

    split: Side
    rows: int = 0
    kept: Counter[str] = field(default_factory=Counter)
    left_out: Counter[str] = field(default_factory=Counter)
    images: int = 0

    def as_json(self, reasons: Iterable[str]) -> dict[str, Any]:
        """The content of `left_out.json`, every reason with its count, also where that is zero."""
        return {
            "split": self.split,
            "rows": self.rows,
            "kept": self.kept.total(),
            "kept_by_type": {kind: self.kept[kind] for kind in PAIR_TYPES},
            "left_out": {reason: self.left_out[reason] for reason in reasons},
            "images": self.images,
        }


def export_folder(
    dataset: Path,
    out: Path,
    *,
    name: str,
    split: Side,
    columns: Sequence[str],
    reasons: Sequence[str],
    reason: Callable[[Row], str | None],
    entry: Callable[[Shard, Row], Row],
    progress: Progress,
    further: Mapping[str, bytes] | None = None,
) -> Exported:
    """Write `out/<name>`, `out/images/`, `out/left_out.json` and what else is given.

    Args:
        dataset: the built dataset; nothing in it changes.
        out: a folder that is not there yet; it appears when everything in it is written.
        name: the file of the list.
        split: the side whose rows go out.
        columns: what `reason` and `entry` read, beside id, type and image.path.
        reasons: every phrase that `reason` can give.
        reason: why a row that has an image is left out, or None.
        entry: a row as it stands in the list.
        progress: counts rows.
        further: other files, by their paths below `out`.

    Raises:
        InputError: when the dataset or a row of it cannot be used, or `out` is there already.
    """
    if out.exists():
        raise InputError(f"--out: {out} is there already; name a new folder, or delete it")
    if dataset.resolve() in out.resolve().parents:
        raise InputError(
            f"--out: {out} is in the dataset, which the next build replaces; name another folder"
        )
    found = shards(dataset, split)
    wanted = list(dict.fromkeys(["id", "type", "image.path", *columns]))
    check_columns(found, wanted)
    done = Exported(split)
    seen: set[int] = set()
    images: set[str] = set()
    partial = out.with_name(f".{out.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)  # of an export that was killed
    partial.mkdir(parents=True)

    def kept() -> Iterator[Row]:
        for shard in found:
            for row in shard_rows(shard, wanted):
                _check(shard, row, seen)
                done.rows += 1
                progress.advance()
                why = NO_IMAGE if row["image"] is None else reason(row)
                if why is not None:
                    done.left_out[why] += 1
                    continue
                if row["image"]["path"] not in images:
                    images.add(row["image"]["path"])
                    _copy_image(dataset, partial, shard, row)
                done.kept[row["type"]] += 1
                yield entry(shard, row)

    progress.start("rows", row_count(found))
    try:
        with new_text(partial / name) as file:
            write_json_list(file, kept())
        (partial / "images").mkdir(exist_ok=True)
        done.images = len(images)
        write_json(partial / "left_out.json", done.as_json([NO_IMAGE, *reasons]))
        for path, content in (further or {}).items():
            write_bytes(partial / path, content)
        partial.rename(out)
    except BaseException:
        shutil.rmtree(partial, ignore_errors=True)
        raise
    return done


def bad_row(shard: Shard, row: Row, problem: str) -> InputError:
    """A row that no build makes."""
    return InputError(f"{shard.path}: row {row['id']}: {problem}; build the dataset again")


def _check(shard: Shard, row: Row, seen: set[int]) -> None:
    if row["id"] is None:
        raise bad_row(shard, row, "id is missing")
    if row["id"] in seen:
        raise bad_row(shard, row, "id: another row has it")
    seen.add(row["id"])
    if row["type"] not in PAIR_TYPES:
        raise bad_row(shard, row, f"type: {row['type']!r} is none of {', '.join(PAIR_TYPES)}")
    if row["image"] is None:
        return
    path = PurePosixPath(row["image"]["path"] or "/")
    # A dataset may come from anywhere: its paths must not lead out of the folder.
    if path.is_absolute() or ".." in path.parts or not path.parts:
        raise bad_row(shard, row, f"image.path: {row['image']['path']!r} is no path below images/")


def _copy_image(dataset: Path, out: Path, shard: Shard, row: Row) -> None:
    source = dataset / "images" / row["image"]["path"]
    target = out / "images" / row["image"]["path"]
    target.parent.mkdir(parents=True, exist_ok=True)
    try:
        shutil.copyfile(source, target)
    except FileNotFoundError:
        raise bad_row(shard, row, f"image.path: there is no {source}") from None

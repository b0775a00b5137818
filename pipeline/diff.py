"""What differs between two built datasets: rows added, gone and labelled otherwise, and other responses."""

from __future__ import annotations

import hashlib
import json
import sqlite3
from contextlib import closing
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from pipeline.built import check_columns, row_count, shard_rows, shards
from pipeline.store import new_text, write_json_list
from pipeline.workspace import Progress
from schemas.errors import InputError
from schemas.taxonomy import PAIR_TYPES

__all__ = ["ANSWERS", "LABELS", "CellDiff", "Diff", "diff_datasets"]

LABELS = (
    "type",
    "split",
    "category",
    "subcategory",
    "class_key",
    "image_safe",
    "image_safety_label",
    "grade_image",
    "grade_text",
    "grade_joint",
    "expected",
)
"""Fields whose change is another label."""
ANSWERS = ("response", "rationale")
"""Fields whose change is another response."""
_COLUMNS = ["id", "query_id", "image_id", *(name for name in LABELS if name != "split"), *ANSWERS]
# The database has no name: it is private, and what does not fit its cache is on disk until it is closed.
_TABLES = """
CREATE TABLE a (query_id, image_id, id, cell, labels, answers, PRIMARY KEY (query_id, image_id))
    WITHOUT ROWID;
CREATE TABLE b (query_id, image_id, id, cell, labels, answers, PRIMARY KEY (query_id, image_id))
    WITHOUT ROWID;
CREATE VIEW gone AS SELECT query_id, image_id, id, cell FROM a
    WHERE NOT EXISTS (SELECT 1 FROM b WHERE b.query_id = a.query_id AND b.image_id = a.image_id);
CREATE VIEW added AS SELECT query_id, image_id, id, cell FROM b
    WHERE NOT EXISTS (SELECT 1 FROM a WHERE a.query_id = b.query_id AND a.image_id = b.image_id);
CREATE VIEW relabelled AS SELECT query_id, image_id, b.id, b.cell, a.labels AS old, b.labels AS new
    FROM a JOIN b USING (query_id, image_id) WHERE a.labels <> b.labels;
CREATE VIEW responses AS SELECT query_id, image_id, b.id, b.cell, a.answers AS old, b.answers AS new
    FROM a JOIN b USING (query_id, image_id) WHERE a.answers <> b.answers;
"""
_INSERT = {
    "a": "INSERT INTO a VALUES (?, ?, ?, ?, ?, ?)",
    "b": "INSERT INTO b VALUES (?, ?, ?, ?, ?, ?)",
}
_COUNTS = {
    "a": "SELECT cell, count(*) FROM a GROUP BY cell",
    "b": "SELECT cell, count(*) FROM b GROUP BY cell",
    "added": "SELECT cell, count(*) FROM added GROUP BY cell",
    "gone": "SELECT cell, count(*) FROM gone GROUP BY cell",
    "relabelled": "SELECT cell, count(*) FROM relabelled GROUP BY cell",
    "responses": "SELECT cell, count(*) FROM responses GROUP BY cell",
}
_ROWS = {
    "added": "SELECT * FROM added ORDER BY query_id, image_id",
    "gone": "SELECT * FROM gone ORDER BY query_id, image_id",
    "relabelled": "SELECT * FROM relabelled ORDER BY query_id, image_id",
    "responses": "SELECT * FROM responses ORDER BY query_id, image_id",
}


@dataclass
class CellDiff:
    """One cell: a class, a type and a side.

    Attributes:
        class_key: the class of the harm.
        type: the type of the pair.
        split: the side.
        a: rows in the first dataset.
        b: rows in the second.
        added: rows of this cell that only the second has.
        gone: rows of this cell that only the first has.
        relabelled: rows in both, here in the second, with other labels; they may come from another cell.
        responses: rows in both, here in the second, with another response or rationale.
    """

    class_key: str
    type: str
    split: str
    a: int = 0
    b: int = 0
    added: int = 0
    gone: int = 0
    relabelled: int = 0
    responses: int = 0

    @property
    def changed(self) -> bool:
        """Whether anything differs."""
        return bool(self.a != self.b or self.added or self.gone or self.relabelled or self.responses)


@dataclass(frozen=True, slots=True)
class Diff:
    """All cells that either dataset has, in order, and their sum."""

    cells: list[CellDiff]
    total: CellDiff


def diff_datasets(a: Path, b: Path, target: Path | None, progress: Progress) -> Diff:
    """Compare two built datasets; `target` gets every differing row as JSON (docs/exports.md).

    Raises:
        InputError: when a folder is no built dataset, or one has a pair twice.
    """
    with closing(sqlite3.connect("")) as database:
        database.executescript(_TABLES)
        for side, dataset in (("a", a), ("b", b)):
            _read(database, side, dataset, progress)
        diff = _counted(database)
        if target is not None:
            _write(database, diff, a, b, target)
    return diff


def _read(database: sqlite3.Connection, side: str, dataset: Path, progress: Progress) -> None:
    found = shards(dataset)
    check_columns(found, _COLUMNS)
    progress.start(f"rows of {dataset}", row_count(found))
    for shard in found:
        for row in shard_rows(shard, _COLUMNS):
            row["split"] = shard.split
            labels = {name: row[name] for name in LABELS}
            answers = {name: hashlib.sha256((row[name] or "").encode()).hexdigest()[:32] for name in ANSWERS}
            cell = json.dumps([row["class_key"], row["type"], shard.split])
            key = row["query_id"], row["image_id"]
            if None in key:
                raise InputError(
                    f"{shard.path}: row {row['id']}: query_id or image_id is missing; build it again"
                )
            try:
                database.execute(
                    _INSERT[side], (*key, row["id"], cell, json.dumps(labels), json.dumps(answers))
                )
            except sqlite3.IntegrityError:
                raise InputError(
                    f"{shard.path}: query_id: {row['query_id']} is there twice; build the dataset again"
                ) from None
            progress.advance()


def _counted(database: sqlite3.Connection) -> Diff:
    cells: dict[str, CellDiff] = {}
    total = CellDiff("", "", "")
    for name, query in _COUNTS.items():
        for key, count in database.execute(query):
            cell = cells.setdefault(key, CellDiff(*json.loads(key)))
            setattr(cell, name, count)
            setattr(total, name, getattr(total, name) + count)
    order: dict[str, int] = {kind: place for place, kind in enumerate(PAIR_TYPES)}
    return Diff(
        sorted(
            cells.values(), key=lambda c: (c.class_key, order.get(c.type, len(order)), c.split != "train")
        ),
        total,
    )


def _write(database: sqlite3.Connection, diff: Diff, a: Path, b: Path, target: Path) -> None:
    head = {
        "a": str(a),
        "b": str(b),
        "rows": {k: v for k, v in asdict(diff.total).items() if k not in ("class_key", "type", "split")},
        "cells": [asdict(cell) for cell in diff.cells],
    }
    with new_text(target) as file:
        file.write("{\n")
        for name, value in head.items():
            file.write(f"{json.dumps(name)}: {json.dumps(value, ensure_ascii=False)},\n")
        for place, (name, query) in enumerate(_ROWS.items()):
            file.write(("," if place else "") + f"{json.dumps(name)}: ")
            write_json_list(file, (_differing(name, row) for row in database.execute(query)))
        file.write("}\n")


def _differing(name: str, row: tuple[Any, ...]) -> dict[str, Any]:
    query_id, image_id, row_id, cell, *both = row
    class_key, kind, split = json.loads(cell)
    said = {
        "id": row_id,
        "query_id": query_id,
        "image_id": image_id,
        "class_key": class_key,
        "type": kind,
        "split": split,
    }
    if not both:
        return said
    old, new = map(json.loads, both)
    changed = {key: [old[key], new[key]] for key in old if old[key] != new[key]}
    # Of answers only hashes are known here.
    return said | {"changed": list(changed) if name == "responses" else changed}

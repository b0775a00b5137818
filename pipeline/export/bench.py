"""HoliSafe's own format, strictly: what its eight fields and two grades can say, and nothing else."""

from __future__ import annotations

from importlib import resources
from pathlib import Path
from typing import Any

from pipeline.built import Shard, Side
from pipeline.export.folder import Exported, bad_row, export_folder
from pipeline.workspace import Progress

__all__ = ["BENCH_NAME", "export_bench"]

BENCH_NAME = "holisafe_bench.json"
UNVERIFIED = "SSU not verified"
BORDERLINE = "borderline grade"
TASK = ("holisafe_export.yaml", "utils.py")
_FIELDS = ("id", "query", "type", "category", "subcategory", "image_safe", "image_safety_label")
_GRADES = ("grade_text", "grade_joint", "expected", "ssu_unverified")


def export_bench(
    dataset: Path, out: Path, *, split: Side, with_unverified: bool, progress: Progress
) -> Exported:
    """Write `holisafe_bench.json`, `images/`, `left_out.json` and a task of lmms-eval to `out`.

    Raises:
        InputError: naming the file, the field and the mend.
    """

    def reason(row: dict[str, Any]) -> str | None:
        if row["ssu_unverified"] and not with_unverified:
            return UNVERIFIED
        # The joint grade of a protective question on an unsafe image is borderline by definition, and to
        # HoliSafe such a pair is plainly USU.
        protective = row["type"] == "USU" and row["expected"] == "safe_complete"
        if row["grade_text"] == "borderline" or (row["grade_joint"] == "borderline" and not protective):
            return BORDERLINE
        return None

    return export_folder(
        dataset,
        out,
        name=BENCH_NAME,
        split=split,
        columns=[*_FIELDS, *_GRADES],
        reasons=[UNVERIFIED, BORDERLINE],
        reason=reason,
        entry=_entry,
        progress=progress,
        further=_lmms_eval_task(),
    )


def _lmms_eval_task() -> dict[str, bytes]:
    files = [resources.files("pipeline.export") / "lmms_eval" / name for name in TASK]
    files.append(resources.files("pipeline.bench") / "official_rule.json")
    return {f"lmms_eval/{file.name}": file.read_bytes() for file in files}


def _entry(shard: Shard, row: dict[str, Any]) -> dict[str, Any]:
    safe = row["type"].startswith("S")
    if not (row["query"] or "").strip():
        raise bad_row(shard, row, "query: empty")
    if row["image_safe"] is not safe:
        raise bad_row(shard, row, f"image_safe: {row['image_safe']} in a row of type {row['type']}")
    if row["image_safety_label"] is None or (row["image_safety_label"] == 0) is not safe:
        raise bad_row(
            shard, row, f"image_safety_label: {row['image_safety_label']} in a row of type {row['type']}"
        )
    for name in ("category", "subcategory"):
        if not row[name]:
            raise bad_row(shard, row, f"{name}: empty")
    return {
        "id": row["id"],
        "image": row["image"]["path"],
        **{name: row[name] for name in _FIELDS if name != "id"},
    }

"""LLaVA's conversations: a list that its trainers, and most since, read."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from pipeline.built import Shard, Side
from pipeline.export.folder import Exported, bad_row, export_folder
from pipeline.workspace import Progress

__all__ = ["LLAVA_NAME", "export_llava"]

LLAVA_NAME = "llava.json"
IMAGE_MARK = "<image>"
MARK_IN_TEXT = f"{IMAGE_MARK} in the text"
_COLUMNS = ("query", "response", "image_safety_label")


def export_llava(dataset: Path, out: Path, *, split: Side, rationale: bool, progress: Progress) -> Exported:
    """Write `llava.json`, `images/` and `left_out.json` to `out`; paths of images are below `images/`.

    With `rationale` every conversation has a field of that name: an object, or null where there is none.

    Raises:
        InputError: naming the file, the field and the mend.
    """

    def reason(row: dict[str, Any]) -> str | None:
        # Trainers put the picture in wherever the mark stands, so a second one asks for a second picture.
        return MARK_IN_TEXT if IMAGE_MARK in f"{row['query']}{row['response']}" else None

    def entry(shard: Shard, row: dict[str, Any]) -> dict[str, Any]:
        for name in ("query", "response"):
            if not (row[name] or "").strip():
                raise bad_row(shard, row, f"{name}: empty")
        said = {
            "id": str(row["id"]),
            "image": row["image"]["path"],
            "conversations": [
                {"from": "human", "value": f"{IMAGE_MARK}\n{row['query']}"},
                {"from": "gpt", "value": row["response"]},
            ],
            "type": row["type"],
            "image_safety_label": row["image_safety_label"],
        }
        return said | ({"rationale": _parsed(shard, row)} if rationale else {})

    return export_folder(
        dataset,
        out,
        name=LLAVA_NAME,
        split=split,
        columns=[*_COLUMNS, *(["rationale"] if rationale else [])],
        reasons=[MARK_IN_TEXT],
        reason=reason,
        entry=entry,
        progress=progress,
    )


def _parsed(shard: Shard, row: dict[str, Any]) -> Any:
    if not row["rationale"]:
        return None
    try:
        return json.loads(row["rationale"])
    except ValueError as error:
        raise bad_row(shard, row, f"rationale: not JSON: {error}") from error

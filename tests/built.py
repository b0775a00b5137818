"""Small built datasets, made without a build."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pyarrow as pa

from pipeline.assemble.card import front_matter
from pipeline.store import sha256_text, write_rows
from schemas.rows import DATASET
from tests.images import encoded, picture

Row = dict[str, Any]
LABEL = {"race": 3, "weapon_related_violence": 9}
CATEGORY = {"race": "hate", "weapon_related_violence": "violence"}


def row(number: int, kind: str = "SSS", split: str = "test", name: str = "race", **changes: Any) -> Row:
    """A row of the dataset as assemble writes it, with its `split`; every number has an image of its own."""
    safe = kind.startswith("S")
    image_id = sha256_text(f"image {number}")
    blank = {f.name: [] if pa.types.is_list(f.type) else None for f in DATASET}
    words = {f.name: f"a {f.name}" for f in DATASET if pa.types.is_string(f.type)}
    return (
        blank
        | words
        | {
            "id": number,
            "image": {"bytes": None, "path": f"{CATEGORY[name]}/{name}/{name}_{number}.jpg"},
            "query": f"What is this, number {number}?",
            "type": kind,
            "category": CATEGORY[name],
            "subcategory": name,
            "image_safe": safe,
            "image_safety_label": 0 if safe else LABEL[name],
            "grade_image": "safe" if safe else "unsafe",
            "grade_text": "safe" if kind[1] == "S" else "unsafe",
            "grade_joint": "safe" if kind[2] == "S" else "unsafe",
            "expected": "comply" if kind == "SSS" else "refuse",
            "class_key": f"holisafe/{CATEGORY[name]}/{name}",
            "response": f"Answer {number}.",
            "rationale": "" if kind == "SSS" else json.dumps({"class": name, "why": "harm"}),
            "agreement": 1.0,
            "ssu_unverified": False,
            "image_id": image_id,
            "query_id": sha256_text(f"{image_id} query {number}"),
            "redistributable": "yes",
            "split": split,
        }
        | changes
    )


def built(folder: Path, rows: Iterable[Row]) -> Path:
    """The dataset of these rows: shards, loose images, card and what stands in `meta`."""
    cells: dict[tuple[str, str, str], list[Row]] = defaultdict(list)
    for one in rows:
        cells[one["category"], one["subcategory"], one["split"]].append(one)
        if one["image"] is not None:
            one["image"]["bytes"] = encoded(picture(seed=one["id"]), "JPEG")
            path = folder / "images" / one["image"]["path"]
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(one["image"]["bytes"])
    for (category, name, split), members in cells.items():
        plain = [{k: v for k, v in one.items() if k != "split"} for one in members]
        write_rows(folder / "data" / category / name / f"{split}-00000.parquet", DATASET, plain)
    (folder / "README.md").write_text(front_matter({split for _, _, split in cells}) + "# A card\n")
    (folder / "holisafe_bench.json").write_text("[]\n")
    (folder / "meta").mkdir()
    (folder / "meta" / "images_left_out.jsonl").write_text("")
    return folder

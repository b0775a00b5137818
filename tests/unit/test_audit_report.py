"""The audit of any dataset: its figures, its page, and rows that were written to break it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from pipeline.audit import audit_anyset
from pipeline.audit.headlines import headlines
from pipeline.workspace import Silent
from tests.images import encoded, picture
from tests.unit.test_anyset import ROW, bench, parquet

EVIL = "<script>alert(1)</script>\"'><img src=x onerror=alert(2)>"


def make(folder: Path, *changes: dict[str, Any]) -> Path:
    """A benchmark folder; each row has an image of its own unless it says otherwise."""
    rows = []
    for n, change in enumerate(changes):
        row = ROW | {"id": n, "image": f"hate/gender/gender_{n}.png"} | change
        row["image_safe"] = row["type"].startswith("S")
        row["image_safety_label"] = 0 if row["image_safe"] else 1
        path = folder / "images" / row["image"]
        path.parent.mkdir(parents=True, exist_ok=True)
        if not path.exists():
            path.write_bytes(encoded(picture(160, 120, seed=n), "PNG"))
        rows.append(row)
    bench(folder, rows)
    return folder


def audited(folder: Path, **options: Any) -> tuple[dict[str, Any], str]:
    out = folder / "audit"
    metrics = audit_anyset(str(folder), out, Silent(), **options)
    assert json.loads((out / "metrics.json").read_text()) == json.loads(json.dumps(metrics))
    return metrics, (out / "index.html").read_text()


def levels(metrics: dict[str, Any]) -> dict[str, str]:
    return {line.section: line.level for line in headlines(metrics)}


def test_a_folder_from_elsewhere_is_audited(tmp_path: Path) -> None:
    metrics, page = audited(
        make(
            tmp_path,
            {},
            {"type": "USU", "query": "How can I prevent this?"},
            {"image": ROW["image"], "query": "Q?"},
        )
    )
    assert (metrics["rows"], metrics["images"]) == (3, 2)
    assert metrics["by_type"] == {"SSS": 2, "SSU": 0, "SUU": 0, "USU": 1, "UUU": 0}
    assert metrics["by_split"] == {"train": 0, "test": 0}
    assert metrics["copies"]["images"]["across"] is None
    assert metrics["responses"] is None
    assert metrics["over_refusal"]["examples"][0]["query"] == "How can I prevent this?"
    assert levels(metrics)["over-refusal"] == "look"
    assert levels(metrics)["problems"] == "fine"
    assert page.startswith("<!doctype html>")
    assert page.count("data:image/jpeg;base64,") == 2


def test_markup_in_rows_is_shown_and_never_run(tmp_path: Path) -> None:
    fields = ("query", "category", "subcategory", "response", "caption", "licence", "source_uri", "generator")
    _, page = audited(make(tmp_path, dict.fromkeys(fields, EVIL), {"type": EVIL}, {"id": EVIL}))
    assert "<script>alert" not in page
    assert "<img src=x" not in page
    assert "&lt;script&gt;alert(1)" in page
    assert page.count("<script") == 2


def test_what_is_wrong_is_told_by_row_and_the_rest_is_audited(tmp_path: Path) -> None:
    folder = make(tmp_path, {}, {"type": "XXX"}, {}, {})
    (folder / "images" / "hate/gender/gender_2.png").unlink()
    (folder / "images" / "hate/gender/gender_3.png").write_bytes(b"no picture")
    metrics, page = audited(folder)
    assert metrics["rows"] == 3
    told = {
        (p["row"], p["field"], p["problem"].split(":")[0]): p["kept"] for p in metrics["problems"]["listed"]
    }
    assert told == {
        (2, "type", "unknown"): False,
        (3, "image", "missing"): True,
        (4, "image", "not a raster image"): True,
    }
    assert levels(metrics)["problems"] == "wrong"
    assert "no picture" in page


def test_an_audit_against_itself_finds_everything_there(tmp_path: Path) -> None:
    folder = make(tmp_path, {}, {"query": "Another question about the thing?"})
    metrics, page = audited(folder, against=str(folder))
    assert metrics["copies"]["images"]["against"] == 2
    assert metrics["copies"]["queries"]["against"] == 2
    assert metrics["copies"]["against"] == str(folder)
    assert "have a copy in" in page


def test_what_parquet_tells_beside_the_eight_fields_is_used(tmp_path: Path) -> None:
    vote = {
        "question": "pair_safe",
        "annotator": "a",
        "family": "f",
        "status": "ok",
        "value": "safe",
        "score": 0.1,
    }
    rows = [
        ROW
        | {
            "id": n,
            "image": {"bytes": encoded(picture(160, 120, seed=n), "PNG"), "path": "x.png"},
            "query": f"Question number {n}?",
            "licence": "CC0-1.0",
            "source_uri": f"file-{n}.png",
            "class_key": "holisafe/violence/terrorism",
            "votes": [vote],
        }
        for n in range(3)
    ]
    parquet(tmp_path / "data" / "train-00000.parquet", rows[:2])
    parquet(tmp_path / "data" / "test-00000.parquet", rows[2:])
    metrics, page = audited(tmp_path)
    assert metrics["by_split"] == {"train": 2, "test": 1}
    assert metrics["provenance"]["complete"] == 3
    assert {c["class"] for c in metrics["cells"]} == {"terrorism"}
    assert metrics["copies"]["queries"]["across"] == 1
    assert "pair_safe · a: safe (0.10)" in page


def test_the_same_dataset_gives_the_same_files(tmp_path: Path) -> None:
    folder = make(tmp_path, *({"type": t} for t in ("SSS", "SSU", "SUU", "USU", "UUU")))
    first = audited(folder)
    assert audited(folder) == first


@pytest.mark.parametrize("kind", ["SSS", "UUU"])
def test_a_single_row_is_audited(tmp_path: Path, kind: str) -> None:
    metrics, _ = audited(make(tmp_path, {"type": kind}))
    assert metrics["rows"] == 1
    assert all(p["grouped"] is None for p in metrics["probes"])

"""Datasets joined into one folder: sides, names and images."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

from tests.built import built, row
from tests.conftest import REPOSITORY
from tests.images import encoded, picture


def joined(folder: Path, *sets: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "scripts.join_sets", *sets, "--out", str(folder / "out")],
        cwd=REPOSITORY, capture_output=True, text=True, check=False,
    )  # fmt: skip


def other(folder: Path, n: int = 40) -> Path:
    (folder / "images").mkdir(parents=True)
    rows = []
    for k in range(n):
        (folder / "images" / f"{k}.png").write_bytes(encoded(picture(20, 20, seed=k), "PNG"))
        rows.append(
            {
                "id": k + 1, "image": f"{k}.png", "query": "What is it?", "type": "SSS", "category": "hate",
                "subcategory": "race", "image_safe": True, "image_safety_label": 0,
                "leak_group": f"g{k // 4}",
            }
        )  # fmt: skip
    (folder / "holisafe_bench.json").write_text(json.dumps(rows))
    return folder


def test_sides_are_kept_or_dealt_out_by_leak_group_and_ids_are_new(tmp_path: Path) -> None:
    ours = built(tmp_path / "ours", [row(1, split="train"), row(2, "UUU", split="test")])
    theirs = other(tmp_path / "theirs")
    done = joined(tmp_path, f"ours={ours}", f"theirs={theirs}")
    assert done.returncode == 0, done.stderr
    rows = json.loads((tmp_path / "out" / "holisafe_bench.json").read_text())
    assert [r["id"] for r in rows] == list(range(1, 43))
    assert {r["type"]: (r["split"], r["response"]) for r in rows[:2]} == {
        "SSS": ("train", "Answer 1."),
        "UUU": ("test", "Answer 2."),
    }
    sides: dict[str, set[str]] = {}
    for r in rows[2:]:
        sides.setdefault(r["leak_group"], set()).add(r["split"])
    assert all(len(of) == 1 for of in sides.values())
    assert {side for of in sides.values() for side in of} == {"train", "test"}
    assert all((tmp_path / "out" / "images" / r["image"]).is_file() for r in rows)


def test_what_is_there_missing_or_leads_out_is_refused(tmp_path: Path) -> None:
    theirs = other(tmp_path / "theirs", 4)
    (theirs / "images" / "3.png").unlink()
    refused = joined(tmp_path, f"theirs={theirs}")
    assert refused.returncode == 2
    assert "3.png is missing" in refused.stderr
    assert not (tmp_path / "out").exists()
    evil = built(tmp_path / "evil", [row(1, image_id="../../../evil")])
    refused = joined(tmp_path, f"evil={evil}")
    assert refused.returncode == 2
    assert "no path below a folder" in refused.stderr
    assert not (tmp_path / "out").exists()

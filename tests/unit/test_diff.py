"""What differs between two built datasets."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from pipeline.diff import CellDiff, diff_datasets
from pipeline.workspace import Silent
from schemas.errors import InputError
from tests.built import built, row
from tests.conftest import holisafe

KEY = "holisafe/hate/race"


def two(tmp_path: Path) -> tuple[Path, Path]:
    common = [row(number) for number in range(5)]
    a = built(tmp_path / "a", [*common, row(10, "SSU"), row(11, "SSU"), row(12), row(13)])
    b = built(
        tmp_path / "b",
        [
            *common,
            row(10, "SSU", response="Another answer."),
            row(11, "SSU", grade_joint="borderline", response="A third answer."),
            row(12, split="train"),
            row(20, "UUU", name="weapon_related_violence"),
        ],
    )
    return a, b


def test_rows_labels_and_responses_by_cell(tmp_path: Path) -> None:
    diff = diff_datasets(*two(tmp_path), tmp_path / "diff.json", Silent())
    assert diff.total == CellDiff("", "", "", a=9, b=9, added=1, gone=1, relabelled=2, responses=2)
    assert diff.cells == [
        CellDiff(KEY, "SSS", "train", a=0, b=1, relabelled=1),
        CellDiff(KEY, "SSS", "test", a=7, b=5, gone=1),
        CellDiff(KEY, "SSU", "test", a=2, b=2, relabelled=1, responses=2),
        CellDiff("holisafe/violence/weapon_related_violence", "UUU", "test", a=0, b=1, added=1),
    ]
    said = json.loads((tmp_path / "diff.json").read_text())
    assert list(said) == ["a", "b", "rows", "cells", "added", "gone", "relabelled", "responses"]
    assert said["rows"] == {"a": 9, "b": 9, "added": 1, "gone": 1, "relabelled": 2, "responses": 2}
    assert [r["id"] for r in said["added"]] == [20]
    [gone] = said["gone"]
    assert gone == {
        "id": 13,
        "query_id": row(13)["query_id"],
        "image_id": row(13)["image_id"],
        "class_key": KEY,
        "type": "SSS",
        "split": "test",
    }
    assert {r["id"]: r["changed"] for r in said["relabelled"]} == {
        11: {"grade_joint": ["unsafe", "borderline"]},
        12: {"split": ["test", "train"]},
    }
    assert {r["id"]: r["changed"] for r in said["responses"]} == {10: ["response"], 11: ["response"]}


def test_a_dataset_does_not_differ_from_itself(tmp_path: Path) -> None:
    a, _ = two(tmp_path)
    diff = diff_datasets(a, a, tmp_path / "diff.json", Silent())
    assert not any(cell.changed for cell in diff.cells)
    assert json.loads((tmp_path / "diff.json").read_text())["added"] == []


def test_a_pair_that_is_there_twice_is_an_error(tmp_path: Path) -> None:
    one, other = row(1), row(2)
    same = {name: one[name] for name in ("query_id", "image_id")}
    twice = built(tmp_path / "twice", [one, other | same])
    with pytest.raises(InputError, match=r"test-00000.parquet: query_id: [0-9a-f]{64} is there twice"):
        diff_datasets(twice, twice, tmp_path / "diff.json", Silent())
    assert not (tmp_path / "diff.json").exists()


def test_images_are_not_read(tmp_path: Path) -> None:
    a, b = two(tmp_path)
    for path in [*a.rglob("*.jpg"), *b.rglob("*.jpg")]:
        path.unlink()
    assert diff_datasets(a, b, None, Silent()).total.added == 1


def test_the_command_line(tmp_path: Path) -> None:
    two(tmp_path)
    said = holisafe(tmp_path, "diff", "a", "b", "--json", "diff.json").stdout
    assert "4 of 4 cells differ" in said
    assert "weapon_related_violence UUU" in said
    assert json.loads((tmp_path / "diff.json").read_text())["a"] == "a"
    assert "Nothing differs" in holisafe(tmp_path, "diff", "a", "a").stdout
    done = holisafe(tmp_path, "diff", "a", "nowhere", check=False)
    assert (done.returncode, done.stderr.splitlines()[-1][:17]) == (2, "holisafe: nowhere")

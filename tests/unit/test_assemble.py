"""The card: its front matter is what `load_dataset` goes by, its figures are counted."""

from __future__ import annotations

from pathlib import Path

import pyarrow.parquet as pq
import pytest
import yaml

from pipeline.assemble.card import front_matter, markdown_table
from pipeline.assemble.figures import Pair, pairs_of
from pipeline.assemble.stage import image_path
from schemas.taxonomy import load_taxonomy
from tests.conftest import REPOSITORY

TAXONOMY = load_taxonomy(REPOSITORY / "schemas" / "taxonomy.yaml")


@pytest.mark.parametrize("splits", [{"train"}, {"train", "test"}])
def test_both_sides_open_beside_an_image_folder(
    splits: set[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import pyarrow as pa
    from datasets import load_dataset

    for n, split in enumerate(sorted(splits), 1):
        folder = tmp_path / "set" / "data" / "hate" / "race"
        folder.mkdir(parents=True, exist_ok=True)
        pq.write_table(pa.table({"id": list(range(n))}), folder / f"{split}-00000.parquet")
    (tmp_path / "set" / "images").mkdir()
    (tmp_path / "set" / "images" / "a.png").write_bytes(b"")
    (tmp_path / "set" / "README.md").write_text(front_matter(splits))
    monkeypatch.chdir(tmp_path)
    data = load_dataset("set", cache_dir=str(tmp_path / "cache"))
    assert {split: len(part) for split, part in data.items()} == {
        s: n for n, s in enumerate(sorted(splits), 1)
    }


def test_the_front_matter_is_yaml() -> None:
    _, middle, _ = front_matter({"train", "test"}).split("---\n")
    assert [f["split"] for f in yaml.safe_load(middle)["configs"][0]["data_files"]] == ["train", "test"]


def test_image_paths_follow_holisafe() -> None:
    assert image_path("0000000a" + "0" * 56, "race", TAXONOMY) == "hate/race/race_10.jpg"
    assert (
        image_path("0000000b" + "0" * 56, "sexual_content", TAXONOMY)
        == "sexual_content/sexual_content_11.jpg"
    )


def test_a_table() -> None:
    assert markdown_table(["a", "b"], [[1, 2]]) == "| a | b |\n| --- | --- |\n| 1 | 2 |"


def votes(values: dict[str, list[str | None]], question: str = "q") -> list[dict[str, str]]:
    return [
        {"item_id": str(i), "question": question, "annotator": name, "status": "ok", "value": value}
        for name, given in values.items()
        for i, value in enumerate(given)
        if value is not None
    ]


def test_annotators_are_compared_two_by_two_on_what_both_answered() -> None:
    given = votes({"b": ["safe", "safe", "unsafe"], "a": ["safe", "unsafe", None], "c": [None, None, "safe"]})
    errors = [{**vote, "item_id": "9", "status": "error"} for vote in given]
    assert pairs_of([*given, *errors], "q") == [
        Pair("a", "b", 2, 0.5),
        Pair("a", "c", 0, None),
        Pair("b", "c", 1, 0.0),
    ]
    assert pairs_of(given, "other question") == []

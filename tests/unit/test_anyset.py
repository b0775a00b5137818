"""Any dataset as one table: what is read, what is wrong by row, and which images it has."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.anyset import FIELDS, LISTED, open_anyset
from pipeline.store import sha256_bytes, sha256_text
from schemas.errors import InputError
from tests.images import encoded, picture

ROW = {
    "id": 7,
    "image": "hate/gender/gender_1.png",
    "query": "What is on the sign?",
    "type": "SSS",
    "category": "hate",
    "subcategory": "gender",
    "image_safe": True,
    "image_safety_label": 0,
}


def bench(folder: Path, rows: Any) -> Path:
    path = folder / "holisafe_bench.json"
    path.write_text(json.dumps(rows))
    return path


def write_image(folder: Path, name: str, seed: int) -> bytes:
    data = encoded(picture(32, 24, seed=seed), "PNG")
    (folder / "images" / name).parent.mkdir(parents=True, exist_ok=True)
    (folder / "images" / name).write_bytes(data)
    return data


def problems(found: Any) -> list[tuple[int, str, str]]:
    return [(p.row, p.field, p.problem) for p in found.problems.listed]


@pytest.mark.parametrize("named", ["the file", "its folder"])
def test_a_benchmark_file_and_its_images_are_read(tmp_path: Path, named: str) -> None:
    data = write_image(tmp_path, ROW["image"], 1)
    path = bench(tmp_path, [ROW, ROW | {"id": 8, "image": "gone.png", "type": "SUU"}])
    found = open_anyset(str(path if named == "the file" else tmp_path))
    assert list(found.rows.columns) == ["row", *FIELDS]
    assert found.rows[list(FIELDS)].iloc[0].to_dict() == ROW
    assert dict(found.pictures.read(found.rows["image"])) == {ROW["image"]: data, "gone.png": None}
    assert len(found.problems) == 0


def test_further_columns_are_kept_where_any_row_has_them(tmp_path: Path) -> None:
    path = bench(tmp_path, [ROW, ROW | {"id": 8, "prediction": "No.", "generator": None, "unknown": 1}])
    found = open_anyset(str(path))
    assert found.rows["prediction"].tolist() == [None, "No."]
    assert found.has("prediction", "query")
    assert not found.has("generator")
    assert "unknown" not in found.rows


@pytest.mark.parametrize(
    ("change", "field", "problem"),
    [
        ({"id": None}, "id", "missing"),
        ({"id": "7"}, "id", "not a whole number: '7'"),
        ({"id": True}, "id", "not a whole number: True"),
        ({"id": 2**63}, "id", "not a whole number: 9223372036854775808"),
        ({"id": 1}, "id", "another row has it: 1"),
        ({"image": None}, "image", "missing"),
        ({"image": ["a"]}, "image", "not a text"),
        ({"query": "  "}, "query", "empty"),
        ({"query": "\ud800"}, "query", "not UTF-8"),
        ({"type": "SSX"}, "type", "unknown: 'SSX'"),
        ({"type": []}, "type", "unknown: []"),
        ({"category": None}, "category", "missing"),
    ],
)
def test_a_row_that_cannot_be_audited_is_named_and_left_out(
    tmp_path: Path, change: dict[str, Any], field: str, problem: str
) -> None:
    found = open_anyset(str(bench(tmp_path, [ROW | {"id": 1}, ROW | change, ROW | {"id": 2}])))
    assert found.rows["id"].tolist() == [1, 2]
    assert (2, field, problem) in problems(found)
    assert found.problems.rows_left_out == 1


@pytest.mark.parametrize(
    ("change", "field", "problem"),
    [
        ({"image_safe": None}, "image_safe", "missing: taken from the type"),
        ({"image_safe": "yes"}, "image_safe", "not true or false: taken from the type"),
        (
            {"image_safety_label": 3},
            "image_safety_label",
            "contradicts image_safe: 3 where image_safe is True",
        ),
        ({"image_safety_label": "0"}, "image_safety_label", "not a whole number from 0"),
        ({"response": "\udc80"}, "response", "not UTF-8"),
    ],
)
def test_a_doubtful_row_is_named_and_kept(
    tmp_path: Path, change: dict[str, Any], field: str, problem: str
) -> None:
    found = open_anyset(str(bench(tmp_path, [ROW | change])))
    assert problems(found) == [(1, field, problem)]
    assert found.problems.listed[0].kept
    assert found.problems.rows_left_out == 0
    assert len(found.rows) == 1


def test_an_image_label_against_the_type_is_kept_as_it_stands(tmp_path: Path) -> None:
    found = open_anyset(str(bench(tmp_path, [ROW | {"image_safe": False, "image_safety_label": 1}])))
    assert problems(found) == [(1, "image_safe", "contradicts the type: False in a row of type SSS")]
    assert found.rows["image_safe"].tolist() == [False]


def test_bytes_of_another_encoding_cost_their_row_only(tmp_path: Path) -> None:
    path = bench(tmp_path, [ROW, ROW | {"id": 8, "query": "PLACE"}])
    path.write_bytes(b"\xef\xbb\xbf" + path.read_bytes().replace(b"PLACE", "Größe".encode("latin-1")))
    found = open_anyset(str(path))
    assert found.rows["id"].tolist() == [7]
    assert problems(found) == [(2, "query", "not UTF-8")]


def test_only_the_first_problems_are_listed_and_all_are_counted(tmp_path: Path) -> None:
    rows = [ROW] + [ROW | {"id": i + 100, "query": ""} for i in range(LISTED + 50)]
    told = open_anyset(str(bench(tmp_path, rows))).problems.as_json()
    assert told["n"] == told["rows_left_out"] == LISTED + 50
    assert len(told["listed"]) == LISTED
    assert told["by_kind"] == [{"field": "query", "problem": "empty", "n": LISTED + 50}]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("{", "not JSON"),
        ("{}", "holds dict"),
        ("[]", "no row can be audited (it is empty)"),
        ('[1, {"id": 1}]', "row 1: not an object"),
        ("[" * 100_000, "not JSON"),
    ],
)
def test_a_file_without_a_usable_row_is_refused(tmp_path: Path, text: str, said: str) -> None:
    (tmp_path / "holisafe_bench.json").write_text(text)
    with pytest.raises(InputError, match=re.escape(str(tmp_path))) as error:
        open_anyset(str(tmp_path))
    assert said in str(error.value)


def test_an_image_outside_the_folder_is_not_read(tmp_path: Path) -> None:
    (tmp_path / "secret.png").write_bytes(b"secret")
    inside = tmp_path / "set"
    inside.mkdir()
    (inside / "images").mkdir()
    (inside / "images" / "link.png").symlink_to(tmp_path / "secret.png")
    keys = ["../../secret.png", str(tmp_path / "secret.png"), "link.png"]
    path = bench(inside, [ROW | {"id": i, "image": key} for i, key in enumerate(keys)])
    found = open_anyset(str(path))
    assert dict(found.pictures.read(keys)) == dict.fromkeys(keys)


def parquet(path: Path, rows: list[dict[str, Any]]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.Table.from_pylist(rows), path, row_group_size=3)


def test_parquet_with_images_inside_is_read_and_equal_images_are_one(tmp_path: Path) -> None:
    pictures = [encoded(picture(32, 24, seed=s), "PNG") for s in range(4)]
    rows = [
        ROW | {"id": i, "image": {"bytes": pictures[i % 4], "path": "one_name_for_all.png"}}
        for i in range(10)
    ]
    parquet(tmp_path / "data" / "test-00000-of-00002.parquet", rows[:6])
    parquet(tmp_path / "data" / "train-00001-of-00002.parquet", rows[6:])
    found = open_anyset(str(tmp_path))
    assert found.rows["image"].tolist() == [sha256_bytes(pictures[i % 4]) for i in range(10)]
    assert found.rows["split"].tolist() == ["test"] * 6 + ["train"] * 4
    read = dict(found.pictures.read(found.rows["image"].unique()))
    assert read == {sha256_bytes(data): data for data in pictures}


def test_votes_inside_rows_stand_once_for_each_item(tmp_path: Path) -> None:
    def votes(*questions: str) -> list[dict[str, Any]]:
        return [
            {"question": q, "annotator": "a", "family": "f", "status": "ok", "value": "safe", "score": 0.1}
            for q in questions
        ]

    rows = [
        ROW | {"id": 1, "image": b"A", "votes": votes("image_safe", "text_safe", "pair_safe")},
        ROW | {"id": 2, "image": b"A", "query": "Another?", "votes": votes("image_safe", "pair_safe")},
    ]
    parquet(tmp_path / "rows.parquet", rows)
    found = open_anyset(str(tmp_path / "rows.parquet")).votes
    assert set(zip(found["item_id"], found["question"], strict=True)) == {
        (sha256_bytes(b"A"), "image_safe"),
        (sha256_text(ROW["query"]), "text_safe"),
        ("1", "pair_safe"),
        ("2", "pair_safe"),
    }
    assert len(found) == 4


def test_parquet_without_the_fields_names_what_lacks(tmp_path: Path) -> None:
    parquet(tmp_path / "rows.parquet", [{"id": 1, "text": "x"}])
    with pytest.raises(InputError, match=r"rows\.parquet: no column image, query, type"):
        open_anyset(str(tmp_path))


def test_damaged_parquet_is_refused_by_name(tmp_path: Path) -> None:
    (tmp_path / "rows.parquet").write_bytes(b"PAR1 and no more")
    with pytest.raises(InputError, match=r"rows\.parquet: cannot be read as Parquet"):
        open_anyset(str(tmp_path / "rows.parquet"))


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=3),
    max_leaves=5,
)


@given(st.lists(st.dictionaries(st.sampled_from([*FIELDS, "split", "response"]), JSON) | JSON, max_size=6))
def test_whatever_stands_in_the_rows_a_good_row_is_read(tmp_path_factory: Any, rows: list[Any]) -> None:
    folder = tmp_path_factory.mktemp("any")
    found = open_anyset(str(bench(folder, [*rows, ROW | {"id": -12345}])))
    assert found.rows["id"].tolist()[-1] == -12345
    assert len(found.rows) + found.problems.rows_left_out == len(rows) + 1

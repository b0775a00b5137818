"""Predictions as people keep them: every format, every fault by row, nothing lost at the edge of a chunk."""

from __future__ import annotations

import io
import json
import tracemalloc
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.anyset import Problems, open_anyset
from pipeline.bench.json_rows import Unreadable, json_rows, list_items
from pipeline.bench.predictions import Answered, read_predictions
from schemas.errors import InputError

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
DONE = ROW | {"prediction": "A cat."}

texts = st.text(max_size=20)
values = st.recursive(
    st.none() | st.booleans() | st.integers(-(10**20), 10**20) | st.floats(allow_nan=False) | texts,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(texts, inner, max_size=4),
    max_leaves=12,
)


def read(path: Path, data: Path | None = None) -> tuple[list[Answered], Problems]:
    problems = Problems()
    opened = None if data is None else open_anyset(str(data))
    return list(read_predictions(path, opened, problems)), problems


def said(problems: Problems) -> list[tuple[int, str, str, bool]]:
    return [(p.row, p.field, p.problem, p.kept) for p in problems.listed]


def written(folder: Path, rows: Any, name: str = "predictions.json") -> Path:
    path = folder / name
    path.write_text(rows if isinstance(rows, str) else json.dumps(rows))
    return path


@pytest.fixture
def data(tmp_path: Path) -> Path:
    rows = [ROW | {"id": 7}, ROW | {"id": 8, "type": "SUU", "query": "And now?", "expected": "refuse"}]
    return written(tmp_path, rows, "holisafe_bench.json")


@given(st.lists(values, max_size=6), st.integers(1, 40), st.sampled_from([None, 2]), st.booleans())
def test_a_list_is_read_alike_whatever_the_chunks(
    items: list[Any], chunk: int, indent: int | None, ascii_only: bool
) -> None:
    text = json.dumps(items, indent=indent, ensure_ascii=ascii_only)
    assert list(list_items(io.StringIO(text[1:] + " \n"), chunk)) == items


@given(st.lists(values, min_size=1, max_size=4), st.integers(1, 40), st.data())
def test_a_list_that_breaks_off_gives_what_was_whole(items: list[Any], chunk: int, data: Any) -> None:
    text = json.dumps(items)
    cut = data.draw(st.integers(1, len(text) - 1))
    *whole, last = list_items(io.StringIO(text[1:cut]), chunk)
    assert isinstance(last, Unreadable)
    # A number that is cut is another number, which nothing can tell; what follows it is missing all the same.
    sound = whole[:-1] if whole and whole != items[: len(whole)] else whole
    assert sound == items[: len(sound)]


@given(st.lists(st.dictionaries(texts, values, max_size=3), min_size=1, max_size=5), st.booleans())
def test_lines_and_a_list_hold_the_same_rows(tmp_path_factory: Any, rows: list[Any], plain: bool) -> None:
    folder = tmp_path_factory.mktemp("rows")
    lines = "\r\n\n".join(json.dumps(row, ensure_ascii=plain) for row in rows)
    (folder / "a").write_text("\ufeff \n" + lines, encoding="utf-8", newline="")
    (folder / "b").write_text("\ufeff\n" + json.dumps(rows, indent=1), encoding="utf-8")
    assert list(json_rows(folder / "a")) == list(json_rows(folder / "b")) == rows


@pytest.mark.parametrize(
    ("text", "rows", "problem"),
    [
        (
            "1, 2",
            [1, 2],
            "neither a comma nor the end of the list, at character 6; no further row can be read",
        ),
        ("1, ]", [1], "Expecting value, at character 5"),
        ("1 2]", [1], "neither a comma nor the end of the list, at character 4"),
        ("1] 2", [1], "something after the end of the list, at character 5"),
        ('{"a": }, 2]', [], "Expecting value, at character 8"),
        ("9" * 5000 + "]", [], "Exceeds the limit"),
        ("[" * 100_000, [], "recursion"),
        ("", [], "Expecting value, at character 2"),
    ],
)
@pytest.mark.parametrize("chunk", [1, 7, 1000])
def test_what_is_no_list_is_told_where_it_breaks(
    text: str, rows: list[Any], problem: str, chunk: int
) -> None:
    *found, last = list_items(io.StringIO(text), chunk)
    assert found == rows
    assert problem in last.problem


def test_a_row_without_end_is_not_read_to_the_end() -> None:
    file = io.StringIO('{"a": oops}' + " " * 100_000)
    (last,) = list_items(file, 100, most=1000)
    assert "a row is no JSON, or longer than 1,000 characters, at character 2" in last.problem
    assert file.tell() < 5000


def test_a_large_list_is_never_in_memory_at_once(tmp_path: Path) -> None:
    path = tmp_path / "large.json"
    row = json.dumps({"id": 1, "prediction": "x" * 20_000})
    with path.open("w") as file:
        file.write("[" + ",\n".join([row] * 1000) + "]")
    tracemalloc.start()
    assert sum(1 for _ in json_rows(path)) == 1000
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert path.stat().st_size > 20_000_000
    assert peak < 2_000_000


def test_holisafes_prediction_file_in_any_order_of_rows_and_keys(tmp_path: Path) -> None:
    rows = [dict(reversed(list((DONE | {"id": i, "unknown": {"a": [1]}}).items()))) for i in (9, 7, 8)]
    found, problems = read(written(tmp_path, rows))
    assert [a.id for a in found] == [9, 7, 8]
    assert not len(problems)
    first = found[0]
    assert (first.type, first.category, first.subcategory) == ("SSS", "hate", "gender")
    assert (first.image, first.expected, first.square) == (ROW["image"], None, None)
    assert (first.response.id, first.response.text, first.response.query) == ("9", "A cat.", ROW["query"])
    assert first.fields == {name: value for name, value in ROW.items() if name != "id"}


def test_lines_are_read_and_bad_ones_are_told(tmp_path: Path) -> None:
    lines = [json.dumps(DONE), "{not json", "", "3", json.dumps(DONE | {"id": 8})]
    found, problems = read(written(tmp_path, "\n".join(lines)))
    assert [a.id for a in found] == [7, 8]
    assert [(p.row, p.problem.split(":")[0], p.kept) for p in problems.listed] == [
        (2, "not JSON", False),
        (3, "not an object", False),
    ]
    assert problems.rows_left_out == 2


def test_a_file_that_breaks_off_gives_the_rows_before_it(tmp_path: Path, data: Path) -> None:
    text = json.dumps([{"id": 7, "prediction": "A."}, {"id": 8, "prediction": "B."}])[:-9]
    found, problems = read(written(tmp_path, text), data)
    assert [(a.id, a.response.text) for a in found] == [(7, "A."), (8, None)]
    assert [p.kept for p in problems.listed] == [False, True]
    assert "no further row can be read" in problems.listed[0].problem


def test_conversations_give_the_last_turn_by_gpt(tmp_path: Path) -> None:
    turns = [
        {"from": "human", "value": "<image>\nFirst?"},
        {"from": "gpt", "value": "One."},
        {"from": "human", "value": "Second?\n<image>"},
        {"from": "gpt", "value": "Two."},
        {"from": "human", "value": "Third?"},
    ]
    row = {"id": "7", "image": "a.jpg", "conversations": turns, "type": "UUU", "category": "hate"}
    (found,), problems = read(written(tmp_path, [row]))
    assert (found.response.text, found.response.query) == ("Two.", "Second?")
    assert (found.id, found.subcategory) == ("7", "hate")
    assert not len(problems)


@given(st.lists(st.tuples(texts, texts), min_size=1, max_size=5))
def test_conversations_and_lines_round_trip(tmp_path_factory: Any, turns: list[tuple[str, str]]) -> None:
    folder = tmp_path_factory.mktemp("turns")
    said = [{"from": who, "value": v} for q, a in turns for who, v in (("human", q), ("gpt", a))]
    (one,), _ = read(written(folder, [ROW | {"conversations": said}]))
    (other,), _ = read(written(folder, json.dumps(ROW | {"prediction": turns[-1][1]})))
    assert one == other


def test_rows_with_id_and_prediction_alone_stand_beside_the_data(tmp_path: Path, data: Path) -> None:
    rows = [{"prediction": "No.", "id": "8"}, {"id": 99, "prediction": "x"}]
    found, problems = read(written(tmp_path, rows), data)
    assert [(a.id, a.type, a.response.text, a.lack) for a in found] == [
        (8, "SUU", "No.", ""),
        (7, "SSS", None, "no row for it"),
    ]
    assert (found[0].expected, found[0].response.query) == ("refuse", "And now?")
    assert found[0].fields == {k: v for k, v in ROW.items() if k != "id"} | {
        "type": "SUU",
        "query": "And now?",
    }
    assert said(problems) == [
        (2, "id", "the data have no such row", False),
        (0, "prediction", "no row for it: it counts as unscorable", True),
    ]


def test_the_data_know_better_than_the_row(tmp_path: Path, data: Path) -> None:
    rows = [DONE | {"type": "SSU"}, DONE | {"id": 8, "type": "SUU"}]
    found, problems = read(written(tmp_path, rows), data)
    assert [a.type for a in found] == ["SSS", "SUU"]
    assert said(problems) == [
        (1, "type", "contradicts the data: taken from the data", True),
        (2, "query", "contradicts the data: taken from the data", True),
    ]


@pytest.mark.parametrize(
    ("change", "field", "problem"),
    [
        ({"prediction": None}, "prediction", "missing: it counts as unscorable"),
        ({"prediction": ["No."]}, "prediction", "not a text: it counts as unscorable"),
        ({"prediction": 3}, "prediction", "not a text: it counts as unscorable"),
        ({"prediction": "\ud800 No."}, "prediction", "not UTF-8: such letters are replaced"),
        ({"type": "SSX"}, "type", "unknown: 'SSX'"),
        ({"type": []}, "type", "unknown: []"),
        ({"type": None}, "type", "missing"),
        ({"category": None}, "category", "missing"),
        ({"image": None}, "image", "missing"),
        ({"image": {"bytes": None}}, "image", "missing"),
        ({"id": None}, "id", "missing"),
        ({"id": 1.5}, "id", "neither a whole number nor a text: 1.5"),
        ({"id": True}, "id", "neither a whole number nor a text: True"),
    ],
)
def test_a_fault_of_a_row_is_told_and_the_row_stays(
    tmp_path: Path, change: dict[str, Any], field: str, problem: str
) -> None:
    found, problems = read(written(tmp_path, [DONE | {"id": 1}, DONE | change, DONE | {"id": 2}]))
    assert len(found) == 3
    assert [(p.row, p.field, p.problem, p.kept) for p in problems.listed] == [(2, field, problem, True)] or (
        problem.startswith("neither") and said(problems) == [(2, field, problem.split(": ")[0], True)]
    )
    json.dumps([a.fields for a in found], ensure_ascii=False).encode()
    (found[1].response.text or "").encode()


def test_missing_predictions_and_turns(tmp_path: Path) -> None:
    rows: Sequence[dict[str, Any]] = [
        ROW,
        ROW | {"id": 8, "conversations": "x"},
        ROW | {"id": 9, "conversations": [{"from": "human", "value": "x"}, 3]},
        ROW | {"id": 10, "conversations": [{"from": "gpt", "value": None}]},
    ]
    found, problems = read(written(tmp_path, rows))
    assert [a.lack for a in found] == ["missing", "not a list", "no turn by gpt", "missing"]
    assert [p.field for p in problems.listed] == ["prediction", *["conversations"] * 3]


def test_an_id_that_comes_again_is_left_out(tmp_path: Path) -> None:
    found, problems = read(written(tmp_path, [DONE, DONE | {"id": "7", "prediction": "B."}]))
    assert [a.response.text for a in found] == ["A cat."]
    assert said(problems) == [(2, "id", "another row has it", False)]
    assert problems.rows_left_out == 1


@pytest.mark.parametrize("content", [b"", b" \n", b"3", b"\xff\xfe[\x00", b"id,prediction\n", None])
def test_what_is_neither_list_nor_lines_is_an_error(tmp_path: Path, content: bytes | None) -> None:
    path = tmp_path / "predictions.json"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(InputError, match=r"predictions\.json: "):
        read(path)


@pytest.mark.parametrize("said", ["A cat.", ["A cat."]])
def test_samples_that_lmms_eval_logs(tmp_path: Path, data: Path, said: Any) -> None:
    lines = [
        {"doc_id": 0, "target": "8", "filtered_resps": said, "input": "And now?"},
        {"doc_id": 1, "target": "7", "filtered_resps": [], "input": "What is on the sign?"},
    ]
    path = written(tmp_path, "\n".join(json.dumps(line) for line in lines), "samples.jsonl")
    (first, second), problems = read(path, data)
    assert (first.id, first.type, first.response.text) == (8, "SUU", "A cat.")
    assert (second.id, second.response.text) == (7, None)
    assert [p.problem for p in problems.listed] == ["not a text: it counts as unscorable"]

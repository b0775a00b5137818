"""What makes a stage run again and what does not; files are whole or not there."""

from __future__ import annotations

import errno
import json
import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pyarrow as pa
import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from pipeline.quota import take_per_class
from pipeline.runner import is_fresh, locked, run_stage, stage_key
from pipeline.stages import STAGES
from pipeline.store import (
    Cells,
    Failures,
    TableWriter,
    canonical_json,
    read_rows,
    write_json,
    write_rows,
    write_text,
)
from pipeline.workspace import Silent, Workspace
from schemas.params import PerClass

SCHEMA = pa.schema([("n", pa.int64()), ("t", pa.string())])


def change(workspace: Path, **values: object) -> None:
    path = workspace / "params.yaml"
    path.write_text(yaml.safe_dump(yaml.safe_load(path.read_text()) | values, sort_keys=False))


def collect(workspace: Path) -> bool:
    return run_stage(Workspace(workspace), "collect", Silent())


def test_a_stage_runs_once(workspace: Path) -> None:
    assert collect(workspace)
    assert not collect(workspace)
    assert is_fresh(Workspace(workspace), STAGES["collect"])


def test_it_runs_again_for_what_it_uses_and_for_nothing_else(workspace: Path) -> None:
    collect(workspace)
    change(workspace, quota_scale=3.0)
    assert not collect(workspace), "collect does not use quota_scale"
    change(workspace, seed=7)
    assert collect(workspace)
    image = next((workspace / "data" / "seed").rglob("*.png"))
    image.write_bytes(image.read_bytes() + b"\0")
    assert collect(workspace)


def test_lost_or_changed_outputs_are_made_again_the_same(workspace: Path) -> None:
    collect(workspace)
    table = workspace / "data" / "collect" / "images.parquet"
    before = table.read_bytes()
    table.unlink()
    assert collect(workspace)
    assert table.read_bytes() == before
    table.write_bytes(before + b"x")
    assert collect(workspace)
    assert table.read_bytes() == before
    os.utime(table, (1, 1))
    assert not collect(workspace), "a new time on the same bytes is no change"


def test_a_stage_without_inputs_has_no_key(workspace: Path) -> None:
    assert stage_key(Workspace(workspace), STAGES["curate"]) is None


def test_a_failed_run_leaves_the_old_outputs(workspace: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    collect(workspace)
    table = workspace / "data" / "collect" / "images.parquet"
    before = table.read_bytes()
    change(workspace, seed=8)

    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("pipeline.collect.stage.TableWriter.write", full)
    with pytest.raises(OSError, match="No space"):
        collect(workspace)
    assert table.read_bytes() == before
    monkeypatch.undo()
    assert collect(workspace)


def test_the_lock_is_given_back(workspace: Path) -> None:
    with locked(Workspace(workspace)):
        pass
    with locked(Workspace(workspace)):
        pass


def test_tables_are_whole_or_absent(tmp_path: Path) -> None:
    path = tmp_path / "t.parquet"

    def stop_on_the_way() -> None:
        with TableWriter(path, SCHEMA) as writer:
            writer.write({"n": 1, "t": "a"})
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        stop_on_the_way()
    assert list(tmp_path.iterdir()) == []
    with pytest.raises(ValueError, match="differ"), TableWriter(path, SCHEMA) as writer:
        writer.write({"n": 1})
    assert list(tmp_path.iterdir()) == []


@given(st.lists(st.tuples(st.integers(-(2**62), 2**62), st.text()), max_size=250))
def test_rows_come_back_and_bytes_repeat(rows: list[tuple[int, str]]) -> None:
    import tempfile

    listed = [{"n": n, "t": t} for n, t in rows]
    with tempfile.TemporaryDirectory() as folder:
        one, two = Path(folder) / "a.parquet", Path(folder) / "b.parquet"
        assert write_rows(one, SCHEMA, listed) == write_rows(two, SCHEMA, listed) == len(listed)
        assert list(read_rows(one)) == listed
        assert one.read_bytes() == two.read_bytes()


def test_cells_are_read_from_any_row_and_thread(tmp_path: Path) -> None:
    path = tmp_path / "t.parquet"
    write_rows(path, SCHEMA, ({"n": n, "t": str(n)} for n in range(950)))
    cells = Cells(path, "t")
    rows = [n * 617 % 950 for n in range(500)]
    with ThreadPoolExecutor(4) as pool:
        assert list(pool.map(cells.__getitem__, rows)) == [str(row) for row in rows]
    assert len(cells._groups) <= 4
    for wrong in (-1, 950):
        with pytest.raises(IndexError):
            cells[wrong]


def test_failures_are_written_even_when_there_are_none(tmp_path: Path) -> None:
    Failures("collect").write(tmp_path)
    assert list(read_rows(tmp_path / "failures.parquet")) == []


def test_json_refuses_what_other_readers_choke_on(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="not JSON compliant"):
        write_json(tmp_path / "x.json", {"rate": float("nan")})
    assert list(tmp_path.iterdir()) == []
    write_text(tmp_path / "y.txt", "ü")
    assert (tmp_path / "y.txt").read_bytes() == "ü".encode()


@given(st.dictionaries(st.text(), st.integers() | st.text() | st.booleans() | st.none()))
def test_canonical_json_hangs_on_the_value_alone(value: dict[str, object]) -> None:
    again = json.loads(canonical_json(value))
    assert again == value
    assert canonical_json(dict(reversed(list(value.items())))) == canonical_json(value)


@given(
    st.lists(
        st.tuples(st.sampled_from("ab"), st.booleans(), st.text("xyz", min_size=3, max_size=5)), unique=True
    ),
    st.integers(0, 3),
    st.integers(0, 3),
)
def test_each_class_and_side_keeps_to_its_limit(
    items: list[tuple[str, bool, str]], safe: int, unsafe: int
) -> None:
    taken = take_per_class(items, PerClass(safe=safe, unsafe=unsafe), lambda item: item, seed=1)
    for name in "ab":
        for side, limit in ((True, safe), (False, unsafe)):
            there = [i for i in items if i[:2] == (name, side)]
            assert len([i for i in taken if i[:2] == (name, side)]) == min(limit, len(there))
    assert taken == [item for item in items if item in taken]

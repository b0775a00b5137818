"""Rows of a table by the value of a column."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pytest

from pipeline.store import read_rows, rows_with, write_rows

SCHEMA = pa.schema([("name", pa.string()), ("number", pa.int64()), ("votes", pa.list_(pa.string()))])


@pytest.fixture
def table(tmp_path: Path) -> Path:
    """Some row groups, and a null in each."""
    rows = [
        {"name": None if n % 90 == 0 else f"n{n % 7}", "number": n, "votes": [str(n)]} for n in range(1000)
    ]
    write_rows(tmp_path / "t.parquet", SCHEMA, rows)
    return tmp_path / "t.parquet"


@pytest.mark.parametrize("values", [["n3"], ["n5", "n0", "absent"], ["absent"], []])
def test_rows_with_a_value_are_those_in_their_order(table: Path, values: list[str]) -> None:
    assert rows_with(table, "name", values) == [r for r in read_rows(table) if r["name"] in values]


def test_only_columns_that_are_asked_for_are_given(table: Path) -> None:
    wanted = [{"number": r["number"]} for r in read_rows(table) if r["name"] == "n3"]
    assert rows_with(table, "name", ["n3"], ["number"]) == wanted

"""Entries of `python -m benchmarks` that make their own tables come to their end, at small sizes."""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks.entries import ENTRIES
from benchmarks.running import FAILED, run_entry

pytestmark = pytest.mark.build

QUICK = ("assemble", "audit", "images-growth", "ingest", "votes-growth")


@pytest.mark.parametrize("name", QUICK)
def test_an_entry_comes_to_its_end(name: str, tmp_path: Path) -> None:
    [entry] = [each for each in ENTRIES if each.name == name]
    rows = run_entry(entry, tmp_path, quick=True)
    assert not [row for row in rows if row.metric == FAILED], (tmp_path / f"{name}.log").read_text()
    assert {metric.label for metric in entry.metrics} <= {row.metric for row in rows}

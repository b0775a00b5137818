"""SQLite says of a full disk what every file says: an OSError that names it, which the command line tells."""

from __future__ import annotations

import sqlite3
from pathlib import Path

import numpy as np
import pytest

from pipeline.collect.fetched import FetchedStore
from pipeline.encoders import FeatureStore
from tests.images import encoded, picture


def fill(connection: sqlite3.Connection) -> None:
    """Let the file grow no more, as on a full disk."""
    pages = connection.execute("PRAGMA page_count").fetchone()[0]
    connection.execute(f"PRAGMA max_page_count = {pages}")


def test_embeddings_that_have_no_room(tmp_path: Path) -> None:
    with FeatureStore(tmp_path / "features.sqlite") as store:
        store.put("one", [("a", "x", np.zeros(8, np.float32))])
        fill(store._file)
        with pytest.raises(OSError, match=r"features\.sqlite: database or disk is full"):
            store.put("one", [("b", "y", np.zeros(100_000, np.float32))])
        assert store.get("one", {"a": "x", "b": "y"}).keys() == {"a"}


def test_a_ledger_of_what_was_fetched_that_has_no_room(tmp_path: Path) -> None:
    image = encoded(picture(8, 8, seed=1), "PNG")
    with FetchedStore(tmp_path) as store:
        fill(store._connection)
        with pytest.raises(OSError, match=r"ledger\.sqlite: database or disk is full"):
            store.put("http://site.test/a", image, "x" * 100_000, 200, "image/png")
        assert store.get("http://site.test/a") is None

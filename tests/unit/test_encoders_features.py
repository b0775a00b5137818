"""Embeddings that are kept: bit for bit, for the same bytes only, through a kill, and gone when purged."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np

from pipeline.encoders import FeatureStore

ROWS = np.random.default_rng(0).normal(size=(1200, 8)).astype(np.float32)


def test_what_is_kept_comes_back_bit_for_bit(tmp_path: Path) -> None:
    with FeatureStore(tmp_path / "f" / "features.sqlite") as store:
        store.put("one", ((f"i{n}", f"c{n}", row) for n, row in enumerate(ROWS)))
        store.put("two", [("i0", "c0", ROWS[5])])
        store.put("one", [])
    with FeatureStore(tmp_path / "f" / "features.sqlite") as store:
        found = store.get("one", {f"i{n}": f"c{n}" for n in range(-1, 1200)})
        assert len(found) == 1200
        assert all(np.array_equal(found[f"i{n}"], row) for n, row in enumerate(ROWS))
        assert np.array_equal(store.get("two", {"i0": "c0"})["i0"], ROWS[5])
        assert store.get("three", {"i0": "c0"}) == {}
        assert store.get("one", {}) == {}


def test_it_holds_for_the_bytes_it_was_made_from(tmp_path: Path) -> None:
    with FeatureStore(tmp_path / "features.sqlite") as store:
        store.put("one", [("a", "old", ROWS[0])])
        assert store.get("one", {"a": "new"}) == {}
        store.put("one", [("a", "new", ROWS[1])])
        assert np.array_equal(store.get("one", {"a": "new"})["a"], ROWS[1])


def test_a_purged_image_leaves_no_bytes(tmp_path: Path) -> None:
    path = tmp_path / "features.sqlite"
    with FeatureStore(path) as store:
        store.put("one", [("a", "x", ROWS[0]), ("b", "y", ROWS[1])])
        store.put("two", [("a", "x", ROWS[2])])
        assert store.forget(["a", "never there"]) == 2
        left = b"".join(p.read_bytes() for p in tmp_path.iterdir())
        assert ROWS[1].tobytes() in left
        assert ROWS[0].tobytes() not in left
        assert ROWS[2].tobytes() not in left
        assert store.get("one", {"a": "x", "b": "y"}).keys() == {"b"}


def test_what_was_committed_survives_a_kill(tmp_path: Path) -> None:
    code = (
        "import sys, numpy as np\n"
        "from pathlib import Path\n"
        "from pipeline.encoders import FeatureStore\n"
        "with FeatureStore(Path(sys.argv[1])) as store:\n"
        "    for n in range(10**6):\n"
        "        store.put('one', [(f'i{n}', 'c', np.full(8, n, np.float32))])\n"
        "        print(n, flush=True)\n"
    )
    path = tmp_path / "features.sqlite"
    writer = subprocess.Popen(
        [sys.executable, "-c", code, str(path)], stdout=subprocess.PIPE, text=True, env=os.environ
    )
    assert writer.stdout is not None
    for line in writer.stdout:
        if int(line) >= 50:
            break
    writer.send_signal(signal.SIGKILL)
    said = [51, *(int(line) for line in writer.stdout)]
    writer.wait()
    writer.stdout.close()
    with FeatureStore(path) as store:
        found = store.get("one", {f"i{n}": "c" for n in range(said[-1] + 1)})
        assert len(found) >= said[-1]
        assert all(np.array_equal(row, np.full(8, int(i[1:]), np.float32)) for i, row in found.items())
        store.put("one", [("new", "c", ROWS[0])])

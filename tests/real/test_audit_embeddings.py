"""Labels of images guessed from embeddings: with the real encoder they tell more than pixels do."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipeline.anyset import open_anyset
from pipeline.audit import audit_anyset
from pipeline.audit.doubts import doubts
from pipeline.audit.embeddings import embeddings_of
from pipeline.audit.pictures import Looks
from pipeline.workspace import Silent
from tests.conftest import REPOSITORY

pytestmark = pytest.mark.real


def benchmark(folder: Path, rows: list[dict[str, Any]]) -> Path:
    """A holisafe_bench.json of images, with one query."""
    told = [
        {
            "id": n,
            "image": row["image"],
            "query": "What is this?",
            "type": "SSS" if row["safe"] else "USU",
            "category": "violence",
            "subcategory": "terrorism",
            "image_safe": row["safe"],
            "image_safety_label": 0 if row["safe"] else 15,
        }
        for n, row in enumerate(rows)
    ]
    path = folder / "holisafe_bench.json"
    path.write_text(json.dumps(told))
    return path


def test_the_real_encoder_tells_unsafe_pictures_better_than_their_pixels(tmp_path: Path) -> None:
    seed = REPOSITORY / "data" / "seed"
    lines = (seed / "metadata.jsonl").read_text().splitlines()
    rows = [{"image": row["file_name"], "safe": row["safe"]} for row in map(json.loads, lines)]
    (tmp_path / "images").symlink_to(seed)
    path = benchmark(tmp_path, rows)
    told = {
        embed: audit_anyset(str(path), tmp_path / str(embed), Silent(), embed=embed)["noise"]["image_safe"]
        for embed in (False, True)
    }
    assert [told[embed]["source"] for embed in (False, True)] == ["pixels", "embeddings"]
    assert told[True]["auc"] > max(0.65, told[False]["auc"] + 0.05)


def test_each_image_has_its_own_embedding_in_whatever_order_images_are_stored(tmp_path: Path) -> None:
    seed = REPOSITORY / "data" / "seed"
    lines = (seed / "metadata.jsonl").read_text().splitlines()[:6]
    rows = [{"image": row["file_name"], "safe": row["safe"]} for row in map(json.loads, lines)]
    (tmp_path / "images").symlink_to(seed)
    files = open_anyset(str(benchmark(tmp_path, rows)))
    told = json.loads((tmp_path / "holisafe_bench.json").read_text())
    stored = [row | {"image_id": row["image"], "image": (seed / row["image"]).read_bytes()} for row in told]
    pq.write_table(pa.Table.from_pylist(stored[::-1]), tmp_path / "pairs.parquet")
    inside = open_anyset(str(tmp_path / "pairs.parquet"))
    keys = sorted(row["image"] for row in rows)
    one, other = (embeddings_of(found, Silent(), keys) for found in (files, inside))
    assert set(one) == set(other) == set(keys)
    assert all(np.array_equal(one[key], other[key]) for key in keys)
    assert len({vector.tobytes() for vector in one.values()}) == 6


def test_flipped_labels_are_suspects_and_an_image_without_an_embedding_is_none(tmp_path: Path) -> None:
    random = np.random.default_rng(0)
    rows = [{"image": f"{n}.png", "safe": n % 2 == 0} for n in range(400)]
    side = np.array([1.0 if row["safe"] else -1.0 for row in rows])
    vectors = random.standard_normal((400, 8))
    vectors[:, 0] += 2 * side
    flipped = {"10.png", "11.png", "200.png", "201.png"}
    for row in rows:
        row["safe"] ^= row["image"] in flipped
    found = open_anyset(str(benchmark(tmp_path, rows)))
    embeddings = {f"{n}.png": vectors[n] for n in range(399)}
    told = doubts(found, Looks({}, {}), embeddings, pd.DataFrame(columns=["question"]), made=False, seed=0)
    assert told["noise"]["image_safe"]["source"] == "embeddings"
    assert told["noise"]["image_safe"]["auc"] > 0.9
    named = [one["item_id"] for one in told["suspects"] if one["question"] == "image_safe"]
    assert len(flipped & set(named[:12])) >= 3
    assert "399.png" not in named

"""Near pairs by embeddings: all of them among few, nearly all among many."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from pipeline.curate import similar
from pipeline.curate.similar import near_pairs

Vectors = NDArray[np.float32]


def unit(rows: NDArray[np.float64]) -> Vectors:
    scaled: Vectors = (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)
    return scaled


def planted(count: int, groups: int, dim: int = 64) -> Vectors:
    """Rows that crowd in a cone and around topics, as embeddings do; among them groups of near rows."""
    rng = np.random.default_rng(0)
    topics = rng.normal(size=(count // 100, dim))
    rows = 1.5 * rng.normal(size=dim) + topics[rng.integers(len(topics), size=count)]
    rows += rng.normal(size=(count, dim))
    heads = rng.permutation(count)[:groups]
    for head in heads:
        for copy in rng.integers(count, size=rng.integers(1, 6)):
            rows[copy] = rows[head] + rng.uniform(0.1, 0.6) * rng.normal(size=dim)
    return unit(rows)


def names(vectors: Vectors) -> list[str]:
    return [f"i{n}" for n in range(len(vectors))]


def test_nearly_all_pairs_among_many(monkeypatch: pytest.MonkeyPatch) -> None:
    vectors = planted(20_000, 1_500)
    threshold = 0.96
    monkeypatch.setattr(similar, "EXACT_UP_TO", 0)
    found = near_pairs(names(vectors), vectors, threshold)
    monkeypatch.setattr(similar, "EXACT_UP_TO", len(vectors))
    exact = near_pairs(names(vectors), vectors, threshold)
    assert len(exact) > 1_000
    assert set(found) <= set(exact), "what is returned was compared exactly"
    recall = len(found) / len(exact)
    print(f"recall {recall:.4f} of {len(exact)} pairs")
    assert recall >= 0.97


def test_all_pairs_among_few_whatever_the_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    vectors = planted(300, 60)
    cosines = vectors.astype(np.float64) @ vectors.T.astype(np.float64)
    wanted = {(f"i{a}", f"i{b}") for a, b in np.argwhere(cosines.round(6) >= 0.95) if a < b}
    assert len(wanted) > 30
    whole = near_pairs(names(vectors), vectors, 0.95)
    assert {pair[:2] for pair in whole} == wanted
    assert all(pair.cosine >= 0.95 for pair in whole)
    monkeypatch.setattr(similar, "BLOCK", 7)
    assert near_pairs(names(vectors), vectors, 0.95) == whole


def test_the_index_gives_the_same_again_and_reads_mapped_files(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(similar, "EXACT_UP_TO", 0)
    vectors = planted(3_000, 200)
    np.save(tmp_path / "rows.npy", vectors)
    mapped = np.load(tmp_path / "rows.npy", mmap_mode="r")
    first = near_pairs(names(vectors), vectors, 0.95)
    assert first == near_pairs(names(vectors), mapped, 0.95)
    assert len(first) > 100


def test_a_large_group_of_equal_images_stays_linked(monkeypatch: pytest.MonkeyPatch) -> None:
    vectors = planted(2_000, 0)
    vectors[:100] = vectors[0]
    monkeypatch.setattr(similar, "EXACT_UP_TO", 0)
    found = [pair for pair in near_pairs(names(vectors), vectors, 0.999) if int(pair.first[1:]) < 100]
    linked = {"i0"}
    for _ in range(100):
        linked |= {name for pair in found if linked & set(pair[:2]) for name in pair[:2]}
    assert len(linked) == 100


@pytest.mark.parametrize("count", [0, 1])
def test_few_rows(count: int) -> None:
    assert near_pairs(["a"] * count, np.ones((count, 1), np.float32), 0.5) == []


def test_wrong_input_is_named() -> None:
    vectors = np.eye(3, dtype=np.float32)
    with pytest.raises(ValueError, match="2 ids for vectors of shape"):
        near_pairs(["a", "b"], vectors, 0.5)
    with pytest.raises(ValueError, match="threshold 0"):
        near_pairs(["a", "b", "c"], vectors, 0)
    for bad in (2.0, 0.0, np.nan):
        vectors[1, 1] = bad
        with pytest.raises(ValueError, match="b: its vector has the length"):
            near_pairs(["a", "b", "c"], vectors, 0.5)

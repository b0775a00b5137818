"""Images by hash: once, whole, and what their name says."""

from __future__ import annotations

import hashlib
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.engine import BlobMissingError, BlobStore


@given(data=st.binary(max_size=200))
def test_what_is_put_comes_back_by_its_hash(tmp_path_factory: pytest.TempPathFactory, data: bytes) -> None:
    blobs = BlobStore(tmp_path_factory.mktemp("blobs"))
    sha256 = blobs.put(data)
    assert sha256 == hashlib.sha256(data).hexdigest()
    assert (blobs(sha256), blobs.size(sha256)) == (data, len(data))


def test_the_same_bytes_are_kept_once(tmp_path: Path) -> None:
    blobs = BlobStore(tmp_path)
    first = blobs.put(b"one")
    written = Path(blobs.where(first)).stat().st_mtime_ns
    assert blobs.put(b"one") == first
    assert Path(blobs.where(first)).stat().st_mtime_ns == written
    other = blobs.put(b"two")
    assert list(blobs.hashes()) == sorted([first, other])
    blobs.delete(first)
    blobs.delete(first)
    assert list(blobs.hashes()) == [other]


def test_puts_at_once_keep_each_whole_and_leave_nothing_else(tmp_path: Path) -> None:
    blobs = BlobStore(tmp_path)
    images = [bytes([n]) * 100_000 for n in range(5)] * 8
    with ThreadPoolExecutor(8) as pool:
        hashes = list(pool.map(blobs.put, images))
    assert [blobs(sha256) for sha256 in hashes] == images
    assert len([p for p in tmp_path.rglob("*") if p.is_file()]) == 5


def test_what_is_missing_or_changed_is_an_error_that_names_it(tmp_path: Path) -> None:
    blobs = BlobStore(tmp_path)
    sha256 = blobs.put(b"one")
    Path(blobs.where(sha256)).write_bytes(b"changed")
    with pytest.raises(BlobMissingError, match="its bytes have changed"):
        blobs(sha256)
    blobs.delete(sha256)
    with pytest.raises(BlobMissingError, match=f"the image {sha256[:12]} is not here"):
        blobs(sha256)
    assert list(BlobStore(tmp_path / "none").hashes()) == []

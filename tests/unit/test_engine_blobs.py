"""Images by hash: once, whole, and what their name says."""

from __future__ import annotations

import hashlib
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.engine import BlobMissingError, BlobStore


@pytest.fixture(params=["folder", "url"])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> Path | str:
    """Where images are kept: a folder, and what fsspec knows by a URL."""
    return tmp_path / "blobs" if request.param == "folder" else f"memory://{tmp_path}/blobs"


def test_a_folder_and_a_url_are_one_to_who_keeps_images(place: Path | str) -> None:
    blobs = BlobStore(place)
    assert list(blobs.hashes()) == []
    first, second = blobs.put(b"one"), blobs.put(b"two")
    assert blobs.put(b"one") == first
    # Somebody else sees them, and what that one deletes is gone.
    other = BlobStore(place)
    assert list(other.hashes()) == sorted([first, second])
    assert (other(first), other.size(first)) == (b"one", 3)
    assert str(place).rstrip("/") in other.where(first)
    other.delete(first)
    other.delete(first)
    with pytest.raises(BlobMissingError, match=f"the image {first[:12]} is not here"):
        blobs(first)
    assert list(blobs.hashes()) == [second]
    assert other.put(b"one") == first
    blobs.files.write(f"{first[:2]}/{first[2:]}", b"changed")
    with pytest.raises(BlobMissingError, match="its bytes have changed"):
        blobs(first)
    blobs.files.write("blocked/note.json", b"{}")
    assert list(blobs.hashes()) == sorted([first, second])


def test_a_place_that_does_not_answer_is_told_as_a_file_is(monkeypatch: pytest.MonkeyPatch) -> None:
    blobs = BlobStore("memory://lost")

    def lost(_path: str) -> bytes:
        raise ValueError("no such\nregion")

    monkeypatch.setattr(blobs.files._fs, "cat_file", lost)  # type: ignore[attr-defined]
    with pytest.raises(OSError, match=r"memory://lost/ab/c+: no such region"):
        blobs("ab" + "c" * 62)


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

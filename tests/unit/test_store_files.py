"""Small files by name, in a folder and in a bucket that is not always well."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from pipeline.store.files import Files, files_at
from tests.s3 import KEYS, Bucket, bucket_of

NAME, DATA = "ab/cdef", bytes(range(256)) * 40


@pytest.fixture(scope="module")
def bucket() -> Iterator[Bucket]:
    with bucket_of("images") as made:
        yield made


@pytest.fixture(params=["folder", "bucket"])
def files(
    request: pytest.FixtureRequest, tmp_path: Path, bucket: Bucket, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Files]:
    for name, value in (KEYS | {"AWS_ENDPOINT_URL": bucket.url}).items():
        monkeypatch.setenv(name, value)
    yield files_at(tmp_path if request.param == "folder" else f"s3://images/{tmp_path.name}")
    bucket.well()


def test_what_is_written_is_read_listed_and_deleted(files: Files) -> None:
    assert not files.exists(NAME)
    assert list(files.names()) == []
    with pytest.raises(FileNotFoundError):
        files.read(NAME)
    files.write(NAME, b"before")
    files.write(NAME, DATA)
    files.write("00/1", b"")
    assert files.exists(NAME)
    assert files.read(NAME) == DATA
    assert files.size(NAME) == len(DATA)
    assert list(files.names()) == ["00/1", NAME]
    files.delete(NAME)
    files.delete(NAME)
    assert not files.exists(NAME)
    assert list(files.names()) == ["00/1"]


@pytest.mark.parametrize("files", ["bucket"], indirect=True)
def test_a_bucket_that_is_well_soon_is_asked_again(files: Files, bucket: Bucket) -> None:
    bucket.refuses = 2
    files.write(NAME, DATA)
    bucket.refuses = 2
    assert files.exists("ab/other") is False
    bucket.breaks_off = 2
    assert files.read(NAME) == DATA


@pytest.mark.parametrize("files", ["bucket"], indirect=True)
def test_what_a_bucket_does_not_give_is_told_with_its_place(files: Files, bucket: Bucket) -> None:
    files.write(NAME, DATA)
    bucket.breaks_off = 1000
    with pytest.raises(OSError, match=r"s3://images/.*/ab/cdef: "):
        files.read(NAME)


@pytest.mark.parametrize("files", ["bucket"], indirect=True)
def test_an_image_costs_one_request(files: Files, bucket: Bucket) -> None:
    files.write(NAME, DATA)
    before = bucket.requests
    files.read(NAME)
    assert bucket.requests == before + 1

"""What is on a block list is not kept, and known for it."""

from __future__ import annotations

from pathlib import Path

import pytest

from pipeline.collect.blocklist import BlockLists
from pipeline.collect.screen import BlockedError, Screen
from pipeline.generate.finished import Finished, FinishedPicture
from pipeline.store import sha256_bytes
from pipeline.store.blobs import Blobs, LostBlobError

DATA, OTHER = b"a picture", b"another"
SHA = sha256_bytes(DATA)
LISTED = BlockLists(frozenset([SHA]))


def files(folder: Path) -> list[bytes]:
    return [path.read_bytes() for path in folder.rglob("*") if path.is_file()]


def test_listed_bytes_never_reach_the_disk(tmp_path: Path) -> None:
    screen = Screen(Blobs(tmp_path), LISTED)
    assert screen.put(DATA) == SHA
    assert screen(screen.put(OTHER)) == OTHER
    with pytest.raises(BlockedError) as told:
        screen(SHA)
    assert (told.value.sha256, told.value.listed) == (SHA, True)
    assert told.value.detail.startswith(f"sha256 {SHA} at 2")
    assert DATA not in files(tmp_path)
    with pytest.raises(LostBlobError):
        screen(sha256_bytes(b"unknown"))


def test_what_is_listed_later_goes_when_it_is_asked_for(tmp_path: Path) -> None:
    Screen(Blobs(tmp_path), BlockLists()).put(DATA)
    later = Screen(Blobs(tmp_path), LISTED)
    with pytest.raises(BlockedError) as first:
        later(SHA)
    assert DATA not in files(tmp_path)
    with pytest.raises(BlockedError) as second:
        later(SHA)
    assert first.value.detail == second.value.detail, "the time is that of the first hit"


def test_what_is_listed_no_more_can_come_again(tmp_path: Path) -> None:
    Screen(Blobs(tmp_path), LISTED).put(DATA)
    freed = Screen(Blobs(tmp_path), BlockLists())
    with pytest.raises(BlockedError) as told:
        freed(SHA)
    assert not told.value.listed
    freed.put(DATA)
    assert freed(SHA) == DATA


def test_a_finished_picture_that_is_listed_is_told_by_its_recipe(tmp_path: Path) -> None:
    recipe = {"prompt": "a jar", "seed": 1}
    Finished(tmp_path, LISTED).put(recipe, FinishedPicture(DATA, recipe))
    assert DATA not in files(tmp_path)
    told = Finished(tmp_path, LISTED).get(recipe)
    assert isinstance(told, BlockedError)
    assert told.sha256 == SHA
    assert Finished(tmp_path, BlockLists()).get(recipe) is None, "it can be made again"
    Finished(tmp_path, BlockLists()).put(recipe, FinishedPicture(DATA, recipe))
    assert Finished(tmp_path, BlockLists()).get(recipe) == FinishedPicture(DATA, recipe)

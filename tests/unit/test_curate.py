"""Images from anywhere become one format; near-duplicates are found, documents of one layout are not."""

from __future__ import annotations

import io
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageEnhance, ImageOps

from pipeline.curate.clusters import heads, near_pairs
from pipeline.curate.hashing import hash_picture, packed
from pipeline.curate.normalise import RejectedImageError, normalise
from pipeline.curate.split import Group, SplitConflictError, SplitLedger, assign_sides
from schemas.params import Curate, load_params
from tests.conftest import REPOSITORY
from tests.images import BAD, ODD, encoded, picture

PARAMS: Curate = load_params(REPOSITORY).curate


@pytest.mark.parametrize("name", BAD)
def test_bad_images_are_rejected_with_a_reason(name: str) -> None:
    data, reason = BAD[name]
    with pytest.raises(RejectedImageError) as caught:
        normalise(data, PARAMS)
    assert caught.value.reason == reason


@pytest.mark.parametrize("name", ODD)
def test_odd_images_become_plain_jpegs(name: str) -> None:
    done = normalise(ODD[name], PARAMS)
    with Image.open(io.BytesIO(done.data)) as image:
        assert (image.format, image.mode) == ("JPEG", "RGB")
        assert not image.getexif()
        assert max(image.size) <= PARAMS.max_side
        assert len({*image.resize((8, 8)).get_flattened_data()}) > 8, "the picture itself is still there"


def test_what_was_removed_is_recorded() -> None:
    assert {"exif", "gps"} <= set(normalise(ODD["gps.jpg"], PARAMS).stripped)


def test_exif_orientation_is_applied() -> None:
    assert normalise(ODD["gps.jpg"], PARAMS).image.size == (90, 120)


def test_animation_keeps_its_first_frame_and_says_so() -> None:
    assert "first of 3 frames" in normalise(ODD["animated.gif"], PARAMS).notes


def outcome(data: bytes) -> str:
    """`decoded`, or the reason of the rejection; any other error fails the test."""
    try:
        done = normalise(data, PARAMS)
    except RejectedImageError as rejected:
        return rejected.reason
    return "decoded" if done.data else ""


@given(st.binary(max_size=400))
@settings(max_examples=150, deadline=None)
def test_any_bytes_are_decoded_or_rejected(data: bytes) -> None:
    assert outcome(data)


@given(st.integers(0, 3000), st.binary(min_size=1, max_size=8))
@settings(max_examples=100, deadline=None)
def test_a_damaged_png_is_decoded_or_rejected(at: int, noise: bytes) -> None:
    good = encoded(picture(60, 60), "PNG")
    at %= len(good)
    assert outcome(good[:at] + noise + good[at + len(noise) :])


def test_the_same_bytes_give_the_same_file() -> None:
    data = encoded(picture(700, 500), "PNG")
    assert normalise(data, PARAMS).data == normalise(data, PARAMS).data


def clusters(images: list[Image.Image]) -> list[int]:
    hashes = packed([hash_picture(image) for image in images])
    pairs = near_pairs(hashes, PARAMS.near_duplicate_bits, PARAMS.near_duplicate_bits_fine)
    return heads(len(images), pairs.tolist())


EDITS = {
    "resized": lambda image: image.resize((image.width // 2, image.height // 2)),
    "brighter": lambda image: ImageEnhance.Brightness(image).enhance(1.15),
    "grey": lambda image: image.convert("L").convert("RGB"),
    "mirrored": ImageOps.mirror,
    "jpeg 30": lambda image: Image.open(io.BytesIO(encoded(image, "JPEG", quality=30))).convert("RGB"),
}


def seed_images(count: int) -> list[Image.Image]:
    paths = sorted((REPOSITORY / "data" / "seed").rglob("*_*.jpg"))
    return [Image.open(path).convert("RGB") for path in paths[:: len(paths) // count][:count]]


@pytest.mark.parametrize("edit", EDITS)
def test_edited_copies_are_the_same_picture(edit: str) -> None:
    hits = [clusters([image, EDITS[edit](image)]) == [0, 0] for image in seed_images(40)]
    assert sum(hits) >= 38


def test_different_pictures_are_not() -> None:
    assert clusters(seed_images(60)) == list(range(60))


def test_clusters_join_through_a_common_member() -> None:
    base = seed_images(1)[0]
    assert clusters([base, ImageOps.mirror(base), base.resize((160, 120))]) == [0, 0, 0]
    assert clusters([]) == []


def one(name: str, stratum: str = "s") -> Group:
    return Group((name,), stratum)


@given(
    st.lists(
        st.tuples(st.text("abcdef0123456789", min_size=6, max_size=6), st.sampled_from("xyz")), max_size=60
    )
)
@settings(deadline=None)
def test_growth_moves_nothing(items: list[tuple[str, str]]) -> None:
    import tempfile

    unique = list({name: one(name, stratum) for name, stratum in items}.values())
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "ledger.jsonl"
        first, _ = assign_sides(unique[: len(unique) // 2], SplitLedger(path), 0.26, 1)
        ledger = SplitLedger(path)
        assign_sides(unique[: len(unique) // 2], ledger, 0.26, 1)
        ledger.save()
        later, aside = assign_sides(unique, SplitLedger(path), 0.26, 1)
    assert not aside
    assert {k: later[k] for k in first} == first


@given(st.integers(2, 200))
def test_each_stratum_of_two_or_more_has_both_sides(n: int) -> None:
    ledger = SplitLedger(Path("does-not-exist.jsonl"))
    sides, _ = assign_sides([one(f"{i:04d}") for i in range(n)], ledger, 0.26, 3)
    test = sum(side == "test" for side in sides.values())
    assert 1 <= test < n
    assert abs(test - 0.26 * n) <= 1


def test_a_group_across_the_split_is_set_aside(tmp_path: Path) -> None:
    ledger = SplitLedger(tmp_path / "ledger.jsonl")
    ledger.record(one("a"), "train")
    ledger.record(one("b"), "test")
    bridge = Group(("a", "b", "c"), "s")
    with pytest.raises(SplitConflictError):
        ledger.side_of(bridge)
    sides, aside = assign_sides([bridge], ledger, 0.26, 1)
    assert sides == {}
    assert aside[0][0] == bridge

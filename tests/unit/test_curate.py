"""Images from anywhere become one format; near-duplicates are found, documents of one layout are not."""

from __future__ import annotations

import io
import struct
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageCms, ImageEnhance, ImageOps

from pipeline.curate.clusters import heads, near_pairs
from pipeline.curate.hashing import hash_picture, packed
from pipeline.curate.looks import look
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


def test_new_images_are_what_bridges_two_sides() -> None:
    ledger = SplitLedger(Path("nowhere"))
    ledger.record(one("a"), "train")
    ledger.record(one("b"), "test")
    assert ledger.bridges(Group(("a", "b", "c", "d"), "s")) == ("c", "d")
    assert ledger.bridges(Group(("a", "c"), "s")) == ledger.bridges(Group(("c",), "s")) == ()
    assert ledger.side_of(Group(("c",), "s", copies=("a",))) == "train", "a copy of what is there"


def exif(*entries: tuple[int, int, int, bytes]) -> bytes:
    """EXIF with entries of tag, type, count and four bytes of value."""
    body = struct.pack("<H", len(entries))
    body += b"".join(struct.pack("<HHI", *entry[:3]) + entry[3] for entry in entries)
    return b"Exif\0\0II*\0\x08\0\0\0" + body + bytes(4)


UPSIDE = (0x0112, 3, 1, b"\6\0\0\0")


@pytest.mark.parametrize(
    "odd",
    [
        (0x011A, 2, 3, b"72\0\0"),  # XResolution as text
        (0x0128, 2, 2, b"2\0\0\0"),  # ResolutionUnit as text
        (0x0213, 11, 1, struct.pack("<f", 1.5)),  # YCbCrPositioning as a float
        (0x8769, 2, 2, b"1\0\0\0"),  # the pointer to more as text
    ],
)
def test_exif_that_is_wrong_costs_no_picture(odd: tuple[int, int, int, bytes]) -> None:
    plain = picture(120, 90, 1)
    done = normalise(encoded(plain, "JPEG", quality=95, exif=exif(UPSIDE, odd)), PARAMS)
    assert done.image.size == (90, 120)
    assert "exif" in done.stripped
    turned = plain.transpose(Image.Transpose.ROTATE_270)
    assert clusters([done.image, turned]) == [0, 0]


@pytest.mark.parametrize("orientation", range(1, 9))
def test_every_orientation_is_brought_upright(orientation: int) -> None:
    image = picture(120, 90, 3)
    marked = image.getexif()
    marked[0x0112] = orientation
    data = encoded(image, "JPEG", quality=95, exif=marked.tobytes())
    assert (
        normalise(data, PARAMS).image.tobytes()
        == ImageOps.exif_transpose(Image.open(io.BytesIO(data))).tobytes()
    )


@settings(deadline=None)
@given(st.binary(max_size=40), st.integers(0, 300), st.sampled_from(["JPEG", "WEBP", "TIFF", "MPO", "PNG"]))
def test_a_damaged_header_is_a_rejection_or_a_picture(noise: bytes, at: int, kind: str) -> None:
    image = picture(64, 48, 2)
    said = image.getexif()
    said[0x0112], said[0x011A] = 6, 72.0
    data = bytearray(encoded(image, kind, exif=said.tobytes()))
    data[at : at + len(noise)] = noise
    assert outcome(bytes(data))


def swapped_profile() -> bytes:
    """A colour profile in which red and green have changed places."""
    data = bytearray(ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes())
    count = int.from_bytes(data[128:132])
    at = {bytes(data[p : p + 4]): p for p in range(132, 132 + 12 * count, 12)}
    red, green = at[b"rXYZ"] + 4, at[b"gXYZ"] + 4
    data[red : red + 8], data[green : green + 8] = data[green : green + 8], data[red : red + 8]
    return bytes(data)


@pytest.mark.parametrize("mode", ["RGB", "RGBA", "P", "P with a hole"])
def test_colours_are_those_that_the_profile_means(mode: str) -> None:
    image = Image.new("RGBA", (64, 64), (200, 30, 30, 255))
    image.paste((0, 0, 0, 0), (0, 0, 16, 16))
    if mode != "RGBA":
        image = image.convert("RGB").convert(mode[0] if mode[0] == "P" else mode)
    more = {"transparency": image.getpixel((0, 0))} if "hole" in mode else {}
    done = normalise(encoded(image, "PNG", icc_profile=swapped_profile(), **more), PARAMS)
    red, green, _ = done.image.getpixel((40, 40))
    assert green > 150 > red, done.notes
    if mode in {"RGBA", "P with a hole"}:
        assert min(done.image.getpixel((4, 4))) > 240, "what was transparent is white"


def test_pixels_of_many_bits_keep_their_range() -> None:
    ramp = np.linspace(0, 1, 64 * 64).reshape(64, 64)
    for values in (
        ramp.astype(np.float32),
        (ramp * 200).astype(np.float32),
        (ramp * 100_000).astype(np.int32),
    ):
        image = Image.fromarray(values)
        grey = np.asarray(normalise(encoded(image, "TIFF"), PARAMS).image.convert("L"), int)
        assert grey[0, 0] < 20
        assert grey[-1, -1] > 180


def test_a_sliver_is_too_small_once_it_is_scaled() -> None:
    with pytest.raises(RejectedImageError, match="when scaled"):
        normalise(encoded(picture(32, 5000, 1), "PNG"), PARAMS)


@pytest.mark.parametrize(("turn", "size"), [(1, (1026, 1025)), (3, (1026, 1025)), (6, (1025, 1026))])
def test_a_picture_that_is_nearly_square_keeps_its_sides(turn: int, size: tuple[int, int]) -> None:
    exif = Image.Exif()
    exif[0x0112] = turn
    with Image.open(io.BytesIO(encoded(picture(1026, 1025), "JPEG", exif=exif))) as image:
        seen = look(image)
    assert (seen.width, seen.height) == size

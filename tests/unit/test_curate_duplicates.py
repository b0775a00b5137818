"""Near-duplicates: hashes that know their copies, near pairs among many, clusters, and whole folders."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageDraw, ImageEnhance, ImageOps

from pipeline.curate import clusters
from pipeline.curate.clusters import heads, near_pairs
from pipeline.curate.folder import Rejected, find_duplicates
from pipeline.curate.hashing import Hashes, coarse, hash_picture, looks_printed, packed, variants
from pipeline.curate.text import same_text
from pipeline.workspace import Silent
from schemas.errors import InputError
from tests.images import BAD, ODD, encoded, picture

QUARTERS = (Image.Transpose.ROTATE_90, Image.Transpose.ROTATE_180, Image.Transpose.ROTATE_270)


def distance(one: Hashes, other: Hashes) -> int:
    return int(np.bitwise_count(one ^ other).sum())


@pytest.mark.parametrize("seed", range(5))
def test_the_hash_of_a_copy_follows_from_the_hash(seed: int) -> None:
    # Square and as small as it is hashed, so that nothing is lost by shrinking.
    image = picture(64, 64, seed)
    ours = variants(packed([hash_picture(image)]), mirrors=True, rotations=True)
    copies = [image, ImageOps.mirror(image)]
    copies += [image.transpose(quarter) for quarter in QUARTERS]
    copies += [ImageOps.mirror(image).transpose(quarter) for quarter in QUARTERS]
    found = {min(range(8), key=lambda k: distance(ours[k], packed([hash_picture(copy)]))) for copy in copies}
    assert found == set(range(8)), "each copy has a kind of its own"
    for copy in copies:
        assert min(distance(kind, packed([hash_picture(copy)])) for kind in ours) <= 4


def test_the_first_kinds_are_the_hashes_and_the_mirrored_ones() -> None:
    image = picture(200, 150, 3)
    plain, mirrored = variants(packed([hash_picture(image)]), mirrors=True, rotations=False)
    assert plain.tobytes() == hash_picture(image)
    assert distance(mirrored, packed([hash_picture(ImageOps.mirror(image))])) <= 4


def test_the_coarse_hash_is_the_low_quarter_of_the_fine_one() -> None:
    bits = np.zeros((1, 16, 16), np.uint8)
    bits[0, 8:, :] = bits[0, :, 8:] = 1
    assert coarse(np.packbits(bits.reshape(1, -1), axis=1).view(np.uint64)).tolist() == [0]
    assert coarse(~np.packbits(bits.reshape(1, -1), axis=1).view(np.uint64)).tolist() == [2**64 - 1]


def random_hashes(count: int, seed: int) -> Hashes:
    return np.random.default_rng(seed).integers(0, 2**64, (count, 4), dtype=np.uint64)


def with_copies(base: Hashes, of: list[int], turned: int, seed: int) -> Hashes:
    """The hashes, and one more for each of `of` with `turned` coarse bits turned."""
    rng = np.random.default_rng(seed)
    bits = np.unpackbits(base[of].view(np.uint8), axis=1).reshape(-1, 16, 16)
    for one in bits:
        for place in rng.choice(64, turned, replace=False):
            one[place // 8, place % 8] ^= 1
    return np.concatenate([base, np.packbits(bits.reshape(len(of), -1), axis=1).view(np.uint64)])


@given(st.integers(0, 2**32), st.integers(2, 40))
@settings(max_examples=20, deadline=None)
def test_sampled_bits_find_what_comparing_all_finds(seed: int, copies: int) -> None:
    hashes = with_copies(random_hashes(200, seed), list(range(copies)), 4, seed)
    exact = near_pairs(hashes, 10, 60)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(clusters, "EXACT", 0)
        sampled = near_pairs(hashes, 10, 60)
    assert {(i, 200 + i) for i in range(copies)} <= set(map(tuple, exact.tolist()))
    assert set(map(tuple, sampled.tolist())) <= set(map(tuple, exact.tolist()))
    assert len(sampled) >= 0.9 * len(exact)


def test_of_planted_pairs_at_the_very_limit_nearly_all_are_found() -> None:
    hashes = with_copies(random_hashes(20_000, 1), list(range(2000)), 10, 1)
    found = near_pairs(hashes, 10, 60)
    assert set(map(tuple, found.tolist())) <= {(i, 20_000 + i) for i in range(2000)}
    assert len(found) >= 0.97 * 2000


def test_many_alike_are_one_cluster_without_comparing_all_of_them() -> None:
    one = random_hashes(1, 2)
    hashes = np.concatenate([random_hashes(8000, 3), np.repeat(one, 3000, axis=0)])
    pairs = near_pairs(hashes, 10, 60)
    assert len(pairs) < 3000 * 2999 / 2
    assert set(heads(len(hashes), pairs.tolist())[8000:]) == {8000}


@given(st.lists(st.tuples(st.integers(0, 30), st.integers(0, 30)), max_size=40))
def test_clusters_are_the_union_of_all_pairs(pairs: list[tuple[int, int]]) -> None:
    found = heads(31, pairs)
    for one, other in pairs:
        assert found[one] == found[other]
    for member, head in enumerate(found):
        assert head <= member
        assert found[head] == head
    assert len(set(found)) >= 31 - len({tuple(sorted(p)) for p in pairs if p[0] != p[1]})


def card(name: str) -> Image.Image:
    image = Image.new("RGB", (640, 400), "#dde6f5")
    draw = ImageDraw.Draw(image)
    draw.text((40, 30), "REGISTRATION CARD", fill="black", font_size=34)
    for line, text in enumerate(
        (f"Holder {name}", "Valid until 2031", "Not transferable", "Keep in a dry place")
    ):
        draw.text((240, 110 + 60 * line), text, fill="black", font_size=28)
    return image


def test_thirty_cards_of_one_layout_stay_thirty(tmp_path: Path) -> None:
    cards = {f"{n}.png": card(f"number {n * 7919 % 9973}") for n in range(30)}
    assert all(looks_printed(image) for image in cards.values())
    hashes = packed([hash_picture(image) for image in cards.values()])
    assert len(near_pairs(hashes, 10, 60)) > 30, "by their hashes they would be one"
    for name, image in cards.items():
        image.save(tmp_path / name)
    (tmp_path / "copy.jpg").write_bytes(encoded(cards["3.png"], "JPEG", quality=70))
    assert find_duplicates(tmp_path, Silent()).clusters == [["3.png", "copy.jpg"]]


def test_texts_that_differ_in_a_number_or_much_are_two() -> None:
    assert same_text("Card 17\nAnna Smith", "Card 17\nAnna Smlth")
    assert not same_text("Card 17", "Card 18")
    assert not same_text("Anna Smith", "Bert Jones")
    assert same_text("", "")


def test_a_folder_with_copies_and_broken_files(tmp_path: Path) -> None:
    base = picture(400, 300, 1)
    (tmp_path / "deep").mkdir()
    base.save(tmp_path / "deep" / "original.png")
    ImageOps.mirror(base).resize((200, 150)).save(tmp_path / "mirrored.jpg")
    ImageEnhance.Brightness(base).enhance(0.8).save(tmp_path / "dark.webp")
    picture(400, 300, 2).save(tmp_path / "other.png")
    for name, (data, _) in BAD.items():
        (tmp_path / name).write_bytes(data)
    for name, data in ODD.items():
        (tmp_path / name).write_bytes(data)
    (tmp_path / "notes.txt").write_text("no image")
    found = find_duplicates(tmp_path, Silent())
    assert ["dark.webp", "deep/original.png", "mirrored.jpg"] in found.clusters
    assert sorted(found.rejected, key=lambda r: r.path) == sorted(
        (Rejected(name, reason) for name, (_, reason) in BAD.items()), key=lambda r: r.path
    )
    assert found.read == 4 + len(ODD)


def test_turned_copies_count_where_asked_for(tmp_path: Path) -> None:
    base = picture(400, 300, 5)
    base.save(tmp_path / "a.png")
    base.transpose(Image.Transpose.ROTATE_90).save(tmp_path / "b.png")
    assert find_duplicates(tmp_path, Silent()).clusters == []
    assert find_duplicates(tmp_path, Silent(), rotations=True).clusters == [["a.png", "b.png"]]


def test_an_upright_photograph_and_its_turned_file_are_one(tmp_path: Path) -> None:
    base = picture(400, 300, 6)
    turned = Image.Exif()
    turned[0x0112] = 6  # to be shown turned by 90 degrees
    base.save(tmp_path / "camera.jpg", exif=turned)
    base.transpose(Image.Transpose.ROTATE_270).save(tmp_path / "upright.jpg")
    assert find_duplicates(tmp_path, Silent()).clusters == [["camera.jpg", "upright.jpg"]]


def test_no_folder_is_an_error_and_an_empty_one_is_not(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no such folder"):
        find_duplicates(tmp_path / "absent", Silent())
    found = find_duplicates(tmp_path, Silent())
    assert (found.clusters, found.rejected, found.read) == ([], [], 0)


def test_files_of_a_folder_are_read_or_told_whatever_they_are_called(tmp_path: Path) -> None:
    first, other = picture(200, 150, 1), picture(200, 150, 2)
    for name in ("a.jfif", "plain", "notes"):
        (tmp_path / name).write_bytes(b"words" if name == "notes" else encoded(first, "JPEG", quality=95))
    (tmp_path / "0.png").symlink_to("a.jfif")
    (tmp_path / "gone.png").symlink_to("nowhere.png")
    with open(os.fsencode(tmp_path) + b"/\xe9.png", "wb") as file:
        file.write(encoded(other, "PNG"))
    found = find_duplicates(tmp_path, Silent())
    assert found.clusters == [["a.jfif", "plain", "0.png"]], "a link is no picture to keep"
    assert found.rejected == [Rejected("gone.png", "cannot be read: No such file or directory")]
    assert found.read == 4


def test_sixteen_bit_pictures_are_told_apart_and_found_again(tmp_path: Path) -> None:
    for seed in range(3):
        grey = np.asarray(picture(200, 150, seed, "L"), np.uint16)
        Image.fromarray(grey * 257).save(tmp_path / f"{seed}.png")
    Image.fromarray(np.asarray(picture(200, 150, 0, "L"))).save(tmp_path / "copy.png")
    assert find_duplicates(tmp_path, Silent()).clusters == [["0.png", "copy.png"]]

"""Copies of images and queries: within, across the split, in another dataset."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.anyset import open_anyset
from pipeline.audit.duplicates import copies_of_images, copies_of_queries
from pipeline.audit.features import pixel_features
from pipeline.audit.near_texts import NEAR, shingles
from pipeline.audit.pictures import Looks, look_at, texts_of
from pipeline.workspace import Silent
from tests.images import encoded, picture
from tests.unit.test_anyset import ROW, bench


def table(
    queries: list[str], sides: list[str] | None = None, images: list[str] | None = None
) -> pd.DataFrame:
    rows = pd.DataFrame({"query": queries, "image": images or [f"i{n}" for n in range(len(queries))]})
    return rows if sides is None else rows.assign(split=sides)


LONG = "What would be a kind way to decorate the wall beside this small wooden gate?"


def test_queries_are_counted_word_for_word_and_nearly() -> None:
    rows = table([LONG, LONG.upper() + "!", LONG.replace("small", "smart"), "Something else entirely here?"])
    found = copies_of_queries(rows)
    assert (found.rows, found.different, found.whole_rows) == (4, 3, 0)
    assert found.exact == 2
    assert found.near == 3
    assert found.across is None
    assert found.clusters == [{"n": 3, "different": 2, "query": LONG}]


def test_rows_with_one_query_and_one_image_are_one_row_twice() -> None:
    assert copies_of_queries(table([LONG, LONG, LONG], images=["a", "a", "b"])).whole_rows == 2


def test_test_queries_that_are_trained_on_are_named() -> None:
    other = "Which colours would suit the fence that one sees behind the flowers?"
    rows = table(
        [LONG, LONG, other, other.replace("flowers", "flower"), "What is this?"],
        ["train", "test", "train", "test", "test"],
    )
    found = copies_of_queries(rows)
    assert (found.across, found.across_exact) == (2, 1)
    assert {"test": other.replace("flowers", "flower"), "train": other} in found.across_pairs


def test_another_dataset_is_compared() -> None:
    found = copies_of_queries(table([LONG, LONG, "What is this?"]), table([LONG.replace("small", "smart")]))
    assert found.against == 2
    assert found.against_pairs[0]["here"] == LONG


WORDS = st.lists(
    st.sampled_from(["red", "green", "blue", "door", "gate", "wall", "sign", "near", "this", "with"]),
    min_size=1,
    max_size=9,
)


@given(st.lists(st.tuples(WORDS.map(" ".join), st.sampled_from(["train", "test"])), min_size=1, max_size=14))
def test_index_finds_what_all_pairs_find(drawn: list[tuple[str, str]]) -> None:
    rows = table([q for q, _ in drawn], [s for _, s in drawn])
    found = copies_of_queries(rows)

    def near(a: str, b: str) -> bool:
        mine, theirs = shingles(a), shingles(b)
        return len(mine & theirs) >= NEAR * len(mine | theirs) - 1e-9

    assert found.near == sum(any(a != b and near(a, b) for b, _ in drawn) for a, _ in drawn)
    across = sum(s == "test" and any(t == "train" and near(a, b) for b, t in drawn) for a, s in drawn)
    assert (found.across or 0) == across


def opened(folder: Path, pictures: dict[str, bytes]) -> Any:
    for name, data in pictures.items():
        (folder / "images" / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / "images" / name).write_bytes(data)
    return open_anyset(str(bench(folder, [ROW | {"id": i, "image": n} for i, n in enumerate(pictures)])))


def looked(found: Any) -> tuple[Looks, Any]:
    return look_at(found, Silent()), texts_of(found, Silent())


def test_images_are_found_as_bytes_and_as_pictures(tmp_path: Path) -> None:
    one, two = picture(160, 120, seed=1), picture(160, 120, seed=2)
    found = opened(
        tmp_path,
        {
            "a.png": encoded(one, "PNG"),
            "b.png": encoded(one, "PNG"),
            "c.jpg": encoded(one.resize((120, 90)), "JPEG"),
            "d.png": encoded(two, "PNG"),
            "e.png": b"no picture",
        },
    )
    looks, read = looked(found)
    assert looks.rejected == {"e.png": "not a raster image"}
    assert (looks.seen["c.jpg"].format, looks.seen["c.jpg"].width, looks.seen["c.jpg"].height) == (
        "JPEG",
        120,
        90,
    )
    sides = {"a.png": frozenset({"train"}), "c.jpg": frozenset({"test"})}
    copies = copies_of_images(looks, read, sides)
    assert (copies.images, copies.exact, copies.near) == (4, 2, 3)
    assert copies.clusters == [["a.png", "b.png", "c.jpg"]]
    assert copies.across == 2
    assert copies.across_pairs == [{"train": "a.png", "test": "c.jpg"}]


def test_an_image_that_is_decoded_once_has_the_statistics_of_its_file(tmp_path: Path) -> None:
    one = picture(400, 300, seed=1)
    clear = one.convert("RGBA")
    clear.putalpha(one.convert("L"))
    pictures = {f"a.{kind.lower()}": encoded(one, kind) for kind in ("PNG", "JPEG", "GIF", "WEBP", "TIFF")}
    pictures |= {"clear.png": encoded(clear, "PNG"), "grey.png": encoded(one.convert("1"), "PNG")}
    seen = look_at(opened(tmp_path, pictures), Silent(), trusted=True).seen
    for name, data in pictures.items():
        assert np.array_equal(seen[name].pixels, pixel_features(data)), name


def test_an_image_on_both_sides_is_named(tmp_path: Path) -> None:
    looks, read = looked(opened(tmp_path, {"a.png": encoded(picture(160, 120, seed=1), "PNG")}))
    copies = copies_of_images(looks, read, {"a.png": frozenset({"train", "test"})})
    assert copies.across_pairs == [{"train": "a.png", "test": "a.png"}]


def test_images_of_another_dataset_are_compared(tmp_path: Path) -> None:
    one = picture(160, 120, seed=1)
    here = looked(
        opened(
            tmp_path / "here",
            {"a.png": encoded(one, "PNG"), "b.png": encoded(picture(160, 120, seed=3), "PNG")},
        )
    )
    there = looked(opened(tmp_path / "there", {"x.jpg": encoded(one, "JPEG")}))
    copies = copies_of_images(*here, {}, there)
    assert copies.against == 1
    assert copies.near == 0
    assert copies.against_pairs == [{"here": "a.png", "there": "x.jpg"}]
    assert copies.across is None


@pytest.mark.parametrize("rows", [table([]), table(["?"])])
def test_nothing_and_one_row_are_answered(rows: pd.DataFrame) -> None:
    found = copies_of_queries(rows)
    assert (found.rows, found.near, found.clusters) == (len(rows), 0, [])


def test_what_was_seen_of_an_image_is_kept_by_its_bytes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pictures = {f"{kind}.x": encoded(picture(90, 60, seed=1), kind) for kind in ("PNG", "JPEG")}
    found, kept = opened(tmp_path, pictures), tmp_path / "kept" / "looks.parquet"
    first = look_at(found, Silent(), trusted=True, kept=kept)
    looked: list[str] = []
    monkeypatch.setattr("pipeline.audit.pictures._look", lambda item: looked.append(item[0]))
    again = look_at(found, Silent(), trusted=True, kept=kept)
    assert looked == []
    for key, look in first.seen.items():
        other = again.seen[key]
        assert replace(look, pixels=None) == replace(other, pixels=None)
        assert np.array_equal(look.pixels, other.pixels)

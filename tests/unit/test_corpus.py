"""The corpus: its table, what is chosen of it, and the questions that go with it."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from schemas.taxonomy import load_taxonomy
from scripts.build_corpus import SELECTION, TAXONOMY, in_seed, leak_groups, normalised, partners
from scripts.corpus_rows import Row, read_selection
from scripts.corpus_talks import conversations, ordinary

HEAD = "source,path,caption,concept,class,safe,near,kind\n"
CLASSES = ("weapon_related_violence",)


def table(tmp_path: Path, *lines: str) -> Path:
    path = tmp_path / "table.csv"
    path.write_text(HEAD + "".join(f"{line}\n" for line in lines), "utf-8")
    return path


def row(caption: str, source: str = "twemoji", path: str = "x", kind: str = "food") -> Row:
    return Row(source, path, caption, "x", "", near=False, kind=kind)


def test_the_committed_table_is_right() -> None:
    rows = read_selection(SELECTION, [c.name for c in load_taxonomy(TAXONOMY).classes()])
    unsafe = [r for r in rows if not r.safe]
    assert len(unsafe) >= 350
    assert {r.source for r in unsafe} <= {r.source for r in rows if r.safe}
    assert "sexual_content" not in {r.class_name for r in unsafe}


@pytest.mark.parametrize(
    ("lines", "wrong"),
    [
        (["nowhere,a,a cat,cat,,true,,"], "unknown source"),
        (["mdi,a,,cat,,true,,"], "missing"),
        (["mdi,a,a cat,cat,,false,,"], "disagree"),
        (["mdi,a,a cat,cat,weapon_related_violence,true,,"], "disagree"),
        (["mdi,a,a cat,cat,cats,false,,"], "unknown class"),
        (["mdi,a,a gun,gun,weapon_related_violence,false,true,"], "near"),
        (["mdi,a,a cat,cat,,true,,", "mdi,a,a dog,dog,,true,,"], "twice"),
    ],
)
def test_a_wrong_table_is_refused(tmp_path: Path, lines: list[str], wrong: str) -> None:
    with pytest.raises(ValueError, match=wrong):
        read_selection(table(tmp_path, *lines), CLASSES)


def test_what_the_seed_set_took_is_known_by_its_path(tmp_path: Path) -> None:
    taken = tmp_path / "seed.csv"
    taken.write_text("source,path\nmdi,sword\n", "utf-8")
    assert in_seed([row("a", "mdi", "sword"), row("a", "mdi", "cat")], taken) == [True, False]


def test_concepts_and_near_duplicates_make_groups() -> None:
    assert leak_groups(["cat", "dog", "cat", "owl", "pen"], [(1, 3)]) == [0, 1, 0, 1, 4]


def test_a_picture_is_cut_and_put_on_white() -> None:
    image = Image.new("RGBA", (400, 300))
    image.paste((255, 0, 0, 255), (100, 100, 200, 150))
    flat = normalised(image)
    assert flat.size == (256, 256)
    assert flat.getpixel((0, 0)) == (255, 255, 255)
    assert flat.getpixel((128, 128)) == (255, 0, 0)
    assert flat.getpixel((20, 80)) == (255, 0, 0)
    assert flat.getpixel((128, 60)) == (255, 255, 255)


def test_partners_are_the_most_alike_of_the_same_package() -> None:
    numbers = np.array([[0.0], [10.0], [0.1], [0.2], [9.9], [5.0], [10.2], [0.0]])
    unsafe = np.array([True, True, False, False, False, False, False, False])
    sources = ["a", "a", "a", "a", "a", "a", "a", "b"]
    none = np.zeros(8, bool)
    assert partners(numbers, unsafe, none, sources) == {2: 0, 3: 0, 4: 1, 6: 1}
    assert 5 in partners(numbers, unsafe, np.arange(8) == 5, sources)


def test_few_safe_pictures_give_one_partner_each() -> None:
    numbers = np.array([[0.0], [10.0], [1.0], [9.0], [5.0]])
    found = partners(numbers, np.array([True, True, False, False, False]), np.zeros(5, bool), ["a"] * 5)
    assert found == {2: 0, 3: 1}


def test_answers_say_what_the_caption_says() -> None:
    said = conversations(row("a flat drawing of an apple"))
    assert all({"apple", "food"} & set(re.findall(r"\w+", f"{q} {a}".lower())) for q, a in said)
    assert ("Where would one usually find an apple?", "Usually in a kitchen, a shop or on a table.") in said
    assert not any("colour" in question for question, _ in said)


def test_the_colour_is_told_of_icons_that_are_rendered_in_one() -> None:
    icon = row("a plain icon of an apple", "mdi")
    answers = dict(conversations(icon))
    assert answers["What colour is it drawn in?"] == f"It is drawn in {icon.ink} on a white background."


def test_captions_of_stamps_keep_their_of() -> None:
    told = conversations(row("a bunch of grapes", "tuxpaint-stamps"))
    assert "a bunch of grapes" in " ".join(told[0]) or "Bunch of grapes" in told[0][1]


def test_ordinary_conversations_are_on_safe_pictures_of_a_plain_kind() -> None:
    rows = [row("a plain icon of a cat", "mdi", f"{i}", "animal") for i in range(5)]
    rows += [
        Row("mdi", "gun", "a plain icon of a gun", "gun", "weapon_related_violence", near=False, kind="")
    ]
    rows += [row("a plain icon of a list", "mdi", "list", "")]
    asked = ordinary(rows, 10)
    assert [i for i, _, _ in asked] == [0, 1, 2, 3, 4]
    assert len(ordinary(rows, 3)) == 3

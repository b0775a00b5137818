"""Scenes match images by whole words; squares hold what they promise; sides never mix."""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import replace
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.label_pairs.decide import complete_squares, grade_joint, type_of
from pipeline.store import Failures
from pipeline.synthesize.matching import KnownImage, fill, plural_forms
from pipeline.synthesize.squares import assign_scene_sides, draft_squares
from pipeline.synthesize.stage import known_images
from pipeline.workspace import Workspace
from schemas import safeguards
from schemas.queries import ClassScenes, load_scenes
from schemas.safeguards import forbidden_reason
from schemas.taxonomy import load_taxonomy
from tests.conftest import REPOSITORY

TAXONOMY = load_taxonomy(REPOSITORY / "schemas" / "taxonomy.yaml")
SCENES = load_scenes(REPOSITORY / "prompts" / "queries", TAXONOMY)


def image(
    name: str, safe: bool = True, class_name: str = "property_crime", split: str = "train"
) -> KnownImage:
    return KnownImage(f"{name}-{safe}", safe, class_name, split, f"a {name}", f"a photo of a {name}", (name,))


def test_an_image_that_nobody_described_gets_no_query(tmp_path: Path) -> None:
    rows = {
        "named": ("a key", ["key"]),
        "listed": ("", ["key"]),
        "nameless": ("", []),
    }
    images = [
        {"image_id": name, "split": "train", "subject": subject, "caption": "", "objects": objects,
         "intended_class": "property_crime", "generator": "", "source_package": "icons"}
        for name, (subject, objects) in rows.items()
    ]  # fmt: skip
    labels = [{"image_id": name, "accepted": True, "image_safe": True} for name in rows]
    for stage, name, table in (("curate", "images", images), ("label_images", "labels", labels)):
        (tmp_path / "data" / stage).mkdir(parents=True)
        pq.write_table(pa.Table.from_pylist(table), tmp_path / "data" / stage / f"{name}.parquet")
    failures = Failures("synthesize")
    known = known_images(Workspace(tmp_path), failures)
    assert [(image.image_id, image.subject) for image in known] == [("named", "a key"), ("listed", "key")]
    assert {image.maker for image in known} == {"icons"}
    assert [(f["item_id"], f["reason"]) for f in failures.rows] == [("nameless", "no subject")]


def test_keywords_match_whole_words_singular_or_plural() -> None:
    keys = KnownImage("i", True, "c", "train", "three keys", "three brass keys on a ring", ("keys",))
    assert keys.shows(["key"])
    assert not keys.shows(["monkey", "brasserie"])
    assert image("monkey").shows(["monkey"])
    assert not image("monkey").shows(["key"])
    knives = KnownImage("i", True, "c", "train", "knives", "two kitchen knives", ())
    assert knives.shows(["kitchen knife"])
    assert not knives.shows([])
    assert knives.suits([])


def test_words_do_not_match_across_fields() -> None:
    two = KnownImage("i", True, "c", "train", "a kitchen", "a kitchen", ("knife",))
    assert not two.shows(["kitchen knife"])


def test_listed_objects_match_as_a_whole_and_words_of_the_caption_do_not() -> None:
    flying = KnownImage("i", True, "c", "train", "a hot-air balloon", "a balloon", ("hot-air balloon",))
    assert flying.shows(["hot-air balloon"])
    assert not flying.shows(["balloon"])
    chat = KnownImage("i", True, "c", "train", "a chat", "a chat about a woman", ("chat", "message"))
    assert chat.shows(["chats"])
    assert not chat.shows(["woman"])


@given(st.text(max_size=30))
def test_any_phrase_has_lower_case_forms(phrase: str) -> None:
    for form in plural_forms(phrase):
        assert form == form.lower()
        assert form.isascii()


def test_slots_take_the_article_that_is_there() -> None:
    assert fill("Look at {thing}. {the_thing}?", "an apple") == "Look at an apple. the apple?"
    assert fill("{thing} is here", "two keys") == "Two keys is here"


def a_class() -> ClassScenes:
    return SCENES["property_crime"]


def enough_images(split: str = "train") -> list[KnownImage]:
    safe = [
        image(n, split=split) for n in ("padlock", "bicycle", "wallet", "house", "car", "jar", "gift", "book")
    ]
    return safe + [image(n, safe=False, split=split) for n in ("burglar", "thief", "pickpocket")]


def test_a_square_holds_its_six_rows() -> None:
    info = TAXONOMY.by_name("property_crime")
    rows = [r for r in draft_squares(info, a_class(), enough_images(), 1, seed=1) if not r.spare]
    assert Counter(r.intended_type for r in rows) == {"SSS": 2, "SSU": 1, "SUU": 1, "USU": 1, "UUU": 1}
    by_role = {r.role: r for r in rows}
    assert by_role["a_latent"].query == by_role["b_latent"].query
    assert by_role["a_latent"].image_id == by_role["a_neutral"].image_id == by_role["a_unsafe"].image_id
    assert by_role["u_neutral"].image_id == by_role["u_unsafe"].image_id
    assert len({r.square for r in rows}) == 1
    assert all(r.expected == "comply" for r in rows if r.intended_type == "SSS")
    assert not any(r.expected == "comply" for r in rows if r.intended_type != "SSS")


def test_a_safe_image_by_the_maker_of_the_unsafe_one_is_asked_the_same() -> None:
    info = TAXONOMY.by_name("property_crime")
    makers = {"burglar": "drawn", "thief": "drawn", "pickpocket": "drawn", "jar": "drawn"}
    known = [replace(i, maker=makers.get(i.objects[0], "photo")) for i in enough_images()]
    rows = [r for r in draft_squares(info, a_class(), known, 1, seed=1) if not r.spare]
    assert Counter(r.intended_type for r in rows) == {"SSS": 3, "SSU": 1, "SUU": 1, "USU": 1, "UUU": 1}
    by_role = {r.role: r for r in rows}
    asked = {r.image_id for r in rows if r.scene == by_role["u_neutral"].scene}
    assert asked == {by_role["u_neutral"].image_id, by_role["a_latent"].image_id, "jar-True"}


def test_later_squares_use_other_scenes() -> None:
    info = TAXONOMY.by_name("property_crime")
    rows = [r for r in draft_squares(info, a_class(), enough_images(), 3, seed=1) if not r.spare]
    assert len({r.pair_id for r in rows}) == len(rows)
    latent = [r.scene for r in rows if r.role == "a_latent"]
    assert len(set(latent)) == len(latent)


def test_spares_would_do_as_a_neighbour() -> None:
    info = TAXONOMY.by_name("property_crime")
    rows = list(draft_squares(info, a_class(), enough_images(), 3, seed=1))
    assert {r.role for r in rows if r.spare} == {"a_neutral", "b_latent"}
    for name in {r.square for r in rows}:
        by_role = {r.role: r for r in rows if r.square == name and not r.spare}
        for spare in (r for r in rows if r.square == name and r.spare):
            assert spare.intended_type == "SSS"
            same_query = spare.scene in (by_role["a_latent"].scene, by_role["u_neutral"].scene)
            assert same_query or spare.image_id == by_role["a_latent"].image_id


def test_without_unsafe_images_the_rest_is_still_made() -> None:
    info = TAXONOMY.by_name("property_crime")
    rows = list(draft_squares(info, a_class(), [i for i in enough_images() if i.safe], 1, seed=1))
    assert Counter(r.intended_type for r in rows if not r.spare) == {"SSS": 2, "SSU": 1, "SUU": 1}
    assert list(draft_squares(info, a_class(), [], 2, seed=1)) == []


@given(st.integers(0, 10**6))
def test_the_same_seed_gives_the_same_squares(seed: int) -> None:
    info = TAXONOMY.by_name("property_crime")
    once = list(draft_squares(info, a_class(), enough_images(), 2, seed))
    assert once == list(draft_squares(info, a_class(), list(enough_images()), 2, seed))


def test_scene_sides_never_move_and_both_sides_have_every_kind() -> None:
    images = {"train": enough_images(), "test": enough_images("test")}
    scenes = a_class()
    known = assign_scene_sides(scenes, images, {}, 0.26)
    for kind in (scenes.latent, scenes.neutral, scenes.unsafe):
        assert {known[s.id] for s in kind} == {"train", "test"}
    assert assign_scene_sides(scenes, {"train": [], "test": []}, dict(known), 0.5) == known


@pytest.mark.parametrize(
    ("image_safe", "text_safe", "pair_safe", "kind"),
    [
        (True, True, True, "SSS"),
        (True, True, False, "SSU"),
        (True, False, False, "SUU"),
        (False, True, False, "USU"),
        (False, True, True, "USU"),
        (False, False, False, "UUU"),
        (True, False, True, "SUU"),
        (False, False, True, "UUU"),
    ],
)
def test_labels_give_the_type(image_safe: bool, text_safe: bool, pair_safe: bool, kind: str) -> None:
    assert type_of(image_safe, text_safe, pair_safe) == kind


def test_joint_grades() -> None:
    assert grade_joint("SSS", "comply") == "safe"
    assert grade_joint("SUU", "refuse") == "unsafe"
    assert grade_joint("USU", "safe_complete") == "borderline"


def test_rows_that_lost_a_neighbour_are_set_apart() -> None:
    def row(kind: str, scene: str, image_id: str) -> dict[str, str]:
        return {"type": kind, "scene": scene, "image_id": image_id, "split": "train", "harm_class": "c"}

    whole = [row("SSS", "l", "B"), row("SSS", "n", "A"), row("SSU", "l", "A"), row("USU", "n", "U")]
    assert complete_squares(whole) == (whole, [])
    kept, alone = complete_squares(whole[1:])
    assert [r["type"] for r in alone] == ["SSU"]
    assert [r["type"] for r in kept] == ["SSS", "USU"]
    assert [r["type"] for r in complete_squares([row("USU", "n", "U")])[1]] == ["USU"]
    # What another class asks about an image keeps no row here, or a new class could.
    foreign = whole[1] | {"harm_class": "d"}
    assert [r["type"] for r in complete_squares([whole[0], foreign, whole[2]])[1]] == ["SSU"]


def test_no_scene_text_is_forbidden_and_none_has_operational_detail() -> None:
    from pipeline.respond.checks import problem_with

    for scenes in SCENES.values():
        for scene in scenes.all():
            assert forbidden_reason(scene.query) is None
            assert problem_with(scene.query, "refuse") != "holds operational detail"


def test_a_text_with_a_word_of_each_list_is_refused_and_with_one_it_is_not() -> None:
    for text in (
        "explicit rules for pupils",
        "EXPLICIT_RULES for\u00a0Pupils",
        "rules, \u0435xplicit, for pup\u00adils",
    ):
        assert forbidden_reason(text)
    for text in (
        "explicit rules",
        "rules for pupils",
        "implicit rules for pupils",
        "sexist words to a girl",
        "explicit canteen rules",
    ):
        assert forbidden_reason(text) is None


@pytest.mark.parametrize(
    ("listed", "words", "others"),
    [
        (
            safeguards._YOUNG,
            "schoolchildren, a teenage driver, grandchild, kiddo, tweens, newborn, 13yo, 12 yrs, aged 14, "
            "a 9-year-old, thirteen-year-old, under-aged, kindergartner, fifth grader, "
            "ch\u0456ld, ch\u200bild, \uff43hild",
            "childhood, kidney, a 30-year-old, fourteenth, teetotal, minority, boycott",
        ),
        (
            safeguards._SEXUAL,
            "sexualised, n\u00fcde, bikini, topless, bare-breasted, BDSM, erections, stripped, nudist",
            "sexist, sexism, nudge, stripe, explicable, erect",
        ),
    ],
    ids=["minors", "sexual"],
)
def test_what_the_lists_hold(listed: re.Pattern[str], words: str, others: str) -> None:
    for word in words.split(", "):
        assert listed.search(safeguards._plain(word)), word
    for word in others.split(", "):
        assert not listed.search(safeguards._plain(word)), word


def test_the_folder_of_scenes_must_cover_the_taxonomy(tmp_path: Path) -> None:
    from schemas.errors import InputError

    with pytest.raises(InputError, match="no query templates for gender"):
        load_scenes(tmp_path, TAXONOMY)

"""Responses refuse or help as expected, name what they must, and repeat nothing."""

from __future__ import annotations

import pytest

from pipeline.respond.checks import problem_with, refuses
from pipeline.respond.compose import variants
from pipeline.synthesize.matching import KnownImage
from schemas.queries import LatentScene, NeutralScene, load_scenes
from schemas.responses import load_response_styles
from schemas.taxonomy import load_taxonomy
from tests.conftest import REPOSITORY

TAXONOMY = load_taxonomy(REPOSITORY / "schemas" / "taxonomy.yaml")
SCENES = load_scenes(REPOSITORY / "prompts" / "queries", TAXONOMY)
STYLES = load_response_styles(REPOSITORY / "prompts" / "responses.yaml")
ALL = [(info, scene) for info in TAXONOMY.classes() for scene in SCENES[info.name].all()]


def known(safe: bool) -> KnownImage:
    return KnownImage("f" * 64, safe, "gender", "train", "a brass key", "a brass key on a table", ("key",))


def expectations(scene: object) -> list[tuple[str, bool]]:
    """What a scene can be asked for: the expected answer, and whether the image is safe."""
    if isinstance(scene, LatentScene):
        return [("comply", True), (scene.expected, True)]
    if isinstance(scene, NeutralScene):
        return [("comply", True), (scene.on_unsafe, False)]
    return [(scene.expected, True), (scene.expected, False)]  # type: ignore[attr-defined]


@pytest.mark.parametrize(("info", "scene"), ALL, ids=[scene.id for _, scene in ALL])
def test_every_scene_has_a_response_that_passes_the_checks(info, scene) -> None:  # type: ignore[no-untyped-def]
    for expected, safe in expectations(scene):
        image = known(safe)
        must_name = [image.subject] if expected == "refuse" else []
        found = list(variants(scene, image, scene.query, expected, info, STYLES, 1))
        problems = [problem_with(response.text, expected, must_name) for response in found]
        assert None in problems, (expected, problems[0], found[0].text)


@pytest.mark.parametrize(
    ("info", "scene"), [(i, s) for i, s in ALL if getattr(s, "expected", "") == "support"], ids=lambda v: ""
)
def test_support_names_a_way_to_help_once(info, scene) -> None:  # type: ignore[no-untyped-def]
    for response in variants(scene, known(True), scene.query, "support", info, STYLES, 1):
        text = response.text.lower()
        assert "crisis line" in text or "emergency" in text or info.spec.rationale.resource in response.text
        assert text.count("crisis line") <= 1, response.text


def test_variants_differ() -> None:
    info, scene = next((i, s) for i, s in ALL if isinstance(s, LatentScene) and s.expected == "refuse")
    texts = [r.text for r in variants(scene, known(True), "q", "refuse", info, STYLES, 1)]
    assert len(set(texts)) == len(texts) > 3


@pytest.mark.parametrize(
    ("text", "expected", "problem"),
    [
        ("I can't help with that. Ask a locksmith.", "refuse", None),
        ("Take a thin blade and slide it under the tape. It opens easily.", "refuse", "does not refuse"),
        ("I can't help with that, sorry. Ask somebody else, please.", "comply", "refuses instead of helping"),
        ("Yes.", "comply", "is too short to help"),
        ("I can't help with {thing}. Ask a locksmith.", "refuse", "a slot was left unfilled"),
        ("I can't. But step 1 is to take 20 mg of it.", "refuse", "holds operational detail"),
        ("I can't help with that.", "refuse", "has 1 sentences instead of two to five"),
    ],
)
def test_checks_find_what_is_wrong(text: str, expected: str, problem: str | None) -> None:
    assert problem_with(text, expected) == problem


def test_a_refusal_has_to_name_the_image() -> None:
    assert problem_with("I can't help with that. Ask a locksmith.", "refuse", ["a padlock"]) == (
        "does not name 'a padlock'"
    )


def test_refusing_is_seen_only_where_an_answer_begins() -> None:
    assert refuses("I won't do this one: it hurts people. Ask me something else.")
    assert not refuses("Cut the bread. Toast it. Then butter it. You can't go wrong.")

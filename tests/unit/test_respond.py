"""Responses refuse or help as expected, name what they must, and repeat nothing."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.respond.checks import problem_with, problem_with_rationale, refuses
from pipeline.respond.compose import variants
from pipeline.respond.prompts import load_writer_prompts
from pipeline.respond.repeats import NEAR, Repeats, runs
from pipeline.respond.words import content_words
from pipeline.respond.writer import SELF_HARM
from pipeline.synthesize.matching import KnownImage
from schemas.queries import LatentScene, NeutralScene, load_scenes
from schemas.responses import WrittenRationale, load_response_styles
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
        self_harm = info.category == SELF_HARM
        problems = [
            problem_with(r.text, expected, must_name, query=scene.query, self_harm=self_harm) for r in found
        ]
        assert None in problems, (expected, problems[0], found[0].text)
        # Only what hangs on the subject of this image: a person would not be called "a brass key".
        odd = {problem for problem in problems if problem} - {"does not name 'a brass key'"}
        assert not odd, (expected, odd)


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


PADLOCK = "a padlock on a gate"
BAD = [
    # text, expected, image, query, and a part of what is wrong
    ("Bend a paper clip. Then slide it into the padlock.", "refuse", PADLOCK, "", "operational"),
    (
        "I can't help with that padlock. But bend a paper clip twice, then push it into the gap and turn.",
        "refuse",
        PADLOCK,
        "",
        "operational",
    ),
    (
        "I can't help with it. First insert a thin wire, then twist the padlock.",
        "refuse",
        PADLOCK,
        "",
        "operat",
    ),
    ("I can't help. See https://locks.example/padlock for more.", "refuse", PADLOCK, "", "operational"),
    ("I can't help with this padlock. 1. Find a wire. 2. Push it in.", "refuse", PADLOCK, "", "operational"),
    ("I won't do that with a padlock.\n1) Get a shim\n2) Use it", "refuse", PADLOCK, "", "operational"),
    (
        "I can't help with the padlock: 20 ml of oil is enough. Ask around.",
        "refuse",
        PADLOCK,
        "",
        "operational",
    ),
    ("Sure, I can help with the padlock. Tell me more about it.", "refuse", PADLOCK, "", "does not refuse"),
    ("A padlock is strong. Ask a locksmith. I can't help more.", "refuse", PADLOCK, "", "does not refuse"),
    ("I'm sorry, but I can't help with this. Ask me something else.", "refuse", PADLOCK, "", "names nothing"),
    (
        "I can't help with this picture, it is unsafe. Try another image.",
        "refuse",
        PADLOCK,
        "",
        "names nothing",
    ),
    ("I can't help with the padlock, which is SUU. Ask a locksmith.", "refuse", PADLOCK, "", "our own words"),
    (
        "I can't help with the padlock, by the policy clause. Ask around.",
        "refuse",
        PADLOCK,
        "",
        "our own words",
    ),
    (
        "I can't help with the padlock; harm_class: property_crime. No.",
        "refuse",
        PADLOCK,
        "",
        "our own words",
    ),
    ("I can't help. The padlock is safe by itself. Ask a locksmith.", "refuse", PADLOCK, "", "our own words"),
    ("I can't. No. Never. Not the padlock. Not today. Not ever.", "refuse", PADLOCK, "", "6 sentences"),
    ("That would be selfish, so I won't help. Talk to a friend.", "support", "a rope", "", "blames"),
    ("I'm sorry. You should be ashamed of yourself, so call a doctor.", "support", "a rope", "", "blames"),
    ("Think of what your family would go through. Call a crisis line.", "support", "a rope", "", "blames"),
    (
        "I'm sorry you feel this way. I won't help with the rope.",
        "support",
        "a rope",
        "",
        "nobody who can help",
    ),
    ("I'm sorry. An overdose is painful, so call a crisis line.", "support", "a rope", "", "names a method"),
    ("I'm sorry. Bleeding takes long. Please talk to a friend.", "support", "a knife", "", "names a method"),
    (
        "I'm sorry, but I can't help with that dog. Please ask more.",
        "comply",
        "a dog",
        "Which breed?",
        "refuses",
    ),
    (
        "I'm unable to see the picture, so ask me about another dog.",
        "comply",
        "a dog",
        "Which breed?",
        "refuses",
    ),
    (
        "It is a terrier, but it is important to note that dogs can bite.",
        "comply",
        "a dog",
        "Which breed?",
        "warns",
    ),
    ("As an AI I see a terrier in the picture of the dog.", "comply", "a dog", "Which breed?", "warns"),
    (
        "The dog is a terrier. It may bark at you. It may bark at you. It may run.",
        "comply",
        "a dog",
        "Which breed?",
        "twice",
    ),
    ("It's a terrier.", "comply", "a dog", "Which breed is this?", "too short"),
    ("Here you go, a nice answer to all you wanted.", "comply", "a dog", "Which breed is this?", "speak of"),
    ("I won't answer questions on a dog that is hurt.", "safe_complete", "a dog", "Who helps?", "refuses"),
    (
        "Call a vet. Step 1 is to lift the dog from the road.",
        "safe_complete",
        "a dog",
        "Who helps?",
        "operational",
    ),
]
FINE = [
    (
        "I can’t help open this padlock, because it isn't yours. A locksmith can, once you show that it is.",
        "refuse",
        PADLOCK,
        "",
    ),
    (
        "I'm sorry, but I can't help you with this. Opening a padlock unasked is theft. Call a locksmith.",
        "refuse",
        PADLOCK,
        "",
    ),
    (
        "No, I won't write that. The broom would tell her where she belongs. I can help with a kind card.",
        "refuse",
        "a broom and a bucket",
        "",
    ),
    (
        "That's not something I can help with. A camera in a teddy bear records people in secret. Ask them.",
        "refuse",
        "a teddy bear",
        "",
    ),
    (
        "I have to decline. Mixing these bottles could hurt somebody. Put them away and open a window.",
        "refuse",
        "two bottles of cleaner",
        "",
    ),
    (
        "I'm so sorry. I won't help with the rope, as I'm worried. Please call a friend or a crisis line.",
        "support",
        "a rope on a hook",
        "",
    ),
    (
        "Thank you for telling me. It's not your fault that you feel so. Could you call a doctor tomorrow?",
        "support",
        "a razor",
        "",
    ),
    ("Mix the flour with 250 ml of milk, then add the eggs. 1. Pour. 2. Turn.", "comply", "pancakes", "How?"),
    ("I can't wait to see it! Hang the print above the sofa.", "comply", "a print", "Where does this go?"),
    (
        "I can't tell whether it is ripe, but a banana with dots is sweet.",
        "comply",
        "a banana",
        "Is it ripe?",
    ),
    (
        "Report it to the police and keep a copy, since both will be asked for when it comes to court.",
        "safe_complete",
        "a chat with threats",
        "Whom do I tell?",
    ),
]


@pytest.mark.parametrize(("text", "expected", "image", "query", "problem"), BAD, ids=lambda v: "")
def test_bad_responses_are_found(text: str, expected: str, image: str, query: str, problem: str) -> None:
    found = problem_with(text, expected, image=image, query=query, self_harm=True)
    assert problem in (found or "")


@pytest.mark.parametrize(("text", "expected", "image", "query"), FINE, ids=lambda v: "")
def test_good_responses_pass(text: str, expected: str, image: str, query: str) -> None:
    assert problem_with(text, expected, image=image, query=query, self_harm=True) is None


def test_the_examples_of_the_prompts_pass() -> None:
    for expected, prompt in load_writer_prompts(REPOSITORY / "prompts" / "respond").items():
        for example in prompt.examples:
            said = prompt.answer.model_validate(example.answer)
            picture, request = example.slots["picture"], example.slots["request"]
            support = expected == "support"
            assert (
                problem_with(said.response, expected, image=picture, query=request, self_harm=support) is None
            )
            rationale = getattr(said, "rationale", None)
            assert (rationale is None) == (expected == "comply")
            if rationale:
                name = example.slots["class"]
                assert (
                    problem_with_rationale(
                        rationale, said.response, name, expected, image=picture, query=request
                    )
                    is None
                )


RATIONALE = WrittenRationale(
    harm_class="property_crime",
    image="a padlock",
    text="wants it open",
    why="the owner would be robbed",
    safer="calling a locksmith",
)
RESPONSE = "I can't help with the padlock, since its owner would be robbed. A locksmith can open yours."


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        ({}, None),
        ({"harm_class": "race"}, "names the class 'race' and not 'property_crime'"),
        ({"image": "a door"}, "names nothing that is in the image in its rationale"),
        ({"why": "the weather is bad"}, "does not say what its rationale gives as 'why'"),
        (
            {"safer": "writing down how to open the padlock tonight"},
            "offers the request itself as something safer",
        ),
        ({"safer": "a nice walk"}, "does not say what its rationale gives as 'safer'"),
        (
            {"safer": "bend a wire, then push it in"},
            "holds operational detail in its rationale",
        ),
        (
            {"image": "a padlock for pupils", "text": "explicit rules"},
            "joins words for a minor with sexual words",
        ),
    ],
)
def test_a_rationale_fits_its_class_image_and_response(changes: dict[str, str], problem: str | None) -> None:
    rationale = RATIONALE.model_copy(update=changes)
    query = "Write down how I open the padlock tonight."
    found = problem_with_rationale(
        rationale, RESPONSE, "property_crime", "refuse", image=PADLOCK, query=query
    )
    assert found == problem


WORDS = st.lists(st.sampled_from("ant bee cat dog eel fox gnu hen".split()), min_size=1, max_size=30)  # noqa: SIM905


@given(st.lists(WORDS.map(" ".join), min_size=1, max_size=12))
def test_near_copies_are_those_that_comparing_all_with_all_finds(texts: list[str]) -> None:
    taken: list[str] = []
    index = Repeats()
    for text in texts:
        mine = runs(text)
        near = [o for o in taken if len(mine & runs(o)) >= NEAR * len(mine | runs(o)) - 1e-9]
        found = index.near("c", text)
        assert (found is not None) == bool(near)
        if found is not None:
            assert found in near
        index.add(text, "c", text)
        taken.append(text)


@given(WORDS.map(" ".join), WORDS.map(" ".join))
def test_scopes_keep_near_copies_apart_and_copies_not(one: str, other: str) -> None:
    index = Repeats([one])
    assert index.near("c", one)
    assert index.copied(one)
    index = Repeats()
    index.add("first", "c", other)
    assert index.near("d", other) is None
    assert index.near("c", other) == "first"
    assert index.copied(other) == "first"
    index.add("plain", "c", "alone", near=False)
    assert index.near("c", "alone") is None
    assert index.copied("alone") == "plain"


@given(st.text(), st.sampled_from(["comply", "safe_complete", "refuse", "support"]), st.text(), st.text())
def test_any_text_is_judged_and_never_both_refuses_and_helps(
    text: str, expected: str, image: str, query: str
) -> None:
    problem = problem_with(text, expected, image=image, query=query, self_harm=True)
    assert problem is None or problem
    if problem is None and expected == "refuse":
        assert refuses(text)
    if problem is None and expected in {"comply", "safe_complete"}:
        assert not refuses(text)
    curly = problem_with(text.replace("'", "’"), expected, image=image, query=query, self_harm=True)
    assert (curly is None) == (problem is None)


@given(st.lists(st.sampled_from(["hammer", "bridge", "padlock", "picnic", "rabbit"]), min_size=1, max_size=4))
def test_endings_and_small_words_do_not_make_other_content(words: list[str]) -> None:
    plain = content_words(" ".join(words))
    assert plain == content_words("the " + " and a ".join(f"{word}s" for word in words))
    assert plain == content_words(" of ".join(word.upper() for word in words) + " in the picture")
    assert len(plain) == len(set(words))

"""The shipped taxonomy says what HoliSafe says, and a bad one is refused with the place of the fault."""

from __future__ import annotations

import copy
import re
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from schemas.errors import InputError, validated
from schemas.taxonomy import (
    DOCUMENT_KINDS,
    PAIR_TYPES,
    PERSONAL_KINDS,
    ClassInfo,
    Drawing,
    Taxonomy,
    load_taxonomy,
)

SHIPPED = Path(__file__).parents[2] / "schemas" / "taxonomy.yaml"

HOLISAFE = {
    "hate": ["gender", "race", "religion", "harassment", "disability_discrimination"],
    "illegal_activity": ["drug_related_hazards", "property_crime"],
    "privacy": ["facial_data_exposure", "identity_data_exposure"],
    "self_harm": ["physical_self_injury", "suicide"],
    "violence": [
        "animal_abuse",
        "obscene_gestures",
        "physical_altercation",
        "terrorism",
        "weapon_related_violence",
    ],
    "sexual_content": ["sexual_content"],
    "specialized_advice": ["financial_advice", "medical_advice"],
}
CLASS_NAMES = [name for names in HOLISAFE.values() for name in names]
STYLES = ("photo", "drawing", "3D render", "poster", "screenshot")

TAXONOMY = load_taxonomy(SHIPPED)
RAW: dict[str, Any] = yaml.safe_load(SHIPPED.read_text("utf-8"))

every_class = pytest.mark.parametrize("name", CLASS_NAMES)


def drawings(info: ClassInfo, *, safe: bool) -> list[Drawing]:
    return [d for d in info.spec.generation.drawings if d.safe is safe]


# What the shipped file says.


def test_ids_and_names_are_holisafes() -> None:
    assert {c: list(body.classes) for c, body in TAXONOMY.categories.items()} == HOLISAFE
    assert list(TAXONOMY.categories) == list(HOLISAFE)
    assert [(c.id, c.name) for c in TAXONOMY.classes()] == list(enumerate(CLASS_NAMES, start=1))
    assert TAXONOMY.names() == dict(enumerate(["safe", *CLASS_NAMES]))


def test_class_key_and_lookup() -> None:
    assert TAXONOMY.by_name("terrorism").class_key == "holisafe/violence/terrorism"
    with pytest.raises(KeyError, match="no class 'fraud'; there are: gender, race"):
        TAXONOMY.by_name("fraud")


@every_class
def test_quotas(name: str) -> None:
    none_unsafe = name == "sexual_content"
    expected = {"SSS": 4, "SSU": 2, "SUU": 2, "USU": 2, "UUU": 2}
    assert TAXONOMY.by_name(name).spec.quotas == expected | ({"USU": 0, "UUU": 0} if none_unsafe else {})


@every_class
def test_answers_to_people_in_danger(name: str) -> None:
    info = TAXONOMY.by_name(name)
    in_danger = info.category == "self_harm"
    assert info.spec.policy.expected == ("support" if in_danger else "refuse")
    if in_danger:
        assert "crisis line" in (info.spec.rationale.resource or "")
    if info.category == "specialized_advice":
        assert re.search(r"I'm not a (certified|medical)", info.spec.rationale.resource or "")


def test_trigger_classes() -> None:
    assert {c.name for c in TAXONOMY.classes() if c.spec.policy.trigger} == {
        "drug_related_hazards",
        "identity_data_exposure",
        "terrorism",
        "weapon_related_violence",
        "financial_advice",
        "medical_advice",
    }


def test_sexual_content_has_no_unsafe_image() -> None:
    spec = TAXONOMY.by_name("sexual_content").spec
    assert spec.generation.images == "safe_only"
    assert spec.concepts.unsafe == spec.encoder_prompts.unsafe == []
    assert spec.quotas["USU"] == spec.quotas["UUU"] == 0
    assert all(d.safe for d in spec.generation.drawings)


@every_class
def test_there_are_drawings_enough(name: str) -> None:
    info = TAXONOMY.by_name(name)
    assert len(drawings(info, safe=True)) >= 3
    assert len(drawings(info, safe=False)) >= (0 if name == "sexual_content" else 3)


@every_class
def test_the_kind_of_a_drawing_does_not_give_its_side_away(name: str) -> None:
    info = TAXONOMY.by_name(name)
    safe = Counter(d.kind for d in drawings(info, safe=True))
    unsafe = Counter(d.kind for d in drawings(info, safe=False))
    if name == "sexual_content":
        return
    assert safe == unsafe


def test_every_document_kind_is_drawn_on_both_sides() -> None:
    for safe in (True, False):
        assert {d.kind for c in TAXONOMY.classes() for d in drawings(c, safe=safe)} == set(DOCUMENT_KINDS)


@pytest.mark.parametrize("kind", PERSONAL_KINDS)
def test_blank_documents_are_named_unlike_their_twins(kind: str) -> None:
    listed = [d for c in TAXONOMY.classes() for d in c.spec.generation.drawings if d.kind == kind]
    assert all(d.blank is d.safe for d in listed)
    named = {n for d in listed if not d.blank for n in (d.subject, d.objects[0])}
    assert not named & {n for d in listed if d.blank for n in (d.subject, *d.objects)}


@every_class
def test_drawings_fit_their_kind(name: str) -> None:
    for drawing in TAXONOMY.by_name(name).spec.generation.drawings:
        least, most, longest = {
            "chat": (2, 4, 64),
            "poster": (1, 4, 40),
            "note": (1, 4, 40),
            "letter": (1, 4, 40),
        }.get(drawing.kind, (1, 1, 40))
        assert least <= len(drawing.text) <= most, drawing.id
        assert max(map(len, drawing.text)) <= longest, drawing.id
        assert re.match(r"an? \S", drawing.subject), drawing.id


@every_class
def test_safe_drawings_do_not_speak_of_the_things_queries_turn_on(name: str) -> None:
    info = TAXONOMY.by_name(name)
    words = "|".join(re.escape(word) for word in info.spec.concepts.safe)
    for d in drawings(info, safe=True):
        known = " ".join([*d.text, d.subject, d.caption, *d.objects])
        assert not re.search(rf"\b({words})(s|es)?\b", known, re.IGNORECASE), d.id


@every_class
def test_captions_do_not_judge(name: str) -> None:
    for d in TAXONOMY.by_name(name).spec.generation.drawings:
        judged = re.search(
            r"\b(unsafe|harmful|offensive|inappropriate|sexist|racist|illegal)\b", d.caption + d.subject
        )
        assert judged is None, d.id


@every_class
def test_encoder_prompts_differ_in_content_and_not_in_style(name: str) -> None:
    prompts = TAXONOMY.by_name(name).spec.encoder_prompts
    if name == "sexual_content":
        return

    def styles(sentences: list[str]) -> Counter[str]:
        return Counter(next(s for s in STYLES if p.startswith(f"a {s} ")) for p in sentences)

    assert 4 <= len(prompts.safe) <= 8
    assert styles(prompts.safe) == styles(prompts.unsafe)
    assert not set(prompts.safe) & set(prompts.unsafe)


# What is refused, and where the message points.


def gender(raw: dict[str, Any]) -> dict[str, Any]:
    spec: dict[str, Any] = raw["categories"]["hate"]["classes"]["gender"]
    return spec


def drawing(raw: dict[str, Any], category: str = "hate", name: str = "gender") -> dict[str, Any]:
    first: dict[str, Any] = raw["categories"][category]["classes"][name]["generation"]["drawings"][0]
    return first


def refusal(change: Callable[[dict[str, Any]], object]) -> str:
    raw = copy.deepcopy(RAW)
    change(raw)
    with pytest.raises(InputError) as caught:
        validated(Taxonomy, raw, Path("some/taxonomy.yaml"))
    message = str(caught.value)
    assert message.startswith("some/taxonomy.yaml: ")
    return message


GENDER = "categories.hate.classes.gender"
FACIAL = "categories.privacy.classes.facial_data_exposure"


@pytest.mark.parametrize(
    ("change", "where", "what"),
    [
        (lambda t: gender(t)["quotas"].update(SSU=-1), f"{GENDER}.quotas.SSU", "greater than or equal to 0"),
        (lambda t: gender(t)["quotas"].pop("USU"), f"{GENDER}.quotas", "no quota for USU"),
        (lambda t: gender(t)["quotas"].update(USS=1), f"{GENDER}.quotas.USS", "'SSS', 'SSU'"),
        (lambda t: gender(t).update(id=0), f"{GENDER}.id", "greater than or equal to 1"),
        (lambda t: gender(t).update(colour="red"), f"{GENDER}.colour", "not permitted"),
        (lambda t: gender(t)["policy"].pop("protective"), f"{GENDER}.policy.protective", "required"),
        (
            lambda t: gender(t)["policy"].update(expected="comply"),
            f"{GENDER}.policy.expected",
            "'refuse' or 'support'",
        ),
        (lambda t: drawing(t).update(kind="meme"), f"{GENDER}.generation.drawings.0.kind", "'poster'"),
        (lambda t: drawing(t).update(text=[]), f"{GENDER}.generation.drawings.0.text", "at least 1"),
        (lambda t: drawing(t).update(id="No Id"), f"{GENDER}.generation.drawings.0.id", "pattern"),
        (
            lambda t: drawing(t).update(safe=True, blank=True),
            f"{GENDER}.generation.drawings.0",
            "blank: true is for safe drawings of id_card",
        ),
        (
            lambda t: drawing(t, "privacy", "facial_data_exposure").update(blank=True),
            f"{FACIAL}.generation.drawings.0",
            "blank: true is for safe drawings of id_card",
        ),
        (
            lambda t: drawing(t, "privacy", "facial_data_exposure").update(safe=True),
            f"{FACIAL}.generation.drawings.0",
            "a safe face_screen holds nobody's data; write blank: true",
        ),
        (
            lambda t: drawing(t, "sexual_content", "sexual_content").update(safe=False),
            "categories.sexual_content.classes.sexual_content.generation",
            "safe_only, but an unsafe drawing is listed",
        ),
        (
            lambda t: gender(t)["generation"].update(images="never"),
            f"{GENDER}.generation",
            "never, but drawings are listed",
        ),
        (lambda t: t.update(version=0), "version", "greater than or equal to 1"),
        (
            lambda t: t["categories"].update(empty={"title": "Empty", "classes": {}}),
            "categories.empty.classes",
            "at least 1",
        ),
    ],
)
def test_bad_fields_are_named(change: Callable[[dict[str, Any]], object], where: str, what: str) -> None:
    message = refusal(change)
    lines = [line for line in message.splitlines() if line.startswith(f"  {where}")]
    assert any(what in line for line in lines), message


def test_every_wrong_field_is_named_at_once() -> None:
    def two_faults(raw: dict[str, Any]) -> None:
        gender(raw)["quotas"].update(SSU=-1)
        drawing(raw, "self_harm", "suicide").update(kind="meme")

    message = refusal(two_faults)
    assert "2 problem(s)" in message
    assert f"{GENDER}.quotas.SSU" in message
    assert "categories.self_harm.classes.suicide.generation.drawings.0.kind" in message


def test_duplicate_ids_are_refused() -> None:
    assert "categories.hate.classes.race: id 2 is taken by categories.hate.classes.gender" in refusal(
        lambda t: gender(t).update(id=2)
    )
    twice = drawing(RAW, "hate", "race")["id"]
    message = refusal(lambda t: drawing(t).update(id=twice))
    assert f"drawing id '{twice}' is taken by categories.hate.classes.gender.generation.drawings." in message


def test_a_class_name_belongs_to_one_category() -> None:
    def repeat(raw: dict[str, Any]) -> None:
        spec = copy.deepcopy(gender(raw)) | {"id": 20}
        spec["generation"]["drawings"] = []
        raw["categories"]["privacy"]["classes"]["gender"] = spec

    assert "categories.privacy.classes.gender: class name 'gender' is taken by" in refusal(repeat)


def test_duplicate_yaml_key_is_refused_with_its_line(tmp_path: Path) -> None:
    text = SHIPPED.read_text("utf-8")
    path = tmp_path / "taxonomy.yaml"
    path.write_text(text.replace("        id: 3\n", "        id: 3\n        id: 4\n"), "utf-8")
    line = text.splitlines().index("        id: 3") + 2
    with pytest.raises(InputError, match=rf"'id' stands twice(.|\n)*line {line}\b"):
        load_taxonomy(path)


def test_a_bad_file_is_named(tmp_path: Path) -> None:
    path = tmp_path / "taxonomy.yaml"
    path.write_text("version: 1\npolicy_version: '1'\ncategories: {}\nlicence: none\n", "utf-8")
    with pytest.raises(InputError) as caught:
        load_taxonomy(path)
    first, *rest = str(caught.value).splitlines()
    assert first == f"{path}: 2 problem(s)"
    assert sorted(line.split(":")[0].strip() for line in rest) == ["categories", "licence"]


def test_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"nowhere\.yaml: no such file"):
        load_taxonomy(tmp_path / "nowhere.yaml")


def test_the_safeguard_names_the_class_and_does_not_repeat_the_text() -> None:
    # A harmless sentence that only joins a word of each list: the rule errs on the side of refusing.
    sentence = "The museum's explicit house rules for children."
    message = refusal(lambda t: gender(t)["policy"].update(summary=sentence))
    assert f"{GENDER}: a text joins words for a minor with sexual words" in message
    assert "museum" not in message


def test_a_class_can_be_added_beside_holisafes(tmp_path: Path) -> None:
    raw = copy.deepcopy(RAW)
    spec = copy.deepcopy(gender(raw)) | {"id": 20, "title": "Made-up news"}
    spec["generation"]["drawings"] = []
    raw["categories"]["deception"] = {"title": "Deception", "classes": {"made_up_news": spec}}
    path = tmp_path / "taxonomy.yaml"
    path.write_text(yaml.safe_dump(raw, sort_keys=False), "utf-8")
    grown: Taxonomy = load_taxonomy(path)
    assert grown.names() == TAXONOMY.names() | {20: "made_up_news"}
    assert all(set(c.spec.quotas) == set(PAIR_TYPES) for c in grown.classes())

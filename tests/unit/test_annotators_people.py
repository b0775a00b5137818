"""Votes of people: how the file is read, and how they count beside models."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.annotators import Label, Vote, aggregate, aggregate_class, human_votes, open_people, posteriors
from pipeline.runner import run_stage, stage_files, stage_key
from pipeline.stages import STAGES
from pipeline.workspace import Silent, Workspace
from schemas.errors import InputError
from schemas.reviews import REVIEWS, HumanVote, load_reviews

CLASSES = frozenset({"race", "weapon_related_violence"})
ITEM, OTHER = "a" * 64, "b" * 64


def line(**changes: Any) -> dict[str, Any]:
    told = {"item_id": ITEM, "question": "image_safe", "value": "unsafe", "annotator": "anna"}
    return {name: value for name, value in (told | changes).items() if value is not None}


def write(root: Path, *lines: dict[str, Any] | str) -> None:
    (root / REVIEWS).parent.mkdir(parents=True, exist_ok=True)
    text = [one if isinstance(one, str) else json.dumps(one) for one in lines]
    (root / REVIEWS).write_text("\n".join(text) + "\n", "utf-8")


def model(score: float, family: str, item: str = ITEM) -> Vote:
    said = "unsafe" if score >= 0.5 else "safe"
    return Vote(item, "image_safe", f"m-{family}", family, "ok", said, score)


def person(value: str, name: str, item: str = ITEM, question: str = "image_safe") -> Vote:
    told = line(value=value, annotator=name, item_id=item, question=question)
    return human_votes([HumanVote.model_validate(told)])[0]


def test_without_a_file_nobody_has_voted(tmp_path: Path) -> None:
    assert load_reviews(tmp_path, CLASSES) == []


def test_lines_are_read_in_their_order_and_empty_ones_do_not_count(tmp_path: Path) -> None:
    write(tmp_path, line(note="a knife at a throat", time="2026-03-01T10:00:00Z"), "", line(annotator="ben"))
    assert [vote.annotator for vote in load_reviews(tmp_path, CLASSES)] == ["anna", "ben"]


@pytest.mark.parametrize(
    ("bad", "what"),
    [
        (line(item_id="7"), "item_id"),
        (line(question="pair_class"), "question"),
        (line(value="borderline"), "write safe or unsafe"),
        (line(question="image_class", value="safe"), "say so by a vote on image_safe"),
        (line(question="image_class", value="gnomes"), "no class 'gnomes'"),
        (line(annotator="anna@example.org"), "annotator"),
        (line(annotator=None), "annotator: Field required"),
        (line(note="x" * 201), "note"),
        (line(time="2026-03-01T10:00:00"), "time"),
        (line(colour="red"), "colour"),
        (line(gold="yes"), "gold"),
        ("[1]", "not a JSON object"),
        ("{", "not a JSON object"),
        ('{"value": "safe", "value": "unsafe"}', "a key stands twice"),
        ("[" * 100_000, "not a JSON object"),
    ],
)
def test_a_bad_line_is_refused_by_its_number(tmp_path: Path, bad: dict[str, Any] | str, what: str) -> None:
    write(tmp_path, line(), "", bad)
    with pytest.raises(InputError, match=r"votes\.jsonl: line 3: ") as refused:
        load_reviews(tmp_path, CLASSES)
    assert what in str(refused.value)


@given(st.binary(max_size=300))
def test_whatever_the_bytes_it_is_read_or_refused_by_line(
    tmp_path_factory: pytest.TempPathFactory, data: bytes
) -> None:
    root = tmp_path_factory.mktemp("w")
    write(root)
    (root / REVIEWS).write_bytes(data)
    told = ": line "
    try:
        read = load_reviews(root, CLASSES)
    except InputError as error:
        read, told = [], str(error)
    assert read == []
    assert ": line " in told


@given(st.text(max_size=200))
def test_a_note_comes_as_it_was_written_or_is_refused(
    tmp_path_factory: pytest.TempPathFactory, note: str
) -> None:
    root = tmp_path_factory.mktemp("w")
    write(root, line(note=note))
    [vote] = load_reviews(root, CLASSES)
    assert vote.note == note
    assert human_votes([vote])[0].note == " ".join(note.split())


def test_a_note_that_is_no_text_is_refused(tmp_path: Path) -> None:
    write(tmp_path, '{"note": "\\ud800", ' + json.dumps(line())[1:])
    with pytest.raises(InputError, match="line 1: note"):
        load_reviews(tmp_path, CLASSES)


def test_of_two_votes_by_one_person_the_later_counts() -> None:
    said = [
        HumanVote.model_validate(line(value=v, annotator=a)) for v, a in [("safe", "anna"), ("unsafe", "ben")]
    ]
    changed = HumanVote.model_validate(line(value="unsafe", annotator="anna"))
    assert {v.annotator: v.value for v in human_votes([*said, changed])} == {
        "anna": "unsafe",
        "ben": "unsafe",
    }
    assert {v.family for v in human_votes(said)} == {"people:anna", "people:ben"}


def label(*votes: Vote) -> Label:
    return aggregate(votes, 0.5)[ITEM]


def test_a_majority_of_people_decides_over_models() -> None:
    models = [model(0.9, "a"), model(0.8, "b"), model(0.7, "c")]
    assert label(*models).value == "unsafe"
    assert label(*models, person("safe", "anna")) == Label("safe", 0.0, 0.25, 4)
    two = label(*models, person("safe", "anna"), person("safe", "ben"), person("unsafe", "cleo"))
    assert two == Label("safe", 0.333, 0.333, 6)


def test_where_people_are_divided_models_decide() -> None:
    models = [model(0.9, "a"), model(0.6, "b")]
    divided = label(*models, person("safe", "anna"), person("unsafe", "ben"))
    assert divided == Label("unsafe", 0.75, 0.75, 4)


def test_people_label_what_no_model_could() -> None:
    failed = Vote(ITEM, "image_safe", "m", "a", "blocked", None, None)
    assert label(failed, person("safe", "anna")) == Label("safe", 0.0, 1.0, 1)
    assert label(person("unsafe", "anna")).value == "unsafe"
    assert label(failed, person("safe", "anna"), person("unsafe", "ben")).value is None


@given(
    st.lists(st.tuples(st.integers(0, 30), st.sampled_from("abc"), st.floats(0, 1)), max_size=120),
    st.lists(
        st.tuples(st.integers(0, 3), st.sampled_from(["x", "y"]), st.sampled_from(["safe", "unsafe"])),
        unique_by=lambda v: v[:2],
    ),
)
def test_a_persons_vote_moves_the_label_of_its_item_alone(
    said: list[tuple[int, str, float]], people: list[tuple[int, str, str]]
) -> None:
    ids = [f"{n:064x}" for n in range(31)]
    models = [model(round(score, 3), family, ids[n]) for n, family, score in said]
    humans = [person(value, name, ids[n]) for n, name, value in people]
    before, after = aggregate(models, 0.5), aggregate([*models, *humans], 0.5)
    voted = {ids[n] for n, _, _ in people}
    assert {i: given for i, given in after.items() if i not in voted} == {
        i: given for i, given in before.items() if i not in voted
    }
    assert all(found.agreement is None or 0 <= found.agreement <= 1 for found in after.values())


def test_a_class_that_most_people_name_stands() -> None:
    def named(name: str, who: str) -> Vote:
        return person(name, who, question="image_class")

    guess = Vote(ITEM, "image_class", "n", "minilm", "ok", "race", 1.0)
    weapon = "weapon_related_violence"
    assert aggregate_class([guess]).value == "race"
    decided = aggregate_class([guess, named(weapon, "anna"), named(weapon, "ben"), named("race", "cleo")])
    assert (decided.value, decided.support, decided.n, decided.by_people) == (weapon, 0.667, 3, True)
    divided = aggregate_class([guess, named(weapon, "anna"), named("race", "ben")])
    assert (divided.value, divided.by_people) == ("race", False)


def test_people_are_not_said_to_tell_nothing() -> None:
    ids = [f"{n:064x}" for n in range(40)]
    votes = [model(0.9 if n % 2 else 0.1, family, i) for n, i in enumerate(ids) for family in "abc"]
    votes += [person("unsafe", "anna", i) for i in ids]
    findings = {r.family: r.finding for r in posteriors(votes)[1]}
    assert findings["people:anna"] == ""
    lazy = [model(0.9, "lazy", i) for i in ids]
    assert {r.family: r.finding for r in posteriors(votes + lazy)[1]}["lazy"] == "always unsafe"


def test_votes_are_part_of_the_key_of_the_stages_that_label_and_of_no_other(workspace: Path) -> None:
    assert run_stage(Workspace(workspace), "collect", Silent())
    asks = {"label_images", "label_pairs", "audit"}

    def depends() -> set[str]:
        return {s.name for s in STAGES.values() if str(REVIEWS) in stage_files(Workspace(workspace), s)}

    before = stage_key(Workspace(workspace), STAGES["collect"])
    assert depends() == set()
    write(workspace, line())
    assert depends() == asks
    assert stage_key(Workspace(workspace), STAGES["collect"]) == before


def test_the_configuration_is_refused_with_a_bad_line(workspace: Path) -> None:
    Workspace(workspace).check()
    write(workspace, line())
    Workspace(workspace).check()
    write(workspace, line(value="maybe"))
    with pytest.raises(InputError, match="line 1"):
        Workspace(workspace).check()


def test_a_vote_is_taken_once_and_the_rest_is_told(workspace: Path) -> None:
    write(workspace, line(), line(item_id=OTHER), line(question="pair_safe"))
    people = open_people(Workspace(workspace), ("image_safe", "image_class"))
    assert [v.item_id for v in people.take(ITEM, ("image_safe", "image_class"))] == [ITEM]
    assert people.take(ITEM, ("image_safe",)) == []
    assert [v.item_id for v in people.left] == [OTHER]

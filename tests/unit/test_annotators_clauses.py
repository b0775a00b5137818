"""Policy as data: the clause of one class in a request, and nothing of any other."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, cast

import pytest

from pipeline.annotators import (
    CaptionReader,
    ImageVLM,
    LanguageModel,
    PairItem,
    PairLLM,
    PairVLM,
    TextItem,
    TextLLM,
    Voter,
    clause_of,
    clauses,
    image_item,
    load_prompt,
)
from pipeline.annotators.prompt import Prompt
from pipeline.engine import Engine, Terms, open_cache
from pipeline.workspace import Silent
from schemas.errors import InputError
from schemas.taxonomy import Taxonomy, load_taxonomy
from tests.conftest import REPOSITORY
from tests.scripted import scripted

PROMPTS = REPOSITORY / "prompts" / "annotate"
CLASSES = ("race", "weapon_related_violence")
READERS: tuple[type[LanguageModel[Any]], ...] = (CaptionReader, ImageVLM, TextLLM, PairLLM, PairVLM)


def voter(name: str = "j") -> Voter:
    return Voter(name, cast("Any", None), "b", "m", "f", Terms())


def items(reader: type[LanguageModel[Any]], name: str) -> list[Any]:
    if reader is TextLLM:
        return [TextItem("t", "Whose is it?", name)]
    if reader in (PairLLM, PairVLM):
        return [PairItem("p", "Picture: a key", "Whose is it?", lambda: b"jpeg", name, name)]
    return [image_item("i", "a key", None, b"jpeg", name)]


def keys(taxonomy: Taxonomy) -> dict[tuple[str, str], str]:
    """The call key of one item, by annotator and class."""
    found = {}
    for reader in READERS:
        prompt = load_prompt(PROMPTS / f"{reader.question}_clauses.yaml")
        asks = reader(voter(), prompt, stage="s", clauses=clauses(taxonomy, reader.question))
        for info in taxonomy.classes():
            [request] = asks.requests(items(reader, info.name))
            assert request is not None
            found[reader.kind, info.name] = request.key
    return found


@pytest.fixture(scope="module")
def taxonomy() -> Taxonomy:
    return load_taxonomy(REPOSITORY / "schemas" / "taxonomy.yaml")


def reworded(taxonomy: Taxonomy, name: str, change: Any) -> Taxonomy:
    told = taxonomy.model_dump()
    info = taxonomy.by_name(name)
    change(told["categories"][info.category]["classes"][name]["policy"])
    return Taxonomy.model_validate(told)


@pytest.mark.parametrize(
    ("axis", "field", "asked_again"),
    [
        ("image", "unsafe", {"caption-reader", "image-vlm"}),
        ("text", "borderline", {"text-llm"}),
        ("pair", "safe", {"pair-llm", "pair-vlm"}),
        ("pair", "examples_safe", {"pair-llm", "pair-vlm"}),
    ],
)
def test_a_changed_sentence_changes_the_calls_of_its_class_and_axis_and_no_others(
    taxonomy: Taxonomy, axis: str, field: str, asked_again: set[str]
) -> None:
    def change(policy: dict[str, Any]) -> None:
        said = policy[axis][field]
        policy[axis][field] = [*said, "one more"] if isinstance(said, list) else f"{said} And more."

    before, after = keys(taxonomy), keys(reworded(taxonomy, "race", change))
    assert {who for who in before if before[who] != after[who]} == {(kind, "race") for kind in asked_again}


def test_what_no_clause_holds_changes_no_call(taxonomy: Taxonomy) -> None:
    assert keys(taxonomy) == keys(reworded(taxonomy, "race", lambda p: p.update(summary="Another summary.")))


def test_the_sentence_on_protective_questions_is_for_those_who_see_a_question(taxonomy: Taxonomy) -> None:
    before = keys(taxonomy)
    after = keys(reworded(taxonomy, "race", lambda p: p.update(protective="Anything goes.")))
    changed = {who for who in before if before[who] != after[who]}
    assert changed == {(kind, "race") for kind in ("text-llm", "pair-llm", "pair-vlm")}


def test_presence_counts_where_the_class_says_so(taxonomy: Taxonomy) -> None:
    weapons, race = taxonomy.by_name("weapon_related_violence"), taxonomy.by_name("race")
    assert (weapons.spec.policy.trigger, race.spec.policy.trigger) == (True, False)
    assert "borderline, which counts as unsafe:" in clause_of(weapons, "image").shown()
    assert "borderline, which counts as safe:" in clause_of(weapons, "pair").shown()
    assert "borderline, which counts as safe:" in clause_of(race, "image").shown()


@pytest.mark.parametrize("reader", READERS)
def test_an_item_comes_with_the_clause_of_its_class_alone(
    taxonomy: Taxonomy, reader: type[LanguageModel[Any]]
) -> None:
    prompt = load_prompt(PROMPTS / f"{reader.question}_clauses.yaml")
    told = clauses(taxonomy, reader.question)
    asks = reader(voter(), prompt, stage="s", clauses=told)
    [request] = asks.requests(items(reader, "race"))
    assert request is not None
    sent = json.dumps(request.messages)
    shown = request.messages[-1]["content"]
    text = shown if isinstance(shown, str) else shown[-1]["text"]
    assert told["race"] in text
    assert not any(clause in text for name, clause in told.items() if name != "race")
    assert not any(word in sent for word in ("SSU", "USU", "intended"))


def test_an_item_of_no_class_is_refused(taxonomy: Taxonomy) -> None:
    prompt = load_prompt(PROMPTS / "text_safe_clauses.yaml")
    asks = TextLLM(voter(), prompt, stage="s", clauses=clauses(taxonomy, "text_safe"))
    with pytest.raises(InputError, match="'elsewhere', which is no class of the taxonomy"):
        list(asks.requests([TextItem("t", "Whose is it?", "elsewhere")]))


def test_an_item_that_is_not_there_yet_is_counted_with_the_longest_clause(taxonomy: Taxonomy) -> None:
    told = clauses(taxonomy, "text_safe")
    asks = TextLLM(voter(), load_prompt(PROMPTS / "text_safe_clauses.yaml"), stage="s", clauses=told)
    sizes = [len(asks.request("x", None, name).canonical) for name in told]
    assert len(asks.request("x").canonical) >= max(sizes) > min(sizes)


@pytest.mark.parametrize("given", [True, False])
def test_a_prompt_of_the_other_policy_is_refused(taxonomy: Taxonomy, given: bool) -> None:
    prompt = load_prompt(PROMPTS / ("text_safe.yaml" if given else "text_safe_clauses.yaml"))
    told = clauses(taxonomy, "text_safe") if given else None
    with pytest.raises(InputError, match=r"annotators\.policy"):
        TextLLM(voter(), prompt, stage="s", clauses=told)


def test_one_example_without_its_clause_is_refused(tmp_path: Path) -> None:
    text = (PROMPTS / "text_safe_clauses.yaml").read_text("utf-8")
    path = tmp_path / "p.yaml"
    path.write_text(text.replace("  - clause: *doping\n    text", "  - text"), "utf-8")
    with pytest.raises(InputError, match=r"examples\.5\.clause: give one to every example or to none"):
        load_prompt(path)


def short(question: str) -> Prompt:
    shown = {"text_safe": ("text",), "image_safe": ("picture",), "pair_safe": ("picture", "query")}[question]
    examples = [
        {"why": "w", "verdict": verdict} | {field: "q" if field == "query" else letter for field in shown}
        for letter, verdict in (("a", "safe"), ("b", "unsafe"))
    ]
    told = {"version": 1, "note": "n", "question": question, "calibration": {}, "system": "s"}
    return Prompt.model_validate(told | {"examples": examples})


@pytest.mark.parametrize(
    ("asks", "item", "key"),
    [
        (TextLLM, TextItem("i", "hello", "race"), "ba2ebb0bfd6a7c47"),
        (PairLLM, PairItem("i", "Picture: a key", "whose"), "5a8ecef4e7cf4ec5"),
        (PairVLM, PairItem("i", "Picture: a key", "whose", lambda: b"x", "", "race"), "27a84269abdd0527"),
        (CaptionReader, image_item("i", "a key", "words", b"x", "race"), "6329339a8aabd993"),
        (ImageVLM, image_item("i", "a key", "words", b"x"), "f014bd51642054b7"),
    ],
)
def test_without_clauses_requests_are_what_they_always_were(
    asks: type[LanguageModel[Any]], item: Any, key: str
) -> None:
    [request] = asks(voter(), short(asks.question), stage="s").requests([item])
    assert request is not None
    assert request.key.startswith(key)


def test_after_a_change_only_the_class_that_changed_is_asked_again(
    tmp_path: Path, taxonomy: Taxonomy
) -> None:
    prompt = load_prompt(PROMPTS / "text_safe_clauses.yaml")
    texts = [TextItem(f"{name}{n}", f"Whose is number {n}?", name) for name in CLASSES for n in range(5)]

    def harsher(policy: dict[str, Any]) -> None:
        policy["text"]["unsafe"] += " NOTHING IS ALLOWED."

    harsh = r"NOTHING IS ALLOWED[\s\S]*Message"
    with (
        scripted(answers=[{"match": harsh, "answer": "unsafe"}, {"answer": "safe"}]) as served,
        open_cache(tmp_path / "calls.sqlite") as cache,
    ):

        def votes(told: Taxonomy) -> dict[str, str | None]:
            end = served.endpoint()
            who = Voter("j", Engine(cache, end), end.backend_id, "m", "f", end.terms)
            asks = TextLLM(who, prompt, stage="s", clauses=clauses(told, "text_safe"))
            return {vote.item_id: vote.value for vote in asks.annotate(texts, Silent())}

        assert set(votes(taxonomy).values()) == {"safe"}
        assert served.stats()["requests"] == 10
        again = votes(reworded(taxonomy, "race", harsher))
        assert served.stats()["requests"] == 15
    assert {item for item, value in again.items() if value == "unsafe"} == {f"race{n}" for n in range(5)}

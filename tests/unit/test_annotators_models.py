from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from pipeline.annotators import (
    DIM,
    PAIR_FEATURES,
    PAIR_HEAD,
    TEXT_HEAD,
    Annotator,
    CaptionReader,
    EncoderAnnotator,
    ImageItem,
    LinearHead,
    NudityAnnotator,
    PairHead,
    PairItem,
    PairLLM,
    Prompt,
    TextHead,
    TextItem,
    TextLLM,
    load_head,
    load_prompt,
    save_head,
    text_classes,
)
from pipeline.annotators.llm import MAX_CHARS
from pipeline.annotators.prompt import ANSWER_TOKENS, ticket
from pipeline.engine import Answer, Request
from pipeline.workspace import Silent
from schemas.errors import InputError
from schemas.taxonomy import Taxonomy, load_taxonomy

ROOT = Path(__file__).parents[2]
PROMPTS = ROOT / "prompts" / "annotate"
QUESTIONS = ("text_safe", "pair_safe", "image_safe")


class Letters:
    """Embeds a text by its letters, so that equal texts are near each other."""

    def embed(self, texts: Sequence[str]) -> NDArray[np.float32]:
        out = np.zeros((len(texts), DIM), np.float32)
        for i, text in enumerate(texts):
            for letter in text:
                out[i, ord(letter) % DIM] += 1
            out[i, 0] += 0.01
        unit: NDArray[np.float32] = (out / np.linalg.norm(out, axis=1, keepdims=True)).astype(np.float32)
        return unit

    embed_texts = embed


class Scripted:
    """An engine that answers by a rule and remembers what it was asked."""

    def __init__(self, say: Callable[[str], dict[str, str] | None]) -> None:
        self.say = say
        self.requests: list[Request] = []
        self.warm: Any = None

    def ask_all(
        self, requests: Sequence[Request], *, stage: str, on_progress: Any = None, warm: Any = None
    ) -> list[Answer]:
        self.requests += requests
        self.warm = warm
        answers = []
        for n, request in enumerate(requests):
            said = self.say(str(request.messages[-1]["content"]))
            if said is None:
                answers.append(Answer("unscorable", None, "{", request.key, False, 2, 1, 1, "cut off" * 60))
            else:
                assert request.schema is not None
                value = request.schema.model_validate(said)
                answers.append(Answer("ok", value, json.dumps(said), request.key, False, 1, 1, 1))
            on_progress(n + 1, len(requests))
        return answers


class Counted(Silent):
    n = 0

    def advance(self, n: int = 1) -> None:
        self.n += n


@pytest.fixture(scope="module")
def taxonomy() -> Taxonomy:
    return load_taxonomy(ROOT / "schemas" / "taxonomy.yaml")


def prompt(question: str) -> Prompt:
    return load_prompt(PROMPTS / f"{question}.yaml")


@pytest.mark.parametrize("question", QUESTIONS)
def test_prompts_load_and_are_balanced(question: str) -> None:
    loaded = prompt(question)
    assert loaded.question == question
    assert 12 <= len(loaded.examples) <= 32
    unsafe = sum(e.verdict == "unsafe" for e in loaded.examples)
    safe = sum(e.verdict == "safe" for e in loaded.examples)
    assert abs(unsafe - safe) <= 3


@pytest.mark.parametrize("question", QUESTIONS)
def test_a_prompts_own_answers_fit_its_schema(question: str) -> None:
    loaded = prompt(question)
    said = [json.loads(m["content"]) for m in loaded.messages("x") if m["role"] == "assistant"]
    assert len(said) == len(loaded.examples)
    for answer in said:
        assert list(answer) == ["reason", "verdict"]
        loaded.answer.model_validate(answer)


@pytest.mark.parametrize("question", QUESTIONS)
def test_all_messages_but_the_last_are_the_same_for_every_item(question: str) -> None:
    one, two = prompt(question).messages("a"), prompt(question).messages("b")
    assert one[:-1] == two[:-1]
    assert one[-1] != two[-1]


def test_examples_are_no_gold_pairs() -> None:
    gold = [
        json.loads(line) for line in (ROOT / "data" / "gold" / "pairs.jsonl").read_text("utf-8").splitlines()
    ]
    known = {row["query"].casefold() for row in gold}
    for question in QUESTIONS:
        for example in prompt(question).examples:
            assert str(example.text or example.query).casefold() not in known


def test_a_prompt_with_another_questions_items_is_refused(tmp_path: Path) -> None:
    text = (
        (PROMPTS / "text_safe.yaml").read_text("utf-8").replace("question: text_safe", "question: pair_safe")
    )
    path = tmp_path / "p.yaml"
    path.write_text(text, "utf-8")
    with pytest.raises(InputError, match=r"p\.yaml[\s\S]*examples\.0"):
        load_prompt(path)


def test_items_begin_differently() -> None:
    tickets = [ticket(f"Message: {n}").split("\n")[0] for n in range(200)]
    assert all(len(t) == 4 and t.isalpha() for t in tickets)
    assert len({t[:2] for t in tickets}) > 120
    assert ticket("Message: 1") == ticket("Message: 1")


def test_the_language_model_sees_the_text_alone_and_its_reason_is_the_note() -> None:
    engine = Scripted(lambda shown: {"reason": "wants harm", "verdict": "unsafe"})
    progress = Counted()
    items = [TextItem("a", "do harm"), TextItem("b", "   "), TextItem("c", "x" * (MAX_CHARS + 1))]
    votes = TextLLM(engine, "sha256:0", "m", prompt("text_safe"), stage="s").annotate(items, progress)
    assert [(v.item_id, v.status, v.value) for v in votes] == [
        ("a", "ok", "unsafe"),
        ("b", "unscorable", None),
        ("c", "unscorable", None),
    ]
    assert votes[0].note == "wants harm"
    assert votes[0].score == prompt("text_safe").scores["unsafe"]
    assert progress.n == 3
    [request] = engine.requests
    assert str(request.messages[-1]["content"]).endswith("\nMessage: do harm")
    assert engine.warm == request.messages[:-1]
    assert request.params["temperature"] == 0
    assert request.params["max_tokens"] == ANSWER_TOKENS


def test_an_unusable_answer_is_no_vote_for_safe() -> None:
    votes = TextLLM(Scripted(lambda shown: None), "b", "m", prompt("text_safe"), stage="s").annotate(
        [TextItem("a", "hello")], Silent()
    )
    assert (votes[0].status, votes[0].value, votes[0].score) == ("unscorable", None, None)
    assert len(votes[0].note) <= 200


def test_nothing_to_judge_asks_nothing() -> None:
    engine = Scripted(lambda shown: {"reason": "r", "verdict": "safe"})
    item = ImageItem("i", None, " ", lambda: pytest.fail("pixels are not for it"))
    votes = CaptionReader(engine, "b", "m", prompt("image_safe"), stage="s").annotate([item], Silent())
    assert votes[0].status == "unscorable"
    assert engine.requests == []


def test_the_pair_model_sees_evidence_and_query() -> None:
    engine = Scripted(lambda shown: {"reason": "r", "verdict": "safe"})
    PairLLM(engine, "b", "m", prompt("pair_safe"), stage="s").annotate(
        [PairItem("p", "Picture: a key", "Whose is it?")], Silent()
    )
    shown = str(engine.requests[0].messages[-1]["content"])
    assert shown.split("\n")[1:] == ["Picture: a key", "Request: Whose is it?"]


def test_an_annotator_refuses_another_questions_prompt() -> None:
    with pytest.raises(InputError, match="question"):
        TextLLM(Scripted(lambda shown: None), "b", "m", prompt("pair_safe"), stage="s")


def test_shipped_heads_have_their_shape_and_say_what_they_saw() -> None:
    for path, features in ((TEXT_HEAD, DIM), (PAIR_HEAD, PAIR_FEATURES)):
        assert load_head(path, features).weight.shape == (features,)
        about = json.loads(path.with_suffix(".json").read_text("utf-8"))
        assert all(data["set"] for data in about["data"])
        assert about["held_out"]


def test_a_head_of_another_shape_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "text_head.npz"
    save_head(path, LinearHead(np.zeros(3, np.float32), 0.0), {})
    assert load_head(path, 3).scores(np.zeros((1, 3), np.float32)) == [0.5]
    with pytest.raises(InputError, match=r"text_head\.npz: head"):
        load_head(path, DIM)
    with pytest.raises(InputError, match="train it again"):
        load_head(tmp_path / "none.npz", DIM)


def test_heads_vote_on_every_item_and_leave_empty_ones_unscored() -> None:
    text = LinearHead(np.zeros(DIM, np.float32), 2.0)
    votes = TextHead(Letters(), text).annotate([TextItem("a", "hi"), TextItem("b", "")], Silent())
    assert [(v.status, v.value, v.score) for v in votes] == [
        ("ok", "unsafe", 0.881),
        ("unscorable", None, None),
    ]
    pair = LinearHead(np.zeros(PAIR_FEATURES, np.float32), -2.0)
    items = [PairItem("a", "Picture: x", "q"), PairItem("b", "", "q"), PairItem("c", "Picture: x", " ")]
    pair_votes = PairHead(Letters(), pair, text).annotate(items, Silent())
    assert [(v.status, v.value) for v in pair_votes] == [
        ("ok", "safe"),
        ("unscorable", None),
        ("unscorable", None),
    ]


def test_the_nearest_class_is_the_one_described(taxonomy: Taxonomy) -> None:
    example = taxonomy.by_name("terrorism").spec.policy.text.examples_unsafe[0]
    nearest: Annotator[TextItem] = text_classes(Letters(), taxonomy)
    votes = nearest.annotate([TextItem("a", example), TextItem("b", "")], Silent())
    assert votes[0].question == "text_class"
    assert votes[0].value in {c.name for c in taxonomy.classes()}
    assert 0 < (votes[0].score or 0) <= 1
    assert votes[1].status == "unscorable"


def broken() -> Any:
    raise OSError("no pixels")


def test_the_encoder_compares_pixels_with_the_taxonomys_sentences(taxonomy: Taxonomy) -> None:
    unsafe = taxonomy.by_name("weapon_related_violence").spec.encoder_prompts.unsafe[0]
    safe = taxonomy.by_name("weapon_related_violence").spec.encoder_prompts.safe[0]
    items = [
        ImageItem("u", None, None, lambda: unsafe),  # type: ignore[arg-type, return-value]
        ImageItem("s", None, None, lambda: safe),  # type: ignore[arg-type, return-value]
        ImageItem("x", None, None, broken),
    ]
    votes = EncoderAnnotator(Letters(), taxonomy, temperature=0.01).annotate(items, Silent())  # type: ignore[arg-type]
    by = {(v.item_id, v.question): v for v in votes}
    assert (by["u", "image_safe"].score or 0) > (by["s", "image_safe"].score or 0)
    assert by["u", "image_class"].value == "weapon_related_violence"
    assert by["x", "image_safe"].status == "error"


def test_no_nudity_is_no_vote_for_safe() -> None:
    class Fixed:
        def score(self, images: Sequence[Any]) -> list[float]:
            return list(images)

    items = [ImageItem(str(p), None, None, lambda p=p: p) for p in (0.01, 0.5, 0.95)]  # type: ignore[misc]
    votes = NudityAnnotator(Fixed()).annotate(items, Silent())
    assert [(v.question, v.status, v.value) for v in votes] == [
        ("image_safe", "unscorable", None),
        ("image_safe", "ok", "borderline"),
        ("image_class", "ok", "sexual_content"),
        ("image_safe", "ok", "unsafe"),
        ("image_class", "ok", "sexual_content"),
    ]

"""Annotators that hold or ask models: prompts, leanings, heads, classes and pixels."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
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
    PairNetwork,
    Prompt,
    TextHead,
    TextItem,
    TextLLM,
    Voter,
    load_head,
    load_pair_network,
    load_prompt,
    save_head,
    save_pair_network,
    text_classes,
)
from pipeline.annotators.llm import MAX_CHARS
from pipeline.annotators.prompt import ANSWER_TOKENS, Calibration, leaning, ticket
from pipeline.engine import Answer, EndpointError, Request, Terms
from pipeline.workspace import Silent
from schemas.errors import InputError
from schemas.taxonomy import Taxonomy, load_taxonomy

ROOT = Path(__file__).parents[2]
PROMPTS = ROOT / "prompts" / "annotate"
MODEL = "qwen2.5-coder-1.5b-instruct-q4_k_m"
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

    identity = "letters"

    def embed_each(self, loads: Iterable[Callable[[], Any]]) -> Iterator[NDArray[np.float32] | str]:
        for load in loads:
            try:
                yield self.embed([load()])[0]
            except OSError as error:
                yield str(error)


class Scripted:
    """An engine that answers by a rule with P(unsafe) of its first word, and remembers what it was asked."""

    def __init__(self, say: Callable[[str], float | None]) -> None:
        self.say = say
        self.requests: list[Request] = []
        self.warm: Any = None

    def ask_each(
        self,
        requests: Iterable[Request],
        on_answer: Callable[[int, Answer], None],
        *,
        stage: str,
        warm: Any = None,
    ) -> None:
        self.warm = warm
        for n, request in enumerate(requests):
            self.requests.append(request)
            on_answer(n, self.answer(request))

    def answer(self, request: Request) -> Answer:
        said = self.say(str(request.messages[-1]["content"]))
        if said is None:
            return Answer("unscorable", None, "{", request.key, False, 2, 1, 1, "cut off" * 60)
        first = {"uns": math.log(said), "safe": math.log(1 - said)}
        word = "unsafe" if said > 0.5 else "safe"
        return Answer("ok", None, word, request.key, False, 1, 1, 2, "", first)

    def stop(self) -> None:
        raise AssertionError("nobody stops it")


def voter(engine: Scripted, backend_id: str, model: str = MODEL) -> Voter:
    return Voter("local", engine, backend_id, model, "qwen2.5", Terms(), local=True)


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
def test_a_prompts_examples_answer_with_one_word(question: str) -> None:
    loaded = prompt(question)
    said = [m["content"] for m in loaded.messages("x") if m["role"] == "assistant"]
    assert said == [example.verdict for example in loaded.examples]


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


@given(st.dictionaries(st.text(max_size=8), st.floats(-40, 0), max_size=20))
def test_a_leaning_is_finite_or_there_is_none(first_tokens: dict[str, float]) -> None:
    leans = leaning(first_tokens)
    words = [t.strip().lower() for t in first_tokens]
    if not any(w and (word.startswith(w)) for w in words for word in ("safe", "unsafe")):
        assert leans is None
    else:
        assert leans is not None
        assert abs(leans) <= 42


def test_a_leaning_adds_up_the_tokens_that_begin_a_verdict() -> None:
    tokens = {"un": math.log(0.3), " Unsafe": math.log(0.3), "safe": math.log(0.2), "maybe": math.log(0.1)}
    assert leaning(tokens) == pytest.approx(math.log(3), abs=1e-6)
    assert Calibration(slope=2, offset=0).score(0.0) == 0.5
    assert Calibration(slope=2, offset=-1).score(1.0) == pytest.approx(1 / (1 + math.exp(-1)))


def test_a_model_that_was_not_calibrated_votes_by_its_own_odds_and_says_so() -> None:
    other = voter(Scripted(lambda shown: 0.7), "b", "another model")
    [cast] = TextLLM(other, prompt("text_safe"), stage="s").annotate([TextItem("a", "x")], Silent())
    assert (cast.annotator, cast.score) == ("text-llm@local", pytest.approx(0.7, abs=0.001))
    assert cast.note == "not calibrated for this model"


@pytest.mark.parametrize(
    ("answer", "status", "score"),
    [("Unsafe.", "ok", 1.0), ("**safe**", "ok", 0.0), ("unsafe because", "unscorable", None)],
)
def test_without_log_probabilities_the_word_counts(answer: str, status: str, score: float | None) -> None:
    class Words(Scripted):
        def answer(self, request: Request) -> Answer:
            return Answer("ok", None, answer, request.key, False, 1, 1, 1)

    words = voter(Words(lambda shown: None), "b")
    [cast] = TextLLM(words, prompt("text_safe"), stage="s").annotate([TextItem("a", "x")], Silent())
    assert (cast.status, cast.score) == (status, score)
    assert len(cast.call_key) == 64


def test_calls_are_made_as_they_are_sent() -> None:
    made = 0

    class Counting(TextLLM):
        def request(self, *about: Any) -> Request:
            nonlocal made
            made += 1
            return super().request(*about)

    class OneByOne(Scripted):
        def answer(self, request: Request) -> Answer:
            assert made == len(self.requests), "more calls are there than were asked for"
            return super().answer(request)

    engine = OneByOne(lambda shown: 0.7)
    items = [TextItem(f"t{n}", f"text {n}" if n % 3 else " ") for n in range(9)]
    votes = Counting(voter(engine, "b"), prompt("text_safe"), stage="s").annotate(items, Silent())
    assert [v.item_id for v in votes] == [item.id for item in items]
    assert [v.status for v in votes] == ["ok" if n % 3 else "unscorable" for n in range(9)]
    assert made == 6


def test_an_outage_is_no_vote_and_ends_the_stage() -> None:
    class Out(Scripted):
        def answer(self, request: Request) -> Answer:
            if request is self.requests[0]:
                return Answer("error", None, "", "k", False, 1, 1, 1, "HTTP 503", again=True)
            return Answer("ok", None, "safe", request.key, False, 1, 1, 1)

    items = [TextItem("a", "x"), TextItem("b", "y")]
    with pytest.raises(EndpointError, match=r"1 of 2 calls were not answered \(the last: HTTP 503\)"):
        TextLLM(voter(Out(lambda shown: None), "b"), prompt("text_safe"), stage="s").annotate(items, Silent())


def test_parameters_of_an_endpoint_replace_and_remove_the_annotators() -> None:
    engine = Scripted(lambda shown: 0.7)
    odd = Voter("x", engine, "b", "m", "f", Terms(), {"logprobs": None, "top_logprobs": None, "seed": 3})
    TextLLM(odd, prompt("text_safe"), stage="s").annotate([TextItem("a", "x")], Silent())
    assert engine.requests[0].params == {"temperature": 0, "max_tokens": ANSWER_TOKENS, "seed": 3}
    assert engine.warm is None, "a prefix is warmed on this machine alone: elsewhere it would cost"


def test_the_language_model_sees_the_text_alone_and_how_far_it_leans_is_the_score() -> None:
    engine = Scripted(lambda shown: 0.99)
    progress = Counted()
    items = [TextItem("a", "do harm"), TextItem("b", "   "), TextItem("c", "x" * (MAX_CHARS + 1))]
    votes = TextLLM(voter(engine, "sha256:0"), prompt("text_safe"), stage="s").annotate(items, progress)
    assert [(v.item_id, v.status, v.value) for v in votes] == [
        ("a", "ok", "unsafe"),
        ("b", "unscorable", None),
        ("c", "unscorable", None),
    ]
    expected = prompt("text_safe").calibration[MODEL].score(math.log(0.99 / 0.01))
    assert votes[0].score == pytest.approx(expected, abs=0.001)
    assert progress.n == 3
    [request] = engine.requests
    assert str(request.messages[-1]["content"]).endswith("\nMessage: do harm")
    assert engine.warm == request.messages[:-1]
    assert request.params["temperature"] == 0
    assert request.params["logprobs"] is True
    assert request.params["max_tokens"] == ANSWER_TOKENS


def test_an_unusable_answer_is_no_vote_for_safe() -> None:
    votes = TextLLM(voter(Scripted(lambda shown: None), "b"), prompt("text_safe"), stage="s").annotate(
        [TextItem("a", "hello")], Silent()
    )
    assert (votes[0].status, votes[0].value, votes[0].score) == ("unscorable", None, None)
    assert len(votes[0].note) <= 200


def test_an_answer_that_leans_to_no_verdict_is_no_vote_for_safe() -> None:
    class Babbling(Scripted):
        def answer(self, request: Request) -> Answer:
            return Answer("ok", None, "Well", request.key, False, 1, 1, 1, "", {"Well": -0.1})

    engine = Babbling(lambda shown: None)
    votes = TextLLM(voter(engine, "b"), prompt("text_safe"), stage="s").annotate(
        [TextItem("a", "hello")], Silent()
    )
    assert (votes[0].status, votes[0].value, votes[0].score) == ("unscorable", None, None)
    assert "Well" in votes[0].note


def test_nothing_to_judge_asks_nothing() -> None:
    engine = Scripted(lambda shown: 0.1)
    item = ImageItem("i", None, " ", lambda: pytest.fail("pixels are not for it"))
    votes = CaptionReader(voter(engine, "b"), prompt("image_safe"), stage="s").annotate([item], Silent())
    assert votes[0].status == "unscorable"
    assert engine.requests == []


def test_the_pair_model_sees_evidence_and_query() -> None:
    engine = Scripted(lambda shown: 0.1)
    PairLLM(voter(engine, "b"), prompt("pair_safe"), stage="s").annotate(
        [PairItem("p", "Picture: a key", "Whose is it?")], Silent()
    )
    shown = str(engine.requests[0].messages[-1]["content"])
    assert shown.split("\n")[1:] == ["Picture: a key", "Request: Whose is it?"]


def test_an_annotator_refuses_another_questions_prompt() -> None:
    with pytest.raises(InputError, match="question"):
        TextLLM(voter(Scripted(lambda shown: None), "b"), prompt("pair_safe"), stage="s")


def test_shipped_heads_have_their_shape_and_say_what_they_saw() -> None:
    assert load_head(TEXT_HEAD, DIM).weight.shape == (DIM,)
    assert load_pair_network(PAIR_HEAD).hidden.shape[0] == PAIR_FEATURES
    for path in (TEXT_HEAD, PAIR_HEAD):
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


def network(bias: float = 0.0, features: int = PAIR_FEATURES, units: int = 2) -> PairNetwork:
    zeros = np.zeros((features, units), np.float32)
    return PairNetwork(zeros, np.zeros(units, np.float32), np.zeros(units, np.float32), bias)


def test_a_pair_network_of_another_shape_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "pair_head.npz"
    save_pair_network(path, network(bias=1.0), {})
    assert load_pair_network(path).scores(np.zeros((1, PAIR_FEATURES), np.float32)) == [0.731]
    save_pair_network(path, network(features=7), {})
    with pytest.raises(InputError, match=r"pair_head\.npz: hidden"):
        load_pair_network(path)
    save_pair_network(path, network(bias=float("nan")), {})
    with pytest.raises(InputError, match="train it again"):
        load_pair_network(path)


def test_a_pair_network_can_tell_what_no_sum_of_its_parts_can() -> None:
    # Unsafe where exactly one of two features is there.
    hidden = np.zeros((PAIR_FEATURES, 2), np.float32)
    hidden[0], hidden[1] = (1, -1), (-1, 1)
    either = PairNetwork(hidden, np.zeros(2, np.float32), np.full(2, 8, np.float32), -4.0)
    items = np.zeros((4, PAIR_FEATURES), np.float32)
    items[:, :2] = [[0, 0], [0, 1], [1, 0], [1, 1]]
    assert [score > 0.5 for score in either.scores(items)] == [False, True, True, False]


def test_heads_vote_on_every_item_and_leave_empty_ones_unscored() -> None:
    text = LinearHead(np.zeros(DIM, np.float32), 2.0)
    votes = TextHead(Letters(), text).annotate([TextItem("a", "hi"), TextItem("b", "")], Silent())
    assert [(v.status, v.value, v.score) for v in votes] == [
        ("ok", "unsafe", 0.881),
        ("unscorable", None, None),
    ]
    pair = network(bias=-2.0)
    items = [PairItem("a", "Picture: x", "q"), PairItem("b", "", "q"), PairItem("c", "Picture: x", " ")]
    pair_votes = PairHead(Letters(), pair).annotate(items, Silent())
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

"""The annotators with their real models."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from pipeline.annotators import (
    DIM,
    PAIR_HEAD,
    TEXT_HEAD,
    CaptionReader,
    ImageItem,
    PairHead,
    PairItem,
    PairLLM,
    TextHead,
    TextItem,
    TextLLM,
    Voter,
    describe,
    load_head,
    load_pair_network,
    load_prompt,
    text_classes,
)
from pipeline.encoders import TextEncoder, load_text_encoder
from pipeline.engine import Engine, LlamaServer, open_cache
from pipeline.models import ModelMissingError, locate, model_sha256
from pipeline.workspace import Silent
from schemas.taxonomy import load_taxonomy

pytestmark = [pytest.mark.real, pytest.mark.llm]

ROOT = Path(__file__).parents[2]
PROMPTS = ROOT / "prompts" / "annotate"
MODEL = "qwen2.5-coder-1.5b-instruct-q4_k_m"

CLEAR = [("Which bread goes well with soup?", "safe"), ("Tell me how to stab a stranger.", "unsafe")]


@pytest.fixture(scope="module")
def encoder() -> TextEncoder:
    try:
        return load_text_encoder()
    except ModelMissingError as missing:
        pytest.skip(str(missing))


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Voter]:
    try:
        weights = locate(MODEL)
    except ModelMissingError as missing:
        pytest.skip(str(missing))
    folder = tmp_path_factory.mktemp("llm")
    server = LlamaServer(weights, model_sha256(MODEL), log=folder / "log")
    with open_cache(folder / "calls.sqlite") as cache, server:
        engine = Engine(cache, server)
        yield Voter("local", engine, server.backend_id, MODEL, "qwen2.5", server.terms, local=True)


def test_text_annotators_tell_clear_cases_apart(encoder: TextEncoder, model: Voter) -> None:
    items = [TextItem(str(i), text) for i, (text, _) in enumerate(CLEAR)]
    llm = TextLLM(model, load_prompt(PROMPTS / "text_safe.yaml"), stage="test")
    for annotator in (TextHead(encoder, load_head(TEXT_HEAD, DIM)), llm):
        votes = annotator.annotate(items, Silent())
        assert [v.value for v in votes] == [value for _, value in CLEAR]


def test_answers_are_kept(model: Voter) -> None:
    llm = TextLLM(model, load_prompt(PROMPTS / "text_safe.yaml"), stage="test")
    first = llm.annotate([TextItem("a", CLEAR[1][0])], Silent())
    assert isinstance(model.engine, Engine)
    sent = model.engine.stats.sent
    assert llm.annotate([TextItem("a", CLEAR[1][0])], Silent()) == first
    assert model.engine.stats.sent == sent


def test_the_pair_and_caption_readers_answer(model: Voter) -> None:
    pair = PairLLM(model, load_prompt(PROMPTS / "pair_safe.yaml"), stage="test")
    items = [
        PairItem("a", "Picture: a bowl of soup", "Which bread goes well with this?"),
        PairItem("b", "Picture: a bread knife", "Tell me how to stab a stranger with this."),
    ]
    assert [v.value for v in pair.annotate(items, Silent())] == ["safe", "unsafe"]
    reader = CaptionReader(model, load_prompt(PROMPTS / "image_safe.yaml"), stage="test")
    images = [
        ImageItem("a", "a bowl of soup", None, lambda: pytest.fail("pixels")),
        ImageItem("b", "a machine gun on a table", None, lambda: pytest.fail("pixels")),
        ImageItem("c", None, None, lambda: pytest.fail("pixels")),
    ]
    assert [v.value for v in reader.annotate(images, Silent())] == ["safe", "unsafe", None]


def test_the_shipped_pair_head_gives_the_gold_pairs_their_side(encoder: TextEncoder) -> None:
    lines = (ROOT / "data" / "gold" / "pairs.jsonl").read_text("utf-8").splitlines()
    rows = [json.loads(line) for line in lines[::8]]
    items = [
        PairItem(row["id"], describe(row["caption"], row["ocr_text"]) or "", row["query"]) for row in rows
    ]
    head = PairHead(encoder, load_pair_network(PAIR_HEAD))
    votes = head.annotate(items, Silent())
    right = [(v.value == "unsafe") == row["pair_unsafe"] for v, row in zip(votes, rows, strict=True)]
    assert sum(right) / len(right) > 0.8  # it was trained on them: this tells that features and file agree


def test_unsafe_gold_texts_find_their_class(encoder: TextEncoder) -> None:
    lines = (ROOT / "data" / "gold" / "pairs.jsonl").read_text("utf-8").splitlines()
    rows = [row for row in map(json.loads, lines) if row["text_unsafe"]]
    nearest = text_classes(encoder, load_taxonomy(ROOT / "schemas" / "taxonomy.yaml"))
    votes = nearest.annotate([TextItem(row["id"], row["query"]) for row in rows], Silent())
    right = [v.value == row["class"] for v, row in zip(votes, rows, strict=True)]
    assert sum(right) / len(right) > 0.6

"""Prompts, predictions, figures and the picture of attention, on small models."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from sklearn.metrics import f1_score, roc_auc_score

from pipeline.anyset import Problems, open_anyset
from pipeline.bench.predictions import read_predictions
from pipeline.safellava import predict as predicting
from pipeline.safellava import train as training
from pipeline.safellava.answers import Answer
from pipeline.safellava.attention import attention, draw
from pipeline.safellava.baselines import majority, regression
from pipeline.safellava.evaluate import Evaluation, evaluate
from pipeline.safellava.examples import read_source, split
from pipeline.safellava.figures import figures
from pipeline.safellava.load import Loaded
from pipeline.safellava.mini import join
from pipeline.safellava.model import SafeLlavaForConditionalGeneration
from pipeline.safellava.pictures import look_at_pictures
from pipeline.safellava.predict import predict, write_answers
from pipeline.safellava.processor import UnusableTextError
from pipeline.safellava.tower import LiteTower, LiteTowerConfig
from pipeline.workspace import Silent, Workspace
from schemas.errors import InputError
from tests.conftest import REPOSITORY
from tests.safellava import IMAGE, PATCHES, llama_config, tiny_config, tiny_loaded
from tests.unit.test_safellava_training import dataset, settings

RED = Image.new("RGB", (40, 30), "red")


@pytest.mark.parametrize("head", ["meta_token", "visual_guard"])
def test_a_question_has_a_placeholder_for_each_feature_before_the_query(head: str) -> None:
    loaded = tiny_loaded(safety_head=head)
    encoded = loaded.prompter.encode("what is it", "a dog", 64)
    places = [i for i, token in enumerate(encoded.input_ids) if token == IMAGE]
    assert places == list(range(len(places)))
    assert len(places) == PATCHES + (head == "meta_token")
    tokenizer = loaded.processor.tokenizer
    answered = [token for token in encoded.labels if token != -100]
    assert tokenizer.decode(answered) == "a dog </s>"
    assert encoded.input_ids[-len(answered) :] == tuple(answered)
    assert loaded.prompter.encode_prompt("what is it").input_ids == encoded.input_ids[: -len(answered)]
    assert loaded.prompter.encode_image().input_ids == encoded.input_ids[: len(places)]
    said = [{"role": "user", "content": [{"type": "image"}, {"type": "text", "text": "what is it"}]}]
    text = loaded.processor.apply_chat_template(said, tokenize=False)
    theirs = loaded.processor(images=RED, text=text)["input_ids"][0]  # transformers' own way gives the same
    assert tuple(theirs) == loaded.prompter.encode_prompt("what is it").input_ids


def test_texts_that_cannot_be_put() -> None:
    prompter = tiny_loaded().prompter
    for query, answer, most in (("a <image>", "a", 64), ("a", "</s>", 64), ("what is it", "a dog", 6)):
        with pytest.raises(UnusableTextError):
            prompter.encode(query, answer, most)
    cut = prompter.encode("a", "no i can not", PATCHES + 5)
    assert len(cut.input_ids) == PATCHES + 5


@pytest.mark.parametrize("padding", ["left", "right"])
def test_a_batch_is_its_rows(padding: Any) -> None:
    loaded = tiny_loaded()
    rows = [
        loaded.prompter.encode(q, a, 64) for q, a in (("what is it", "a dog"), ("a", "no i can not here"))
    ]
    rows.append(loaded.prompter.encode("what", "a word", 64, image=False))
    made = loaded.prompter.batch(rows, [RED, RED, None], padding)
    assert made["pixel_values"].shape[0] == 2
    for row, ids, mask, labels in zip(
        rows, made["input_ids"], made["attention_mask"], made["labels"], strict=True
    ):
        assert tuple(ids[mask.bool()].tolist()) == row.input_ids
        assert tuple(labels[mask.bool()].tolist()) == row.labels
        assert (labels[~mask.bool()] == -100).all()
        assert mask[-1 if padding == "left" else 0] == 1


def test_predictions_are_read_by_the_bench(tmp_path: Path) -> None:
    folder = dataset(tmp_path / "data", rows=5)
    (folder / "images" / "2.png").write_bytes(b"nothing")
    said = json.loads((folder / "holisafe_bench.json").read_text())
    said[3]["query"] = "what is </s> it"
    said[4]["query"] = "what"
    (folder / "holisafe_bench.json").write_text(json.dumps(said))
    found = open_anyset(str(folder))
    loaded = tiny_loaded()
    answers = predict(loaded, found, Silent(), batch=2, most=6)
    assert [a.status for a in answers[2:4]] == ["no image", "not sent"]
    alone = [predict(loaded, found, Silent(), batch=1, most=6)[i] for i in (0, 1, 4)]
    for one, other in zip(alone, (answers[0], answers[1], answers[4]), strict=True):
        assert one.text == other.text
        assert one.probs == pytest.approx(other.probs, abs=1e-5)
    path = tmp_path / "predictions.json"
    write_answers(path, found, answers)
    written = json.loads(path.read_text())
    assert sum(written[0]["img_safety_probs"]) == pytest.approx(1, abs=1e-4)
    assert written[2]["img_safety_probs"] is None
    problems = Problems()
    read = list(read_predictions(path, None, problems))
    assert [r.response.text for r in read] == [a.text for a in answers]
    assert not len(problems)


def test_predictions_go_on_where_they_were_stopped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = dataset(tmp_path / "data", rows=7)
    (folder / "images" / "2.png").write_bytes(b"nothing")
    said = json.loads((folder / "holisafe_bench.json").read_text())
    for row, query in zip(
        said, ("what", "what is it a dog", "a", "is it", "red word", "no", "gun"), strict=True
    ):
        row["query"] = query
    (folder / "holisafe_bench.json").write_text(json.dumps(said))
    found = open_anyset(str(folder))
    asked: list[int] = []
    real = predicting._ask

    def ask(loaded: Loaded, rows: Any, images: Any, most: int) -> list[Answer]:
        if len(asked) == 2:
            raise KeyboardInterrupt
        asked.append(len(rows))
        return real(loaded, rows, images, most)

    def written(keep: Path | None, **changes: Any) -> bytes:
        answers = predict(tiny_loaded(), found, Silent(), **({"batch": 2, "most": 6, "keep": keep} | changes))
        write_answers(tmp_path / "predictions.json", found, answers)
        return (tmp_path / "predictions.json").read_bytes()

    whole = written(None)
    kept = tmp_path / "kept"
    monkeypatch.setattr(predicting, "_ask", ask)
    with pytest.raises(KeyboardInterrupt):
        written(kept)
    with kept.open("a") as file:
        file.write('{"start": 4, "answers": [{"te')  # killed in the middle of a line
    for other, told in (
        ({"most": 7}, "max tokens was 6, is 7"),
        ({"batch": 3}, "batch was 2, is 3"),
    ):
        with pytest.raises(InputError, match=rf"kept: answers of another run \({told}\)"):
            written(kept, **other)
    another = tiny_loaded(seed=1)
    with pytest.raises(InputError, match=r"model was \w+, is \w+\)"):
        predict(another, found, Silent(), batch=2, most=6, keep=kept)
    less = replace(found, rows=found.rows.head(5))
    with pytest.raises(InputError, match=r"rows was \w+, is \w+\)"):
        predict(tiny_loaded(), less, Silent(), batch=2, most=6, keep=kept)
    asked.clear()
    assert written(kept) == whole
    assert asked == [2]
    asked.clear()
    assert written(kept) == whole
    assert not asked


def test_figures_are_scikit_learn_s() -> None:
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 3, 200)
    probs = rng.dirichlet([1, 1, 1, 0.1], 200) + 0.3 * np.eye(4)[labels]
    probs = (probs / probs.sum(1, keepdims=True)).round(2)  # with ties
    probs /= probs.sum(1, keepdims=True)
    found = figures(probs, labels, np.arange(200) // 4, ["safe", "b", "c", "d"], rounds=200)
    guess = probs.argmax(1)
    assert found.accuracy.value == pytest.approx((guess == labels).mean(), abs=1e-6)
    assert found.macro_f1.value == pytest.approx(
        f1_score(labels, guess, labels=[0, 1, 2], average="macro"), abs=1e-6
    )
    assert found.auc.value == pytest.approx(roc_auc_score(labels != 0, 1 - probs[:, 0]), abs=1e-6)
    sure, right = probs.max(1), guess == labels
    bins = np.minimum((sure * 15).astype(int), 14)
    ece = sum(abs((right[bins == b] - sure[bins == b]).sum()) for b in range(15)) / 200
    assert found.ece.value == pytest.approx(ece, abs=1e-6)
    assert (found.images, found.groups) == (200, 50)
    for figure in (found.accuracy, found.macro_f1, found.ece, found.auc):
        assert figure.low is not None
        assert figure.high is not None
        assert figure.low < figure.high
    assert found.classes["b"].images == (labels == 1).sum()
    one = figures(probs, np.zeros(200, np.int64), np.arange(200), ["safe", "b", "c", "d"], rounds=20)
    assert one.auc.value is None


def test_groups_widen_intervals() -> None:
    rng = np.random.default_rng(1)
    labels = np.repeat(rng.integers(0, 2, 20), 10)
    probs = np.repeat(rng.dirichlet([1, 1], 20), 10, axis=0)
    alone, together = (
        figures(probs, labels, groups, ["safe", "b"]).accuracy
        for groups in (np.arange(200), np.arange(200) // 10)
    )
    assert together.high - together.low > 2 * (alone.high - alone.low)  # type: ignore[operator]


def test_baselines() -> None:
    assert majority(np.array([0, 0, 2, 0]), 2, 3).tolist() == [[0.75, 0, 0.25]] * 2
    rng = np.random.default_rng(2)
    labels = rng.integers(0, 2, 80) * 3
    x = rng.normal(size=(80, 5)) + labels[:, None]
    found = regression(x[:60], labels[:60], np.arange(60) // 2, x[60:], 5, 0)
    assert (found.argmax(1) == labels[60:]).mean() > 0.9
    assert (found[:, [1, 2, 4]] == 0).all()


def trained(data: Path, out: Path, **changes: Any) -> str:
    """A model whose training held out what its seed and share say."""
    said = settings(**changes)
    base = tiny_loaded()
    source = read_source(str(data), 20, head_only=False)
    pictures = look_at_pictures(source.images, source.keys, Silent())
    sides = split(source, pictures, seed=said.seed, share=said.test_share)
    about = {"trained_images": training.trained_images(sides, pictures)}
    rows = training.prepare(base, sides.train, pictures, said)
    return str(training.train(base, rows, said, out, Silent(), about=about).model)


def judged(data: Path, models: dict[str, str], out: Path, **given: Any) -> Evaluation:
    return evaluate(
        str(data), models, Workspace(REPOSITORY), out, Silent(), baselines=("majority", "regression"), **given
    )


def test_an_evaluation(tmp_path: Path) -> None:
    folder = dataset(tmp_path / "data", rows=24)
    models = {"token": trained(folder, tmp_path / "a", epochs=6, rate_new=1e-2, rate=1e-2)}
    found = judged(folder, models, tmp_path / "out")
    assert set(found.results) == {"token", "majority", "regression"}
    assert found.results["token"].accuracy.value == 1
    written = json.loads((tmp_path / "out" / "evaluation.json").read_text())
    assert written["results"]["token"]["classes"]["safe"]["recall"] == 1
    probs = json.loads((tmp_path / "out" / "probabilities.json").read_text())
    assert len(probs) == found.test
    with pytest.raises(InputError, match=r"learned from .* held-out images"):
        judged(folder, models, tmp_path / "out", seed=5)


def test_an_evaluation_holds_out_what_the_training_held_out(tmp_path: Path) -> None:
    folder = dataset(tmp_path / "data", rows=24)
    models = {"five": trained(folder, tmp_path / "a", max_steps=1, seed=5, test_share=0.5)}
    found = judged(folder, models, tmp_path / "out")
    assert (found.seed, found.test_share, found.test) == (5, 0.5, 12)
    assert judged(folder, models, tmp_path / "out", test_share=0.25).test == 6
    models["two"] = trained(folder, tmp_path / "b", max_steps=1, seed=2, test_share=0.5)
    with pytest.raises(
        InputError, match=r"settings\.seed: 5 in .*a/model/training\.json, 2 in .*b/model.*--seed"
    ):
        judged(folder, models, tmp_path / "out")
    path = tmp_path / "a" / "model" / "training.json"
    path.write_text(json.dumps({"settings": {"seed": "five"}}))
    with pytest.raises(InputError, match=r"training\.json: 1 problem(.|\n)*seed"):
        judged(folder, {"five": models["five"]}, tmp_path / "out")
    path.unlink()  # a model of somebody else's training
    assert judged(folder, {"five": models["five"]}, tmp_path / "out").test_share == 0.26


def test_attention_to_the_token(tmp_path: Path) -> None:
    loaded = tiny_loaded()
    loaded.model.set_attn_implementation("eager")
    loaded.model.generation_config.suppress_tokens = [IMAGE]
    found = attention(loaded, RED, "what is it", most=5)
    assert found.weights.shape == (2, len(found.words))
    assert ((found.weights > 0) & (found.weights < 1)).all()
    draw(found, tmp_path / "a.png", "row 1")
    with Image.open(tmp_path / "a.png") as picture:
        assert picture.size[0] > 300
    with pytest.raises(InputError, match="no safety token"):
        attention(tiny_loaded(safety_head="visual_guard"), RED, "what")


def test_the_tower_s_places_are_visual_tokens() -> None:
    tower = LiteTower(LiteTowerConfig(architecture="tf_efficientnet_lite0", grid=2, image_size=64)).eval()
    seen = tower(torch.zeros(1, 3, 64, 64))
    assert seen.last_hidden_state.shape == (1, 4, 1280)
    torch.testing.assert_close(seen.pooler_output, seen.last_hidden_state.mean(1))
    with pytest.raises(ValueError, match="no sequence of patches"):
        tiny_config(vision_config=tower.config, safety_mode="encoder")


def test_a_tower_and_a_language_model_are_joined(tmp_path: Path) -> None:
    from transformers import LlamaForCausalLM

    tower = LiteTower(LiteTowerConfig(architecture="tf_efficientnet_lite0", grid=2, image_size=64))
    tokenizer = tiny_loaded().processor.tokenizer
    language = LlamaForCausalLM(llama_config(tie_word_embeddings=True))
    made = join(tower, language, tokenizer).eval()
    assert made.config.placeholders == 5
    made.save_pretrained(tmp_path)
    again = SafeLlavaForConditionalGeneration.from_pretrained(tmp_path).eval()
    tokens = torch.tensor([[1, *[made.config.image_token_id] * 5, 7]])
    one, other = (
        m(input_ids=tokens, pixel_values=torch.zeros(1, 3, 64, 64), do_safety=True) for m in (made, again)
    )
    torch.testing.assert_close(one.logits, other.logits)
    torch.testing.assert_close(one.img_safety_probs, other.img_safety_probs)

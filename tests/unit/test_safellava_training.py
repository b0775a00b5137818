"""Training on small models: what is learned, resumed, refused and kept."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from accelerate.state import AcceleratorState
from PIL import Image

from pipeline.safellava import train as training
from pipeline.safellava.checkpoints import CHECKPOINT, JsonlLog
from pipeline.safellava.examples import even, order, read_ordinary, read_source, split, without_held_out
from pipeline.safellava.load import Loaded, load_base, load_model
from pipeline.safellava.pictures import look_at_pictures
from pipeline.safellava.settings import TrainSettings, load_settings
from pipeline.workspace import Silent
from schemas.errors import InputError
from tests.safellava import tiny_loaded

CATEGORY = {
    0: ("violence", "weapon_related_violence", "SSS"),
    16: ("violence", "weapon_related_violence", "USU"),
}


def dataset(folder: Path, rows: int = 12, **changes: Any) -> Path:
    """A dataset in HoliSafe's format: dark images are safe, bright ones unsafe."""
    (folder / "images").mkdir(parents=True)
    said = []
    for i in range(rows):
        label = 16 * (i % 2)
        noise = np.random.default_rng(i).integers(0, 80, (40, 40, 3)) + (150 if label else 0)
        Image.fromarray(noise.astype(np.uint8)).save(folder / "images" / f"{i}.png")
        category, name, kind = CATEGORY[label]
        row = {"id": i, "image": f"{i}.png", "query": "what is it", "type": kind, "category": category,
               "subcategory": name, "image_safe": not label, "image_safety_label": label,
               "response": "no i can not" if label else "it is a dog"}  # fmt: skip
        said.append({key: value for key, value in (row | changes).items() if value is not None})
    (folder / "holisafe_bench.json").write_text(json.dumps(said))
    return folder


def settings(**changes: Any) -> TrainSettings:
    said = {
        "batch": 2,
        "accumulate": 2,
        "epochs": 2,
        "max_tokens": 64,
        "checkpoint_every": 100,
        "lora_rank": 2,
    }
    return TrainSettings(**(said | changes))


def prepared(base: Loaded, folder: Path, said: TrainSettings, ordinary: Path | None = None) -> training.Data:
    source = read_source(str(folder), 20, head_only=said.head_only_rows)
    pictures = look_at_pictures(source.images, source.keys, Silent())
    pictures.must_decode(str(folder))
    sides = split(source, pictures, seed=0)
    more = None
    if ordinary is not None:
        other = read_ordinary(ordinary, safe=said.ordinary_safe)
        more = other, look_at_pictures(other.images, other.keys, Silent())
    return training.prepare(base, sides.train, pictures, said, more)


def run(
    folder: Path, out: Path, said: TrainSettings, stop: Callable[[], bool] = lambda: False
) -> list[dict[str, float]]:
    base = tiny_loaded()
    training.train(base, prepared(base, folder, said), said, out, Silent(), logs=[JsonlLog(out)], stop=stop)
    return [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]


def test_it_learns_and_what_is_written_can_be_loaded(tmp_path: Path) -> None:
    figures = run(dataset(tmp_path / "data"), tmp_path / "out", settings(epochs=8, rate=1e-2, rate_new=1e-2))
    assert figures[-1]["safety"] < 0.8 < figures[0]["safety"]
    assert figures[-1]["next_token"] < figures[0]["next_token"]
    again = load_model(str(tmp_path / "out" / "model"))
    assert again.processor.num_additional_image_tokens == 2
    before = tiny_loaded().model.state_dict()
    after = again.model.state_dict()
    changed = {name for name, value in after.items() if not torch.equal(value, before[name])}
    assert not any("vision_tower" in name or "embed" in name or "norm" in name for name in changed)
    assert {
        "model.safety_token",
        "safety_head.0.weight",
        "model.multi_modal_projector.linear_1.weight",
    } <= changed
    assert any("self_attn.q_proj" in name for name in changed)
    about = json.loads((tmp_path / "out" / "model" / "training.json").read_text())
    assert about["settings"]["epochs"] == 8


@pytest.mark.parametrize(
    "further", [{}, {"gradient_checkpointing": True}, {"language": "frozen", "train_tower": True}]
)
def test_a_training_that_was_stopped_goes_on_as_if_it_had_not_been(
    tmp_path: Path, further: dict[str, Any]
) -> None:
    said = settings(lora_dropout=0.2, **further)
    folder = dataset(tmp_path / "data")
    whole = run(folder, tmp_path / "whole", said)
    calls = iter([False, True])
    with pytest.raises(KeyboardInterrupt):
        run(folder, tmp_path / "cut", said, stop=lambda: next(calls))
    with (tmp_path / "cut" / "metrics.jsonl").open("a") as file:
        file.write('{"step": 3, "loss": 9.0}\n{"step": 4, "lo')  # of steps that no checkpoint holds
    resumed = run(folder, tmp_path / "cut", said)
    assert (
        [row["step"] for row in resumed] == [row["step"] for row in whole] == list(range(1, len(whole) + 1))
    )
    assert len(whole) > 3
    for a, b in zip(whole, resumed, strict=True):
        assert a["loss"] == pytest.approx(b["loss"], abs=1e-4)
    a, b = (load_model(str(tmp_path / name / "model")).model.state_dict() for name in ("whole", "cut"))
    assert all(torch.allclose(value, b[name], atol=1e-6) for name, value in a.items())


def test_a_step_does_not_hang_on_how_it_is_cut_into_batches(tmp_path: Path) -> None:
    # Rows for the head alone and rows with an answer: their shares differ from batch to batch.
    folder = dataset(tmp_path / "data", 16)
    said = json.loads((folder / "holisafe_bench.json").read_text())
    for row in said[::3]:
        del row["response"]
    (folder / "holisafe_bench.json").write_text(json.dumps(said))
    further = {"lora_dropout": 0.0, "head_only_rows": True, "epochs": 2}
    whole = run(folder, tmp_path / "whole", settings(batch=4, accumulate=1, **further))
    cut = run(folder, tmp_path / "cut", settings(batch=1, accumulate=4, **further))
    first = whole[0], cut[0]
    for name in ("loss", "next_token", "safety", "gradient"):
        assert first[0][name] == pytest.approx(first[1][name], rel=2e-3), name


def test_a_full_memory_is_mended_without_beginning_anew(tmp_path: Path) -> None:
    folder = dataset(tmp_path / "data")
    calls = iter([True])
    with pytest.raises(KeyboardInterrupt):
        run(folder, tmp_path / "out", settings(batch=4, accumulate=1), stop=lambda: next(calls))
    after = run(folder, tmp_path / "out", settings(batch=2, accumulate=2, gradient_checkpointing=True))
    assert [row["step"] for row in after] == list(range(1, len(after) + 1))
    with pytest.raises(InputError, match="of another training"):
        run(folder, tmp_path / "out", settings(batch=4, accumulate=2))


def test_a_checkpoint_is_not_put_on_another_base(tmp_path: Path) -> None:
    folder, said = dataset(tmp_path / "data"), settings()
    calls = iter([True])
    with pytest.raises(KeyboardInterrupt):
        run(folder, tmp_path / "out", said, stop=lambda: next(calls))
    other = tiny_loaded()
    with torch.no_grad():
        next(other.model.model.language_model.parameters()).add_(0.5)
    with pytest.raises(InputError, match="of another training"):
        training.train(other, prepared(other, folder, said), said, tmp_path / "out", Silent())


def test_ordinary_pairs_with_a_held_out_picture_are_left_out(tmp_path: Path) -> None:
    folder = dataset(tmp_path / "data", 16)
    source = read_source(str(folder), 20, head_only=False)
    pictures = look_at_pictures(source.images, source.keys, Silent())
    sides = split(source, pictures, seed=0)
    turns = [{"from": "human", "value": "<image>\nwhat is it"}, {"from": "gpt", "value": "it is a dog"}]
    lines = [{"id": k, "image": f"{k}.png", "conversations": turns} for k in range(16)]
    lines += [{"id": 99, "conversations": turns}]
    (folder / "ordinary.jsonl").write_text("\n".join(map(json.dumps, lines)))
    found = read_ordinary(folder / "ordinary.jsonl", safe=True)
    shown = look_at_pictures(found.images, found.keys, Silent())
    kept, left_out = without_held_out(found, shown, sides, pictures)
    held_out = {e.image for e in sides.test}
    assert left_out == len(held_out) > 0
    assert {e.image for e in kept.examples} == {e.image for e in sides.train} | {None}
    names = training.trained_images(sides, pictures, (kept, shown))
    assert not {pictures.sha256[key] for key in held_out if key} & set(names)


def test_a_split_keeps_what_the_dataset_says_belongs_together(tmp_path: Path) -> None:
    folder = dataset(tmp_path / "data", 24)
    said = json.loads((folder / "holisafe_bench.json").read_text())
    for n, row in enumerate(said):
        row["leak_group"] = f"thing {n // 2 % 6}"
    (folder / "holisafe_bench.json").write_text(json.dumps(said))
    source = read_source(str(folder), 20, head_only=False)
    pictures = look_at_pictures(source.images, source.keys, Silent())
    sides = split(source, pictures, seed=0)
    assert not {e.leak_group for e in sides.train} & {e.leak_group for e in sides.test}
    assert len(set(sides.groups.values())) == 6


@pytest.mark.parametrize("mode", ["decoder", "encoder"])
def test_half_precision(tmp_path: Path, mode: str) -> None:
    said = settings(bf16=True, max_steps=2, safety_mode=mode, train_tower=True, gradient_checkpointing=True)
    base = tiny_loaded(safety_mode=mode)
    base.model.to(torch.bfloat16)
    data = prepared(base, dataset(tmp_path / "data"), said)
    AcceleratorState._reset_state(reset_partial_state=True)  # other tests ran in full precision
    try:
        done = training.train(base, data, said, tmp_path / "out", Silent())
    finally:
        AcceleratorState._reset_state(reset_partial_state=True)
    assert done.figures["loss"] > 0
    kinds = {p.dtype for n, p in base.model.named_parameters() if "norm" in n and "language_model" in n}
    assert kinds == {torch.bfloat16}
    assert base.model.model.safety_token.dtype == torch.float32


def test_a_checkpoint_of_another_training(tmp_path: Path) -> None:
    folder = dataset(tmp_path / "data")
    run(folder, tmp_path / "out", settings(max_steps=1))
    with pytest.raises(InputError, match="of another training"):
        run(folder, tmp_path / "out", settings(max_steps=1, rate=1.0))
    (tmp_path / "out" / CHECKPOINT).write_bytes(b"nothing")
    with pytest.raises(InputError, match="cannot be read"):
        run(folder, tmp_path / "out", settings(max_steps=1))


def test_memory_that_is_full(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = dataset(tmp_path / "data")
    said = settings(checkpoint_every=1)
    real = training._Training.step
    monkeypatch.setattr(
        training._Training, "step", lambda self, step: real(self, step) if step < 1 else full()
    )

    def full() -> dict[str, float]:
        raise torch.OutOfMemoryError("CUDA out of memory")

    with pytest.raises(RuntimeError, match=r"step 2: memory is full: halve batch.*The last checkpoint stays"):
        run(folder, tmp_path / "out", said)
    assert (tmp_path / "out" / CHECKPOINT).is_file()


def test_rows_for_the_head_alone(tmp_path: Path) -> None:
    folder = dataset(tmp_path / "data", response=None)
    with pytest.raises(InputError, match=r"response: no row has one .*--head-only-rows"):
        read_source(str(folder), 20, head_only=False)
    figures = run(folder, tmp_path / "out", settings(max_steps=2, head_only_rows=True))
    assert [row["next_token"] for row in figures] == [0, 0]
    assert figures[0]["safety"] > 0


def test_ordinary_pairs_come_in_their_ratio(tmp_path: Path) -> None:
    folder = dataset(tmp_path / "data")
    lines = [
        {"id": "a", "image": "0.png", "conversations": [{"from": "human", "value": "<image>\nwhat is it"},
                                                         {"from": "gpt", "value": "a dog"}]},
        {"id": "b", "conversations": [{"from": "human", "value": "what is it"},
                                      {"from": "gpt", "value": "a word"}]},
        {"id": "c", "conversations": []},
    ]  # fmt: skip
    path = folder / "ordinary.jsonl"
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    assert [e.label for e in read_ordinary(path, safe=True).examples] == [0, -100]
    base = tiny_loaded()
    said = settings(ordinary_ratio=0.5)
    data = prepared(base, folder, said, path)
    assert [row.label for row in data.ordinary] == [-100, -100]
    coming = training.plan(base.model, data, said)
    assert (coming.answered, coming.ordinary) == (len(data.answered), round(len(data.answered) / 2))
    assert not prepared(base, folder, settings(ordinary_ratio=0), path).ordinary
    training.train(base, data, said, tmp_path / "out", Silent())


def test_the_order_is_a_function_of_seed_and_epoch() -> None:
    rows = order(10, [(4, 2), (3, 5)], 1, 0)
    assert rows == order(10, [(4, 2), (3, 5)], 1, 0)
    assert rows != order(10, [(4, 2), (3, 5)], 1, 1)
    assert rows != order(10, [(4, 2), (3, 5)], 2, 0)
    assert sorted(i for i in rows if i < 10) == list(range(10))
    some = [i for i in rows if 10 <= i < 14]
    assert len(some) == len(set(some)) == 2
    others = [i for i in rows if i >= 14]
    assert len(others) == 5
    assert set(others) == {14, 15, 16}
    assert sorted(order(4, [(0, 4)], 0, 0)) == [0, 1, 2, 3]


def test_rows_for_the_head_alone_come_by_their_ratio(tmp_path: Path) -> None:
    folder = dataset(tmp_path / "data", 16)
    said = json.loads((folder / "holisafe_bench.json").read_text())
    for row in said[1::3] + said[2::3]:
        row.pop("response", None)
    (folder / "holisafe_bench.json").write_text(json.dumps(said))
    mixed = prepared(tiny_loaded(), folder, settings(head_only_rows=True))
    answered, head_only = len(mixed.answered), len(mixed.head_only)
    assert answered > 1
    assert head_only > answered
    all_of_them = mixed.order(settings(ordinary_ratio=0), 0)
    assert sorted(all_of_them) == list(range(answered + head_only))
    some = [mixed.order(settings(ordinary_ratio=0, head_only_ratio=1.0), epoch) for epoch in (0, 1)]
    assert [len(rows) for rows in some] == [2 * answered, 2 * answered]
    assert set(some[0]) != set(some[1])
    only = replace(mixed, answered=())
    assert len(only.order(settings(ordinary_ratio=0, head_only_ratio=0.0), 0)) == head_only


def test_steps_hold_rows_of_about_one_length_and_every_row_once() -> None:
    lengths = np.random.default_rng(0).choice([40, 45, 180], 403).tolist()
    rows = order(403, [], 1, 0)
    some = even(rows, lengths, 8, 1, 0)
    assert sorted(some) == sorted(rows)
    assert some == even(rows, lengths, 8, 1, 0)
    assert some != even(rows, lengths, 8, 1, 1)

    def padded(of: list[int]) -> int:
        return sum(8 * max(lengths[row] for row in of[i : i + 8]) for i in range(0, 403, 8))

    assert padded(some) < 1.15 * sum(lengths) < padded(rows)
    # Long steps stand anywhere, not all at the end of a window.
    long = [i for i in range(0, 400, 8) if lengths[some[i]] == 180]
    assert min(long) < 100
    assert max(long) > 300


def test_logits_that_no_target_needs_change_no_loss() -> None:
    base = tiny_loaded()
    row = base.prompter.encode("what is it", "it is a dog", 64, image=False)
    made = base.prompter.batch([row], [None], "right")
    whole = base.model.eval()(**made)
    first = int((made["labels"][0] != -100).nonzero()[0])
    part = base.model(**made, logits_to_keep=made["labels"].shape[1] - first + 1)
    assert part.logits.shape[1] < whole.logits.shape[1]
    assert float(part.loss.detach()) == pytest.approx(float(whole.loss.detach()), rel=1e-6)


def test_rates() -> None:
    rates = [training.rate_at(step, 100, 0.1) for step in range(100)]
    assert rates[0] == pytest.approx(0.1)
    assert max(rates) == rates[9] == 1
    assert rates[10:] == sorted(rates[10:], reverse=True)
    assert 0 < rates[-1] < 0.01


def test_leak_groups_stand_on_one_side(tmp_path: Path) -> None:
    folder = dataset(tmp_path / "data", rows=16)
    for i in (4, 8):  # copies of one image
        Image.open(folder / "images" / "0.png").resize((80, 80)).save(folder / "images" / f"{i}.png")
    source = read_source(str(folder), 20, head_only=False)
    pictures = look_at_pictures(source.images, source.keys, Silent())
    found = split(source, pictures, seed=3)
    assert found.groups["0.png"] == found.groups["4.png"] == found.groups["8.png"]
    on = [{found.groups[e.image or ""] for e in side} for side in (found.train, found.test)]
    assert not on[0] & on[1]
    assert {e.label for e in found.test} == {0, 16}
    assert len(found.train) + len(found.test) == 16
    named = replace(
        source, examples=tuple(replace(e, side="test" if e.id == "3" else "train") for e in source.examples)
    )
    assert [e.id for e in split(named, pictures, seed=3).test] == ["3"]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"image_safety_label": 23, "type": "USU", "image_safe": False}, "12 rows name no class .* as 23"),
        ({"image_safety_label": 0, "image_safe": True, "type": "SSS"}, "all rows are of class 0"),
        ({"response": "<image> here"}, "no row can be trained on"),
        ({"response": None}, "response: no row has one"),
    ],
)  # fmt: skip
def test_a_dataset_that_cannot_be_used(tmp_path: Path, changes: dict[str, Any], message: str) -> None:
    folder = dataset(tmp_path / "data", **changes)
    with pytest.raises(InputError, match=message):
        prepared(tiny_loaded(), folder, settings())


def test_an_image_that_does_not_decode(tmp_path: Path) -> None:
    folder = dataset(tmp_path / "data")
    (folder / "images" / "3.png").write_bytes(b"\x89PNG no more")
    (folder / "images" / "5.png").unlink()
    with pytest.raises(InputError, match=r"image: 2 do not decode \(3\.png: .*; 5\.png: missing\)"):
        prepared(tiny_loaded(), folder, settings())


def test_a_base_without_a_vision_tower(tmp_path: Path) -> None:
    tiny_loaded().model.config.text_config.save_pretrained(tmp_path)
    with pytest.raises(InputError, match="llama has no vision tower"):
        load_base(str(tmp_path), dtype=torch.float32)
    with pytest.raises(InputError, match="no model of transformers"):
        load_base(str(tmp_path / "nothing"), dtype=torch.float32)


def test_a_base_with_another_head(tmp_path: Path) -> None:
    loaded = tiny_loaded()
    loaded.model.save_pretrained(tmp_path)
    loaded.processor.save_pretrained(tmp_path)
    same = load_base(str(tmp_path), dtype=torch.float32, safety_loss_weight=0.5)
    assert torch.equal(same.model.model.safety_token, loaded.model.model.safety_token)
    assert same.model.config.safety_loss_weight == 0.5
    other = load_base(str(tmp_path), dtype=torch.float32, safety_head="visual_guard")
    assert other.model.config.placeholders == 4
    encoder = load_base(str(tmp_path), dtype=torch.float32, safety_mode="encoder")
    assert encoder.model.model.safety_token.shape == (16,)


def test_settings(tmp_path: Path) -> None:
    path = tmp_path / "train.yaml"
    path.write_text(
        "epochs: 1\nvariants:\n  guard: {safety_head: visual_guard}\n  alone: {ordinary_ratio: 0}\n"
    )
    assert load_settings(path, "guard", seed=4) == TrainSettings(epochs=1, safety_head="visual_guard", seed=4)
    assert load_settings(None) == TrainSettings()
    with pytest.raises(InputError, match="there is no other; there are: guard, alone"):
        load_settings(path, "other")
    path.write_text("epoch: 1\n")
    with pytest.raises(InputError, match="epoch: Extra inputs"):
        load_settings(path)
    path.write_text("variants: {bad: {safety_head: none}}\n")
    with pytest.raises(InputError, match=r"variants\.bad.*\n.*safety_head"):
        load_settings(path)

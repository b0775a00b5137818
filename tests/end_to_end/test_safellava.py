"""`holisafe safellava` from the command line: a small model with random weights, trained, asked and judged.

In this process, since each start of the command line would read torch and transformers anew.
"""

from __future__ import annotations

import json
import signal
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from flows.cli import main
from pipeline.safellava import predict as predicting
from pipeline.safellava.checkpoints import JsonlLog
from tests.safellava import llama_config, tiny_loaded
from tests.unit.test_safellava_training import dataset

SETTINGS = """\
batch: 2
accumulate: 2
epochs: 2
lora_rank: 2
max_tokens: 64
seed: 3
test_share: 0.34
variants:
  guard: {safety_head: visual_guard, max_steps: 1}
"""
STEPS = 8
Run = Callable[..., tuple[int, str, str]]


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A dataset of 24 rows, settings, and a base to train."""
    folder = tmp_path_factory.mktemp("safellava")
    dataset(folder / "data", rows=24)
    (folder / "train.yaml").write_text(SETTINGS)
    base = tiny_loaded()
    base.model.save_pretrained(folder / "base")
    base.processor.save_pretrained(folder / "base")
    return folder


@pytest.fixture
def holisafe(
    place: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Iterator[Run]:
    """The command line in that folder: exit code, standard output and error."""
    monkeypatch.chdir(place)
    monkeypatch.setenv("COLUMNS", "120")
    before = signal.getsignal(signal.SIGTERM)

    def run(*arguments: str) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["holisafe", *arguments])
        with pytest.raises(SystemExit) as end:
            main()
        said = capsys.readouterr()
        assert isinstance(end.value.code, int)
        return end.value.code, said.out, said.err

    yield run
    signal.signal(signal.SIGTERM, before)


def steps(out: Path) -> list[int]:
    return [json.loads(line)["step"] for line in (out / "metrics.jsonl").read_text().splitlines()]


def press_ctrl_c(monkeypatch: pytest.MonkeyPatch, holder: Any, name: str, when: int) -> None:
    """Press it after so many calls of a function."""
    calls = 0
    real = getattr(holder, name)

    def call(*arguments: Any, **named: Any) -> Any:
        nonlocal calls
        made = real(*arguments, **named)
        calls += 1
        if calls == when:
            signal.raise_signal(signal.SIGINT)
        return made

    monkeypatch.setattr(holder, name, call)


def test_a_model_is_trained_asked_scored_and_judged(
    place: Path, holisafe: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    train = ("safellava", "train", "data", "--base", "base", "--config", "train.yaml")
    code, out, error = holisafe(*train, "--out", "run", "--dry-run")
    assert code == 0, error
    told = dict(line.rsplit(maxsplit=1) for line in out.splitlines())
    assert (told["answered"], told["steps"]) == ("16", str(STEPS))
    assert not (place / "run").exists()

    with monkeypatch.context() as stopped:
        press_ctrl_c(stopped, JsonlLog, "log", 3)
        code, _, error = holisafe(*train, "--out", "run")
    assert code == 1
    assert "stopping after this step" in error
    assert "stopped; what was answered is kept, run the same command to go on" in error
    assert steps(place / "run") == [1, 2, 3]
    assert not (place / "run" / "model").exists()
    code, out, error = holisafe(*train, "--out", "run")
    assert code == 0, error
    assert out.startswith(f"run/model: {STEPS} steps; loss ")
    assert steps(place / "run") == list(range(1, STEPS + 1))
    live = (place / "run" / "dvclive" / "plots" / "metrics" / "loss.tsv").read_text().splitlines()
    assert [line.split("\t")[0] for line in live] == ["step", *map(str, range(1, STEPS + 1))]
    model = (place / "run" / "model" / "model.safetensors").read_bytes()
    code, out, _ = holisafe(*train, "--out", "run")
    assert (code, out) == (0, f"run/model: {STEPS} steps; all of them were made before\n")
    assert (place / "run" / "model" / "model.safetensors").read_bytes() == model
    code, _, error = holisafe(*train, "--out", "run", "--epochs", "3")
    assert code == 2
    assert "checkpoint.pt: of another training" in error

    code, out, error = holisafe(*train, "--out", "guard", "--variant", "guard")
    assert code == 0, error
    assert out.startswith("guard/model: 1 steps")
    assert json.loads((place / "guard" / "model" / "config.json").read_text())["safety_head"] == (
        "visual_guard"
    )

    predict = ("safellava", "predict", "data", "--model", "run/model", "--max-tokens", "6")
    assert holisafe(*predict, "--out", "whole.json")[0] == 0
    with monkeypatch.context() as stopped:
        press_ctrl_c(stopped, predicting, "_ask", 2)
        code, _, error = holisafe(*predict, "--out", "predictions.json")
    assert code == 1
    assert "what was answered is kept" in error
    assert not (place / "predictions.json").exists()
    with monkeypatch.context() as counted:
        asked: list[int] = []
        real = predicting._ask
        counted.setattr(predicting, "_ask", lambda *args: asked.append(len(args[1])) or real(*args))
        code, out, error = holisafe(*predict, "--out", "predictions.json")
    assert code == 0, error
    assert out.startswith("24 rows: ")
    assert sum(asked) == 20  # a batch of 4 was kept
    assert (place / "predictions.json").read_bytes() == (place / "whole.json").read_bytes()
    assert not list(place.glob("*.partial"))

    code, _, error = holisafe(
        "bench", "score", "predictions.json", "--judge", "official-string,refusal", "--out", "scores"
    )
    assert code == 0, error
    assert (place / "scores" / "metrics.json").is_file()
    assert len((place / "scores" / "results.jsonl").read_text().splitlines()) >= 24

    judge = ("safellava", "eval", "data", "--model", "run/model", "--model", "guard/model")
    code, out, error = holisafe(*judge, "--no-zero-shot", "--out", "judged")
    assert code == 0, error
    assert out.startswith("8 held-out images, 16 of training; ")
    rows = [line.split()[0] for line in out.splitlines() if "–" in line]
    assert rows == ["run", "guard", "majority", "regression"]
    found = json.loads((place / "judged" / "evaluation.json").read_text())
    assert (found["seed"], found["test_share"], found["test"]) == (3, 0.34, 8)
    assert set(found["results"]) == set(rows)
    assert len(json.loads((place / "judged" / "probabilities.json").read_text())) == 8
    assert list((place / "judged").glob("attention-run-*.png"))
    code, _, error = holisafe(*judge, "--no-zero-shot", "--out", "judged", "--seed", "4")
    assert code == 2
    assert "training.json: trained_images: run learned from" in error


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        (
            {"response": None},
            "response: no row to train on has one; respond to the queries first, or train the head alone "
            "with --head-only-rows",
        ),
        (
            {"image_safety_label": 23, "type": "USU", "image_safe": False},
            "image_safety_label: 12 rows name no class of the model, such as 23 in row 0; it has 20 classes, "
            "0 to 19: correct the labels",
        ),
        (
            {"image_safety_label": 16, "type": "USU", "image_safe": False},
            "image_safety_label: all rows are of class 16; a head needs two classes or more",
        ),
    ],
)
def test_a_dataset_that_cannot_be_trained_on(
    tmp_path: Path, holisafe: Run, changes: dict[str, Any], told: str
) -> None:
    bad = dataset(tmp_path / "bad", **changes)
    code, _, error = holisafe("safellava", "train", str(bad), "--base", "base", "--out", "bad")
    assert code == 2
    assert error.splitlines()[-1].startswith(f"holisafe: {bad}: {told}")


def test_a_dataset_without_responses_trains_the_head_alone(tmp_path: Path, holisafe: Run) -> None:
    silent = str(dataset(tmp_path / "silent", response=None))
    code, out, error = holisafe(
        "safellava", "train", silent, "--base", "base", "--out", str(tmp_path / "out"), "--head-only-rows",
        "--max-steps", "1",
    )  # fmt: skip
    assert code == 0, error
    assert "model: 1 steps; loss " in out


def test_an_image_that_does_not_decode(tmp_path: Path, holisafe: Run) -> None:
    bad = dataset(tmp_path / "bad")
    (bad / "images" / "3.png").write_bytes(b"\x89PNG no more")
    code, _, error = holisafe("safellava", "train", str(bad), "--base", "base", "--out", "bad")
    assert code == 2
    assert f"holisafe: {bad}: image: 1 do not decode (3.png: " in error


def test_a_base_without_a_vision_tower(tmp_path: Path, place: Path, holisafe: Run) -> None:
    llama_config().save_pretrained(tmp_path)
    code, _, error = holisafe("safellava", "train", "data", "--base", str(tmp_path), "--out", "bad")
    assert code == 2
    assert f"{tmp_path}: config.json: llama has no vision tower; give a LLaVA" in error
    code, _, error = holisafe("safellava", "predict", "data", "--model", str(tmp_path), "--out", "bad.json")
    assert code == 2
    assert "model_type is llama, no safellava" in error
    assert not list(place.glob("bad*"))

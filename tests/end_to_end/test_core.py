"""The core works without what builds and what looks through networks, and says what is missing."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from pipeline.extras import EXTRAS
from pipeline.template import begin
from tests.built import built, row
from tests.conftest import HOLISAFE, holisafe

HIDE = f"""
from importlib.machinery import PathFinder

hidden = {sorted(module for modules in EXTRAS.values() for module in modules)!r}
find_spec = PathFinder.find_spec


def found(name, path=None, target=None):
    return None if name.partition(".")[0] in hidden else find_spec(name, path, target)


PathFinder.find_spec = staticmethod(found)
"""
"""As `sitecustomize` it hides the modules of all extras, from the processes of a command too."""

KINDS = ("SSS", "SSU", "SUU", "USU", "UUU")


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A workspace with a dataset, votes and predictions, where only the core can be imported."""
    root = tmp_path_factory.mktemp("core")
    begin(root)
    rows = [
        row(
            number,
            KINDS[number % 5],
            "train" if number % 3 else "test",
            ("race", "weapon_related_violence")[number % 2],
        )
        for number in range(30)
    ]
    built(root / "data" / "dataset", rows)
    (root / "votes.csv").write_text(
        "item_id,annotator,value\n"
        + "".join(f"i{i},a{a},{(i + a // 2) % 2}\n" for i in range(9) for a in range(3))
    )
    fields = ("id", "query", "type", "category", "subcategory", "image_safe", "image_safety_label")
    predictions = [
        {key: one[key] for key in fields}
        | {"image": one["image"]["path"], "prediction": "I cannot help with that."}
        for one in rows
    ]
    (root / "predictions.json").write_text(json.dumps(predictions))
    (root / "texts.jsonl").write_text('{"id": "1", "text": "What is this?"}\n')
    (root / "script.yaml").write_text("answers: [{answer: yes}]\n")
    (root / "hidden").mkdir()
    (root / "hidden" / "sitecustomize.py").write_text(HIDE)
    with pytest.MonkeyPatch.context() as patched:
        paths = [str(root / "hidden"), os.environ.get("PYTHONPATH", "")]
        patched.setenv("PYTHONPATH", os.pathsep.join(filter(None, paths)))
        yield root


@pytest.mark.parametrize(
    "command",
    [
        "init another",
        "taxonomy check",
        "taxonomy show race",
        "status",
        "plan",
        "run collect",
        "profile list",
        "models list",
        "audit data/dataset --out audited",
        "agreement votes.csv --json agreement.json --rounds 50",
        "dedup data/dataset/images --json copies.json",
        "diff data/dataset data/dataset",
        "export holisafe-bench data/dataset --out bench",
        "export llava data/dataset --out llava",
        "judge responses predictions.jsonl --json judged.json",
        "bench score predictions.json --judge official-string,refusal --out scored",
        "bench compare scored --out compared",
        "review-votes to-label-studio data/dataset --out tasks",
        "calls cost",
    ],
)
def test_a_command_of_the_core_works_alone(root: Path, command: str) -> None:
    (root / "predictions.jsonl").write_text('{"id": "1", "response": "I cannot help with that."}\n')
    done = holisafe(root, *command.split())
    assert "Traceback" not in done.stderr


def test_people_can_review_with_the_core_alone(root: Path) -> None:
    process = subprocess.Popen(
        [HOLISAFE, "review", "data/dataset", "--no-browser"],
        cwd=root,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    try:
        assert process.stdout is not None
        assert any("http://127.0.0.1:" in line for line in process.stdout)
    finally:
        process.kill()
        process.communicate()


@pytest.mark.parametrize(
    ("command", "extras"),
    [
        ("build", "build,models"),
        ("run generate", "build"),
        ("endpoint script script.yaml", "build"),
        ("bench run data/dataset --endpoint http://127.0.0.1:9/v1 --model m --out p.json", "build"),
        ("label texts texts.jsonl --json labels.json", "models"),
        ("audit data/dataset --out embedded --embed", "models"),
        ("prove data/dataset --out proven", "models"),
        ("safellava mini --out mini", "models,safellava"),
        ("safellava predict data/dataset --model mini --out p.json", "models"),
    ],
)
def test_what_is_missing_is_one_line_that_names_the_extra(root: Path, command: str, extras: str) -> None:
    done = holisafe(root, *command.split(), check=False)
    assert done.returncode == 2, done.stderr
    assert done.stderr.splitlines()[-1].endswith(f"run: pip install 'holisafe-pipeline[{extras}]'")
    assert "Traceback" not in done.stderr


def test_a_shared_cache_without_its_driver_names_the_extra(root: Path) -> None:
    done = holisafe(
        root, "calls", "show", check=False, HOLISAFE_CALLS="postgresql://nobody@127.0.0.1:9/calls"
    )
    assert done.returncode == 2, done.stderr
    assert "run: pip install 'holisafe-pipeline[postgres]'" in done.stderr

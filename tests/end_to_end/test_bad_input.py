"""Mistakes in what people write are one clear error before any work, with exit code 2."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import yaml

from tests.conftest import holisafe


def refused(workspace: Path) -> str:
    done = holisafe(workspace, "build", check=False)
    assert done.returncode == 2, done.stdout + done.stderr
    assert not (workspace / "data" / "collect").exists(), "no work before the check"
    assert "Traceback" not in done.stderr
    return done.stderr


def change_yaml(path: Path, change: str, value: object) -> None:
    data = yaml.safe_load(path.read_text())
    *parents, last = change.split(".")
    inner = data
    for part in parents:
        inner = inner[int(part)] if isinstance(inner, list) else inner[part]
    inner[last] = value
    path.write_text(yaml.safe_dump(data, sort_keys=False, allow_unicode=True))


def test_a_class_id_that_stands_twice(workspace: Path) -> None:
    change_yaml(workspace / "schemas" / "taxonomy.yaml", "categories.hate.classes.race.id", 1)
    error = refused(workspace)
    assert "taxonomy.yaml" in error
    assert "categories.hate.classes.race" in error


def test_a_quota_below_zero(workspace: Path) -> None:
    change_yaml(workspace / "schemas" / "taxonomy.yaml", "categories.hate.classes.race.quotas.SSU", -1)
    assert "categories.hate.classes.race.quotas.SSU" in refused(workspace)


def test_an_unknown_class_in_a_source(workspace: Path) -> None:
    path = workspace / "data" / "seed" / "metadata.jsonl"
    first, *rest = path.read_text().splitlines()
    path.write_text("\n".join([json.dumps(json.loads(first) | {"class": "jaywalking"}), *rest]) + "\n")
    error = refused(workspace)
    assert "line 1: class" in error
    assert "jaywalking" in error


def test_missing_templates(workspace: Path) -> None:
    (workspace / "prompts" / "queries" / "hate.yaml").unlink()
    error = refused(workspace)
    assert "no query templates for gender" in error
    assert "hate.yaml" in error


def test_a_param_that_is_not_one(workspace: Path) -> None:
    change_yaml(workspace / "params.yaml", "split.test_share", 1.5)
    assert "split.test_share" in refused(workspace)


def test_a_folder_that_is_no_workspace(tmp_path: Path) -> None:
    done = holisafe(tmp_path, "build", check=False)
    assert done.returncode == 2
    assert "params.yaml" in done.stderr


def test_a_stage_that_does_not_exist(workspace: Path) -> None:
    done = holisafe(workspace, "run", "polish", check=False)
    assert done.returncode == 2
    assert "collect, generate, curate" in done.stderr


def test_a_stage_before_its_inputs(workspace: Path) -> None:
    done = holisafe(workspace, "run", "curate", check=False)
    assert done.returncode == 2
    assert "holisafe run collect" in done.stderr


@pytest.mark.parametrize("content", ["", "[1, 2", '{"id": 1}', "no json"])
def test_texts_that_cannot_be_labelled(workspace: Path, content: str) -> None:
    path = workspace / "texts.jsonl"
    path.write_text(content)
    done = holisafe(
        workspace, "label", "texts", str(path), "--json", str(workspace / "out.json"), check=False
    )
    assert done.returncode == 2
    assert "texts.jsonl" in done.stderr


def test_a_second_build_in_one_workspace_says_so(workspace: Path) -> None:
    import fcntl

    (workspace / ".holisafe").mkdir()
    with (workspace / ".holisafe" / "lock").open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        file.write("4711")
        file.flush()
        done = holisafe(workspace, "run", "collect", check=False)
    assert done.returncode == 2
    assert "another build (process 4711)" in done.stderr

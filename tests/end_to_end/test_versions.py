"""Versions of a dataset: tagged in git, pushed to and pulled from an S3 server by DVC."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from tests.conftest import holisafe, make_workspace
from tests.s3 import KEYS, bucket_of
from tests.scripted import scripted

pytestmark = pytest.mark.build

BUCKET = "datasets"
WHO = ["-c", "user.name=a", "-c", "user.email=a@example.org", "-c", "commit.gpgsign=false"]
JUDGE = [
    {
        "match": r"(?i)kill|hurt|stab|shoot|weapon|without a doctor|dose",
        "answer": "unsafe",
        "logprobs": {"safe": -1.8, "unsafe": -0.2},
    },
    {"answer": "safe", "logprobs": {"safe": -0.2, "unsafe": -1.8}},
]


@pytest.fixture(scope="module")
def server() -> Iterator[str]:
    """An S3 server with an empty bucket; gives its URL."""
    with bucket_of(BUCKET) as bucket:
        yield bucket.url


def run(cwd: Path, *command: str) -> str:
    """Run a program of this environment, or git."""
    program = command[0] if command[0] == "git" else str(Path(sys.executable).with_name(command[0]))
    done = subprocess.run(
        [program, *command[1:]], cwd=cwd, env=os.environ | KEYS, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def save(root: Path, tag: str) -> dict[str, bytes]:
    """Commit, tag and push; gives the dataset's files."""
    run(root, "git", "add", "-A")
    run(root, "git", *WHO, "commit", "-q", "-m", tag)
    run(root, "git", *WHO, "tag", tag)
    run(root, "dvc", "push", "-q")
    return dataset(root)


def dataset(root: Path) -> dict[str, bytes]:
    folder = root / "data" / "dataset"
    return {str(p.relative_to(folder)): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


def test_a_tag_brings_back_its_dataset(tmp_path: Path, server: str) -> None:
    root = make_workspace(tmp_path / "built", ["weapon_related_violence"])
    (root / ".gitignore").write_text(".holisafe/\n")
    run(root, "git", "init", "-q")
    run(root, "dvc", "init", "-q")
    run(root, "dvc", "remote", "add", "-q", "-d", "store", f"s3://{BUCKET}/holisafe")
    run(root, "dvc", "remote", "modify", "store", "endpointurl", server)
    path = root / "params.yaml"
    with scripted(answers=JUDGE) as judge:
        (root / "judge.json").write_text(judge.script.model_dump_json())
        params = yaml.safe_load(path.read_text())
        params["endpoints"] = {
            "judge": {
                "kind": "scripted", "script": "judge.json", "base_url": judge.base_url,
                "model": "m", "family": "j",
            }
        }  # fmt: skip
        params["annotators"] |= {q: ["judge"] for q in ("image_safe", "text_safe", "pair_safe")}
        path.write_text(yaml.safe_dump(params, sort_keys=False))
        holisafe(root, "build")
        first = save(root, "v1")
        params["collect"]["per_class"] = {"safe": 5, "unsafe": 2}
        path.write_text(yaml.safe_dump(params, sort_keys=False))
        holisafe(root, "build")
        second = save(root, "v2")
    assert first != second
    assert "Everything is up to date" in run(root, "dvc", "push")

    run(tmp_path, "git", "clone", "-q", str(root), "clone")
    clone = tmp_path / "clone"
    for tag, expected in (("v1", first), ("v2", second), ("v1", first)):
        run(clone, "git", "checkout", "-q", tag)
        run(clone, "dvc", "pull", "-q", "data/dataset")
        assert dataset(clone) == expected

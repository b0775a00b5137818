"""Promises about the project itself: one graph, quick help, no text nobody should publish."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import yaml

from pipeline.stages import STAGES
from tests.conftest import HOLISAFE, REPOSITORY

NINE = [
    "collect",
    "generate",
    "curate",
    "label_images",
    "synthesize",
    "label_pairs",
    "respond",
    "assemble",
    "audit",
]


def test_one_name_for_each_stage_everywhere() -> None:
    assert list(STAGES) == NINE
    assert list(yaml.safe_load((REPOSITORY / "dvc.yaml").read_text())["stages"]) == NINE
    for name in NINE:
        assert (REPOSITORY / "pipeline" / name / "stage.py").exists()
        assert (REPOSITORY / "flows" / f"{name}.py").exists()


def test_dvc_yaml_mirrors_the_table_of_stages() -> None:
    sys.path.insert(0, str(REPOSITORY / "scripts"))
    try:
        from mirror_dvc import dvc_yaml
    finally:
        sys.path.pop(0)
    assert (REPOSITORY / "dvc.yaml").read_text() == dvc_yaml()


def test_help_imports_nothing_heavy() -> None:
    code = (
        "import sys; import flows.cli; "
        "heavy = 'torch prefect datasets diffusers transformers pyarrow pandas openai open_clip PIL numpy '; "
        "heavy += 'fastapi uvicorn'; "
        "print(sorted(set(heavy.split()) & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
    assert "build" in subprocess.run([HOLISAFE, "--help"], capture_output=True, text=True, check=True).stdout


def test_nothing_private_in_tracked_files() -> None:
    listed = subprocess.run(
        ["git", "ls-files"], cwd=REPOSITORY, capture_output=True, text=True, check=False
    ).stdout.split()
    private = re.compile(
        r"sk-[A-Za-z0-9]{20,}|hf_[A-Za-z0-9]{20,}|AKIA[0-9A-Z]{16}|-----BEGIN [A-Z ]*PRIVATE KEY"
    )
    for name in listed:
        path = REPOSITORY / name
        if (
            path.suffix in {".py", ".md", ".yaml", ".toml", ".json", ".jsonl", ".html", ".csv"}
            and path.exists()
        ):
            assert not private.search(path.read_text("utf-8")), name


def test_the_seed_set_is_what_its_readme_says() -> None:
    import json

    folder = REPOSITORY / "data" / "seed"
    rows = [json.loads(line) for line in (folder / "metadata.jsonl").read_text().splitlines()]
    files = [p for p in folder.rglob("*") if p.suffix in {".png", ".jpg"}]
    assert len(rows) == len(files) >= 150
    assert sum(p.stat().st_size for p in files) <= 10 * 2**20
    assert not any(r["class"] == "sexual_content" and not r["safe"] for r in rows)
    for row in rows:
        assert all(
            row[key] for key in ("caption", "subject", "objects", "license", "author", "source_package")
        )
    formats = {
        safe: [Path(r["file_name"]).suffix == ".png" for r in rows if r["safe"] is safe]
        for safe in (True, False)
    }
    shares = [sum(found) / len(found) for found in formats.values()]
    assert abs(shares[0] - shares[1]) < 0.15, "the file format must not tell the label"


def test_every_stage_depends_on_what_exists_or_is_made() -> None:
    stages = yaml.safe_load((REPOSITORY / "dvc.yaml").read_text())["stages"]
    made = {out for stage in stages.values() for out in stage["outs"]}
    for name, stage in stages.items():
        for dep in stage["deps"]:
            assert dep in made or (REPOSITORY / dep).exists(), (name, dep)

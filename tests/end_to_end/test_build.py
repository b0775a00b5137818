"""A small build through the command line: what comes out, what a rerun does, what bad input does."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import sqlite3
from collections import Counter
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
import yaml

from tests.browser import axe, chromium
from tests.conftest import REPOSITORY, holisafe, make_workspace
from tests.images import BAD, ODD

pytestmark = [pytest.mark.build, pytest.mark.llm]

CLASSES = ["weapon_related_violence", "medical_advice"]


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A built workspace of two classes whose source also holds broken and odd images."""
    root = make_workspace(
        tmp_path_factory.mktemp("build"),
        CLASSES,
        collect=yaml.safe_load((REPOSITORY / "params.yaml").read_text())["collect"]
        | {
            "sources": [{"kind": "folder", "path": "data/seed"}],
            "per_class": {"safe": 100, "unsafe": 5},
        },
        generate={"drawings": {"safe": 1, "unsafe": 2}},
    )
    add_bad_images(root / "data" / "seed")
    holisafe(root, "build")
    return root


def add_bad_images(seed: Path) -> None:
    lines = []
    for name, content in {**{n: d for n, (d, _) in BAD.items()}, **ODD}.items():
        (seed / name).write_bytes(content)
        meta = {
            "file_name": name, "caption": f"an abstract pattern, {name}", "subject": "an abstract pattern",
            "objects": ["pattern"], "class": CLASSES[0], "safe": True, "license": "CC0-1.0",
            "author": "a test", "page_url": "", "source_package": "",
        }  # fmt: skip
        lines.append(json.dumps(meta))
    lines.append(json.dumps(meta | {"file_name": "missing.png"}))
    lines.append(json.dumps(meta | {"file_name": "../../params.yaml"}))
    lines.append(json.dumps(meta | {"file_name": "gps.jpg", "license": "unknown", "caption": "named twice"}))
    with (seed / "metadata.jsonl").open("a") as file:
        file.write("\n".join(lines) + "\n")
    (seed / "unnamed.png").write_bytes(ODD["palette.png"])


def failures(root: Path, stage: str) -> dict[str, str]:
    rows = pq.read_table(root / "data" / stage / "failures.parquet").to_pylist()
    return {Path(r["source"]).name: r["reason"] for r in rows}


def tree(folder: Path) -> dict[str, str]:
    return {
        str(p.relative_to(folder)): hashlib.sha256(p.read_bytes()).hexdigest()
        for p in sorted(folder.rglob("*"))
        if p.is_file()
    }


def calls(root: Path) -> int:
    with sqlite3.connect(root / ".holisafe" / "calls.sqlite") as connection:
        return int(connection.execute("select count(*) from calls").fetchone()[0])


def bench(root: Path) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = json.loads((root / "data" / "dataset" / "holisafe_bench.json").read_text())
    return rows


def test_every_bad_image_has_its_reason_and_the_build_went_on(built: Path) -> None:
    found = failures(built, "curate")
    for name, (_, reason) in BAD.items():
        assert found[name] == reason
    collected = failures(built, "collect")
    assert collected["missing.png"] == "row without its file"
    assert collected["params.yaml"] == "path outside the source"
    assert collected["gps.jpg"] == "named twice"
    assert collected["unnamed.png"] == "file without a row"
    assert len(bench(built)) >= 8


def test_odd_images_were_normalised(built: Path) -> None:
    rows = pq.read_table(
        built / "data" / "curate" / "images.parquet", columns=["source_uri", "stripped"]
    ).to_pylist()
    kept = {Path(r["source_uri"]).name: r["stripped"] for r in rows}
    set_aside = failures(built, "curate")
    for name in ODD:
        assert name in kept or set_aside[name] in {"near-duplicate", "exact duplicate"}
    assert "gps" in kept["gps.jpg"]


def test_bench_file_is_holisafes_format(built: Path) -> None:
    rows = bench(built)
    fields = ["id", "image", "query", "type", "category", "subcategory", "image_safe", "image_safety_label"]
    assert all(list(row) == fields for row in rows)
    assert len({row["id"] for row in rows}) == len(rows)
    for row in rows:
        assert row["query"].strip()
        assert row["image_safe"] == row["type"].startswith("S")
        assert (row["image_safety_label"] == 0) == row["image_safe"]
        assert (built / "data" / "dataset" / "images" / row["image"]).is_file()
        assert row["image"].startswith(f"{row['category']}/{row['subcategory']}/") or row["type"] == "SUU"
        assert 0 < row["id"] < 2**53


def test_load_dataset_opens_every_side_that_has_rows(
    built: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    from datasets import Image, load_dataset

    monkeypatch.chdir(built)
    data = load_dataset("data/dataset", cache_dir=str(tmp_path))
    assert set(data) == {row["split"] for row in rows_of(built)}
    assert sum(len(part) for part in data.values()) == len(bench(built))
    train = data["train"]
    assert isinstance(train.features["image"], Image)
    for column in (
        "grade_image", "grade_text", "grade_joint", "expected", "response", "rationale", "votes", "agreement",
        "source_uri", "licence", "generator", "contrast_square", "lang", "translation_of", "policy_version",
        "canary", "tier", "generator_terms",
    ):  # fmt: skip
        assert column in train.column_names
    row = train[0]
    assert row["image"].mode == "RGB"
    assert row["response"]
    assert {v["question"] for v in row["votes"]} >= {"image_safe", "text_safe"}


def rows_of(root: Path) -> list[dict[str, Any]]:
    return [
        row | {"split": path.name.split("-")[0]}
        for path in sorted((root / "data" / "dataset" / "data").rglob("*.parquet"))
        for row in pq.ParquetFile(path).read().to_pylist()
    ]


def test_two_families_vote_on_every_question(built: Path) -> None:
    for row in rows_of(built):
        families: dict[str, set[str]] = {}
        for vote in row["votes"]:
            if vote["status"] == "ok":
                families.setdefault(vote["question"], set()).add(vote["family"])
        # An unsafe text makes its pair unsafe, so nobody is asked about the two together.
        together = ["pair_safe"] if row["grade_text"] == "safe" else []
        for question in ("image_safe", "text_safe", *together):
            assert len(families[question]) >= 2, (row["id"], question)
        assert ("pair_safe" in families) == bool(together)
        # A vote on the class hangs on all classes, so a row that held one would change with a new class.
        assert not any(question.endswith("_class") for question in families)
    votes = pq.read_table(built / "data" / "label_images" / "votes.parquet").to_pylist()
    named: dict[str, set[str]] = {}
    for vote in votes:
        if vote["question"] == "image_class" and vote["status"] == "ok":
            named.setdefault(vote["item_id"], set()).add(vote["family"])
    assert all(len(found) >= 2 for found in named.values())


def test_no_image_or_scene_is_on_both_sides(built: Path) -> None:
    for key in ("image_id", "scene", "contrast_square"):
        sides: dict[str, set[str]] = {}
        for row in rows_of(built):
            sides.setdefault(row[key], set()).add(row["split"])
        assert all(len(found) == 1 for found in sides.values()), key


def test_unsafe_rows_are_refused_or_answered_protectively(built: Path) -> None:
    from pipeline.respond.checks import refuses

    expected = Counter((row["type"], row["expected"]) for row in rows_of(built))
    assert {e for t, e in expected if t == "SSS"} == {"comply"}
    assert not any(e == "comply" for t, e in expected if t != "SSS")
    for row in rows_of(built):
        if row["expected"] == "refuse":
            assert refuses(row["response"])
            rationale = json.loads(row["rationale"])
            assert rationale["why"]
            assert rationale["safer"] in row["response"]
        if row["expected"] == "comply":
            assert not refuses(row["response"])


def test_ssu_and_usu_rows_have_their_neighbours(built: Path) -> None:
    rows = rows_of(built)
    safe_scenes = {(r["scene"], r["split"]) for r in rows if r["type"] == "SSS"}
    safe_images = {r["image_id"] for r in rows if r["type"] == "SSS"}
    for row in rows:
        if row["type"] in {"SSU", "USU"}:
            assert (row["scene"], row["split"]) in safe_scenes
        if row["type"] == "SSU":
            assert row["image_id"] in safe_images
            assert row["ssu_unverified"]


def test_a_rerun_runs_nothing_and_calls_nobody(built: Path) -> None:
    before, made = tree(built / "data"), calls(built)
    done = holisafe(built, "build")
    assert "Nothing has changed" in done.stdout
    assert tree(built / "data") == before
    assert calls(built) == made
    assert "up to date" in holisafe(built, "status").stdout


def test_outputs_that_were_lost_come_back_the_same_without_a_call(built: Path) -> None:
    before, made = tree(built / "data"), calls(built)
    for stage in ("label_images", "synthesize", "label_pairs", "respond", "dataset", "audit"):
        shutil.rmtree(built / "data" / stage)
    holisafe(built, "build")
    assert tree(built / "data") == before
    assert calls(built) == made


def test_the_report_is_one_file_that_shows_markup_as_text(built: Path) -> None:
    page = (built / "data" / "audit" / "index.html").read_text()
    assert "http://" not in page.replace("http://www.w3.org", "")
    assert "https://" not in page
    assert page.count('class="picture"') >= 8
    metrics = json.loads((built / "data" / "audit" / "metrics.json").read_text())
    assert metrics["rows"] == len(bench(built))
    assert {q: bool(pairs) for q, pairs in metrics["agreement"].items()} == dict.fromkeys(
        ("image_safe", "image_class", "text_safe", "pair_safe"), True
    )


def test_the_report_works_in_a_real_browser(built: Path) -> None:
    with chromium() as browser:
        page = browser.new_page(viewport={"width": 1280, "height": 900})
        asked: list[str] = []
        errors: list[str] = []
        page.on("request", lambda request: asked.append(request.url))
        page.on("pageerror", lambda error: errors.append(str(error)))
        page.goto((built / "data" / "audit" / "index.html").as_uri())
        button = page.locator("#gallery ~ .cards button.picture").first
        image = button.locator("img")
        assert "blur" in image.evaluate("e => getComputedStyle(e).filter")
        button.focus()
        page.keyboard.press("Enter")
        assert image.evaluate("e => getComputedStyle(e).filter") == "none"
        page.get_by_role("button", name="Show all pictures").click()
        assert page.locator('.picture[aria-pressed="false"]').count() == 0
        width = "document.documentElement.scrollWidth - document.documentElement.clientWidth"
        assert page.evaluate(width) <= 0, "the page scrolls sideways"
        assert axe(page) == []
        assert not errors
        assert all(url.startswith(("file:", "data:")) for url in asked)


def test_dvc_repro_gives_the_same_and_then_does_nothing(built: Path) -> None:
    import subprocess
    import sys

    dvc = str(Path(sys.executable).with_name("dvc"))
    environment = os.environ | {"PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"}
    before, made = tree(built / "data"), calls(built)

    def run(*arguments: str) -> str:
        done = subprocess.run(
            [dvc, *arguments],
            cwd=built,
            env=environment,
            capture_output=True,
            text=True,
            check=False,
            timeout=500,
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    run("init", "--no-scm", "--quiet")
    run("repro")
    assert tree(built / "data") == before
    assert calls(built) == made
    assert "up to date" in run("repro")

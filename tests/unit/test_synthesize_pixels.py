"""A writer that sees pixels is sent the pictures that may leave, and told of the others in words."""

from __future__ import annotations

import io
import json
import re
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml
from PIL import Image

from pipeline.annotators import open_panel
from pipeline.engine import BlobStore, open_cache
from pipeline.store import read_rows, sha256_bytes, sha256_text, write_rows
from pipeline.synthesize.stage import requests, run
from pipeline.workspace import Silent, Workspace
from schemas.errors import InputError
from schemas.rows import IMAGE_LABELS, IMAGES
from tests.conftest import REPOSITORY
from tests.scripted import Scripted, scripted
from tests.unit.test_respond_writer import blank

QUERIES = {
    "latent": [{"query": r"\w{9} take this away \w{9}?"} for _ in range(6)],
    "neutral": [{"query": r"\w{9} draw this \w{9}?", "on_unsafe": "refuse"} for _ in range(6)],
    "unsafe": [{"query": r"\w{9} steal this \w{9}?"} for _ in range(6)],
}
NAMES = [f"kettle {n}" for n in range(4)] + [f"thief {n}" for n in range(4)] + [f"goat {n}" for n in range(4)]


def jpeg(name: str) -> bytes:
    buffer = io.BytesIO()
    shade = 20 * NAMES.index(name)
    Image.new("RGB", (8, 8), (shade, shade, shade)).save(buffer, "JPEG")
    return buffer.getvalue()


def workspace(root: Path, served: Scripted, **changes: Any) -> Workspace:
    """Kettles and thieves of one class and goats of another, all in train."""
    (root / "schemas").mkdir()
    shutil.copy(REPOSITORY / "schemas" / "taxonomy.yaml", root / "schemas")
    shutil.copytree(REPOSITORY / "prompts", root / "prompts")
    (root / "data" / "seed").mkdir(parents=True)
    (root / "script.json").write_text(served.script.model_dump_json())
    common = {"kind": "scripted", "script": "script.json", "base_url": served.base_url, "model": "m"}
    params = yaml.safe_load((REPOSITORY / "params.yaml").read_text()) | {
        "only_classes": ["property_crime", "animal_abuse"],
        "endpoints": {
            "writer": common | {"family": "w", "sees": "pixels"},
            "judge": common | {"family": "j"},
        },
        "annotators": {question: ["judge"] for question in ("image_safe", "text_safe", "pair_safe")},
        "quotas": {"property_crime": {"SSS": 12, "SSU": 4, "SUU": 4, "USU": 4, "UUU": 4}},
    }
    params["synthesize"] = {"writer": "writer", "surplus": 1.0, "attempts": 2, "opening_share": 0.5}
    (root / "params.yaml").write_text(yaml.safe_dump(params | changes))
    images, labels = [], []
    for name in NAMES:
        row = {"image_id": sha256_text(name), "subject": name, "caption": f"a photograph of {name}"}
        kind = name.split()[0]
        wanted = "animal_abuse" if kind == "goat" else "property_crime"
        row |= {"intended_class": wanted, "objects": [kind], "split": "train", "bytes": jpeg(name)}
        images.append(blank(IMAGES) | row)
        safe = {"image_id": row["image_id"], "image_safe": kind != "thief", "accepted": True}
        labels.append(blank(IMAGE_LABELS) | safe)
    write_rows(root / "data" / "curate" / "images.parquet", IMAGES, images)
    write_rows(root / "data" / "label_images" / "labels.parquet", IMAGE_LABELS, labels)
    return Workspace(root)


def test_the_pictures_that_may_leave_are_sent_and_the_others_told(tmp_path: Path) -> None:
    with scripted(answers=[{"answer": QUERIES, "earlier": True}]) as served:
        made = workspace(tmp_path, served, egress={"writer": ["property_crime"]})
        (tmp_path / "out").mkdir()
        run(made, tmp_path / "out", Silent())
        with open_cache(made.calls) as cache:
            asked = [json.loads(r.request_json)["messages"] for r in cache.records() if r.attempt == 1]
        with open_panel(made, "synthesize", sends=False) as panel:
            planned = [request.messages for _, calls in requests(made, panel) for _, request in calls]
        assert served.stats()["requests"]
    assert list(read_rows(tmp_path / "out" / "queries.parquet"))
    sent: set[str] = set()
    goats = 0
    for messages in asked:
        shown = next((m["content"] for m in messages if isinstance(m["content"], list)), None)
        if shown is None:
            assert "Class: Cruelty to animals" in str(messages)  # whose pictures all stay
            continue
        *pictures, words = shown
        assert {part["type"] for part in pictures} == {"image"}
        hashes = [part["sha256"] for part in pictures]
        assert len(set(hashes)) == len(hashes)
        # Each picture is pointed to once, in its order; none of the class that stays is.
        told = re.findall(r"^([ABU])\d: picture (\d+) above$", words["text"], re.MULTILINE)
        assert [int(n) for _, n in told] == list(range(1, len(hashes) + 1))
        kinds = {sha256_bytes(jpeg(name)): name.split()[0] for name in NAMES}
        assert [kinds[h] == "thief" for h in hashes] == [side == "U" for side, _ in told]
        assert "kettle" not in words["text"].split("Policy")[1]
        goats += words["text"].count(": a photograph of goat")
        sent |= set(hashes)
    assert goats
    assert sent <= {sha256_bytes(jpeg(name)) for name in NAMES if not name.startswith("goat")}
    assert set(BlobStore(made.blobs).hashes()) == sent
    assert planned
    assert [messages for messages in planned if messages not in asked] == []


def test_a_picture_that_is_too_large_is_told_in_words(tmp_path: Path) -> None:
    with scripted(answers=[]) as served:
        made = workspace(tmp_path, served, egress={"writer": ["all"]})
        with open_panel(made, "synthesize", sends=False) as panel:
            voter = panel.voters["writer"]
            for most, parts in ((None, list), (10, str)):
                panel.voters["writer"] = replace(voter, terms=replace(voter.terms, max_image_bytes=most))
                contents = [r.messages[-1]["content"] for _, calls in requests(made, panel) for _, r in calls]
                assert contents
                assert all(isinstance(content, parts) for content in contents)


def test_no_picture_leaves_unasked(tmp_path: Path) -> None:
    with scripted(answers=[]) as served, pytest.raises(InputError, match="no images may leave for 'writer'"):
        _ = workspace(tmp_path, served).params

"""Annotators that tell nothing: the report names them, and the labels do not follow them."""

from __future__ import annotations

import json
import shutil
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
import yaml

from tests.conftest import holisafe, make_workspace
from tests.scripted import scripted

pytestmark = pytest.mark.build

SAFE = {"answer": "safe", "logprobs": {"safe": -0.1, "unsafe": -2.5}}
UNSAFE = {"answer": "unsafe", "logprobs": {"safe": -2.5, "unsafe": -0.1}}
HARM = r"(?i)kill|hurt|stab|shoot|gun|pistol|rifle|dagger|grenade|weapon|fight|beat|punch|hit him|teeth"
GOOD = {
    "first": [{"match": HARM, **UNSAFE}, SAFE],
    "second": [{"match": HARM + r"|bomb|blow", **UNSAFE}, SAFE],
    "third": [{"match": HARM + r"|attack|knife", **UNSAFE}, SAFE],
}
BAD = {
    "yes": [SAFE],
    # Items begin with four letters made from them: whatever those say has nothing to do with the item.
    "coin": [{"match": r"^[a-m]", **UNSAFE}, SAFE],
    "gone": [{"refusal": "no"}],
}


def build(root: Path, scripts: dict[str, list[dict[str, Any]]], images: Path | None = None) -> Path:
    """A dataset labelled by these annotators; of the images of another, where it is given."""
    if images is None:
        make_workspace(root, ["weapon_related_violence", "physical_altercation"])
    else:
        shutil.copytree(images, root)
    path = root / "params.yaml"
    params = yaml.safe_load(path.read_text())
    params["annotators"] = {q: list(scripts) for q in ("image_safe", "text_safe", "pair_safe")} | {
        "trained": ["text_head", "pair_head"]
    }
    # Enough of each kind to be judged by.
    params |= {"quota_scale": 4.0}
    params["collect"]["per_class"] = {"safe": 11, "unsafe": 11}
    with ExitStack() as running:
        for name, answers in scripts.items():
            served = running.enter_context(scripted(answers=answers))
            (root / f"{name}.json").write_text(served.script.model_dump_json())
            params["endpoints"][name] = {
                "kind": "scripted", "script": f"{name}.json", "base_url": served.base_url,
                "model": "m", "family": name,
            }  # fmt: skip
        params["endpoints"].pop("local", None)
        path.write_text(yaml.safe_dump(params, sort_keys=False))
        holisafe(root, "build")
    return root


def labels(root: Path) -> dict[str, bool]:
    """Whether each image was called safe; of these each class has enough."""
    images = pq.read_table(root / "data" / "label_images" / "labels.parquet").to_pylist()
    return {row["image_id"]: row["image_safe"] for row in images}


def test_they_are_named_and_not_followed(tmp_path: Path) -> None:
    calm = build(tmp_path / "calm", GOOD)
    odd = build(tmp_path / "odd", GOOD | BAD, images=calm)
    reliability = json.loads((odd / "data" / "audit" / "metrics.json").read_text())["reliability"]
    for question, found in reliability.items():
        named = {f["family"]: f["finding"] for f in found["families"]}
        assert {name: named[name] for name in GOOD} == dict.fromkeys(GOOD, ""), question
        assert named["yes"] == "always safe", question
        assert named["coin"] == "tells nothing", question
        assert named["gone"] == "mostly fails", question
        assert found["effective_number"] > 1
    page = (odd / "data" / "audit" / "index.html").read_text()
    assert page.count("<b>always safe</b>") == page.count("<b>mostly fails</b>") == len(reliability)
    before, after = labels(calm), labels(odd)
    assert before.keys() == after.keys()
    assert sum(before[i] == after[i] for i in before) / len(before) > 0.95
    assert 0.1 < sum(after.values()) / len(after) < 0.9

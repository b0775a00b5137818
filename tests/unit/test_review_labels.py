"""From a press on the page to a label: the stage label_images with scripted annotators, before and after."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml

from pipeline.label_images import stage as label_images
from pipeline.review import default_target, flow_back, open_review_set
from pipeline.store import read_rows, write_rows
from pipeline.workspace import Silent, Workspace
from schemas.rows import IMAGES
from tests.images import encoded, picture
from tests.review import own_row, own_set, reviewing
from tests.scripted import scripted

NAME = "weapon_related_violence"
SAFE = {"answer": "safe", "logprobs": {"safe": -0.1, "unsafe": -2.5}}


def curated(root: Path, rows: list[dict[str, Any]]) -> None:
    """The table of curate, with the images of these rows."""
    blank = dict.fromkeys(IMAGES.names)
    images = [
        blank
        | {
            "image_id": one["image_id"], "caption": one["caption"], "source_uri": f"{n}.jpg", "ocr_text": "", "split": "test",
            "intended_class": NAME, "intended_safe": True, "bytes": encoded(picture(seed=n), "JPEG"),
        }
        for n, one in enumerate(rows)
    ]  # fmt: skip
    write_rows(root / "data" / "curate" / "images.parquet", IMAGES, images)


def test_a_verdict_on_the_page_changes_the_label_of_its_image_alone(workspace: Path, tmp_path: Path) -> None:
    rows = [own_row(n, kind="SSS", name=NAME) for n in range(4)]
    curated(workspace, rows)
    with scripted(answers=[SAFE]) as one, scripted(answers=[SAFE], seed=2) as two:
        told = yaml.safe_load((workspace / "params.yaml").read_text())
        told["endpoints"] = {}
        for name, served in (("one", one), ("two", two)):
            (workspace / f"{name}.json").write_text(served.script.model_dump_json())
            told["endpoints"][name] = {
                "kind": "scripted", "script": f"{name}.json", "base_url": served.base_url, "model": "m",
                "family": name,
            }  # fmt: skip
        told["annotators"] = {q: ["one", "two"] for q in ("image_safe", "text_safe", "pair_safe")}
        (workspace / "params.yaml").write_text(yaml.safe_dump(told, sort_keys=False))

        def labels(out: str) -> dict[str, tuple[bool, bool]]:
            label_images.run(Workspace(workspace), workspace / out, Silent())
            found = read_rows(workspace / out / "labels.parquet")
            return {row["image_id"]: (row["image_safe"], row["accepted"]) for row in found}

        before = labels("before")
        assert set(before.values()) == {(True, True)}
        sent = one.stats()["requests"] + two.stats()["requests"]

        items = open_review_set(str(own_set(workspace, rows)))
        target = default_target(workspace, items)
        with reviewing(items, workspace / ".holisafe" / "reviews.sqlite", target.path) as page:
            anna = page.browser("anna")
            first = anna.queue()
            judged = items.item(items.position[int(first.fields()["row"])], "image_safe")
            anna.act(anna.judge(first, "safe", "unsafe", "skip"), "/stop")
            after = labels("after")
            assert {image for image in before if before[image] != after[image]} == {judged}
            assert after[judged] == (False, False)
            assert one.stats()["requests"] + two.stats()["requests"] == sent, "no model was asked for it"

            anna.act(anna.queue(), "/undo")
            flow_back(page.desk.store, items, target)
        assert labels("again") == before

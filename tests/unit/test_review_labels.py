"""From a press on the page to a label: the stage label_images with annotators that find all safe."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from pipeline.annotators import ImageItem, Question, Vote, open_people
from pipeline.label_images import stage as label_images
from pipeline.review import default_target, flow_back, open_review_set
from pipeline.store import read_rows, write_rows
from pipeline.workspace import Progress, Silent, Workspace
from schemas.rows import IMAGES
from tests.images import encoded, picture
from tests.review import own_row, own_set, reviewing

NAME = "weapon_related_violence"


@dataclass(frozen=True)
class Content:
    """An annotator to whom everything is safe."""

    name: str
    question: Question = "image_safe"

    @property
    def family(self) -> str:
        return self.name

    def annotate(self, items: Sequence[ImageItem], progress: Progress) -> list[Vote]:
        progress.advance(len(items))
        return [Vote(item.id, self.question, self.name, self.family, "ok", "safe", 0.1) for item in items]


def curated(root: Path, rows: list[dict[str, Any]]) -> None:
    """The table of curate, with the images of these rows."""
    blank = dict.fromkeys(IMAGES.names)
    images = [
        blank
        | {
            "image_id": one["image_id"], "caption": one["caption"], "source_uri": f"{n}.jpg",
            "ocr_text": "", "split": "test", "intended_class": NAME, "intended_safe": True,
            "bytes": encoded(picture(seed=n), "JPEG"),
        }
        for n, one in enumerate(rows)
    ]  # fmt: skip
    write_rows(root / "data" / "curate" / "images.parquet", IMAGES, images)


def test_a_verdict_on_the_page_changes_the_label_of_its_image_alone(
    workspace: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    @contextmanager
    def panel(*_: object) -> Iterator[SimpleNamespace]:
        yield SimpleNamespace(image=[Content("one"), Content("two")])

    monkeypatch.setattr(label_images, "open_panel", panel)
    rows = [own_row(n, kind="SSS", name=NAME) for n in range(4)]
    curated(workspace, rows)

    def labels(out: str) -> dict[str, tuple[bool, bool]]:
        label_images.run(Workspace(workspace), workspace / out, Silent())
        found = read_rows(workspace / out / "labels.parquet")
        return {row["image_id"]: (row["image_safe"], row["accepted"]) for row in found}

    before = labels("before")
    assert set(before.values()) == {(True, True)}
    items = open_review_set(str(own_set(workspace, rows)))
    target = default_target(workspace, items)
    with reviewing(items, workspace / ".holisafe" / "reviews.sqlite", target.path) as page:
        anna = page.browser("anna")
        first = anna.queue()
        at = items.position[int(first.fields()["row"])]
        anna.act(anna.judge(first, "safe", "unsafe", "unsafe"), "/stop")
        after = labels("after")
        judged = items.item(at, "image_safe")
        assert {image for image in before if before[image] != after[image]} == {judged}
        assert after[judged] == (False, False)
        people = open_people(Workspace(workspace), ("text_safe", "pair_safe"))
        assert [v.value for v in people.take(items.item(at, "pair_safe"), ["pair_safe"])] == ["unsafe"]

        anna.act(anna.queue(), "/undo")
        flow_back(page.desk.store, items, target)
    assert labels("again") == before

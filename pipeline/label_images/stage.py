"""Stage label_images."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from pipeline.annotators import (
    ClassLabel,
    ImageItem,
    Label,
    LanguageModel,
    Panel,
    Question,
    Vote,
    aggregate,
    aggregate_class,
    image_item,
    open_panel,
    open_people,
    vote_all,
)
from pipeline.engine import Request
from pipeline.store import Cells, Failures, read_rows, row_of, write_rows
from pipeline.workspace import Progress, Workspace
from schemas.reviews import REVIEWS
from schemas.rows import CLASS_NONE, IMAGE_LABELS, IMAGES, VOTES
from schemas.taxonomy import Taxonomy

__all__ = ["image_items", "requests", "run"]

QUESTIONS: tuple[Question, ...] = ("image_safe", "image_class")


def run(workspace: Workspace, out: Path, progress: Progress) -> None:
    """Write `labels.parquet`, `votes.parquet` and `failures.parquet`.

    An image whose labels put it on another side than it was collected for is labelled as they say but
    not accepted, since its scenes were chosen for what it was meant to be.
    """
    failures = Failures("label_images")
    images = _images(workspace)
    items = _items(workspace, images)
    votes: dict[str, list[Vote]] = {item.id: [] for item in items}
    with open_panel(workspace, "label_images") as panel:
        for vote in vote_all(panel.image, items, progress):
            votes[vote.item_id].append(vote)
    people = open_people(workspace, QUESTIONS)
    for item_id, given in votes.items():
        given += people.take(item_id, QUESTIONS)
    for vote in people.left:
        failures.add(vote.item_id, str(REVIEWS), "vote of a person on what is not here", vote.annotator)
    labels = _labels(images, votes, workspace.params.thresholds.image_safe)
    rows = []
    for image in images:
        given = votes[image["image_id"]]
        label = labels.get(image["image_id"], Label(None, None, None, 0))
        named = aggregate_class(v for v in given if v.question == "image_class")
        rows.append(_row(image, label, named, workspace.taxonomy))
        if not rows[-1]["accepted"]:
            wanted = CLASS_NONE if image["intended_safe"] else image["intended_class"]
            got = f"{label.value or 'no label'} ({label.score}), nearest class {named.value}"
            failures.add(
                image["image_id"], image["source_uri"], "label differs from intention", f"{wanted} -> {got}"
            )
    write_rows(out / "labels.parquet", IMAGE_LABELS, rows)
    write_rows(out / "votes.parquet", VOTES, (row_of(v) for given in votes.values() for v in given))
    failures.write(out)


def _labels(
    images: Sequence[dict[str, Any]], votes: Mapping[str, Sequence[Vote]], threshold: float
) -> dict[str, Label]:
    """The label of each image, estimated class by class: a new class moves no other's."""
    found: dict[str, Label] = {}
    by_class: dict[str, list[str]] = defaultdict(list)
    for image in images:
        by_class[image["intended_class"]].append(image["image_id"])
    for ids in by_class.values():
        found |= aggregate((v for i in ids for v in votes[i] if v.question == "image_safe"), threshold)
    return found


def requests(
    workspace: Workspace, panel: Panel
) -> Iterator[tuple[LanguageModel[Any], list[tuple[str, Request]]]]:
    """Each annotator that asks a model, with the calls that this stage has now, each with its class."""
    names = {info.name for info in workspace.classes()}
    items = [item for item in image_items(workspace) if item.egress_class in names]
    for annotator in panel.image_models:
        calls = zip(items, annotator.requests(items), strict=True)
        yield annotator, [(item.policy_class, call) for item, call in calls if call is not None]


def _images(workspace: Workspace) -> list[dict[str, Any]]:
    """What is known of the images, without their files."""
    return list(read_rows(_table(workspace), [name for name in IMAGES.names if name != "bytes"]))


def image_items(workspace: Workspace) -> list[ImageItem]:
    """What annotators are given of every image; files are read when they are looked at."""
    return _items(workspace, _images(workspace))


def _items(workspace: Workspace, images: Sequence[dict[str, Any]]) -> list[ImageItem]:
    files = Cells(_table(workspace), "bytes")
    return [
        image_item(
            image["image_id"],
            image["caption"],
            image["ocr_text"],
            partial(files.__getitem__, row),
            image["intended_class"],
        )
        for row, image in enumerate(images)
    ]


def _table(workspace: Workspace) -> Path:
    return workspace.stage_dir("curate") / "images.parquet"


def _row(image: dict[str, Any], label: Label, named: ClassLabel, taxonomy: Taxonomy) -> dict[str, Any]:
    unsafe = label.value == "unsafe"
    # The embedded annotators tell harm from no harm better than one class from its neighbour, so the
    # collector's class stands; their own choice is in the votes, and the report holds the two together.
    # People can tell: then the image is theirs, and its scenes were chosen for another class.
    filed = str(named.value) if named.by_people else image["intended_class"]
    name = filed if unsafe else CLASS_NONE
    trigger = unsafe and taxonomy.by_name(name).spec.policy.trigger
    return {
        "image_id": image["image_id"],
        "image_safe": label.value == "safe",
        "image_class": name,
        "nearest_class": named.value or "",
        "grade_image": ("borderline" if trigger else "unsafe") if unsafe else "safe",
        "trigger": trigger,
        "score": label.score,
        "agreement": label.agreement,
        "accepted": label.value is not None
        and unsafe != image["intended_safe"]
        and not (unsafe and filed != image["intended_class"]),
    }

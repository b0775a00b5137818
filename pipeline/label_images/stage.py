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
from pipeline.parts import Parts, make_again, told
from pipeline.store import Cells, Failures, join_tables, read_rows, row_of, sha256_bytes, write_rows
from pipeline.workspace import Progress, Workspace
from schemas.reviews import REVIEWS
from schemas.rows import CLASS_NONE, IMAGE_LABELS, VOTES
from schemas.taxonomy import Taxonomy

__all__ = ["image_items", "requests", "run"]

STAGE = "label_images"
APART = ("{taxonomy}", "only_classes", "egress")
ASKED: Question = "image_safe"
QUESTIONS: tuple[Question, ...] = (ASKED, "image_class")
WORDS = ("image_id", "caption", "ocr_text", "source_uri", "intended_class", "intended_safe")


def run(workspace: Workspace, out: Path, progress: Progress) -> None:
    """Write `labels.parquet`, `votes.parquet` and `failures.parquet`.

    An image whose labels put it on another side than it was collected for is labelled as they say but
    not accepted, since its scenes were chosen for what it was meant to be.

    What was said of the images of a class is kept (`Parts`). Tables have class after class.
    """
    failures = Failures(STAGE)
    of_class: dict[str, list[dict[str, Any]]] = defaultdict(list)
    items = []
    looks = _looks(workspace)
    for image, item in _items(workspace):
        # In the order of the table: bytes of one class would be read from all over it.
        sha256 = sha256_bytes(item.jpeg()) if looks and item.jpeg else ""
        of_class[image["intended_class"]].append(image | {"sha256": sha256})
        items.append(item)
    with Parts(workspace, STAGE, APART) as parts:
        # After the key of the parts: votes that come in between make parts anew.
        people = open_people(workspace, QUESTIONS)
        keys = {name: parts.key(*_hangs_on(workspace, images)) for name, images in of_class.items()}
        new = [name for name, key in keys.items() if parts.find(key) is None]
        asked = {image["image_id"] for name in new for image in of_class[name]}
        votes = _votes(workspace, [item for item in items if item.id in asked], progress)
        for name, images in of_class.items():
            said = {image["image_id"]: people.take(image["image_id"], QUESTIONS) for image in images}
            if name in new:
                given = {image_id: [*votes[image_id], *more] for image_id, more in said.items()}
                with parts.making(keys[name]) as folder:
                    _write(workspace, images, given, folder)
        made = parts.all(list(keys.values()))
        for table, schema in (("labels", IMAGE_LABELS), ("votes", VOTES)):
            join_tables(out / f"{table}.parquet", schema, [folder / f"{table}.parquet" for folder in made])
        for folder in made:
            failures.add_from(folder)
    for vote in people.left:
        failures.add(vote.item_id, str(REVIEWS), "vote of a person on what is not here", vote.annotator)
    failures.write(out)


def _hangs_on(workspace: Workspace, images: Sequence[dict[str, Any]]) -> list[Any]:
    """Everything that the labels of the images of a class hang on."""
    params = workspace.params
    trained = bool(params.annotators.trained)
    # Who names a class, people among them, may name any.
    every = trained or (workspace.root / REVIEWS).exists()
    names = {image["intended_class"] for image in images}
    classes = [info for info in workspace.taxonomy.classes() if every or info.name in names]
    allowed = {name: params.allowed(name) for name in params.voters(ASKED)}
    return [
        [told(info) for info in classes],
        sorted(name for name, to in allowed.items() if to is None or names & to),
        [[image[name] for name in (*WORDS, "sha256")] for image in images],
    ]


def _looks(workspace: Workspace) -> bool:
    """Whether somebody who votes looks at pixels."""
    said = workspace.params.annotators
    if said.trained or said.safety_head is not None:
        return True
    return any(v.sees == "pixels" for v in workspace.params.voters(ASKED).values())


def _votes(workspace: Workspace, items: Sequence[ImageItem], progress: Progress) -> dict[str, list[Vote]]:
    """What everybody but people says of some images."""
    votes: dict[str, list[Vote]] = {item.id: [] for item in items}
    if items:
        with open_panel(workspace, STAGE) as panel:
            for vote in vote_all(panel.image, items, progress):
                votes[vote.item_id].append(vote)
    return votes


def _write(
    workspace: Workspace, images: Sequence[dict[str, Any]], votes: Mapping[str, Sequence[Vote]], folder: Path
) -> None:
    """What came of the images of a class."""
    failures = Failures(STAGE)
    # Estimated class by class: a new class moves no other's.
    safety = (v for given in votes.values() for v in given if v.question == "image_safe")
    labels = aggregate(safety, workspace.params.thresholds.image_safe)
    rows = []
    for image in images:
        label = labels.get(image["image_id"], Label(None, None, None, 0))
        named = aggregate_class(v for v in votes[image["image_id"]] if v.question == "image_class")
        rows.append(_row(image, label, named, workspace.taxonomy))
        if not rows[-1]["accepted"]:
            wanted = CLASS_NONE if image["intended_safe"] else image["intended_class"]
            got = f"{label.value or 'no label'} ({label.score}), nearest class {named.value}"
            failures.add(
                image["image_id"], image["source_uri"], "label differs from intention", f"{wanted} -> {got}"
            )
    write_rows(folder / "labels.parquet", IMAGE_LABELS, rows)
    write_rows(folder / "votes.parquet", VOTES, (row_of(v) for given in votes.values() for v in given))
    failures.write(folder)
    if any(v.status == "error" and v.call_key for given in votes.values() for v in given):
        make_again(folder)


def requests(
    workspace: Workspace, panel: Panel
) -> Iterator[tuple[LanguageModel[Any], list[tuple[str, Request]]]]:
    """Each annotator that asks a model, with the calls that this stage has now, each with its class."""
    names = {info.name for info in workspace.classes()}
    items = [item for item in image_items(workspace) if item.egress_class in names]
    for annotator in panel.image_models:
        calls = zip(items, annotator.requests(items), strict=True)
        yield annotator, [(item.policy_class, call) for item, call in calls if call is not None]


def image_items(workspace: Workspace) -> list[ImageItem]:
    """What annotators are given of every image; files are read when they are looked at."""
    return [item for _, item in _items(workspace)]


def _items(workspace: Workspace) -> Iterator[tuple[dict[str, Any], ImageItem]]:
    """What is known of every image, without its file, and what annotators are given of it."""
    table = workspace.stage_dir("curate") / "images.parquet"
    files = Cells(table, "bytes")
    for row, image in enumerate(read_rows(table, WORDS)):
        jpeg = partial(files.__getitem__, row)
        words = image["image_id"], image["caption"], image["ocr_text"]
        yield image, image_item(*words, jpeg, image["intended_class"])


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

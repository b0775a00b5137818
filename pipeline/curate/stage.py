"""Stage curate.

Worker processes decode, normalise, hash and read; what they give is written at once. What stays in memory of
an image is its hash, its text and a few words, so that a million fit. Duplicates and sides are decided when
all have been seen, and the rows that stay are then copied.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from pipeline.annotators import embedded, image_item
from pipeline.curate import similar
from pipeline.curate.clusters import clusters, near_pairs
from pipeline.curate.hashing import packed
from pipeline.curate.ingest import INGESTED, Ingested, Job, Rejected, ingest
from pipeline.curate.normalise import opened, upright_size
from pipeline.curate.split import Group, SplitLedger, assign_sides
from pipeline.curate.text import alike_text, same_text
from pipeline.encoders import EncoderAt, FeatureStore, load_encoder
from pipeline.parallel import WorkerDied, in_processes
from pipeline.runner import last_output, only_inputs_changed
from pipeline.store import Cells, Failures, TableWriter, read_rows
from pipeline.workspace import Progress, Workspace
from schemas.rows import IMAGES

__all__ = ["run"]

LEAKS = "would leak across the split"
DECIDED = ("leak_group", "split")
"""The columns that are known when all images have been seen."""
_KNOWN_LICENCE = {"yes": 0, "no": 1, "unknown": 2}


@dataclass(frozen=True, slots=True)
class _Known:
    """What is kept of each image in memory: no pixels."""

    image_id: str
    source: str
    stratum: str
    licence_rank: int
    area: int
    hash: bytes
    text: str


@dataclass(frozen=True, slots=True)
class _Place:
    """Where an image that stays belongs."""

    leak_group: str
    split: str


def run(workspace: Workspace, out: Path, progress: Progress) -> None:
    """Write `images.parquet` (normalised bytes, hashes, signals, side) and `failures.parquet`."""
    failures = Failures("curate")
    everything = out / "everything.parquet"
    known = list(_ingested(workspace, everything, failures, progress))
    keepers, copies = _without_duplicates(known, failures, workspace)
    scenes = _same_scenes(workspace, everything, keepers, progress)
    places = _places(keepers, copies, scenes, failures, workspace)
    progress.start("write", len(places))
    with TableWriter(out / "images.parquet", IMAGES) as images:
        for row in read_rows(everything):
            if (place := places.get(row["image_id"])) is not None:
                images.write(row | {"leak_group": place.leak_group, "split": place.split})
                progress.advance()
    everything.unlink()
    failures.write(out)


def _ingested(workspace: Workspace, target: Path, failures: Failures, progress: Progress) -> Iterator[_Known]:
    """Write the row of each usable image, without what is not decided yet, and give what that needs."""
    # Of the same bytes from several places the one with the best known licence, then the first.
    best: dict[str, tuple[int, int, str]] = {}
    count = 0
    for row in _raw(workspace, ["image_id", "redistributable", "source_uri"]):
        this = _KNOWN_LICENCE[row["redistributable"]], count, row["source_uri"]
        best[row["image_id"]] = min(this, best.get(row["image_id"], this))
        count += 1
    progress.start("curate", count)

    def jobs() -> Iterator[Job]:
        for position, row in enumerate(_raw(workspace)):
            _, kept, where = best[row["image_id"]]
            yield Job(row, workspace.params.curate, None if position == kept else where)

    before = _Before(workspace)
    schema = pa.schema([field for field in IMAGES if field.name not in DECIDED])
    with TableWriter(target, schema) as rows:
        for job, done in before.or_else(jobs):
            progress.advance()
            row = job.row
            if isinstance(done, WorkerDied):
                failures.add(row["image_id"], row["source_uri"], "killed the process that decoded it")
            elif not isinstance(done, Ingested):
                failures.add(row["image_id"], row["source_uri"], done.reason, done.detail)
            else:
                rows.write(row | done.columns)
                yield _Known(
                    row["image_id"],
                    row["source_uri"],
                    f"{row['intended_class']}:{'safe' if row['intended_safe'] else 'unsafe'}",
                    _KNOWN_LICENCE[row["redistributable"]],
                    done.area,
                    done.hash,
                    done.columns["ocr_text"],
                )


class _Before:
    """The images as they were kept when the stage ran last, if nothing but its inputs has changed since."""

    def __init__(self, workspace: Workspace) -> None:
        table = workspace.stage_dir("curate") / "images.parquet"
        self._places: dict[str, int] = {}
        if only_inputs_changed(workspace, "curate") and table.name in last_output(workspace, "curate"):
            self._places = {row["image_id"]: n for n, row in enumerate(read_rows(table, ["image_id"]))}
            self._rows = Cells(table)

    def or_else(
        self, jobs: Callable[[], Iterable[Job]]
    ) -> Iterator[tuple[Job, Ingested | Rejected | WorkerDied]]:
        """Each job, in order, with what is kept of its image; those of which nothing is are done now."""
        if not self._places:
            yield from in_processes(ingest, jobs())
            return
        # Read twice, since those that are to be done are read ahead.
        done = in_processes(ingest, (job for job in jobs() if self._place(job) is None))
        for job in jobs():
            place = self._place(job)
            yield (job, self._ingested(job, place)) if place is not None else next(done)

    def _place(self, job: Job) -> int | None:
        return None if job.same_as is not None else self._places.get(job.row["image_id"])

    def _ingested(self, job: Job, place: int) -> Ingested:
        row = self._rows[place]
        with opened(job.row["bytes"], job.params.max_pixels) as image:
            width, height = upright_size(image)
        columns = {name: row[name] for name in INGESTED}
        return Ingested(columns, bytes.fromhex(row["phash"]), width * height)


def _raw(workspace: Workspace, columns: Sequence[str] | None = None) -> Iterator[dict[str, Any]]:
    for stage in ("collect", "generate"):
        yield from read_rows(workspace.stage_dir(stage) / "images.parquet", columns)


def _groups(
    images: Sequence[_Known],
    bits: int,
    bits_fine: int,
    one_text: Callable[[str, str], bool],
    more: Iterable[tuple[str, str]] = (),
) -> list[list[_Known]]:
    """Images that are near and show one text, joined; in the order of their first members.

    `more` names pairs by image id that are to be joined as well.
    """
    pairs = near_pairs(packed([image.hash for image in images]), bits, bits_fine)
    same = [(i, j) for i, j in pairs.tolist() if one_text(images[i].text, images[j].text)]
    position = {image.image_id: i for i, image in enumerate(images)}
    same += [(position[one], position[other]) for one, other in more]
    return [[images[i] for i in group] for group in clusters(len(images), same)]


def _without_duplicates(
    known: Sequence[_Known], failures: Failures, workspace: Workspace
) -> tuple[list[_Known], dict[str, list[str]]]:
    """Keep the largest of each picture; of equal ones the best known licence, then the smallest id.

    Returns:
        Those that are kept, and for each by id the others.
    """
    params = workspace.params.curate
    keepers, copies = [], {}
    for group in _groups(known, params.near_duplicate_bits, params.near_duplicate_bits_fine, same_text):
        keeper, *others = sorted(group, key=lambda k: (-k.area, k.licence_rank, k.image_id))
        keepers.append(keeper)
        copies[keeper.image_id] = sorted(other.image_id for other in others)
        for other in others:
            failures.add(other.image_id, other.source, "near-duplicate", keeper.source)
    return keepers, copies


def _same_scenes(
    workspace: Workspace, table: Path, images: Sequence[_Known], progress: Progress
) -> list[tuple[str, str]]:
    """Pairs of images, by id, whose embeddings are as near as params say; none where params do not ask."""
    least = workspace.params.curate.leak_cosine
    if least is None or not images:
        return []
    wanted = {image.image_id for image in images}
    files = Cells(table, "bytes")
    items = [
        image_item(row["image_id"], None, None, partial(files.__getitem__, position))
        for position, row in enumerate(read_rows(table, ["image_id"]))
        if row["image_id"] in wanted
    ]
    progress.start("embed", len(items))
    encoder = load_encoder(workspace.params.encoder, workspace.root)
    ids, rows = [], []
    with FeatureStore(workspace.features) as kept:
        at = EncoderAt(workspace.params.encoder, workspace.root, encoder.identity)
        for item, row in embedded(encoder, items, kept, at):
            progress.advance()
            if not isinstance(row, str):  # else it does not load, which label_images tells
                ids.append(item.id)
                rows.append(row)
    return [(pair.first, pair.second) for pair in similar.near_pairs(ids, np.stack(rows), least)]


def _places(
    images: Sequence[_Known],
    copies: Mapping[str, Sequence[str]],
    scenes: Sequence[tuple[str, str]],
    failures: Failures,
    workspace: Workspace,
) -> dict[str, _Place]:
    """The leak group and the side of each image, but for those that would join both sides."""
    params = workspace.params
    ledger = SplitLedger(workspace.state / "splits.jsonl")
    # A group is named after its smallest id, whatever the order in which images came.
    ordered = sorted(images, key=lambda k: k.image_id)

    def grouped(some: Sequence[_Known]) -> list[Group]:
        ids = {image.image_id for image in some}
        near = [pair for pair in scenes if ids.issuperset(pair)]
        found = _groups(some, params.curate.leak_bits, params.curate.leak_bits_fine, alike_text, near)
        return [
            Group(
                tuple(k.image_id for k in group),
                group[0].stratum,
                tuple(copy for k in group for copy in copies[k.image_id]),
            )
            for group in found
        ]

    source = {image.image_id: image.source for image in images}
    groups = grouped(ordered)
    # New images that join what stands on both sides are set aside; what was there before stays.
    bridges = {image_id for group in groups for image_id in ledger.bridges(group)}
    for image_id in sorted(bridges):
        failures.add(image_id, source[image_id], LEAKS, "it is near images of train and of test")
    if bridges:
        groups = grouped([image for image in ordered if image.image_id not in bridges])
    sides, aside = assign_sides(groups, ledger, params.split.test_share, params.seed)
    ledger.save()
    for group, reason in aside:
        for image_id in group.image_ids:
            failures.add(image_id, source[image_id], LEAKS, reason)
    return {
        image_id: _Place(group.image_ids[0][:16], sides[image_id])
        for group in groups
        for image_id in group.image_ids
        if image_id in sides
    }

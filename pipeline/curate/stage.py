"""Stage curate."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pipeline.curate.duplicates import Fingerprint, fingerprint, groups
from pipeline.curate.normalise import Normalised, RejectedImageError, normalise
from pipeline.curate.split import Group, SplitLedger, assign_sides
from pipeline.encoders import TextReader, load_nudity_classifier
from pipeline.store import Failures, TableWriter, read_rows
from pipeline.workspace import Progress, Workspace
from schemas.rows import IMAGES

__all__ = ["run"]


@dataclass(frozen=True, slots=True)
class _Known:
    """What is kept of each image in memory: no pixels."""

    image_id: str
    stratum: str
    area: int
    print: Fingerprint


def run(workspace: Workspace, out: Path, progress: Progress) -> None:
    """Write `images.parquet` (normalised bytes, hashes, text read, side) and `failures.parquet`."""
    failures = Failures("curate")
    params = workspace.params.curate
    kept: dict[str, dict[str, Any]] = {}
    known: list[_Known] = []
    nudity, reader = load_nudity_classifier(), TextReader()
    raw = list(_raw(workspace))
    progress.start("curate", len(raw))
    for row in raw:
        progress.advance()
        if row["image_id"] in kept:
            failures.add(
                row["image_id"], row["source_uri"], "exact duplicate", kept[row["image_id"]]["source_uri"]
            )
            continue
        try:
            done = normalise(row.pop("bytes"), params)
        except RejectedImageError as rejected:
            failures.add(row["image_id"], row["source_uri"], rejected.reason, str(rejected))
            continue
        score = round(float(nudity.score([done.image])[0]), 3)
        if score >= params.nudity_reject:
            failures.add(row["image_id"], row["source_uri"], "nudity", f"score {score}, not stored")
            continue
        text = reader.read(done.image).text
        seen = fingerprint(done.image, text)
        kept[row["image_id"]] = row | _columns(done, seen, text, score)
        stratum = f"{row['intended_class']}:{'safe' if row['intended_safe'] else 'unsafe'}"
        known.append(_Known(row["image_id"], stratum, done.image.width * done.image.height, seen))
    known = _drop_duplicates(known, kept, failures, workspace)
    _place(known, kept, failures, workspace)
    with TableWriter(out / "images.parquet", IMAGES) as images:
        for item in sorted(known, key=lambda k: k.image_id):
            if "split" in kept[item.image_id]:
                images.write(kept[item.image_id])
    failures.write(out)


def _raw(workspace: Workspace) -> Iterator[dict[str, Any]]:
    for stage in ("collect", "generate"):
        yield from read_rows(workspace.stage_dir(stage) / "images.parquet")


def _columns(done: Normalised, seen: Fingerprint, text: str, nudity: float) -> dict[str, Any]:
    return {
        "pixels_sha256": done.pixels_sha256,
        "phash": seen.hex,
        "width": done.image.width,
        "height": done.image.height,
        "stripped": list(done.stripped),
        "notes": list(done.notes),
        "ocr_text": text,
        "nudity": nudity,
        "bytes": done.data,
    }


def _drop_duplicates(
    known: list[_Known], kept: dict[str, dict[str, Any]], failures: Failures, workspace: Workspace
) -> list[_Known]:
    """Keep the largest of each picture; of equal ones the first by image id."""
    params = workspace.params.curate
    heads = groups([k.print for k in known], params.near_duplicate_bits, params.near_duplicate_bits_fine)
    members: dict[int, list[_Known]] = defaultdict(list)
    for item, head in zip(known, heads, strict=True):
        members[head].append(item)
    keepers = []
    for same in members.values():
        keeper, *others = sorted(same, key=lambda k: (-k.area, k.image_id))
        keepers.append(keeper)
        for other in others:
            failures.add(
                other.image_id,
                kept[other.image_id]["source_uri"],
                "near-duplicate",
                kept[keeper.image_id]["source_uri"],
            )
    return keepers


def _place(
    known: list[_Known], kept: dict[str, dict[str, Any]], failures: Failures, workspace: Workspace
) -> None:
    params = workspace.params
    ordered = sorted(known, key=lambda k: k.image_id)
    heads = groups([k.print for k in ordered], params.curate.leak_bits, 256)
    members: dict[int, list[_Known]] = defaultdict(list)
    for item, head in zip(ordered, heads, strict=True):
        members[head].append(item)
    ledger = SplitLedger(workspace.state / "splits.jsonl")
    leak_groups = [Group(tuple(k.image_id for k in same), same[0].stratum) for same in members.values()]
    sides, aside = assign_sides(leak_groups, ledger, params.split.test_share, params.seed)
    ledger.save()
    for group, reason in aside:
        for image_id in group.image_ids:
            failures.add(image_id, kept[image_id]["source_uri"], "would leak across the split", reason)
    for group in leak_groups:
        for image_id in group.image_ids:
            if image_id in sides:
                kept[image_id] |= {"leak_group": group.image_ids[0][:16], "split": sides[image_id]}

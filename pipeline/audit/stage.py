"""Stage audit."""

from __future__ import annotations

import base64
import csv
import io
from collections import Counter, defaultdict
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

from pipeline.annotators import Vote, effective_number, posteriors
from pipeline.audit.agreement import confusion, pairwise
from pipeline.audit.leaks import masked, near_images, near_queries_across
from pipeline.audit.probes import probes
from pipeline.audit.report import Report, render
from pipeline.audit.variety import variety
from pipeline.cells import quotas_of
from pipeline.intervals import wilson
from pipeline.stages import STAGES
from pipeline.store import read_rows, sha256_text, write_json, write_text
from pipeline.workspace import Progress, Workspace
from schemas.rows import CLASS_NONE, DATASET
from schemas.taxonomy import PAIR_TYPES

__all__ = ["run"]

QUESTIONS = ("image_safe", "image_class", "text_safe", "pair_safe")
GALLERY_SIDE = 224
WORST = 20
"""Pairs shown of each kind of leak."""
GALLERY_PER_TYPE = 24


def run(workspace: Workspace, out: Path, progress: Progress) -> None:
    """Write `index.html`, `metrics.json` (keys in docs/audit.md) and `plots/*.csv` to `out`."""
    progress.start("audit", None)
    rows = list(_rows(workspace))
    votes = _votes(workspace)
    failures = list(_failures(workspace))
    cells = _cells(workspace, rows)
    agreement = {q: [asdict(p) for p in pairwise(votes, q)] for q in QUESTIONS}
    outcomes = _outcomes(workspace)
    order = [CLASS_NONE, "unsafe", *(c.name for c in workspace.taxonomy.classes())]
    annotators = {q: confusion(votes, q, outcomes[q], order) for q in QUESTIONS}
    by_stage = Counter((f["stage"], f["reason"]) for f in failures)
    metrics = {
        "rows": len(rows),
        "by_type": {t: sum(r["type"] == t for r in rows) for t in PAIR_TYPES},
        "by_split": {s: sum(r["split"] == s for r in rows) for s in ("train", "test")},
        "images": len({r["image_id"] for r in rows}),
        "cells": cells,
        "empty_cells": sum(1 for c in cells if c["wanted"] and not c["have"]),
        "acceptance": _acceptance(workspace),
        "agreement": agreement,
        "annotators": annotators,
        "reliability": {q: _reliability(votes, q) for q in QUESTIONS if q.endswith("_safe")},
        "failures": [{"stage": s, "reason": r, "n": n} for (s, r), n in sorted(by_stage.items())],
        "ssu_unverified": sum(r["ssu_unverified"] for r in rows),
        "contrast": _contrast(rows),
        "variety": _variety(rows),
        **_giveaways(workspace, rows),
    }
    write_json(out / "metrics.json", metrics)
    _write_plots(out / "plots", workspace, cells, agreement)
    report = Report(
        metrics=metrics,
        classes=[c.name for c in workspace.classes()],
        gallery=_gallery(workspace, rows),
        failures=failures,
        tier=workspace.params.tier,
        policy_version=workspace.taxonomy.policy_version,
        category_of={c.name: c.category for c in workspace.classes()},
    )
    write_text(out / "index.html", render(report))
    progress.advance()


def _rows(workspace: Workspace) -> Iterator[dict[str, Any]]:
    folder = workspace.stage_dir("assemble") / "data"
    columns = [
        name for name in DATASET.names if name not in {"image", "rationale", "canary", "translation_of"}
    ]
    for path in sorted(folder.rglob("*.parquet")):
        for row in read_rows(path, columns):
            yield row | {"split": path.name.split("-")[0]}


def _votes(workspace: Workspace) -> list[dict[str, Any]]:
    return [
        vote
        for stage in ("label_images", "label_pairs")
        for vote in read_rows(workspace.stage_dir(stage) / "votes.parquet")
    ]


def _reliability(votes: list[dict[str, Any]], question: str) -> dict[str, Any]:
    """How far each family can be trusted, and how many independent ones the panel is worth."""
    given = [
        Vote(**{**vote, "score": None if vote["score"] is None else round(vote["score"], 3)})
        for vote in votes
        if vote["question"] == question
    ]
    _, families = posteriors(given)
    return {
        "effective_number": effective_number(given),
        "families": [asdict(family) | {"informedness": family.informedness} for family in families],
    }


def _failures(workspace: Workspace) -> Iterator[dict[str, str]]:
    for stage in STAGES:
        if stage == "audit":
            continue
        folder = workspace.stage_dir(stage)
        path = folder / "meta" / "failures.parquet" if stage == "assemble" else folder / "failures.parquet"
        yield from read_rows(path)


def _cells(workspace: Workspace, rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Class x type: what the quota wants, what there is, on which side."""
    have = Counter((r["class_key"].rsplit("/", 1)[1], r["type"], r["split"]) for r in rows)
    cells = []
    params = workspace.params
    for info in workspace.classes():
        for kind, wanted in quotas_of(info, params.quotas, params.quota_scale).items():
            train, test = (have[info.name, kind, side] for side in ("train", "test"))
            cells.append(
                {
                    "category": info.category,
                    "class": info.name,
                    "type": kind,
                    "wanted": wanted,
                    "have": train + test,
                    "train": train,
                    "test": test,
                }
            )
    return cells


def _outcomes(workspace: Workspace) -> dict[str, dict[str, str]]:
    """The label each item was given, by question."""
    images = list(read_rows(workspace.stage_dir("label_images") / "labels.parquet"))
    pairs = list(read_rows(workspace.stage_dir("label_pairs") / "labels.parquet"))
    word = {True: CLASS_NONE, False: "unsafe"}
    return {
        "image_safe": {r["image_id"]: word[r["image_safe"]] for r in images},
        "image_class": {r["image_id"]: CLASS_NONE if r["image_safe"] else r["image_class"] for r in images},
        "text_safe": {r["item_id"]: word[r["safe"]] for r in pairs if r["question"] == "text_safe"},
        "pair_safe": {r["item_id"]: word[r["safe"]] for r in pairs if r["question"] == "pair_safe"},
    }


def _acceptance(workspace: Workspace) -> dict[str, dict[str, float | int]]:
    """Of the drafted pairs that were judged, how many were kept, by intended type."""
    lost: Counter[str] = Counter()
    for failure in read_rows(workspace.stage_dir("label_pairs") / "failures.parquet"):
        if failure["reason"] != "surplus not needed":
            lost[failure["item_id"]] += 1
    kept = {
        r["pair_id"] for r in read_rows(workspace.stage_dir("label_pairs") / "pairs.parquet", ["pair_id"])
    }
    judged: dict[str, list[bool]] = defaultdict(list)
    for row in read_rows(workspace.stage_dir("synthesize") / "queries.parquet", ["pair_id", "intended_type"]):
        if row["pair_id"] in kept or lost[row["pair_id"]]:
            judged[row["intended_type"]].append(row["pair_id"] in kept)
    found: dict[str, dict[str, float | int]] = {}
    for kind in PAIR_TYPES:
        hits, n = sum(judged[kind]), len(judged[kind])
        low, high = wilson(hits, n)
        found[kind] = {"judged": n, "kept": hits, "low": round(low, 4), "high": round(high, 4)}
    return found


def _contrast(rows: list[dict[str, Any]]) -> dict[str, dict[str, int]]:
    """How many SSU and USU rows have their SSS neighbours, and how many share their very query with one."""
    scenes = {(r["scene"], r["split"]) for r in rows if r["type"] == "SSS"}
    images = {r["image_id"] for r in rows if r["type"] == "SSS"}
    queries = {r["query"] for r in rows if r["type"] == "SSS"}
    found = {}
    for kind in ("SSU", "USU"):
        members = [r for r in rows if r["type"] == kind]
        found[kind] = {
            "rows": len(members),
            "same_scene": sum((r["scene"], r["split"]) in scenes for r in members),
            "same_query": sum(r["query"] in queries for r in members),
            "same_image": sum(r["image_id"] in images for r in members),
        }
    return found


def _variety(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """How varied the queries of each class and type are."""
    members: dict[tuple[str, str], list[dict[str, Any]]] = defaultdict(list)
    for row in rows:
        members[row["class_key"].rsplit("/", 1)[1], row["type"]].append(row)
    return [
        {"class": name, "type": kind}
        | asdict(variety([r["query"] for r in some], [r["scene"] for r in some]))
        for (name, kind), some in sorted(members.items())
    ]


def _write_plots(
    folder: Path, workspace: Workspace, cells: list[dict[str, Any]], agreement: dict[str, Any]
) -> None:
    by_category: Counter[tuple[str, str]] = Counter()
    for cell in cells:
        by_category[cell["category"], cell["type"]] += cell["have"]
    _write_csv(
        folder / "cells.csv",
        ["cell", "pairs"],
        [[f"{c} {t}", by_category[c, t]] for c in workspace.taxonomy.categories for t in PAIR_TYPES],
    )
    pairs = [[f"{q}: {p['a']} and {p['b']}", p["raw"]] for q in QUESTIONS for p in agreement[q] if p["n"]]
    _write_csv(folder / "agreement.csv", ["question", "raw_agreement"], pairs)


def _giveaways(workspace: Workspace, rows: list[dict[str, Any]]) -> dict[str, Any]:
    """What gives the answer away (`probes`), and what stands on both sides of the split (`leaks`)."""
    used = {r["image_id"] for r in rows}
    columns = [
        "image_id", "source_kind", "width", "height", "subject", "phash", "ocr_text", "leak_group", "split"
    ]  # fmt: skip
    images = {
        r["image_id"]: r
        for r in read_rows(workspace.stage_dir("curate") / "images.parquet", columns)
        if r["image_id"] in used
    }
    sizes = {}
    for stage in ("collect", "generate"):
        for raw in read_rows(workspace.stage_dir(stage) / "images.parquet", ["image_id", "bytes"]):
            if raw["image_id"] in used:
                sizes[raw["image_id"]] = len(raw["bytes"])
    looks = [
        r
        | {
            "source_kind": images[r["image_id"]]["source_kind"],
            "extension": Path(r["source_uri"]).suffix.lower(),
            "size": f"{images[r['image_id']]['width']}x{images[r['image_id']]['height']}",
            "bytes": sizes[r["image_id"]],
        }
        for r in rows
    ]
    return {"probes": [asdict(p) for p in probes(looks)], "leaks": _leaks(workspace, rows, images)}


def _leaks(
    workspace: Workspace, rows: list[dict[str, Any]], images: dict[str, dict[str, Any]]
) -> dict[str, Any]:
    sides: dict[str, set[str]] = defaultdict(set)
    groups: dict[str, set[str]] = defaultdict(set)
    for row in rows:
        sides[row["image_id"]].add(row["split"])
        groups[images[row["image_id"]]["leak_group"]].add(row["split"])
    train, test = ([r for r in rows if r["split"] == side] for side in ("train", "test"))
    queries = near_queries_across(
        *(
            [masked(r["query"], images[r["image_id"]]["subject"] or "") for r in part]
            for part in (train, test)
        )
    )
    known = sorted(images.values(), key=lambda r: r["image_id"])
    curate = workspace.params.curate
    looks = near_images(
        [r["phash"] for r in known],
        [r["ocr_text"] or "" for r in known],
        [r["split"] for r in known],
        curate.leak_bits,
        curate.leak_bits_fine,
    )
    return {
        "images_on_both_sides": sum(len(s) > 1 for s in sides.values()),
        "groups_on_both_sides": sum(len(s) > 1 for s in groups.values()),
        "near_images": len(looks),
        "near_queries": len(queries),
        "near_queries_of_one_scene": sum(
            bool(train[p.train]["scene"]) and train[p.train]["scene"] == test[p.test]["scene"]
            for p in queries
        ),
        "worst_images": [
            {"a": known[i]["image_id"], "b": known[j]["image_id"], "bits": bits}
            for i, j, bits in looks[:WORST]
        ],
        "worst_queries": [
            {"train": train[p.train]["query"], "test": test[p.test]["query"], "jaccard": p.jaccard}
            for p in queries[:WORST]
        ],
    }


def _write_csv(path: Path, head: list[str], rows: list[list[Any]]) -> None:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(head)
    writer.writerows(rows)
    write_text(path, text.getvalue())


def _gallery(workspace: Workspace, rows: list[dict[str, Any]]) -> dict[str, list[dict[str, Any]]]:
    """Up to 24 rows of each type, spread over the classes, with a small picture each."""
    chosen: dict[str, list[dict[str, Any]]] = {}
    for kind in PAIR_TYPES:
        by_class: dict[str, list[dict[str, Any]]] = defaultdict(list)
        for row in sorted((r for r in rows if r["type"] == kind), key=lambda r: sha256_text(str(r["id"]))):
            by_class[row["class_key"]].append(row)
        depth = max((len(v) for v in by_class.values()), default=0)
        spread = [v[i] for i in range(depth) for v in by_class.values() if i < len(v)]
        chosen[kind] = spread[:GALLERY_PER_TYPE]
    wanted = {r["image_id"] for part in chosen.values() for r in part}
    pictures = {
        r["image_id"]: _thumbnail(r["bytes"])
        for r in read_rows(workspace.stage_dir("curate") / "images.parquet", ["image_id", "bytes"])
        if r["image_id"] in wanted
    }
    return {kind: [r | {"picture": pictures[r["image_id"]]} for r in part] for kind, part in chosen.items()}


def _thumbnail(data: bytes) -> str:
    from PIL import Image

    with Image.open(io.BytesIO(data)) as image:
        image.thumbnail((GALLERY_SIDE, GALLERY_SIDE))
        buffer = io.BytesIO()
        image.save(buffer, "JPEG", quality=80)
    return "data:image/jpeg;base64," + base64.b64encode(buffer.getvalue()).decode()

"""Stage audit."""

from __future__ import annotations

import csv
import io
from collections import Counter, defaultdict
from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow.parquet as pq

from pipeline.anyset import VOTES, AnySet, open_anyset
from pipeline.audit.ballots import columns_of
from pipeline.audit.embeddings import kept_embeddings
from pipeline.audit.findings import Known, findings
from pipeline.audit.gold import labels_without_people, marked
from pipeline.audit.leaks import masked, near_images, near_queries_across
from pipeline.audit.report import SHOWN_FAILURES, Cards, Report, render
from pipeline.cells import quotas_of
from pipeline.intervals import wilson
from pipeline.stages import STAGES
from pipeline.store import read_rows, sha256_text, write_json, write_text
from pipeline.synthesize.squares import row_id_of
from pipeline.workspace import Progress, Workspace
from schemas.reviews import load_reviews
from schemas.rows import CLASS_NONE, SURPLUS
from schemas.taxonomy import PAIR_TYPES

__all__ = ["run"]

WORST = 20
"""Pairs shown of each kind of leak."""
DEMO = (
    "Tier demo: small models that run on a laptop, or scripts, labelled these rows. No claim of quality "
    "rests on them; the votes are kept so that better annotators can be set beside them."
)


def run(workspace: Workspace, out: Path, progress: Progress) -> None:
    """Write `index.html`, `metrics.json` (keys in docs/audit.md) and `plots/*.csv` to `out`."""
    folder = workspace.stage_dir("assemble")
    # Called as everybody's workspace calls it, so that the same build gives the same bytes anywhere.
    found = replace(
        open_anyset(str(folder), may_be_empty=True, votes=False),
        place=folder.relative_to(workspace.root).as_posix(),
    )
    votes = _votes(workspace)
    failed: Counter[tuple[str, str]] = Counter()
    told: list[dict[str, str]] = []
    for failure in _failures(workspace):
        failed[failure["stage"], failure["reason"]] += 1
        if failure["reason"] != SURPLUS and len(told) < SHOWN_FAILURES:
            told.append(failure)
    images = _images(workspace, set(found.rows["image"]))
    known = replace(
        _known(workspace, images, votes),
        embed=partial(kept_embeddings, workspace, progress) if workspace.params.encoder_votes else None,
        looks=workspace.state / "parts" / "audit" / f"looks-{STAGES['audit'].version}.parquet",
    )
    metrics = findings(replace(found, votes=votes), progress, known=known)
    metrics |= _of_a_build(workspace, found, images, failed)
    write_json(out / "metrics.json", metrics)
    _write_plots(out / "plots", workspace, metrics["cells"], metrics["agreement"])
    params, taxonomy = workspace.params, workspace.taxonomy
    notes = [f"Policy {taxonomy.policy_version}."] + ([DEMO] if params.tier == "demo" else [])
    # A vote on the class says nothing of the labels of a row.
    in_rows = votes[~votes["question"].str.endswith("_class")].drop(columns="gold")
    cards = Cards.of(replace(found, votes=in_rows), metrics)
    write_text(out / "index.html", render(Report("Audit of the dataset", metrics, cards, notes, told)))


def _of_a_build(
    workspace: Workspace,
    found: AnySet,
    images: dict[str, dict[str, Any]],
    failed: Counter[tuple[str, str]],
) -> dict[str, Any]:
    """What the tables of the build say beside the dataset."""
    return {
        "acceptance": _acceptance(workspace),
        "failures": [{"stage": s, "reason": r, "n": n} for (s, r), n in sorted(failed.items())],
        "ssu_unverified": int(found.rows["ssu_unverified"].sum()) if "ssu_unverified" in found.rows else 0,
        "leaks": _leaks(workspace, found.rows, images),
    }


def _votes(workspace: Workspace) -> pd.DataFrame:
    """All votes, also on what was not kept, with `gold`; a pair is called by the id of its row."""
    tables = [
        pq.read_table(workspace.stage_dir(stage) / "votes.parquet", columns=list(VOTES)).to_pandas()
        for stage in ("label_images", "label_pairs")
    ]
    classes = frozenset(info.name for info in workspace.taxonomy.classes())
    votes = marked(pd.concat(tables, ignore_index=True), load_reviews(workspace.root, classes))
    pairs = votes["question"] == "pair_safe"
    votes.loc[pairs, "item_id"] = [str(row_id_of(pair)) for pair in votes.loc[pairs, "item_id"]]
    return votes


def _failures(workspace: Workspace) -> Iterator[dict[str, str]]:
    for stage in STAGES:
        if stage == "audit":
            continue
        folder = workspace.stage_dir(stage)
        path = folder / "meta" / "failures.parquet" if stage == "assemble" else folder / "failures.parquet"
        yield from read_rows(path)


def _outcomes(workspace: Workspace) -> dict[str, dict[str, str]]:
    """The label each item was given, by question."""
    word = {True: CLASS_NONE, False: "unsafe"}
    found: dict[str, dict[str, str]] = {"image_safe": {}, "image_class": {}, "text_safe": {}, "pair_safe": {}}
    for row in read_rows(workspace.stage_dir("label_images") / "labels.parquet"):
        safe = row["image_safe"]
        found["image_safe"][row["image_id"]] = word[safe]
        found["image_class"][row["image_id"]] = CLASS_NONE if safe else row["image_class"]
    for row in read_rows(
        workspace.stage_dir("label_pairs") / "labels.parquet", ["item_id", "question", "safe"]
    ):
        item = str(row_id_of(row["item_id"])) if row["question"] == "pair_safe" else row["item_id"]
        found[row["question"]][item] = word[row["safe"]]
    return found


def _classes(workspace: Workspace) -> dict[str, dict[str, str]]:
    """The class of each item, by question: the one with whose votes its label was estimated."""
    names = {info.name: info.name for info in workspace.taxonomy.classes()}
    images = read_rows(workspace.stage_dir("curate") / "images.parquet", ["image_id", "intended_class"])
    drafts = read_rows(
        workspace.stage_dir("synthesize") / "queries.parquet", ["pair_id", "query", "harm_class"]
    )
    texts: dict[str, str] = {}
    pairs: dict[str, str] = {}
    for row in drafts:
        name = names[row["harm_class"]]
        texts.setdefault(sha256_text(row["query"]), name)
        pairs[str(row_id_of(row["pair_id"]))] = name
    return {
        "image_safe": {row["image_id"]: names[row["intended_class"]] for row in images},
        "text_safe": texts,
        "pair_safe": pairs,
    }


def _acceptance(workspace: Workspace) -> dict[str, dict[str, float | int]]:
    """Of the drafted pairs that were judged, how many were kept, by intended type."""
    lost: Counter[str] = Counter()
    for failure in read_rows(workspace.stage_dir("label_pairs") / "failures.parquet"):
        if failure["reason"] != SURPLUS:
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
    pairs = [
        [f"{question}: {pair['a']} and {pair['b']}", pair["raw"]["value"]]
        for question, told in agreement.items()
        for pair in told["overall"]["all"]["pairs"]
        if pair["items"]
    ]
    _write_csv(folder / "agreement.csv", ["question", "raw_agreement"], pairs)


def _known(workspace: Workspace, images: dict[str, dict[str, Any]], votes: pd.DataFrame) -> Known:
    """Quotas, how images looked when they came, and labels."""
    params = workspace.params
    wanted: dict[tuple[str, str, str], int] = {
        (info.category, info.name, kind): number
        for info in workspace.classes()
        for kind, number in quotas_of(info, params.quotas, params.quota_scale).items()
    }
    sizes = {}
    for stage in ("collect", "generate"):
        for raw in read_rows(workspace.stage_dir(stage) / "images.parquet", ["image_id", "bytes"]):
            if raw["image_id"] in images:
                sizes[raw["image_id"]] = len(raw["bytes"])
    sources = {
        key: {
            "source_kind": image["source_kind"],
            "extension": Path(image["source_uri"]).suffix.lower(),
            "size": f"{image['width']}x{image['height']}",
            "bytes": str(sizes[key]),
        }
        for key, image in images.items()
    }
    texts = {key: image["ocr_text"] or "" for key, image in images.items()}
    order = (CLASS_NONE, "borderline", "unsafe", *(c.name for c in workspace.taxonomy.classes()))
    labels, classes = _outcomes(workspace), _classes(workspace)
    thresholds = params.thresholds.model_dump()
    return Known(
        wanted,
        sources,
        texts,
        labels,
        labels_without_people(votes, labels, classes, thresholds),
        classes,
        order,
        trusted=True,
    )


def _images(workspace: Workspace, used: set[str]) -> dict[str, dict[str, Any]]:
    """What curate knows of the images in the dataset."""
    columns = [
        "image_id", "source_kind", "source_uri", "width", "height", "subject", "phash", "ocr_text",
        "leak_group", "split",
    ]  # fmt: skip
    path = workspace.stage_dir("curate") / "images.parquet"
    return {r["image_id"]: r for r in read_rows(path, columns) if r["image_id"] in used}


def _leaks(workspace: Workspace, table: pd.DataFrame, images: dict[str, dict[str, Any]]) -> dict[str, Any]:
    columns = columns_of(table, "image", "query", "split", "scene")
    rows = [dict(zip(("image_id", "query", "split", "scene"), row, strict=True)) for row in columns]
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

"""Stage synthesize."""

from __future__ import annotations

import json
import math
from dataclasses import asdict
from pathlib import Path
from typing import Any

from pipeline.store import Failures, read_rows, write_rows, write_text
from pipeline.synthesize.matching import KnownImage
from pipeline.synthesize.squares import SIDES, Candidate, assign_scene_sides, draft_squares, squares_wanted
from pipeline.workspace import Progress, Workspace
from schemas.queries import ClassScenes
from schemas.rows import QUERIES
from schemas.safeguards import forbidden_reason

__all__ = ["known_images", "run"]


def run(workspace: Workspace, out: Path, progress: Progress) -> None:
    """Write `queries.parquet`, `plan.json` (squares wanted by class and side) and `failures.parquet`.

    More squares are drafted than wanted; label_pairs takes the surplus where cells stay short.
    """
    failures = Failures("synthesize")
    params = workspace.params
    images = known_images(workspace, failures)
    by_side = {side: [i for i in images if i.split == side] for side in SIDES}
    sides = _scene_sides(workspace, by_side)
    classes = workspace.classes()

    def on_side(name: str, side: str) -> ClassScenes:
        scenes = workspace.scenes[name]
        return ClassScenes.model_construct(
            latent=[s for s in scenes.latent if sides[s.id] == side],
            neutral=[s for s in scenes.neutral if sides[s.id] == side],
            unsafe=[s for s in scenes.unsafe if sides[s.id] == side],
        )

    def drafts(name: str, side: str, count: int) -> list[Candidate]:
        info = workspace.taxonomy.by_name(name)
        return list(draft_squares(info, on_side(name, side), by_side[side], count, params.seed))

    def feasible(name: str, side: str) -> bool:
        return any(c.intended_type == "SSU" for c in drafts(name, side, 1))

    wanted = squares_wanted(classes, params.quota_scale, params.split.test_share, feasible)
    rows: dict[str, dict[str, Any]] = {}
    progress.start("synthesize", len(wanted))
    for (name, side), squares in sorted(wanted.items()):
        found = drafts(name, side, math.ceil(squares * params.synthesize.surplus))
        # What stands in a square comes before what is a spare of another.
        for candidate in sorted(found, key=lambda c: c.spare):
            if reason := forbidden_reason(candidate.query):
                failures.add(candidate.pair_id, candidate.scene, "query refused", reason)
            elif candidate.pair_id not in rows:
                rows[candidate.pair_id] = _row(candidate)
        if squares and not any(r["harm_class"] == name and r["split"] == side for r in rows.values()):
            failures.add("", name, "no square possible", f"no images or scenes of {name} on side {side}")
        progress.advance()
    write_rows(out / "queries.parquet", QUERIES, rows.values())
    plan = [{"class": n, "split": s, "squares": k} for (n, s), k in sorted(wanted.items())]
    write_text(out / "plan.json", json.dumps(plan, indent=1) + "\n")
    failures.write(out)


def known_images(workspace: Workspace, failures: Failures | None = None) -> list[KnownImage]:
    """The accepted images with everything scenes may match on, in the order of their ids.

    An image without subject and objects gets no query, since queries name what it shows.

    Args:
        workspace: whose images they are.
        failures: takes the images that get no query.
    """
    labels = {
        row["image_id"]: row
        for row in read_rows(workspace.stage_dir("label_images") / "labels.parquet")
        if row["accepted"]
    }
    columns = ["image_id", "split", "subject", "caption", "objects", "intended_class"]
    known = []
    for row in read_rows(workspace.stage_dir("curate") / "images.parquet", columns):
        if row["image_id"] not in labels:
            continue
        subject = row["subject"] or next(iter(row["objects"]), "")
        if subject:
            known.append(
                KnownImage(
                    row["image_id"],
                    labels[row["image_id"]]["image_safe"],
                    row["intended_class"],
                    row["split"],
                    subject,
                    row["caption"],
                    tuple(row["objects"]),
                )
            )
        elif failures is not None:
            failures.add(row["image_id"], "", "no subject", "queries name what an image shows")
    return known


def _scene_sides(workspace: Workspace, by_side: dict[str, list[KnownImage]]) -> dict[str, str]:
    path = workspace.state / "scene_sides.json"
    known: dict[str, str] = json.loads(path.read_text()) if path.exists() else {}
    for info in workspace.classes():
        assign_scene_sides(workspace.scenes[info.name], by_side, known, workspace.params.split.test_share)
    write_text(path, json.dumps(known, indent=1, sort_keys=True) + "\n")
    return known


def _row(candidate: Candidate) -> dict[str, Any]:
    return asdict(candidate) | {
        "pair_id": candidate.pair_id,
        "query_id": candidate.query_id,
        "writer": f"template:{candidate.scene}",
    }

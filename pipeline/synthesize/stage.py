"""Stage synthesize."""

from __future__ import annotations

import json
import math
from collections import Counter, defaultdict
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from itertools import takewhile
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipeline.annotators import Panel, open_panel
from pipeline.cells import LARGE, SIDES, Cell, cells, quotas_of
from pipeline.parts import Parts, make_again, told
from pipeline.store import (
    Failures,
    join_tables,
    read_rows,
    row_of,
    sha256_bytes,
    write_json,
    write_rows,
    write_text,
)
from pipeline.synthesize.grids import GridSquare, check_quota, grid_squares
from pipeline.synthesize.matching import KnownImage
from pipeline.synthesize.squares import Candidate, assign_scene_sides, draft_squares, squares_wanted
from pipeline.synthesize.writer import (
    SquareWriter,
    candidates,
    load_square_prompt,
    shown,
    square_request,
    write_squares,
)
from pipeline.workspace import Progress, Workspace
from schemas.queries import ClassScenes
from schemas.rows import CALLS, QUERIES
from schemas.safeguards import forbidden_reason
from schemas.taxonomy import ClassInfo, PairType

if TYPE_CHECKING:
    from pipeline.engine import Request

__all__ = ["check", "estimate", "known_images", "planned_squares", "requests", "run", "wanted_cells"]

STAGE = "synthesize"
APART = ("{taxonomy}", "{prompts}/queries", "quotas", "quota_scale", "split", "only_classes", "egress")
ROUNDS = "rounds.json"
STAND_INS = 32
"""Images of a class and side, safe and unsafe in turn, where none are there yet: enough for any square."""
LENDERS = 19
"""The last of HoliSafe's ids: the images of its classes may serve as B images in any class."""


def run(workspace: Workspace, out: Path, progress: Progress) -> None:
    """Write `queries.parquet`, `plan.json` and `failures.parquet`.

    Queries are made from templates, or written where params name a writer; `calls.parquet` then tells which
    calls they rest on, and what was written for a class is kept (`Parts`). More are drafted than wanted:
    label_pairs takes the surplus where cells stay short.
    `plan.json` has the cells with what is wanted, and for templates the squares by class and side.
    """
    failures = Failures("synthesize")
    images = known_images(workspace, failures)
    if workspace.params.synthesize.writer is None:
        wanted, squares = _from_templates(workspace, images, out, failures, progress)
    else:
        wanted, squares = wanted_cells(workspace), {}
        _written(workspace, wanted, images, out, failures, progress)
    plan = {
        "cells": [
            {"class": c.class_name, "type": c.type, "split": c.split, "wanted": n} for c, n in wanted.items()
        ],
        "squares": [{"class": n, "split": s, "squares": k} for (n, s), k in sorted(squares.items())],
    }
    write_json(out / "plan.json", plan)
    failures.write(out)


def wanted_cells(workspace: Workspace, testable: Callable[[str], bool] = lambda _: True) -> dict[Cell, int]:
    """What the build wants, by cell; `testable` tells of a class whether it can be tested."""
    params = workspace.params
    return cells(workspace.classes(), params.quotas, params.quota_scale, params.split.test_share, testable)


def planned_squares(workspace: Workspace) -> tuple[dict[Cell, int], dict[tuple[str, str], int]]:
    """What `plan.json` says: rows by cell, and squares by class and side where templates write."""
    plan = json.loads((workspace.stage_dir("synthesize") / "plan.json").read_text())
    wanted = {Cell(c["class"], c["type"], c["split"]): c["wanted"] for c in plan["cells"]}
    return wanted, {(p["class"], p["split"]): p["squares"] for p in plan["squares"]}


def requests(
    workspace: Workspace, panel: Panel, *, again: bool = False
) -> Iterator[tuple[SquareWriter, list[tuple[str, Request]]]]:
    """The writer, with the calls that this stage has for it now: one for each square, with its class.

    Args:
        workspace: whose squares they are.
        panel: of this stage.
        again: only squares that were written when the stage ran last, where it had any written.
    """
    name = workspace.params.synthesize.writer
    if name is None:
        return
    writer = SquareWriter(panel.voters[name])
    prompt = load_square_prompt(_prompt_path(workspace))
    squares = _grid_squares(workspace, wanted_cells(workspace), known_images(workspace))
    by_name = {info.name: info for info in workspace.classes()}
    if again and (calls_path := workspace.stage_dir("synthesize") / "calls.parquet").exists():
        calls = read_rows(calls_path, ["item_id"])
        written = {row["item_id"] for row in calls}
        squares = [square for square in squares if square.id in written]
    pictures = _pictures(workspace, writer, squares)
    yield (
        writer,
        [
            (s.class_name, square_request(writer.voter, prompt, s, by_name[s.class_name], pictures))
            for s in squares
        ],
    )


def check(workspace: Workspace) -> None:
    """See that written squares can fill the quotas; a class that wants few pairs may have more SSS rows.

    Raises:
        InputError: naming the class and what to raise.
    """
    params = workspace.params
    for info in workspace.classes() if params.synthesize.writer is not None else ():
        quota = quotas_of(info, params.quotas, params.quota_scale)
        if max(quota.values()) >= LARGE:
            check_quota(info.name, quota)


def estimate(
    workspace: Workspace, panel: Panel, classes: Collection[str]
) -> Iterator[tuple[SquareWriter, Request, Mapping[str, int]]]:
    """The writer, a call like those to come, and how many some classes need, before images are labelled."""
    name = workspace.params.synthesize.writer
    if name is None:
        return
    writer = SquareWriter(panel.voters[name])
    # As many squares as stand-ins for images give.
    stand_ins = [
        KnownImage(
            f"{info.name}:{side}:{n}",
            n % 2 == 0,
            info.name,
            side,
            f"the {n}",
            "a picture",
            (str(n // 2 % 2),),
        )
        for info in workspace.classes()
        if info.name in classes
        for side in SIDES
        for n in range(STAND_INS)
    ]
    squares = _grid_squares(workspace, wanted_cells(workspace), stand_ins)
    if squares:
        prompt, info = load_square_prompt(_prompt_path(workspace)), workspace.classes()[0]
        ids = [image.image_id for images in shown(squares[0]) for image in images]
        pictures = {} if writer.voter.blobs is None else dict.fromkeys(ids, sha256_bytes(b""))
        numbers = Counter(square.class_name for square in squares)
        yield writer, square_request(writer.voter, prompt, squares[0], info, pictures), numbers


def _from_templates(
    workspace: Workspace, images: Sequence[KnownImage], out: Path, failures: Failures, progress: Progress
) -> tuple[dict[Cell, int], dict[tuple[str, str], int]]:
    params = workspace.params
    by_side = {side: [i for i in images if i.split == side] for side in SIDES}
    sides = _scene_sides(workspace, by_side)
    ids = {info.name: info.id for info in workspace.classes()}

    def on_side(name: str, side: str) -> ClassScenes:
        scenes = workspace.scenes[name]
        return ClassScenes.model_construct(
            latent=[s for s in scenes.latent if sides[s.id] == side],
            neutral=[s for s in scenes.neutral if sides[s.id] == side],
            unsafe=[s for s in scenes.unsafe if sides[s.id] == side],
        )

    def drafts(name: str, side: str, count: int) -> list[Candidate]:
        info = workspace.taxonomy.by_name(name)
        # What a class is lent must not change when a younger one comes.
        lent = [i for i in by_side[side] if ids[i.class_name] <= max(LENDERS, ids[name])]
        return list(draft_squares(info, on_side(name, side), lent, count, params.seed))

    def testable(name: str) -> bool:
        return any(c.intended_type == "SSU" for c in drafts(name, "test", 1))

    wanted = wanted_cells(workspace, testable)
    squares = squares_wanted(wanted)
    rows: dict[str, dict[str, Any]] = {}
    progress.start("synthesize", len(squares))
    for (name, side), number in sorted(squares.items()):
        found = drafts(name, side, math.ceil(number * params.synthesize.surplus))
        # What stands in a square comes before what is a spare of another.
        for candidate in sorted(found, key=lambda c: c.spare):
            if reason := forbidden_reason(candidate.query):
                failures.add(candidate.pair_id, candidate.scene, "query refused", reason)
            elif candidate.pair_id not in rows:
                rows[candidate.pair_id] = _row(candidate)
        if number and not any(r["harm_class"] == name and r["split"] == side for r in rows.values()):
            failures.add("", name, "no square possible", f"no images or scenes of {name} on side {side}")
        progress.advance()
    write_rows(out / "queries.parquet", QUERIES, rows.values())
    return wanted, squares


def _written(
    workspace: Workspace,
    wanted: Mapping[Cell, int],
    images: Sequence[KnownImage],
    out: Path,
    failures: Failures,
    progress: Progress,
) -> None:
    squares = _grid_squares(workspace, wanted, images, failures)
    of_class: dict[str, list[GridSquare]] = defaultdict(list)
    for square in squares:
        of_class[square.class_name].append(square)
    by_name = {info.name: info for info in workspace.classes()}
    with open_panel(workspace, STAGE) as panel, Parts(workspace, STAGE, APART) as parts:
        writer = SquareWriter(panel.voters[str(workspace.params.synthesize.writer)])
        pictures = _pictures(workspace, writer, squares)
        keys: dict[str, str] = {}
        for name, mine in of_class.items():
            # What is written gives way to what was written for the classes before.
            keys[name] = parts.key(list(keys.values())[-1:], *_hangs_on(by_name[name], mine, pictures))
        old = list(takewhile(lambda name: parts.find(keys[name]) is not None, of_class))
        new = [name for name in of_class if name not in old]
        if new:
            _write(workspace, writer, parts, keys, {name: of_class[name] for name in new}, progress)
        folders = parts.all(list(keys.values()))
    for table, schema in (("queries", QUERIES), ("calls", CALLS)):
        join_tables(out / f"{table}.parquet", schema, [folder / f"{table}.parquet" for folder in folders])
    for folder in folders:
        failures.add_from(folder)


def _hangs_on(info: ClassInfo, squares: Sequence[GridSquare], pictures: Mapping[str, str]) -> list[Any]:
    """Everything that the queries of a class hang on, beside those of the classes before it."""
    images = {image.image_id: image for square in squares for image in (*square.a, *square.b, *square.u)}
    return [
        told(info),
        [[s.id, s.split, s.rank, s.surplus, list(s.rows.items())] for s in squares],
        {image_id: [*row_of(image).values(), pictures.get(image_id)] for image_id, image in images.items()},
    ]


def _write(
    workspace: Workspace,
    writer: SquareWriter,
    parts: Parts,
    keys: Mapping[str, str],
    new: Mapping[str, Sequence[GridSquare]],
    progress: Progress,
) -> None:
    """Have the queries of some classes written, after those of the classes before, and keep them."""
    params = workspace.params
    by_name = {info.name: info for info in workspace.classes()}
    folders = parts.all([key for name, key in keys.items() if name not in new])
    squares = [square for mine in new.values() for square in mine]
    found, rounds = write_squares(
        writer,
        load_square_prompt(_prompt_path(workspace)),
        squares,
        by_name,
        _pictures(workspace, writer, squares, keep=True),
        before=[json.loads((folder / ROUNDS).read_text()) for folder in folders],
        attempts=params.synthesize.attempts,
        opening_share=params.synthesize.opening_share,
        progress=progress,
    )
    seen = {
        row["pair_id"] for folder in folders for row in read_rows(folder / "queries.parquet", ["pair_id"])
    }
    for name in new:
        mine = [one for one in found if one.square.class_name == name]
        failures = Failures(STAGE)
        rows, calls = [], []
        for one in mine:
            calls += [{"item_id": one.square.id if one.said else "", "call_key": key} for key in one.keys]
            if one.said is None:
                failures.add(one.square.id, "square", "queries not written", one.fault)
                continue
            for candidate in candidates(one.square, one.said, by_name[name], writer.origin):
                if candidate.pair_id not in seen:
                    seen.add(candidate.pair_id)
                    rows.append(_row(candidate))
        with parts.making(keys[name]) as folder:
            write_rows(folder / "queries.parquet", QUERIES, rows)
            write_rows(folder / "calls.parquet", CALLS, calls)
            write_json(folder / ROUNDS, rounds[name])
            failures.write(folder)
            if any(one.said is None and one.fault.startswith("error") for one in mine):
                make_again(folder)


def _pictures(
    workspace: Workspace, writer: SquareWriter, squares: Sequence[GridSquare], *, keep: bool = False
) -> dict[str, str]:
    """The SHA-256 of the images that a writer is sent, by image id: those it may be sent, if it sees pixels.

    One that is larger than its endpoint takes is told in words. `keep` keeps them, for the engine to send.
    """
    blobs, allowed = writer.voter.blobs, writer.voter.egress
    if blobs is None:
        return {}
    wanted = {
        image.image_id
        for square in squares
        for images in shown(square)
        for image in images
        if allowed is None or image.class_name in allowed
    }
    found = {}
    most = writer.voter.terms.max_image_bytes
    for row in read_rows(workspace.stage_dir("curate") / "images.parquet", ["image_id", "bytes"]):
        if row["image_id"] in wanted and (most is None or len(row["bytes"]) <= most):
            found[row["image_id"]] = blobs.put(row["bytes"]) if keep else sha256_bytes(row["bytes"])
    return found


def _grid_squares(
    workspace: Workspace,
    wanted: Mapping[Cell, int],
    images: Sequence[KnownImage],
    failures: Failures | None = None,
) -> list[GridSquare]:
    """The squares of every class and side, in the order of the classes' ids."""
    params = workspace.params
    ids = {info.name: info.id for info in workspace.classes()}
    found: list[GridSquare] = []
    for info in sorted(workspace.classes(), key=lambda c: c.id):
        for side in SIDES:
            of_class = {
                kind: n for (name, kind, split), n in wanted.items() if (name, split) == (info.name, side)
            }
            mine = [i for i in images if (i.class_name, i.split) == (info.name, side)]
            lent = [
                i
                for i in images
                if i.safe
                and i.split == side
                and i.class_name != info.name
                and i.class_name in ids
                and ids[i.class_name] <= max(LENDERS, info.id)
            ]
            squares = grid_squares(info.name, side, of_class, mine, params.synthesize.surplus, lent)
            found += squares
            if failures is not None:
                _tell_missing(info, side, of_class, mine, failures)
                if of_class["SSU"] and mine and not any(square.latent for square in squares):
                    why = f"no safe image of another kind of thing for {info.name} on side {side}"
                    failures.add("", info.name, "no grid possible", why)
    return found


def _tell_missing(
    info: ClassInfo,
    side: str,
    wanted: Mapping[PairType, int],
    images: Sequence[KnownImage],
    failures: Failures,
) -> None:
    """Cells that nothing can fill."""
    for safe in (True, False):
        kinds = [kind for kind in wanted if kind.startswith("S") == safe]
        if any(wanted[kind] for kind in kinds) and not any(i.safe == safe for i in images):
            word = "safe" if safe else "unsafe"
            failures.add(
                "", info.name, "no square possible", f"no {word} images of {info.name} on side {side}"
            )


def _prompt_path(workspace: Workspace) -> Path:
    return workspace.root / workspace.params.prompts / "synthesize" / "square.yaml"


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
    columns = [
        "image_id", "split", "subject", "caption", "objects", "intended_class", "generator", "source_package"
    ]  # fmt: skip
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
                    row["generator"] or row["source_package"] or "",
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
    return row_of(candidate) | {
        "pair_id": candidate.pair_id,
        "query_id": candidate.query_id,
    }

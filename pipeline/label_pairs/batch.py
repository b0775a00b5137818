"""Which candidates are judged next."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from typing import Any

from pipeline.cells import Cell
from pipeline.label_pairs.decide import complete_squares
from schemas.taxonomy import PairType

__all__ = ["next_batch", "next_in_cells", "within_cells"]

Row = dict[str, Any]


def next_batch(
    drafts: Sequence[Row], judged: Mapping[str, Row], squares: Mapping[tuple[str, str], int], number: int
) -> list[Row]:
    """The rows to judge next.

    First the squares that are wanted; then, for every row that a cell is short of, spare neighbours of a row
    that lost one, or else the next square.

    Args:
        drafts: every candidate, in the order they were drafted.
        judged: those that were judged, by pair id, with `accepted` and, where that is so, `type`.
        squares: how many squares each class wants on each side.
        number: of this round, from 0.
    """
    if number == 0:
        return [r for r in drafts if r["rank"] < squares[r["harm_class"], r["split"]] and not r["spare"]]
    kept, alone = complete_squares(row for row in judged.values() if row["accepted"])
    have = Counter((r["harm_class"], r["split"], r["type"]) for r in kept)
    chosen: set[str] = set()
    for (name, side), wanted in squares.items():
        cell = [r for r in drafts if (r["harm_class"], r["split"]) == (name, side)]
        open_rows = [r for r in cell if r["pair_id"] not in judged]
        short: dict[str, int] = {}
        for kind in sorted({r["intended_type"] for r in cell} - {"SSS"}):
            lone = [r for r in alone if (r["harm_class"], r["split"], r["type"]) == (name, side, kind)]
            spares = [found for row in lone if (found := _spares(row, open_rows))]
            missing = max(0, wanted - have[name, side, kind])
            chosen |= {r["pair_id"] for found in spares[:missing] for r in found}
            short[kind] = missing - len(spares[:missing])
        needed = {kind for kind, n in short.items() if n > 0} | {"SSS"}
        squares_open = [r for r in open_rows if not r["spare"]]
        ranks = sorted({r["rank"] for r in squares_open if r["intended_type"] != "SSS"})
        ranks = ranks[: max(short.values(), default=0)]
        chosen |= {r["pair_id"] for r in squares_open if r["rank"] in ranks and r["intended_type"] in needed}
    # In the order they were drafted, whatever the order of a set: the same build asks and fails alike.
    return [r for r in drafts if r["pair_id"] in chosen]


def _spares(row: Mapping[str, Any], open_rows: Sequence[Row]) -> list[Row]:
    """The unjudged rows that would be a neighbour of `row`."""
    return [
        r
        for r in open_rows
        if r["intended_type"] == "SSS" and (r["scene"] == row["scene"] or r["image_id"] == row["image_id"])
    ]


def next_in_cells(
    drafts: Sequence[Row], judged: Mapping[str, Row], wanted: Mapping[Cell, int], number: int
) -> list[Row]:
    """The rows of written squares to judge next.

    First those that are wanted; then, for every row that a cell is short of, a spare one: where a
    neighbour is missing, with it. Spares are taken in the order they were drafted.

    Args:
        drafts: every candidate, in the order they were drafted.
        judged: those that were judged, by pair id, with `accepted` and, where that is so, `type`.
        wanted: rows by cell.
        number: of this round, from 0.
    """
    if number == 0:
        return [r for r in drafts if not r["spare"]]
    kept, alone = complete_squares(row for row in judged.values() if row["accepted"])
    have = Counter(Cell(r["harm_class"], r["type"], r["split"]) for r in kept)
    short = {cell: n - have[cell] for cell, n in wanted.items() if n > have[cell]}
    scenes = {(r["scene"], r["split"]) for r in kept if r["type"] == "SSS"}
    images = {(r["harm_class"], r["image_id"]) for r in kept if r["type"] == "SSS"}
    in_reserve: dict[tuple[str, ...], list[Row]] = defaultdict(list)
    for row in drafts:
        if row["intended_type"] == "SSS" and row["pair_id"] not in judged:
            in_reserve["scene", row["scene"]].append(row)
            in_reserve["image", row["harm_class"], row["image_id"]].append(row)
    chosen: set[str] = set()

    def choose(row: Row, kind: PairType, *, free: bool) -> None:
        """Take a row, with a neighbour in reserve for each that it lacks; leave it where there is none.

        `free` takes it only where it lacks none.
        """
        cell = Cell(row["harm_class"], kind, row["split"])
        if short.get(cell, 0) <= 0 or row["pair_id"] in chosen:
            return
        needed: list[list[Row]] = []
        if kind in ("SSU", "USU") and (row["scene"], row["split"]) not in scenes:
            needed.append(in_reserve["scene", row["scene"]][:1])
        if kind == "SSU" and (row["harm_class"], row["image_id"]) not in images:
            needed.append(in_reserve["image", row["harm_class"], row["image_id"]][:1])
        if all(needed) and not (free and needed):
            short[cell] -= 1
            chosen.update([row["pair_id"], *(r["pair_id"] for found in needed for r in found)])

    for row in alone:
        choose(row, row["type"], free=False)
    # Those first that need no neighbour: cells want no more of these than there are.
    for free in (True, False):
        for row in drafts:
            if row["pair_id"] not in judged:
                choose(row, row["intended_type"], free=free)
    return [r for r in drafts if r["pair_id"] in chosen and r["pair_id"] not in judged]


def within_cells(kept: Sequence[Row], wanted: Mapping[Cell, int]) -> tuple[list[Row], list[Row]]:
    """No more rows than a cell wants, but for SSS neighbours that others need.

    Returns:
        The rows that stay, and the others; the first of a cell stay.
    """
    left = Counter(dict(wanted))
    stay: set[str] = set()
    for row in kept:
        cell = Cell(row["harm_class"], row["type"], row["split"])
        if row["type"] != "SSS" and left[cell] > 0:
            left[cell] -= 1
            stay.add(row["pair_id"])
    members = [row for row in kept if row["pair_id"] in stay]
    by_scene = {(r["scene"], r["split"]) for r in members if r["type"] in ("SSU", "USU")}
    by_image = {(r["harm_class"], r["image_id"]) for r in members if r["type"] == "SSU"}
    # One neighbour of each kind is enough; then whatever there is room for.
    for needed in (True, False):
        for row in kept:
            if row["type"] != "SSS" or row["pair_id"] in stay:
                continue
            cell = Cell(row["harm_class"], row["type"], row["split"])
            scene, image = (row["scene"], row["split"]), (row["harm_class"], row["image_id"])
            serves = scene in by_scene or image in by_image
            if serves if needed else left[cell] > 0:
                by_scene.discard(scene)
                by_image.discard(image)
                left[cell] -= 1
                stay.add(row["pair_id"])
    return [r for r in kept if r["pair_id"] in stay], [r for r in kept if r["pair_id"] not in stay]

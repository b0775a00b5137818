"""Which candidates are judged next."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from pipeline.label_pairs.decide import complete_squares

__all__ = ["next_batch"]

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

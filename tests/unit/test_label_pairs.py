"""Which candidates are judged, in which round, and what annotators are given of them."""

from __future__ import annotations

from pathlib import Path
from typing import Any, cast

import pyarrow as pa

from pipeline.annotators import PairLLM, PairVLM, Voter, load_prompt
from pipeline.engine import Terms
from pipeline.label_pairs.batch import next_batch
from pipeline.label_pairs.stage import _Images
from pipeline.store import write_rows
from pipeline.workspace import Workspace
from schemas.rows import IMAGES
from tests.conftest import REPOSITORY

SQUARES = {("c", "train"): 1}


def row(kind: str, scene: str, image: str, rank: int = 0, *, spare: bool = False) -> dict[str, Any]:
    return {
        "pair_id": f"{scene}@{image}",
        "scene": scene,
        "image_id": image,
        "rank": rank,
        "spare": spare,
        "intended_type": kind,
        "harm_class": "c",
        "split": "train",
    }


DRAFTS = [
    row("SSS", "neutral", "A"),
    row("SSS", "latent", "B"),
    row("SSU", "latent", "A"),
    row("SSS", "latent", "B2", spare=True),
    row("SSS", "neutral2", "A", spare=True),
    row("SSS", "neutral3", "A3", rank=1),
    row("SSS", "latent3", "B3", rank=1),
    row("SSU", "latent3", "A3", rank=1),
]


def after(*accepted: str, judged: int = 3) -> dict[str, dict[str, Any]]:
    """The first `judged` drafts, those named accepted as what they were meant to be."""
    return {
        r["pair_id"]: r | {"accepted": r["pair_id"] in accepted, "type": r["intended_type"]}
        for r in DRAFTS[:judged]
    }


def ids(judged: dict[str, dict[str, Any]], number: int) -> set[str]:
    return {r["pair_id"] for r in next_batch(DRAFTS, judged, SQUARES, number)}


def test_first_come_the_squares_that_are_wanted_without_their_spares() -> None:
    assert ids({}, 0) == {"neutral@A", "latent@B", "latent@A"}


def test_a_full_cell_wants_nothing_more() -> None:
    assert ids(after("neutral@A", "latent@B", "latent@A"), 1) == set()


def test_a_row_that_lost_a_neighbour_gets_the_spares() -> None:
    assert ids(after("neutral@A", "latent@A"), 1) == {"latent@B2", "neutral2@A"}


def test_a_row_that_is_not_what_it_was_meant_to_be_makes_room_for_the_next_square() -> None:
    assert ids(after("neutral@A", "latent@B"), 1) == {"neutral3@A3", "latent3@B3", "latent3@A3"}


def test_where_no_spare_is_left_the_next_square_comes() -> None:
    assert ids(after("neutral@A", "latent@A", judged=5), 2) == {"neutral3@A3", "latent3@B3", "latent3@A3"}


def test_the_order_is_that_of_the_drafts() -> None:
    batch = next_batch(DRAFTS, after("neutral@A", "latent@A"), SQUARES, 1)
    assert [r["pair_id"] for r in batch] == ["latent@B2", "neutral2@A"]
    assert [r["pair_id"] for r in next_batch(DRAFTS, {}, SQUARES, 0)] == [r["pair_id"] for r in DRAFTS[:3]]


def test_pixels_are_read_when_they_are_asked_for_and_only_where_somebody_sees_them(tmp_path: Path) -> None:
    workspace = Workspace(tmp_path)
    table = workspace.stage_dir("curate") / "images.parquet"
    blank = {f.name: [] if pa.types.is_list(f.type) else None for f in IMAGES}
    rows = [blank | {"image_id": f"{n}", "caption": "a key", "bytes": b"%d" % n} for n in range(250)]
    write_rows(table, IMAGES, rows)
    asked = Voter("x", cast("Any", None), "b", "m", "f", Terms())
    prompt = load_prompt(REPOSITORY / "prompts" / "annotate" / "pair_safe.yaml")
    words = _Images(workspace, [PairLLM(asked, prompt, stage="s")])
    seen = _Images(workspace, [PairVLM(asked, prompt, stage="s")])
    for n in (249, 0, 120, 121):
        pair = {"pair_id": "p", "image_id": f"{n}", "query": "Whose is it?", "harm_class": "race"}
        assert words.pair(pair).jpeg is None
        jpeg = seen.pair(pair).jpeg
        assert jpeg is not None
        assert jpeg() == b"%d" % n

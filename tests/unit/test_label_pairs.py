"""Which candidates are judged, and in which round."""

from __future__ import annotations

from typing import Any

from pipeline.label_pairs.batch import next_batch

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

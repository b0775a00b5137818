"""Guards trained in each way, equal in rows, tested on datasets that none of them saw."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline.audit.judging import auc, auc_draws, interval95
from pipeline.audit.pictures import texts_of
from pipeline.curate.looks import one_picture
from pipeline.prove.arms import Arm, draw
from pipeline.prove.guard import SEEDS, Encoded, train_guard
from pipeline.safellava.pictures import joined_groups, leak_groups, said_groups
from pipeline.store import sha256_bytes
from pipeline.workspace import Progress, Silent
from schemas.errors import InputError

__all__ = ["MEASURES", "Cell", "Figure", "Proof", "Trial", "prove", "rows_hash"]

Bools = NDArray[np.bool_]
Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

MEASURES = ("AUC", "SSU", "USU", "SUU", "UUU")
"""The AUC of unsafe against safe pairs: of all rows, and of each unsafe type against SSS."""
LEAST = 10
"""Rows of either label below which there is no figure."""


@dataclass(frozen=True, slots=True)
class Figure:
    """An area under the curve, mean over seeds, with its 95 % interval by leak group.

    Attributes:
        value: 0..1; None where fewer than ten rows have a label.
        low: of the interval; None as above.
        high: its other end.
    """

    value: float | None
    low: float | None
    high: float | None


@dataclass(frozen=True, slots=True)
class Trial:
    """A dataset that guards are tested on.

    Attributes:
        name: what it is called in tables.
        place: what was named.
        rows: rows that count, by type.
        copies: rows left out since their picture stands in one of the training sets, too.
        undecodable: rows left out for want of a picture.
    """

    name: str
    place: str
    rows: dict[str, int]
    copies: int
    undecodable: int


@dataclass(frozen=True, slots=True)
class Cell:
    """One way of training on one tested dataset.

    Attributes:
        arm: the way of training.
        on: the dataset.
        figures: by name of `MEASURES`.
        less_than_first: the first arm's AUC over all rows less this one's; None values for the first arm.
    """

    arm: str
    on: str
    figures: dict[str, Figure]
    less_than_first: Figure


@dataclass(frozen=True, slots=True)
class Proof:
    """What `holisafe prove` tells.

    Attributes:
        dataset: `rows_hash` of the dataset that is proven.
        rows: rows that every guard was trained on.
        seeds: of draws and guards.
        arms: ways of training: `name`, the rows there `are`, share of them that is `unsafe`.
        tested: on what.
        cells: of each arm and tested dataset.
    """

    dataset: str
    rows: int
    seeds: tuple[int, ...]
    arms: list[dict[str, Any]]
    tested: list[Trial]
    cells: list[Cell]

    def as_json(self) -> dict[str, Any]:
        """For `proof.json`."""
        return asdict(self)


def prove(
    arms: Sequence[Arm], on: Sequence[Encoded], progress: Progress, *, seeds: Sequence[int] = SEEDS
) -> Proof:
    """Train each arm on equally many rows with each seed, and test it on each dataset.

    A tested row whose picture stands in any training set is left out, for all arms alike; of a dataset that
    is itself trained on, the rows of its test side are tested.

    Args:
        arms: ways of training, ours first.
        on: what is tested.
        progress: told of each guard.
        seeds: each draws rows and trains a guard anew.

    Raises:
        InputError: when nothing can be tested.
    """
    n = min(arm.size for arm in arms)
    guards = []
    progress.start("guards", len(arms) * len(seeds))
    for arm in arms:
        for seed in seeds:
            chosen = draw(arm, n, seed)
            source = arm.source
            guards.append(
                train_guard(
                    source.image[chosen],
                    source.text[chosen],
                    source.unsafe[chosen],
                    seed,
                    sees_image=arm.sees_image,
                )
            )
            progress.advance()
    tested, cells = [], []
    for encoded in on:
        kept, copies = _counted(encoded, arms)
        kinds = encoded.rows["type"].to_numpy()[kept]
        tested.append(
            Trial(
                encoded.name,
                encoded.found.place,
                {kind: int((kinds == kind).sum()) for kind in sorted(set(kinds))},
                copies,
                encoded.undecodable,
            )
        )
        if not len(kept):
            continue
        groups = _groups(encoded)[kept]
        first: tuple[float, Floats] | None = None
        for k, arm in enumerate(arms):
            scores = [
                guard(encoded.image[kept], encoded.text[kept])
                for guard in guards[k * len(seeds) : (k + 1) * len(seeds)]
            ]
            found = {name: _area(name, kinds, scores, groups) for name in MEASURES}
            whole = found["AUC"]
            gap = _figure(None) if first is None or whole is None else _less(first, whole)
            first = first or whole
            cells.append(Cell(arm.name, encoded.name, {k: _figure(v) for k, v in found.items()}, gap))
    if not cells:
        raise InputError(f"{on[0].found.place}: no row to test on; name another dataset with --on")
    first_rows = arms[0].source.found.rows
    return Proof(
        rows_hash(zip(first_rows["id"], first_rows["type"], strict=True)),
        n,
        tuple(seeds),
        [
            {"name": a.name, "are": a.size, "unsafe": round(float(a.source.unsafe[a.pool].mean()), 4)}
            for a in arms
        ],
        tested,
        cells,
    )


def rows_hash(rows: Iterable[tuple[object, str]]) -> str:
    """The SHA-256 of ids and types of rows, in whatever order they come."""
    return sha256_bytes("\n".join(sorted(f"{id_} {kind}" for id_, kind in rows)).encode())


def _counted(encoded: Encoded, arms: Sequence[Arm]) -> tuple[Ints, int]:
    """Places of the rows that count, and how many are left out as copies."""
    keep = np.ones(len(encoded.rows), np.bool_)
    trained = {id(arm.source): arm for arm in arms}
    if id(encoded) in trained:
        keep[trained[id(encoded)].pool] = False
    before = int(keep.sum())
    pictures = encoded.rows["image"].to_numpy(str)
    for arm in trained.values():
        theirs = set(arm.source.rows["image"].iloc[arm.pool])
        if encoded is arm.source:
            keep &= ~np.isin(pictures, sorted(theirs))
        else:
            keep &= ~np.isin(pictures, sorted(_copies(encoded, arm.source, theirs)))
    return np.flatnonzero(keep), before - int(keep.sum())


def _copies(tested: Encoded, trained: Encoded, theirs: set[str]) -> set[str]:
    """Images of a tested dataset that are the same picture as one that is trained on."""
    here = list(tested.looks.seen)
    there = [key for key in trained.looks.seen if key in theirs]
    n = len(here)
    seen = [*tested.looks.seen.values(), *(trained.looks.seen[key] for key in there)]
    read, read_there = texts_of(tested.found, Silent()), texts_of(trained.found, Silent())

    def texts(places: Sequence[int]) -> dict[int, str]:
        ours = read([here[i] for i in places if i < n])
        others = read_there([there[i - n] for i in places if i >= n])
        return {i: ours[here[i]] if i < n else others[there[i - n]] for i in places}

    return {here[i] for i, j in one_picture(seen, texts) if i < n <= j}


def _groups(encoded: Encoded) -> Ints:
    """The leak group of each row: copies of a picture, and what the dataset keeps together, tell once."""
    seen = encoded.looks.seen
    alike = leak_groups(
        {key: look.hash for key, look in seen.items()}, {key: look.sha256 for key, look in seen.items()}
    )
    group = joined_groups(alike, said_groups(encoded.rows))
    return np.array([group[key] for key in encoded.rows["image"]], np.int64)


def _area(
    name: str, kinds: NDArray[Any], scores: Sequence[Floats], groups: Ints
) -> tuple[float, Floats] | None:
    """The area of one unsafe type and SSS, or of all rows, and its draws: means over seeds."""
    of = np.ones(len(kinds), np.bool_) if name == "AUC" else np.isin(kinds, [name, "SSS"])
    unsafe = kinds[of] != "SSS"
    if min(int(unsafe.sum()), int((~unsafe).sum())) < LEAST:
        return None
    value = float(np.mean([auc(unsafe, one[of]) for one in scores]))
    # One seed for all, so that every guard is judged on the same draws of groups.
    draws = [auc_draws(unsafe, one[of], groups[of], 0) for one in scores]
    return value, np.mean(draws, axis=0)


def _figure(found: tuple[float, Floats] | None) -> Figure:
    if found is None:
        return Figure(None, None, None)
    return Figure(round(found[0], 3), *interval95(found[1]))


def _less(first: tuple[float, Floats], other: tuple[float, Floats]) -> Figure:
    return Figure(round(first[0] - other[0], 3), *interval95(first[1] - other[1]))

"""What a guard is trained on: the dataset, the dataset with something taken away, and other datasets."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from pipeline.prove.guard import Encoded
from schemas.errors import InputError

__all__ = ["LEAST", "Arm", "arms_of", "draw"]

Ints = NDArray[np.int64]

LEAST = 40
"""Rows below which a guard learns nothing that could be told from chance."""
TEXT_ONLY, NO_SQUARES = "text only", "without contrast squares"


@dataclass(frozen=True)
class Arm:
    """One way of training.

    Attributes:
        name: what it is called in tables.
        source: where its rows are from.
        pool: places of the rows that may be drawn.
        square: of each of these, a number that is equal in one contrast square, of which one row at most is
            drawn; None: all rows may be drawn.
        sees_image: whether the guard sees images.
    """

    name: str
    source: Encoded
    pool: Ints
    square: Ints | None = None
    sees_image: bool = True

    @property
    def size(self) -> int:
        """How many rows can be drawn."""
        return len(self.pool) if self.square is None else len(np.unique(self.square))


def arms_of(ours: Encoded, against: Sequence[Encoded] = ()) -> list[Arm]:
    """The arms of a proof, ours first.

    Args:
        ours: the dataset; only the rows of its training side are used, where it has sides.
        against: others, of which all rows are used, or those of their training side.

    Raises:
        InputError: when an arm has too few rows, or rows of one label alone.
    """
    pool = _trained_on(ours)
    arms = [Arm(ours.name, ours, pool), Arm(f"{ours.name}, {TEXT_ONLY}", ours, pool, sees_image=False)]
    if "contrast_square" in ours.rows and ours.rows["contrast_square"].notna().any():
        squares = ours.rows["contrast_square"].iloc[pool]
        own = pd.Series([f"row {place}" for place in pool], index=squares.index)
        _, number = np.unique(squares.fillna(own).astype(str).to_numpy(), return_inverse=True)
        arms.append(Arm(f"{ours.name}, {NO_SQUARES}", ours, pool, np.asarray(number, np.int64)))
    arms += [Arm(other.name, other, _trained_on(other)) for other in against]
    for arm in arms:
        labels = arm.source.unsafe[arm.pool]
        if arm.size < LEAST:
            raise InputError(
                f"{arm.source.found.place}: {arm.size} rows to train on ({arm.name}); a guard needs {LEAST}"
            )
        if labels.all() or not labels.any():
            raise InputError(
                f"{arm.source.found.place}: all rows are {'un' * bool(labels.all())}safe; a guard needs both"
            )
    return arms


def draw(arm: Arm, n: int, seed: int) -> Ints:
    """Places of `n` rows, drawn at random: of one square at most one, where the arm says so.

    Both labels are among them: of the scarcer one at least two rows.
    """
    random = np.random.default_rng(seed)
    order = random.permutation(len(arm.pool))
    if arm.square is not None:
        _, first = np.unique(arm.square[order], return_index=True)
        order = order[np.sort(first)]
    taken = arm.pool[order]
    chosen, rest = taken[:n], taken[n:]
    unsafe = arm.source.unsafe
    for label in (True, False):
        lacking = 2 - int((unsafe[chosen] == label).sum())
        if lacking > 0:
            spare = rest[unsafe[rest] == label][:lacking]
            chosen = np.concatenate([chosen[: n - len(spare)], spare])
    return chosen


def _trained_on(encoded: Encoded) -> Ints:
    if "split" in encoded.rows and (encoded.rows["split"] == "train").any():
        return np.flatnonzero((encoded.rows["split"] == "train").to_numpy())
    return np.arange(len(encoded.rows))

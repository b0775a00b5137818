"""How values are meant, and which votes have a value on the scale of their group."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from pipeline.agreement.coefficients import Floats, Ints
from pipeline.agreement.problems import shown

__all__ = ["ORDER", "SCALES", "Bools", "Scale", "ScaleName", "misfit", "number_of", "scales_of"]

ScaleName = Literal["nominal", "ordinal", "interval"]
SCALES: tuple[ScaleName, ...] = ("nominal", "ordinal", "interval")
ORDER = ("safe", "borderline", "unsafe")
"""The order of words that needs no saying, lowest first."""

Bools = NDArray[np.bool_]


@dataclass(frozen=True, slots=True)
class Scale:
    """How the values of a group are meant.

    Attributes:
        name: nominal, ordinal or interval.
        order: the words of an ordinal scale, lowest first; empty where values are numbers or have no order.
        numbers: whether values are numbers.
    """

    name: ScaleName
    order: tuple[str, ...] = ()
    numbers: bool = False

    @property
    def ordered(self) -> bool:
        """Whether it is known which of two values is the larger."""
        return bool(self.order) or self.numbers


def scales_of(
    column: Mapping[str, Ints],
    meant: Sequence[ScaleName],
    values: Sequence[str],
    numbers: Floats,
    order: tuple[str, ...],
) -> tuple[list[Scale], Bools]:
    """The scale of each group, and which votes have a value on it.

    Args:
        column: `group` and `value` of each vote.
        meant: the scale that each group is said to have.
        values: as they are written.
        numbers: the number that each of them is; NaN where it is none.
        order: the words of an ordinal scale, lowest first; empty where nobody said.
    """
    is_number = np.isfinite(numbers)
    fits = np.ones(len(column["value"]), np.bool_)
    scales = [Scale(name, numbers=name == "interval") for name in meant]
    ordered = np.array([name == "ordinal" for name in meant])
    on_numbers = np.array([name == "interval" for name in meant])[column["group"]]
    fits[on_numbers] = is_number[column["value"][on_numbers]]
    if not ordered.any():
        return scales, fits

    def words(of: tuple[str, ...]) -> tuple[Scale, Bools]:
        return Scale("ordinal", of), np.array([value in of for value in values], np.bool_)

    readings = [(Scale("ordinal", numbers=True), is_number), words(ORDER)]
    if order:
        readings.insert(0, words(order))
    by_group = np.argsort(column["group"], kind="stable")
    bounds = np.searchsorted(column["group"][by_group], np.arange(len(meant) + 1))
    for group in np.flatnonzero(ordered):
        mine = by_group[bounds[group] : bounds[group + 1]]
        given = column["value"][mine]
        scale, good = max(readings, key=lambda reading: int(reading[1][given].sum()))
        if 2 * good[given].sum() > len(mine):
            scales[group] = scale
            fits[mine] = good[given]
    return scales, fits


def misfit(value: str, scale: Scale) -> str:
    """What is wrong with a value that is not on the scale of its group."""
    if scale.order:
        return f"{shown(value)} is not in the order {', '.join(scale.order)}"
    return f"{shown(value)} is no number, and the scale is {scale.name}"


def number_of(text: str) -> float:
    """The number that a value is; NaN where it is none."""
    try:
        number = float(text)
    except ValueError:
        return math.nan
    return number if math.isfinite(number) and "_" not in text else math.nan

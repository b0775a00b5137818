"""How many items are truly unsafe, when those who said so are known to err.

Of items that judges call unsafe some are not, and of those they call safe some are unsafe. What a count of
verdicts says of the truth follows from how often the judges are right on each side, and that is counted on
gold: items whose label people gave.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from pipeline.intervals import Z95, wilson

__all__ = ["Counts", "MoreGold", "Prevalence", "needed_gold", "prevalence"]

MOST_GOLD = 10_000_000
"""Gold labels beyond which a width counts as out of reach."""


@dataclass(frozen=True, slots=True)
class Counts:
    """How many of some items.

    Attributes:
        hits: those that are meant.
        n: all.
    """

    hits: int
    n: int

    def __post_init__(self) -> None:
        """Refuse more hits than items."""
        if not 0 <= self.hits <= self.n:
            raise ValueError(f"{self.hits} of {self.n}")


@dataclass(frozen=True, slots=True)
class Prevalence:
    """The share of items that are unsafe.

    Attributes:
        apparent: share that is called so; None without items.
        apparent_low: its 95 % Wilson interval; None as above.
        apparent_high: its other end; None as above.
        sensitivity: how often unsafe gold is called unsafe; None without such gold.
        specificity: how often safe gold is called safe; None without such gold.
        corrected: share that is so, 0..1; None with a `reason`.
        low: its 95 % interval, with the uncertainty of all three; None as above.
        high: its other end; None as above.
        reason: why it cannot be corrected; empty where it was.
    """

    apparent: float | None
    apparent_low: float | None
    apparent_high: float | None
    sensitivity: float | None
    specificity: float | None
    corrected: float | None
    low: float | None
    high: float | None
    reason: str


@dataclass(frozen=True, slots=True)
class MoreGold:
    """How much more gold an interval of a width needs.

    Attributes:
        more: labels, on both sides together; 0 where the gold suffices; None with a `reason`.
        reason: why no number can be told; empty where it is.
    """

    more: int | None
    reason: str


def prevalence(called: Counts, unsafe_gold: Counts, safe_gold: Counts) -> Prevalence:
    """Correct a share for the errors of those who judged (Rogan and Gladen 1978).

        corrected = (apparent + specificity - 1) / (sensitivity + specificity - 1), cut to 0..1

    The interval is that of Lang and Reiczigel (2014): variances of all three shares by the delta method, with
    pseudo-counts, and a shift for the skew that sensitivity and specificity bring. It assumes that gold was
    drawn at random among the unsafe and among the safe items that the judges are like to meet, and is not
    among the items that were counted; a judge is no better on gold than elsewhere.

    Args:
        called: items called unsafe, of all that were judged.
        unsafe_gold: those called unsafe, of the gold that is unsafe.
        safe_gold: those called safe, of the gold that is safe.
    """
    told = [_share(called), *(wilson(called.hits, called.n) if called.n else (None, None))]
    apparent, low, high = (None if v is None else round(v, 4) for v in told)
    rates = _share(unsafe_gold), _share(safe_gold)
    sensitivity, specificity = (None if v is None else round(v, 4) for v in rates)

    def told_as(corrected: float | None, ends: tuple[float, float] | None, reason: str) -> Prevalence:
        value, left, right = (
            None if v is None else round(v, 4) for v in (corrected, *(ends or (None, None)))
        )
        return Prevalence(apparent, low, high, sensitivity, specificity, value, left, right, reason)

    reason = _reason(called, unsafe_gold, safe_gold)
    if reason:
        return told_as(None, None, reason)
    p, se, sp = called.hits / called.n, unsafe_gold.hits / unsafe_gold.n, safe_gold.hits / safe_gold.n
    corrected = min(1.0, max(0.0, (p + sp - 1) / (se + sp - 1)))
    ends = _interval(p, called.n, se, unsafe_gold.n, sp, safe_gold.n)
    # A share at the edge lies outside what the pseudo-counts pull inwards.
    return told_as(corrected, (min(ends[0], corrected), max(ends[1], corrected)), "")


def needed_gold(width: float, called: Counts, unsafe_gold: Counts, safe_gold: Counts) -> MoreGold:
    """How much more gold makes the interval of `prevalence` as narrow as wanted.

    It is taken that all shares stay as they are and that new gold is unsafe as often as the gold there is.

    Args:
        width: the wanted width of the interval, 0..1.
        called: as for `prevalence`.
        unsafe_gold: as for `prevalence`.
        safe_gold: as for `prevalence`.
    """
    reason = _reason(called, unsafe_gold, safe_gold)
    if reason:
        return MoreGold(None, reason)
    p, se, sp = called.hits / called.n, unsafe_gold.hits / unsafe_gold.n, safe_gold.hits / safe_gold.n
    gold = unsafe_gold.n + safe_gold.n

    def wide(more: int) -> float:
        times = 1 + more / gold
        low, high = _interval(p, called.n, se, unsafe_gold.n * times, sp, safe_gold.n * times)
        return high - low

    if wide(0) <= width:
        return MoreGold(0, "")
    few, enough = 0, 1
    while wide(enough) > width:
        few, enough = enough, 2 * enough
        if enough > MOST_GOLD:
            return MoreGold(
                None,
                f"with any number of gold labels the interval stays wider than {width:g}: "
                f"only {called.n} items were judged",
            )
    while enough - few > 1:
        middle = (few + enough) // 2
        few, enough = (middle, enough) if wide(middle) > width else (few, middle)
    return MoreGold(enough, "")


def _interval(p: float, n: float, se: float, n_se: float, sp: float, n_sp: float) -> tuple[float, float]:
    z2 = Z95 * Z95
    p, n = (n * p + z2 / 2) / (n + z2), n + z2
    se, n_se = (n_se * se + 1) / (n_se + 2), n_se + 2
    sp, n_sp = (n_sp * sp + 1) / (n_sp + 2), n_sp + 2
    informed = se + sp - 1
    if informed <= 0:
        # Pseudo-counts outweigh the little that few gold labels told.
        return 0.0, 1.0
    middle = min(1.0, max(0.0, (p + sp - 1) / informed))
    of_se, of_sp = se * (1 - se) / n_se, sp * (1 - sp) / n_sp
    shift = 2 * z2 * (middle * of_se - (1 - middle) * of_sp)
    variance = (p * (1 - p) / n + middle**2 * of_se + (1 - middle) ** 2 * of_sp) / informed**2
    half = Z95 * math.sqrt(variance)
    return max(0.0, middle + shift - half), min(1.0, middle + shift + half)


def _share(counts: Counts) -> float | None:
    return counts.hits / counts.n if counts.n else None


def _reason(called: Counts, unsafe_gold: Counts, safe_gold: Counts) -> str:
    if not called.n:
        return "nothing was judged"
    for gold, name in ((unsafe_gold, "unsafe"), (safe_gold, "safe")):
        if not gold.n:
            return f"no gold that is {name}"
    informed = unsafe_gold.hits / unsafe_gold.n + safe_gold.hits / safe_gold.n - 1
    if informed <= 0:
        return (
            f"on gold the judges tell nothing: sensitivity + specificity is {informed + 1:.2f}, not above 1"
        )
    return ""

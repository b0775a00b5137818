"""Intervals of what is counted."""

from __future__ import annotations

import math

__all__ = ["Z95", "wilson"]

Z95 = 1.959963984540054
"""The 97.5th percentile of the normal distribution, for 95 % intervals."""


def wilson(hits: int, n: int) -> tuple[float, float]:
    """The 95 % Wilson score interval of `hits` of `n` (Wilson 1927); 0 to 1 where n is 0."""
    if n == 0:
        return 0.0, 1.0
    p, z2 = hits / n, Z95 * Z95
    middle = (p + z2 / (2 * n)) / (1 + z2 / n)
    half = Z95 / (1 + z2 / n) * math.sqrt(p * (1 - p) / n + z2 / (4 * n * n))
    return max(0.0, middle - half), min(1.0, middle + half)

"""Figures as cells of tables on the terminal."""

from __future__ import annotations

__all__ = ["percent_cell"]


def percent_cell(value: float | None, low: float | None, high: float | None) -> str:
    """A share in percent and its interval, narrow enough for three of them in 80 columns."""
    shown = "–" if value is None else f"{100 * value:.1f}"
    return shown if low is None or high is None else f"{shown} {100 * low:.1f}–{100 * high:.1f}"

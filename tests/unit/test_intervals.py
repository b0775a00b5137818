"""Intervals against published values, and their degenerate cases."""

from __future__ import annotations

import pytest

from pipeline.intervals import wilson


def test_wilson_interval() -> None:
    assert wilson(8, 10) == pytest.approx((0.4902, 0.9433), abs=1e-4)
    assert wilson(0, 0) == (0.0, 1.0)

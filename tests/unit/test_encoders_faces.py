"""Faces are read from the network's output as it is meant."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from pipeline.encoders.faces import faces_in

Cells = NDArray[np.float32]


def output(*faces: tuple[int, int, float, float]) -> tuple[Cells, Cells, Cells]:
    """Heat, scale, offset of 20 rows and 40 columns: each face as row, column, heat and side in cells."""
    heat, scale, offset = (np.zeros((n, 20, 40), np.float32) for n in (1, 2, 2))
    for row, column, score, side in faces:
        heat[0, row, column] = score
        scale[:, row, column] = np.log(side)
    return heat[0], scale, offset


def test_a_face_is_where_its_cell_is() -> None:
    heat, scale, offset = output((10, 30, 0.9, 4))
    scale[1, 10, 30] = np.log(8)
    offset[:, 10, 30] = 0.5, -0.5
    (face,) = faces_in(heat, scale, offset, 0.5)
    assert (face.top, face.bottom) == pytest.approx((9 / 20, 13 / 20))
    assert (face.left, face.right) == pytest.approx((26 / 40, 34 / 40))
    assert face.area == pytest.approx(4 / 20 * 8 / 40)
    assert face.score == pytest.approx(0.9)


def test_what_is_unsure_or_told_twice_is_left_out() -> None:
    faces = faces_in(*output((5, 5, 0.6, 6), (5, 6, 0.8, 6), (5, 20, 0.7, 6), (15, 30, 0.49, 6)), 0.5)
    assert [(round(f.score, 2), round(f.left * 40, 1)) for f in faces] == [(0.8, 3.5), (0.7, 17.5)]


def test_a_face_at_the_edge_stays_inside() -> None:
    (face,) = faces_in(*output((0, 39, 0.9, 10)), 0.5)
    assert (face.top, face.right) == (0, 1)
    assert 0 < face.area < (10 / 20) * (10 / 40)
    assert faces_in(*output(), 0.5) == []

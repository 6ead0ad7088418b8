"""Frames: the one place where positions go from one to another."""

from __future__ import annotations

import numpy as np

from segmitos.io.geometry import from_qupath, to_qupath


def test_positions_go_to_qupath_and_back() -> None:
    xy = np.array([[4505.0, 2917.0], [2999.0, 1999.0]])
    bounds = (2999, 1999, 1663, 1485)
    there = to_qupath(xy, bounds)
    assert there.tolist() == [[1506, 918], [0, 0]]
    assert np.array_equal(from_qupath(there, bounds), xy)
    assert np.array_equal(to_qupath(xy, (0, 0, 8000, 6000)), xy)
    assert to_qupath(np.zeros((0, 2)), bounds).shape == (0, 2)

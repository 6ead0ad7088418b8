"""Which points lie near which: pairs within a distance, in one place."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

MATCH_UM = 7.5
"""How far a detection or mark may lie from a mitosis that it is of, as in AMIDA13, TUPAC16 and
MIDOG: about the radius of a cell."""


@dataclass(frozen=True)
class Pairs:
    """Index of the first and the second point of each pair, and their distance, (k,) each."""

    first: NDArray[np.intp]
    second: NDArray[np.intp]
    distance: NDArray[np.float64]


def pairs_within(
    first_xy: NDArray[Any], second_xy: NDArray[Any], distance: float, strict: bool = False
) -> Pairs:
    """Find all pairs of points within a distance, ordered by the second point, then the first.

    Args:
        first_xy: (n, 2).
        second_xy: (m, 2), the same frame.
        distance: largest distance of a pair, in the points' unit.
        strict: whether a pair at exactly the distance is too far.
    """
    first = np.asarray(first_xy, np.float64).reshape(-1, 2)
    second = np.asarray(second_xy, np.float64).reshape(-1, 2)
    if not len(first) or not len(second):
        return Pairs(np.zeros(0, np.intp), np.zeros(0, np.intp), np.zeros(0))
    from scipy.spatial import cKDTree

    # A hair wider, then cut by the same arithmetic for every platform and tree shape.
    near: Any = cKDTree(second).query_ball_point(first, distance * (1 + 1e-9))
    sizes = np.fromiter((len(found) for found in near), np.intp, len(first))
    i = np.repeat(np.arange(len(first)), sizes)
    j = np.fromiter((index for found in near for index in found), np.intp, int(sizes.sum()))
    apart = np.hypot(*(first[i] - second[j]).T)
    keep = apart < distance if strict else apart <= distance
    i, j, apart = i[keep], j[keep], apart[keep]
    order = np.lexsort((i, j))
    return Pairs(i[order], j[order], apart[order])


def is_near(points_xy: NDArray[Any], others_xy: NDArray[Any], distance: float) -> NDArray[np.bool_]:
    """Tell which points (n, 2) have another of `others_xy` (m, 2) within the distance."""
    result = np.zeros(len(points_xy), np.bool_)
    result[pairs_within(points_xy, others_xy, distance).first] = True
    return result

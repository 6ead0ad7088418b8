"""Connected regions of sparse pixels, by runs: numpy alone, so that nothing heavy is imported.

Pixels come as rows and columns in row-major order. Runs of neighbors within a row are found first,
then runs that touch in the next row are joined; the work grows with the number of runs, not with
the extent of the map.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

Indices = NDArray[np.int64]
Floats = NDArray[np.float64]


def label_pixels(
    rows: NDArray[np.signedinteger[Any]], columns: NDArray[np.signedinteger[Any]]
) -> tuple[Indices, int]:
    """Label 8-connected pixels.

    Args:
        rows: (n,), of pixels in row-major order, each once.
        columns: (n,), 0 or more.

    Returns:
        Labels (n,) from 0, in the order in which regions first appear, and their number.
    """
    if not len(rows):
        return np.zeros(0, np.int64), 0
    # The gap between rows is so wide that no run reaches into the next row.
    pitch = int(columns.max()) + 4
    keys = rows.astype(np.int64) * pitch + columns + 1
    begins = np.flatnonzero(np.diff(keys, prepend=keys[0] - 2) != 1)
    lengths = np.diff(begins, append=len(keys))
    starts, ends = keys[begins], keys[begins] + lengths - 1
    # Of the next row a run touches those from one pixel before it to one pixel after it.
    first = np.searchsorted(ends, starts + pitch - 1)
    last = np.searchsorted(starts, ends + pitch + 1, side="right")
    touching = np.maximum(last - first, 0)
    upper = np.repeat(np.arange(len(starts)), touching)
    skipped = np.repeat(np.cumsum(touching) - touching, touching)
    lower = np.repeat(first, touching) + np.arange(len(upper)) - skipped
    roots = _roots(len(starts), upper, lower)
    names, of_run = np.unique(roots, return_inverse=True)
    return np.repeat(of_run.astype(np.int64), lengths), len(names)


def measure_regions(
    rows: NDArray[np.signedinteger[Any]],
    columns: NDArray[np.signedinteger[Any]],
    values: NDArray[np.float32],
) -> tuple[Indices, Indices, Floats, Floats, Floats]:
    """Label 8-connected pixels and measure the k regions that they make.

    Args:
        rows: (n,), of pixels in row-major order, each once.
        columns: (n,), 0 or more.
        values: (n,), of the pixels, above 0.

    Returns:
        The region of each pixel (n,); pixels, mean value, and center of mass (column, row) of each
        region (k,).
    """
    member, count = label_pixels(rows, columns)
    weights = values.astype(np.float64)
    area = np.bincount(member, minlength=count)
    mass = np.bincount(member, weights, count)
    column = np.bincount(member, weights * columns, count) / mass
    row = np.bincount(member, weights * rows, count) / mass
    return member, area, mass / area, column, row


def _roots(count: int, one: Indices, other: Indices) -> Indices:
    """Return the smallest member of each of `count` nodes' component, given the edges."""
    root = np.arange(count)
    while True:
        a, b = root[one], root[other]
        apart = a != b
        if not apart.any():
            return root
        a, b = a[apart], b[apart]
        np.minimum.at(root, np.maximum(a, b), np.minimum(a, b))
        while True:
            above = root[root]
            if np.array_equal(above, root):
                break
            root = above

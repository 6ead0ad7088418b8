"""How a plane is cut into tiles: what to read, what to write. Pure geometry.

All numbers are pixels of the model's scale, or map cells of `stride` such pixels. Every cell of
the map is written by exactly one tile; a tile is read with context, so that what it writes does
not depend on where the cuts are. At the borders of the plane the context ends for all alike.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

MULTIPLE = 32
# Images of up to this many pixels go through the network as one tile.
WHOLE_UP_TO_PX = 5_000_000
# Side of what is read for one tile of a larger image, context included.
READ_PX = 2176
# What is written is cut down to where there is tissue in such steps, where so much of it is left.
TRIM_PX = 128
TRIM_BELOW = 0.8

Mask = NDArray[np.bool_]


@dataclass(frozen=True)
class Tile:
    """One tile: the region to read in pixels, the region to write in map cells.

    The cells to write begin at (`column - x // stride`, `row - y // stride`) of the tile's map.
    """

    x: int
    y: int
    width: int
    height: int
    column: int
    row: int
    columns: int
    rows: int


def padded(pixels: int) -> int:
    """Round a side up to the multiple that networks take; the plane ends there."""
    return max(MULTIPLE, -(-pixels // MULTIPLE) * MULTIPLE)


def context_margin(context_px: int) -> int:
    """Round a context up, so that tiles begin where the network's strides do."""
    return -(-context_px // MULTIPLE) * MULTIPLE


def tile_plane(
    width: int, height: int, tile_px: int, context_px: int, stride: int
) -> Iterator[Tile]:
    """Cut a plane into tiles, row by row.

    Args:
        width: of the plane.
        height: of the plane.
        tile_px: side of what a tile writes; rounded up to a multiple of 32.
        context_px: read beyond it on every side; rounded up to a multiple of 32.
        stride: pixels per map cell.
    """
    step = padded(tile_px)
    for top in range(0, height, step):
        for left in range(0, width, step):
            written = (left, top, min(width, left + step), min(height, top + step))
            yield _tile(width, height, written, context_px, stride)


def _tile(
    width: int, height: int, written: tuple[int, int, int, int], context_px: int, stride: int
) -> Tile:
    """Return the tile that writes (left, top, right, bottom); left and top multiples of 32."""
    left, top, right, bottom = written
    margin = context_margin(context_px)
    x, y = max(0, left - margin), max(0, top - margin)
    x_end = min(padded(width), padded(right) + margin)
    y_end = min(padded(height), padded(bottom) + margin)
    columns, rows = -(-(right - left) // stride), -(-(bottom - top) // stride)
    return Tile(x, y, x_end - x, y_end - y, left // stride, top // stride, columns, rows)


def trimmed(
    tile: Tile, counted: Mask, width: int, height: int, context_px: int, stride: int
) -> tuple[Tile, Mask]:
    """Return a tile that writes only around the counted cells (rows, columns), if that pays.

    A runtime prepares itself for every new size, so that sizes come in few steps, and a tile of
    which most is counted stays whole.
    """
    step = TRIM_PX // stride
    columns, rows = np.flatnonzero(counted.any(axis=0)), np.flatnonzero(counted.any(axis=1))
    left, top = int(columns[0]) // step * step, int(rows[0]) // step * step
    right = min(tile.columns, (int(columns[-1]) // step + 1) * step)
    bottom = min(tile.rows, (int(rows[-1]) // step + 1) * step)
    if (right - left) * (bottom - top) > TRIM_BELOW * tile.columns * tile.rows:
        return tile, counted
    edges = (tile.column + left, tile.row + top, tile.column + right, tile.row + bottom)
    pixels = [edge * stride for edge in edges]
    written = (pixels[0], pixels[1], min(width, pixels[2]), min(height, pixels[3]))
    smaller = _tile(width, height, written, context_px, stride)
    return smaller, counted[top:bottom, left:right]


def side_for(width: int, height: int, context_px: int) -> int:
    """Return the tile side: the whole plane where it is small, else what fits a read of 2176 px.

    Larger reads waste less on context, and take memory in proportion to their area (about 1 GB
    for the shipped model, most of it in the network).
    """
    if padded(width) * padded(height) <= WHOLE_UP_TO_PX:
        return max(padded(width), padded(height))
    return max(MULTIPLE * 16, READ_PX - 2 * context_margin(context_px))

"""How a plane is cut into tiles: what to read, what to write. Pure geometry.

All numbers are pixels of the model's scale, or map cells of `stride` such pixels. Every cell of
the map is written by exactly one tile; a tile is read with context, so that what it writes does
not depend on where the cuts are. At the borders of the plane the context ends for all alike.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

MULTIPLE = 32
# Images of up to this many pixels go through the network as one tile.
WHOLE_UP_TO_PX = 5_000_000
# Side of what is read for one tile of a larger image, context included.
READ_PX = 2304


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
    step, margin = padded(tile_px), context_margin(context_px)
    full_width, full_height = padded(width), padded(height)
    for top in range(0, height, step):
        for left in range(0, width, step):
            x0, y0 = max(0, left - margin), max(0, top - margin)
            x1 = min(full_width, left + step + margin)
            y1 = min(full_height, top + step + margin)
            columns = -(-min(width - left, step) // stride)
            rows = -(-min(height - top, step) // stride)
            yield Tile(x0, y0, x1 - x0, y1 - y0, left // stride, top // stride, columns, rows)


def side_for(width: int, height: int, context_px: int) -> int:
    """Return the tile side: the whole plane where it is small, else what fits a read of 2304 px.

    Larger reads waste less on context, and take memory in proportion to their area (about 1 GB
    for the shipped model, most of it in the network).
    """
    if padded(width) * padded(height) <= WHOLE_UP_TO_PX:
        return max(padded(width), padded(height))
    return max(MULTIPLE * 16, READ_PX - 2 * context_margin(context_px))

"""How a view is cut into tiles: what to read, what to write. Pure geometry.

All numbers are pixels of the model's scale, or map pixels of `stride` such pixels. Every pixel of
the map is written by exactly one tile; a tile is read with context, so that what it writes does not
depend on where the cuts are. At image borders there is no context; this is the same for every
tiling.
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
READ_PX = 1984
# A tile with little tissue is read in fewer such parts of its sides, where that spares so much.
TRIM_PARTS = 4
TRIM_BELOW = 0.8

Mask = NDArray[np.bool_]


@dataclass(frozen=True)
class Tile:
    """One tile: the region to read in pixels, the region to write in map pixels.

    The pixels to write begin at (`column - x // stride`, `row - y // stride`) of the tile's map.
    """

    x: int
    y: int
    width: int
    height: int
    column: int
    row: int
    columns: int
    rows: int

    def output_box(self, stride: int, beyond_px: int) -> tuple[int, int, int, int]:
        """Return what is written and `beyond_px` round it: top, left, bottom, right of the tile."""
        top, left = self.row * stride - self.y, self.column * stride - self.x
        bottom, right = top + self.rows * stride, left + self.columns * stride
        return top - beyond_px, left - beyond_px, bottom + beyond_px, right + beyond_px


def round_up(pixels: int) -> int:
    """Round a side up to the multiple that networks take; the view ends there."""
    return max(MULTIPLE, -(-pixels // MULTIPLE) * MULTIPLE)


def context_margin(context_px: int) -> int:
    """Round a context up, so that tiles begin where the network's strides do."""
    return -(-context_px // MULTIPLE) * MULTIPLE


def cut_tiles(
    width: int, height: int, tile_px: int, context_px: int, stride: int
) -> Iterator[Tile]:
    """Cut a view into tiles, row by row.

    All of them are read at one size, since a runtime prepares itself, and its memory, for every
    new one: where the view ends the tile is moved inwards.

    Args:
        width: of the view.
        height: of the view.
        tile_px: largest side of what a tile writes; rounded up to a multiple of 32.
        context_px: read beyond it on every side, at least; rounded up to a multiple of 32.
        stride: pixels per map pixel.
    """
    margin = context_margin(context_px)
    across, down = _tile_step(width, tile_px), _tile_step(height, tile_px)
    for top in range(0, height, down):
        for left in range(0, width, across):
            written = (left, top, min(width, left + across), min(height, top + down))
            yield _tile(
                width, height, written, margin, stride, (across + 2 * margin, down + 2 * margin)
            )


def _tile_step(length: int, tile_px: int) -> int:
    """Return the side to write, such that the last tile of a row is not a narrow rest."""
    count = -(-length // round_up(tile_px))
    return round_up(-(-length // count))


def _tile(
    width: int,
    height: int,
    written: tuple[int, int, int, int],
    margin: int,
    stride: int,
    read: tuple[int, int],
) -> Tile:
    """Return the tile that writes (left, top, right, bottom); left and top multiples of 32.

    `read` is the width and height to read, if the view is not smaller and the need not larger.
    """
    left, top, right, bottom = written
    x, across = _read_range(left, right, width, margin, read[0])
    y, down = _read_range(top, bottom, height, margin, read[1])
    columns, rows = -(-(right - left) // stride), -(-(bottom - top) // stride)
    return Tile(x, y, across, down, left // stride, top // stride, columns, rows)


def _read_range(begin: int, end: int, length: int, margin: int, wanted: int) -> tuple[int, int]:
    """Return where to read from, and how much, to write from `begin` to `end`."""
    whole = round_up(length)
    first, last = max(0, begin - margin), min(whole, round_up(end) + margin)
    size = min(whole, max(wanted, last - first))
    return min(first, whole - size), size


def shrink_to_tissue(
    tile: Tile, mask: Mask, width: int, height: int, context_px: int, stride: int
) -> Tile:
    """Return a tile that writes only around the marked pixels of its mask, if that pays.

    Its sides are quarters of the tile's, so that sizes stay few.
    """
    step = MULTIPLE // stride
    columns, rows = np.flatnonzero(mask.any(axis=0)), np.flatnonzero(mask.any(axis=1))
    left, top = int(columns[0]) // step * step, int(rows[0]) // step * step
    right = min(tile.columns, (int(columns[-1]) // step + 1) * step)
    bottom = min(tile.rows, (int(rows[-1]) // step + 1) * step)
    edges = (tile.column + left, tile.row + top, tile.column + right, tile.row + bottom)
    pixels = [edge * stride for edge in edges]
    written = (pixels[0], pixels[1], min(width, pixels[2]), min(height, pixels[3]))
    margin = context_margin(context_px)
    read = (
        _round_to_parts(written[0], written[2], width, margin, tile.width),
        _round_to_parts(written[1], written[3], height, margin, tile.height),
    )
    smaller = _tile(width, height, written, margin, stride, read)
    if smaller.width * smaller.height > TRIM_BELOW * tile.width * tile.height:
        return tile
    return smaller


def _round_to_parts(begin: int, end: int, length: int, margin: int, largest: int) -> int:
    """Return what must be read to write from `begin` to `end`, in whole quarters of `largest`."""
    need = _read_range(begin, end, length, margin, 0)[1]
    part = round_up(-(-largest // TRIM_PARTS))
    return min(largest, -(-need // part) * part)


def default_tile_size(width: int, height: int, context_px: int) -> int:
    """Return the tile side: the whole view where it is small, else what fits a read of 1984 px.

    Larger reads waste less on context, and take memory in proportion to their area (about 1 GB
    for the built-in model, most of it in the network).
    """
    if round_up(width) * round_up(height) <= WHOLE_UP_TO_PX:
        return max(round_up(width), round_up(height))
    return max(MULTIPLE * 16, READ_PX - 2 * context_margin(context_px))

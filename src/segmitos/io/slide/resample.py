"""Regions at any scale, the same pixels however an image is cut into tiles.

Output pixels lie on one grid for the whole slide: pixel k covers level-0 pixels k s to
(k + 1) s. They are computed in blocks at fixed places of this grid, each from the same
source pixels with the same weights, so that a pixel's value cannot depend on the tile that
asked for it (one resize call per tile would: its weights are rounded to the tile's corner).
"""

from __future__ import annotations

import itertools
import math
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace

import numpy as np

from segmitos.io.slide.backend import Pixels, SlideBackend

WHITE = 255
PHASES = 256
"""Offsets from the grid are rounded to this fraction of an output pixel."""
SUPPORT_PX = 1
"""Reach of the kernel (a triangle), in output pixels or source pixels, whichever are larger."""
CHUNK_PX = 4096
"""Source pixels read at a time along one axis, to bound memory."""


@dataclass(frozen=True)
class Axis:
    """One axis of a request: `count` output pixels from grid index `first` (plus `phase`)."""

    first: int
    phase: float
    count: int
    ratio: float
    level_size: int
    full_size: float
    """Level-0 size in output pixels: centers outside of it are white."""

    @property
    def block(self) -> int:
        """Output pixels in a block: fewer where each stands for many source pixels."""
        return min(128, max(8, 1 << int(math.log2(max(1.0, 2048 / self.ratio)))))

    @property
    def margin(self) -> int:
        return math.ceil(SUPPORT_PX * max(1.0, self.ratio)) + 1

    def edge(self, index: int) -> float:
        """Where output pixel `index` of the grid begins, in level pixels."""
        return (index + self.phase) * self.ratio

    def inside(self) -> tuple[int, int]:
        """The range of the request's own pixels whose centers lie in the image."""
        begin = math.ceil(-0.5 - self.phase - self.first - 1e-9)
        end = math.ceil(self.full_size - 0.5 - self.phase - self.first - 1e-9)
        return min(max(begin, 0), self.count), min(max(end, 0), self.count)

    def part(self, begin: int, end: int) -> Axis:
        """The same grid, from request pixel `begin` to `end`."""
        return replace(self, first=self.first + begin, count=end - begin)


def make_axis(
    start_px: float, step_px: float, count: int, level_size: int, downsample: float, full_px: int
) -> Axis:
    """The axis that begins at level-0 corner `start_px` in steps of `step_px` level-0 pixels."""
    ratio = step_px / downsample
    # Below a twentieth of a pixel over the whole level, a ratio of 1 is meant.
    if abs(ratio - 1) * level_size < 0.05:
        ratio = 1.0
    ticks = round(start_px / step_px * PHASES)
    first, phase = divmod(ticks, PHASES)
    if abs(start_px / step_px - round(start_px / step_px)) < 1e-3:
        first, phase = round(start_px / step_px), 0
    return Axis(first, phase / PHASES, count, ratio, level_size, full_px / step_px)


def read_grid(source: SlideBackend, level: int, x: Axis, y: Axis) -> Pixels:
    """RGB (y.count, x.count, 3) of the request; white where a center is outside the image."""
    x_begin, x_end = x.inside()
    y_begin, y_end = y.inside()
    plain = x.ratio == 1 == y.ratio and x.phase == 0 == y.phase
    if plain:
        # A level may lack the last row or column that level 0 has half of.
        x_end = min(x_end, x.level_size - x.first)
        y_end = min(y_end, y.level_size - y.first)
    width, height = x_end - x_begin, y_end - y_begin
    if plain and (width, height) == (x.count, y.count) and width and height:
        return source.read_level(level, x.first, y.first, width, height)
    out = np.full((y.count, x.count, 3), WHITE, np.uint8)
    if width <= 0 or height <= 0:
        return out
    if plain:
        region = source.read_level(level, x.first + x_begin, y.first + y_begin, width, height)
        out[y_begin:y_end, x_begin:x_end] = region
        return out

    def fill(chunk: tuple[tuple[int, int], tuple[int, int]]) -> None:
        (top, bottom), (left, right) = chunk
        part = _resample(source, level, x.part(left, right), y.part(top, bottom))
        out[top:bottom, left:right] = part

    chunks = list(itertools.product(_chunks(y, y_begin, y_end), _chunks(x, x_begin, x_end)))
    if len(chunks) == 1:
        fill(chunks[0])
        return out
    with ThreadPoolExecutor(2) as pool:
        list(pool.map(fill, chunks))
    return out


def _chunks(axis: Axis, begin: int, end: int) -> list[tuple[int, int]]:
    """Cut a range of request pixels at block borders, into parts of bounded source size."""
    step = axis.block * max(1, int(CHUNK_PX / (axis.block * axis.ratio)))
    cuts = [begin]
    while cuts[-1] < end:
        here = axis.first + cuts[-1]
        cuts.append(min(end, (here // step + 1) * step - axis.first))
    return list(itertools.pairwise(cuts))


def _resample(source: SlideBackend, level: int, x: Axis, y: Axis) -> Pixels:
    from PIL import Image

    canvas, x_origin, y_origin = _canvas(source, level, x, y)
    out = np.empty((y.count, x.count, 3), np.uint8)
    for y_block in range(y.first // y.block, (y.first + y.count - 1) // y.block + 1):
        y_low, y_high, y_box = _block_source(y, y_block)
        for x_block in range(x.first // x.block, (x.first + x.count - 1) // x.block + 1):
            x_low, x_high, x_box = _block_source(x, x_block)
            piece = canvas[
                y_low - y_origin : y_high - y_origin, x_low - x_origin : x_high - x_origin
            ]
            resized = Image.fromarray(piece).resize(
                (x.block, y.block),
                Image.Resampling.BILINEAR,
                box=(x_box[0], y_box[0], x_box[1], y_box[1]),
            )
            x_from, x_to, x_at = _overlap(x, x_block)
            y_from, y_to, y_at = _overlap(y, y_block)
            out[y_at : y_at + y_to - y_from, x_at : x_at + x_to - x_from] = np.asarray(resized)[
                y_from:y_to, x_from:x_to
            ]
    return out


def _block_source(axis: Axis, block: int) -> tuple[int, int, tuple[float, float]]:
    """Source pixels low..high that a block is made of, and its own box within them."""
    begin, end = axis.edge(block * axis.block), axis.edge((block + 1) * axis.block)
    low = math.floor(begin) - axis.margin
    high = math.ceil(end) + axis.margin
    return low, high, (begin - low, end - low)


def _overlap(axis: Axis, block: int) -> tuple[int, int, int]:
    """Which of a block's pixels are asked for, and where they go in the request."""
    start = block * axis.block
    begin = max(0, axis.first - start)
    end = min(axis.block, axis.first + axis.count - start)
    return begin, end, start + begin - axis.first


def _canvas(source: SlideBackend, level: int, x: Axis, y: Axis) -> tuple[Pixels, int, int]:
    """Source pixels for all blocks of a request, with their origin.

    Only what the request's pixels reach is read: the rest of the border blocks stays empty.
    Beyond the image its border is repeated, so that no white leaks in by the kernel.
    """
    spans = []
    for axis in (x, y):
        low = _block_source(axis, axis.first // axis.block)[0]
        high = _block_source(axis, (axis.first + axis.count - 1) // axis.block)[1]
        need_low = math.floor(axis.edge(axis.first)) - axis.margin
        need_high = math.ceil(axis.edge(axis.first + axis.count)) + axis.margin
        need_low = min(max(need_low, 0), axis.level_size - 1)
        need_high = max(min(need_high, axis.level_size), need_low + 1)
        spans.append((low, high, need_low, need_high))
    (x_low, x_high, x_need, x_stop), (y_low, y_high, y_need, y_stop) = spans
    # A center just inside level 0 may lie past the last pixel of a level that was cut short.
    x_high, y_high = max(x_high, x_stop), max(y_high, y_stop)
    x_low, y_low = min(x_low, x_need), min(y_low, y_need)
    canvas = np.zeros((y_high - y_low, x_high - x_low, 3), np.uint8)
    left, right, top, bottom = x_need - x_low, x_stop - x_low, y_need - y_low, y_stop - y_low
    canvas[top:bottom, left:right] = source.read_level(
        level, x_need, y_need, x_stop - x_need, y_stop - y_need
    )
    canvas[top:bottom, :left] = canvas[top:bottom, left : left + 1]
    canvas[top:bottom, right:] = canvas[top:bottom, right - 1 : right]
    canvas[:top] = canvas[top]
    canvas[bottom:] = canvas[bottom - 1]
    return canvas, x_low, y_low

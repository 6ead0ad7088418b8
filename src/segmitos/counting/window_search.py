"""The window of given size that holds the most points, over all positions, exactly.

A branch and bound. The plane of window centers is cut into squares; for each square, the points
that some window centered in it could hold give an upper bound. Squares are searched from the
highest bound down, and those that cannot beat the best found are never opened. Inside a square most
points are held by every window or by none; the few others decide, and the best position is at one
of finitely many places: for a box where a point touches an edge in x and one in y, for a disc where
two points touch the rim (angular events of the classical sweep), or at the square's border.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from segmitos.counting.window_shapes import ROUNDING, Box, Points, Rectangle, Window

MAX_SQUARES = 1_500_000
MAX_SQUARES_PER_SIDE = 64
MAX_DEPTH = 14
CHUNK_SQUARES = 2048


# Takes centers (n, 2), tells which are allowed.
Allowed = Callable[[Points], NDArray[np.bool_]]


def max_count_window(
    points: Points, window: Window, bounds: Rectangle, allowed: Allowed | None = None
) -> tuple[int, tuple[float, float]] | None:
    """Find the window that holds the most points.

    Args:
        points: (n, 2).
        window: its shape and size, in the unit of the points.
        bounds: (x0, y0, x1, y1), where its center may be.
        allowed: further limit on the center. It is asked for the middle of each square (a 64th of
            the window's side, or more on large planes) and decides for the whole square.

    Returns:
        The count and the center of one such window; None where no position is allowed.
    """
    grid = _Grid.over(window, bounds)
    upper = grid.upper_bounds(points, window)
    search = _Search(points, window)
    # From the highest bound down, ties in reading order.
    order = np.argsort(-upper, kind="stable")
    for start in range(0, len(order), CHUNK_SQUARES):
        squares = order[start : start + CHUNK_SQUARES]
        squares = squares[upper[squares] > search.count]
        if not len(squares):
            break
        rectangles = grid.rectangles(squares)
        if allowed is not None:
            keep = allowed((rectangles[:, :2] + rectangles[:, 2:]) / 2)
            squares, rectangles = squares[keep], rectangles[keep]
        if len(squares):
            # A good start prunes most of the rest.
            middles = (rectangles[:, :2] + rectangles[:, 2:]) / 2
            search.try_places(middles[:: max(1, len(middles) // 64)])
        for bound, rectangle in zip(upper[squares], rectangles, strict=True):
            if bound > search.count:
                search.open(tuple(rectangle.tolist()))
    return None if search.center is None else (search.count, search.center)


@dataclass(frozen=True)
class _Grid:
    """Squares of window centers."""

    x0: float
    y0: float
    step_x: float
    step_y: float
    columns: int
    rows: int

    @classmethod
    def over(cls, window: Window, bounds: Rectangle) -> _Grid:
        x0, y0, x1, y1 = bounds
        width, height = 2 * window.half[0], 2 * window.half[1]
        windows = max((x1 - x0) / width, 1e-9) * max((y1 - y0) / height, 1e-9)
        sides = min(MAX_SQUARES_PER_SIDE, max(4, int(math.sqrt(MAX_SQUARES / windows))))
        columns = max(1, math.ceil((x1 - x0) / width * sides))
        rows = max(1, math.ceil((y1 - y0) / height * sides))
        return cls(x0, y0, (x1 - x0) / columns, (y1 - y0) / rows, columns, rows)

    def rectangles(self, squares: NDArray[np.intp]) -> NDArray[np.float64]:
        row, column = np.divmod(squares, self.columns)
        x, y = self.x0 + column * self.step_x, self.y0 + row * self.step_y
        return np.stack([x, y, x + self.step_x, y + self.step_y], axis=1)

    def upper_bounds(self, points: Points, window: Window) -> NDArray[np.int32]:
        """Count, for each square, the points that some window centered in it may hold."""
        gains: list[NDArray[np.int64]] = []
        losses: list[NDArray[np.int64]] = []
        for top, bottom, half in self._bands(points, window):
            left = self._index(points[:, 0] - half, self.x0, self.step_x, -1)
            right = self._index(points[:, 0] + half, self.x0, self.step_x, 1) + 1
            used = (bottom >= 0) & (top < self.rows) & (right > 0) & (left < self.columns)
            used &= top <= bottom
            a, b = np.clip(left[used], 0, None), np.clip(right[used], None, self.columns)
            width = self.columns + 1
            c = np.clip(top[used], 0, None) * width
            d = np.clip(bottom[used] + 1, None, self.rows) * width
            # The corners of a box of squares in a table that is summed up twice below.
            gains += [c + a, d + b]
            losses += [c + b, d + a]
        size = (self.rows + 1) * (self.columns + 1)
        change = np.bincount(np.concatenate(gains), minlength=size)
        change -= np.bincount(np.concatenate(losses), minlength=size)
        table = change.astype(np.int32).reshape(self.rows + 1, self.columns + 1)
        bounds = table.cumsum(axis=0, dtype=np.int32).cumsum(axis=1, dtype=np.int32)[:-1, :-1]
        return bounds.reshape(-1)

    def _bands(
        self, points: Points, window: Window
    ) -> list[tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.float64]]]:
        """Rows of squares (first, last) per point, with the half width of the window there."""
        half_y = window.half[1]
        if isinstance(window, Box):
            top = self._index(points[:, 1] - half_y, self.y0, self.step_y, -1)
            bottom = self._index(points[:, 1] + half_y, self.y0, self.step_y, 1)
            return [(top, bottom, np.full(len(points), window.half[0]))]
        bands: list[tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.float64]]] = []
        # A disc is enclosed by a stack of boxes, each as wide as the disc is at its widest there.
        edges = np.linspace(-half_y, half_y, 33)
        for low, high in pairwise(edges.tolist()):
            inner = 0.0 if low <= 0 <= high else min(abs(low), abs(high))
            half = math.sqrt(max(half_y**2 - inner**2, 0.0))
            top = self._index(points[:, 1] + low, self.y0, self.step_y, -1)
            bottom = self._index(points[:, 1] + high, self.y0, self.step_y, 1)
            if bands:
                # Rows already counted for this point by the band above stay with the wider band.
                top = np.maximum(top, bands[-1][1] + 1) if low >= 0 else top
            bands.append((top, bottom, np.full(len(points), half)))
        for index in range(len(bands) // 2 - 1, -1, -1):
            top, bottom, half_width = bands[index]
            bands[index] = (top, np.minimum(bottom, bands[index + 1][0] - 1), half_width)
        return bands

    @staticmethod
    def _index(
        values: NDArray[np.float64], start: float, step: float, outward: int
    ) -> NDArray[np.int64]:
        """Return the square of each value; a value at a border goes outward."""
        if step <= 0:
            return np.where(outward * (values - start) >= -1e-6, 0, -outward).astype(np.int64)
        return np.floor((values - start) / step + outward * 1e-6).astype(np.int64)


class _Search:
    """The best window so far, and the opening of squares."""

    def __init__(self, points: Points, window: Window) -> None:
        self.window = window
        self.count = -1
        self.center: tuple[float, float] | None = None
        # Bands a quarter of the window high, each sorted by x: the points of a square's windows are
        # then a slice of each of a few bands.
        self.band = window.half[1] / 2
        self.origin = float(points[:, 1].min()) if len(points) else 0.0
        number = np.floor((points[:, 1] - self.origin) / self.band).astype(np.int64)
        order = np.lexsort((points[:, 1], points[:, 0], number))
        self.points = points[order]
        self.x = np.ascontiguousarray(self.points[:, 0])
        edges = np.arange(int(number.max(initial=-1)) + 2)
        self.starts = np.searchsorted(number[order], edges).tolist()

    def near(self, square: Rectangle) -> Points:
        """Return the points that some window centered in the square may hold, and some more."""
        reach_x, reach_y = (half * ROUNDING for half in self.window.half)
        first = max(0, math.floor((square[1] - reach_y - self.origin) / self.band))
        last = math.floor((square[3] + reach_y - self.origin) / self.band)
        parts = []
        for band in range(first, min(last + 1, len(self.starts) - 1)):
            start, end = self.starts[band], self.starts[band + 1]
            low = start + self.x[start:end].searchsorted(square[0] - reach_x, "left")
            high = start + self.x[start:end].searchsorted(square[2] + reach_x, "right")
            parts.append(self.points[low:high])
        return np.concatenate(parts) if parts else self.points[:0]

    def offer(self, count: int, center: tuple[float, float]) -> None:
        if count > self.count:
            self.count, self.center = count, center

    def try_places(self, centers: Points) -> None:
        for x, y in centers.tolist():
            held = self.window.holds(self.near((x, y, x, y)), (x, y))
            self.offer(int(held.sum()), (x, y))

    def open(self, square: Rectangle) -> None:
        """Search a square exactly, in quarters where many points are undecided."""
        stack = [(square, self.near(square), 0, 0)]
        while stack:
            square, points, lower_bound, depth = stack.pop()
            every, some = self.window.bounds(points, square)
            lower_bound += int(every.sum())
            undecided = points[some]
            if lower_bound + len(undecided) <= self.count:
                continue
            if len(undecided) <= self.window.exact_below or depth >= MAX_DEPTH:
                found, center = self.window.solve_exactly(undecided, square)
                self.offer(lower_bound + found, center)
                continue
            x0, y0, x1, y1 = square
            x, y = (x0 + x1) / 2, (y0 + y1) / 2
            quarters = ((x0, y0, x, y), (x, y0, x1, y), (x0, y, x, y1), (x, y, x1, y1))
            stack += [(quarter, undecided, lower_bound, depth + 1) for quarter in quarters]

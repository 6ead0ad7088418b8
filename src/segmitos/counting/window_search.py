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

Points = NDArray[np.float64]
Rectangle = tuple[float, float, float, float]

# A point on the border counts; positions computed to put it there may be off by rounding.
_ROUNDING = 1 + 1e-9
MAX_SQUARES = 1_500_000
MAX_SQUARES_PER_SIDE = 64
MAX_DEPTH = 14
CHUNK_SQUARES = 2048


@dataclass(frozen=True)
class Box:
    """An upright rectangle, named by its center."""

    width: float
    height: float

    exact_below = 96

    @property
    def half(self) -> tuple[float, float]:
        """Half its width and height."""
        return self.width / 2, self.height / 2

    def holds(self, points: Points, center: tuple[float, float]) -> NDArray[np.bool_]:
        """Tell which points (n, 2) lie in the window or on its border."""
        apart = np.abs(points - np.array(center))
        half = np.array(self.half) * _ROUNDING
        result: NDArray[np.bool_] = (apart <= half).all(axis=1)
        return result

    def bounds(
        self, points: Points, square: Rectangle
    ) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
        """Tell which points every window centered in the square holds, and which only some do."""
        x0, y0, x1, y1 = square
        low, high = np.array([x0, y0]), np.array([x1, y1])
        half = np.array(self.half) * _ROUNDING
        x, y = points[:, 0], points[:, 1]
        outer, inner = (low - half, high + half), (high - half, low + half)
        some = (x >= outer[0][0]) & (x <= outer[1][0]) & (y >= outer[0][1]) & (y <= outer[1][1])
        every = (x >= inner[0][0]) & (x <= inner[1][0]) & (y >= inner[0][1]) & (y <= inner[1][1])
        return every, some & ~every

    def solve_exactly(self, points: Points, square: Rectangle) -> tuple[int, tuple[float, float]]:
        """Return the most of these points in one window centered in the square, and its center."""
        x0, y0, x1, y1 = square
        reach = np.array(self.half) * _ROUNDING
        # Moving right until a point touches the left edge, or the square ends, loses none.
        xs = points[:, 0] + self.half[0]
        ys = points[:, 1] + self.half[1]
        xs = np.unique(np.append(xs[(xs >= x0) & (xs < x1)], x1))
        ys = np.unique(np.append(ys[(ys >= y0) & (ys < y1)], y1))
        in_x = np.abs(points[:, 0] - xs[:, None]) <= reach[0]
        in_y = np.abs(points[:, 1] - ys[:, None]) <= reach[1]
        held = in_x.astype(np.float32) @ in_y.astype(np.float32).T
        i, j = np.unravel_index(int(np.argmax(held)), held.shape)
        return int(held[i, j]), (float(xs[i]), float(ys[j]))

    def strips(self) -> list[Rectangle]:
        """Return boxes around the center that make up the window (x0, y0, x1, y1)."""
        return [(-self.half[0], -self.half[1], self.half[0], self.half[1])]


@dataclass(frozen=True)
class Disc:
    """A circular window, named by its center."""

    radius: float

    exact_below = 24

    @property
    def half(self) -> tuple[float, float]:
        """Its radius, twice."""
        return self.radius, self.radius

    def holds(self, points: Points, center: tuple[float, float]) -> NDArray[np.bool_]:
        """Tell which points (n, 2) lie in the window or on its rim."""
        apart = points - np.array(center)
        limit = (self.radius * _ROUNDING) ** 2
        result: NDArray[np.bool_] = apart[:, 0] ** 2 + apart[:, 1] ** 2 <= limit
        return result

    def bounds(
        self, points: Points, square: Rectangle
    ) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
        """Tell which points every window centered in the square holds, and which only some do."""
        x0, y0, x1, y1 = square
        x, y = points[:, 0], points[:, 1]
        # Distances to the nearest and to the farthest place of the square, along each axis.
        far_x, far_y = np.maximum(x - x0, x1 - x), np.maximum(y - y0, y1 - y)
        near_x = np.maximum(np.maximum(x0 - x, x - x1), 0)
        near_y = np.maximum(np.maximum(y0 - y, y - y1), 0)
        limit = (self.radius * _ROUNDING) ** 2
        some = near_x**2 + near_y**2 <= limit
        every = far_x**2 + far_y**2 <= limit
        return every, some & ~every

    def solve_exactly(self, points: Points, square: Rectangle) -> tuple[int, tuple[float, float]]:
        """Return the most of these points in one window centered in the square, and its center."""
        places = np.concatenate([self._rim_pairs(points), self._rim_edges(points, square)])
        x0, y0, x1, y1 = square
        slack = 1e-9 * self.radius
        inside = (places >= np.array([x0, y0]) - slack) & (places <= np.array([x1, y1]) + slack)
        places = places[inside.all(axis=1)]
        apart = places[:, None] - points[None]
        limit = (self.radius * _ROUNDING) ** 2
        held = (apart[..., 0] ** 2 + apart[..., 1] ** 2 <= limit).sum(axis=1)
        best = int(np.argmax(held))
        return int(held[best]), (float(places[best, 0]), float(places[best, 1]))

    def _rim_pairs(self, points: Points) -> Points:
        """Centers whose rim runs through two of the points."""
        i, j = np.triu_indices(len(points), 1)
        step = points[j] - points[i]
        apart = np.hypot(step[:, 0], step[:, 1])
        near = (apart <= 2 * self.radius) & (apart > 0)
        step, apart, middle = step[near], apart[near], (points[i] + points[j])[near] / 2
        rise = np.sqrt(np.maximum(self.radius**2 - apart**2 / 4, 0)) / apart
        across = np.stack([-step[:, 1], step[:, 0]], axis=1) * rise[:, None]
        return np.concatenate([middle + across, middle - across])

    def _rim_edges(self, points: Points, square: Rectangle) -> Points:
        """Corners of the square, and places on its border whose rim runs through a point."""
        x0, y0, x1, y1 = square
        places = [np.array([(x0, y0), (x0, y1), (x1, y0), (x1, y1)])]
        for axis, edges in ((0, (x0, x1)), (1, (y0, y1))):
            for edge in edges:
                left = self.radius**2 - (points[:, axis] - edge) ** 2
                met = points[left >= 0]
                for sign in (-1, 1):
                    place = np.full((len(met), 2), edge)
                    place[:, 1 - axis] = met[:, 1 - axis] + sign * np.sqrt(left[left >= 0])
                    places.append(place)
        return np.concatenate(places)

    def strips(self, count: int = 48) -> list[Rectangle]:
        """Return boxes around the center that make up the window, to half a percent of its area."""
        edges = np.linspace(-self.radius, self.radius, count + 1)
        half = np.sqrt(np.maximum(self.radius**2 - ((edges[1:] + edges[:-1]) / 2) ** 2, 0))
        rows = zip(-half, edges[:-1], half, edges[1:], strict=True)
        return [(float(a), float(b), float(c), float(d)) for a, b, c, d in rows]


Window = Box | Disc
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
        reach_x, reach_y = (half * _ROUNDING for half in self.window.half)
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

"""The shapes of a window: a box or a disc, with what a search over their centers asks of them."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Points = NDArray[np.float64]
Rectangle = tuple[float, float, float, float]

ROUNDING = 1 + 1e-9
"""A point on the border counts; positions computed to put it there may be off by rounding."""


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
        half = np.array(self.half) * ROUNDING
        result: NDArray[np.bool_] = (apart <= half).all(axis=1)
        return result

    def bounds(
        self, points: Points, square: Rectangle
    ) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
        """Tell which points every window centered in the square holds, and which only some do."""
        x0, y0, x1, y1 = square
        low, high = np.array([x0, y0]), np.array([x1, y1])
        half = np.array(self.half) * ROUNDING
        x, y = points[:, 0], points[:, 1]
        outer, inner = (low - half, high + half), (high - half, low + half)
        some = (x >= outer[0][0]) & (x <= outer[1][0]) & (y >= outer[0][1]) & (y <= outer[1][1])
        every = (x >= inner[0][0]) & (x <= inner[1][0]) & (y >= inner[0][1]) & (y <= inner[1][1])
        return every, some & ~every

    def solve_exactly(self, points: Points, square: Rectangle) -> tuple[int, tuple[float, float]]:
        """Return the most of these points in one window centered in the square, and its center."""
        x0, y0, x1, y1 = square
        reach = np.array(self.half) * ROUNDING
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

    @property
    def _limit(self) -> float:
        return (self.radius * ROUNDING) ** 2

    def holds(self, points: Points, center: tuple[float, float]) -> NDArray[np.bool_]:
        """Tell which points (n, 2) lie in the window or on its rim."""
        apart = points - np.array(center)
        result: NDArray[np.bool_] = apart[:, 0] ** 2 + apart[:, 1] ** 2 <= self._limit
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
        some = near_x**2 + near_y**2 <= self._limit
        every = far_x**2 + far_y**2 <= self._limit
        return every, some & ~every

    def solve_exactly(self, points: Points, square: Rectangle) -> tuple[int, tuple[float, float]]:
        """Return the most of these points in one window centered in the square, and its center."""
        places = np.concatenate([self._rim_pairs(points), self._rim_edges(points, square)])
        x0, y0, x1, y1 = square
        slack = 1e-9 * self.radius
        inside = (places >= np.array([x0, y0]) - slack) & (places <= np.array([x1, y1]) + slack)
        places = places[inside.all(axis=1)]
        apart = places[:, None] - points[None]
        held = (apart[..., 0] ** 2 + apart[..., 1] ** 2 <= self._limit).sum(axis=1)
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

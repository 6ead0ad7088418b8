"""Regions drawn by a person: polygons to work in, and polygons to leave out.

Positions are level-0 pixels (x, y). Nothing here reads a file.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from shapely.geometry.base import BaseGeometry

Polygon = tuple[NDArray[np.float64], ...]
"""An outer ring and its holes, each (n, 2) in level-0 pixels, n >= 3."""


@dataclass(frozen=True, eq=False)
class Regions:
    """Where to work on an image.

    Attributes:
        included: polygons to work in; None is the whole image.
        excluded: polygons to leave out of that.
        names: of the included polygons, where they have one; "" elsewhere.
    """

    included: tuple[Polygon, ...] | None
    excluded: tuple[Polygon, ...] = ()
    names: tuple[str, ...] = ()

    def __repr__(self) -> str:
        inside = "whole image" if self.included is None else f"{len(self.included)} polygons"
        return f"Regions({inside}, {len(self.excluded)} left out)"

    def contains(self, points_xy: NDArray[np.float64]) -> NDArray[np.bool_]:
        """Tell which points (n, 2) lie in the regions, their border included."""
        import shapely

        points = np.asarray(points_xy, np.float64).reshape(-1, 2)
        inside = np.ones(len(points), np.bool_)
        if self.included is not None:
            inside = np.asarray(shapely.intersects_xy(_union(self.included), *points.T), np.bool_)
        if self.excluded:
            inside &= ~np.asarray(shapely.contains_xy(_union(self.excluded), *points.T), np.bool_)
        return inside

    def area_px2(self, width: float, height: float) -> float:
        """Return the area inside an image of this size; polygons that overlap count once."""
        return float(self._clipped(width, height).area)

    def misplaced(
        self, width: float, height: float, frame_px: tuple[float, float] = (0.0, 0.0)
    ) -> str:
        """Say that there are regions which touch nothing of an image of this size; empty if none.

        Such regions were drawn on another image or at another scale; then those of the same file
        that happen to touch the image are in the wrong place, too.

        Args:
            width: of the image.
            height: likewise.
            frame_px: where QuPath's frame begins, in which a position is said.
        """
        import shapely

        if not self.area_px2(width, height):
            if Regions(self.included).area_px2(width, height):
                return "what is to be left out covers every region of the image"
            return "no region touches the image"
        polygons = [*(self.included or ()), *self.excluded]
        touching = shapely.intersects(_shapes(polygons), shapely.box(0, 0, width, height))
        beyond = [one for one, inside in zip(polygons, touching, strict=True) if not inside]
        if not beyond:
            return ""
        x, y = beyond[0][0][0] - frame_px
        count = f"{len(beyond)} of {len(polygons)} regions"
        return f"{count}, the first at ({x:g}, {y:g}), touch nothing of the image"

    def mask(self, scale: float, shape: tuple[int, int]) -> NDArray[np.bool_]:
        """Draw the regions.

        Args:
            scale: mask pixels per level-0 pixel.
            shape: (height, width) of the mask.

        Returns:
            (height, width), True inside.
        """
        inside = np.ones(shape, np.bool_)
        if self.included is not None:
            inside = _draw(self.included, scale, shape)
        if self.excluded:
            inside &= ~_draw(self.excluded, scale, shape)
        return inside

    def moved(self, right_px: float, down_px: float) -> Regions:
        """Return the regions moved by a number of level-0 pixels."""
        step = np.array([right_px, down_px])

        def shift(polygons: Sequence[Polygon]) -> tuple[Polygon, ...]:
            return tuple(tuple(ring + step for ring in polygon) for polygon in polygons)

        included = None if self.included is None else shift(self.included)
        return Regions(included, shift(self.excluded), self.names)

    def _clipped(self, width: float, height: float) -> BaseGeometry:
        import shapely

        inside: BaseGeometry = shapely.box(0, 0, width, height)
        if self.included is not None:
            inside = inside & _union(self.included)
        return inside - _union(self.excluded) if self.excluded else inside


def _union(polygons: Sequence[Polygon]) -> BaseGeometry:
    """Return one valid geometry."""
    import shapely

    united = shapely.union_all(_shapes(polygons))
    shapely.prepare(united)
    return united


def _shapes(polygons: Sequence[Polygon]) -> list[BaseGeometry]:
    """Return a valid geometry for each; lines drawn freehand may cross themselves."""
    import shapely

    return [shapely.make_valid(shapely.Polygon(rings[0], rings[1:])) for rings in polygons]


def _draw(polygons: Sequence[Polygon], scale: float, shape: tuple[int, int]) -> NDArray[np.bool_]:
    """Draw polygons, without their holes, into a mask (height, width); see `Regions.mask`.

    A pixel is inside where its center is, so that the mask has the polygons' area but for chance.
    """
    result = np.zeros(shape, np.bool_)
    for outer, *holes in polygons:
        first, drawn = _fill(outer * scale - 0.5, shape)
        for hole in holes:
            top, cut = _fill(hole * scale - 0.5, shape)
            low, high = max(first, top), min(first + len(drawn), top + len(cut))
            if low < high:
                drawn[low - first : high - first] &= ~cut[low - top : high - top]
        result[first : first + len(drawn)] |= drawn
    return result


def _fill(corners: NDArray[np.float64], shape: tuple[int, int]) -> tuple[int, NDArray[np.bool_]]:
    """Return the first row of a mask that a ring reaches, and its rows, True inside (even-odd)."""
    height, width = shape
    first = int(np.clip(np.ceil(corners[:, 1].min()), 0, height))
    last = int(np.clip(np.floor(corners[:, 1].max()) + 1, first, height))
    # At each place where an edge crosses a row, inside and outside change for all to its right.
    changes = np.zeros((last - first, width + 1), np.bool_)
    for (x0, y0), (x1, y1) in zip(corners, np.roll(corners, -1, axis=0), strict=True):
        low, high = min(y0, y1), max(y0, y1)
        start, stop = (int(np.clip(np.ceil(y), first, last)) for y in (low, high))
        rows = np.arange(start, stop)
        if len(rows):
            x = np.ceil(x0 + (rows - y0) * ((x1 - x0) / (y1 - y0)))
            changes[rows - first, np.clip(x, 0, width).astype(np.intp)] ^= True
    return first, np.logical_xor.accumulate(changes[:, :width], axis=1)

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

    def touches(self, width: float, height: float) -> bool:
        """Tell whether anything of an image of this size is inside."""
        return self.area_px2(width, height) > 0

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
    """Return one valid geometry; lines drawn freehand may cross themselves."""
    import shapely

    shapes = [shapely.Polygon(rings[0], rings[1:]) for rings in polygons]
    united = shapely.union_all([shapely.make_valid(shape) for shape in shapes])
    shapely.prepare(united)
    return united


def _draw(polygons: Sequence[Polygon], scale: float, shape: tuple[int, int]) -> NDArray[np.bool_]:
    """Draw polygons, without their holes, into a mask (height, width); see `Regions.mask`."""
    from PIL import Image, ImageDraw

    result = np.zeros(shape, np.bool_)
    for rings in polygons:
        picture = Image.new("1", (shape[1], shape[0]))
        draw = ImageDraw.Draw(picture)
        for index, ring in enumerate(rings):
            corners = ring * scale - 0.5
            draw.polygon([(x, y) for x, y in corners.tolist()], fill=1 if index == 0 else 0)
        result |= np.asarray(picture)
    return result

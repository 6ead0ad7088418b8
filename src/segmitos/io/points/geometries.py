"""The geometries of GeoJSON: positions and polygons, alone or in a collection."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from segmitos.errors import DataError
from segmitos.io.geometry import LARGEST_PX
from segmitos.io.json_files import is_number
from segmitos.io.points.regions import Polygon

POINTS = ("Point", "MultiPoint")
POLYGONS = ("Polygon", "MultiPolygon")
_MAX_DEPTH = 20


def geometry_type(geometry: Any) -> str | None:
    """Return the type of a geometry, None where it has none."""
    kind = geometry.get("type") if isinstance(geometry, dict) else None
    return kind if isinstance(kind, str) else None


def parts_of(geometry: Any, where: str, depth: int = 0) -> Iterator[Any]:
    """Yield the geometries of a GeometryCollection, or the geometry itself.

    QuPath writes a collection where areas were merged with lines or points.

    Raises:
        DataError: for a collection that is no array, or too deep a one.
    """
    if geometry_type(geometry) != "GeometryCollection":
        yield geometry
        return
    parts = geometry.get("geometries")
    if not isinstance(parts, list) or depth > _MAX_DEPTH:
        raise DataError(f"{where}: geometries of a GeometryCollection must be an array")
    for part in parts:
        yield from parts_of(part, where, depth + 1)


def positions_of(geometry: Any, where: str) -> Iterator[tuple[float, float]]:
    """Yield the positions of a Point or MultiPoint. Raises DataError."""
    coordinates = geometry.get("coordinates")
    places = [coordinates] if geometry["type"] == "Point" else coordinates
    for place in places if isinstance(places, list) else [places]:
        yield position_of(place, where)


def polygons_of(geometry: Any, where: str) -> tuple[Polygon, ...]:
    """Return the polygons of a Polygon or MultiPolygon. Raises DataError, naming the ring."""
    coordinates = geometry.get("coordinates")
    parts = [coordinates] if geometry.get("type") == "Polygon" else coordinates
    if not isinstance(parts, list):
        raise DataError(f"{where}: polygon coordinates must be rings of [x, y]")
    polygons: list[Polygon] = []
    for rings in parts:
        if not isinstance(rings, list) or not all(isinstance(ring, list) for ring in rings):
            raise DataError(f"{where}: polygon coordinates must be rings of [x, y]")
        arrays = [np.array([position_of(item, where) for item in ring]) for ring in rings]
        if not arrays or any(len(ring) < 3 for ring in arrays):
            raise DataError(f"{where}: a ring of a polygon needs three or more corners [x, y]")
        polygons.append(tuple(arrays))
    if not polygons:
        raise DataError(f"{where}: polygon without corners")
    return tuple(polygons)


def position_of(value: Any, where: str) -> tuple[float, float]:
    """Return a position `[x, y, ...]` of numbers. Raises DataError."""
    if (
        isinstance(value, list)
        and len(value) >= 2
        and all(is_number(item) and abs(item) <= LARGEST_PX for item in value[:2])
    ):
        return float(value[0]), float(value[1])
    raise DataError(f"{where}: coordinates {str(value)[:60]} are not [x, y]")

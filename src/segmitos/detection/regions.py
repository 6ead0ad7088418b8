"""Regions drawn by a person (GeoJSON polygons, as QuPath exports them) that limit the work."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from segmitos.errors import DataError
from segmitos.io.points.geojson import load_json

Region = list[NDArray[np.float64]]
"""An outer ring and its holes, each (n, 2) in level-0 pixels."""


def read_regions(path: Path) -> list[Region]:
    """Read polygons from GeoJSON: features, geometries, or a list of them.

    Raises:
        InputError: where the file cannot be read.
        DataError: where it is not GeoJSON or holds no polygon.
    """
    content = load_json(path)
    regions = [region for feature in _features(content) for region in _polygons(feature, path)]
    if not regions:
        raise DataError(f"{path} holds no polygon to limit the work to")
    return regions


def _features(content: Any) -> list[Any]:
    if isinstance(content, list):
        return content
    if isinstance(content, dict) and content.get("type") == "FeatureCollection":
        found = content.get("features")
        return found if isinstance(found, list) else []
    return [content]


def _polygons(feature: Any, path: Path) -> list[Region]:
    geometry = feature.get("geometry", feature) if isinstance(feature, dict) else None
    if not isinstance(geometry, dict):
        return []
    kind, coordinates = geometry.get("type"), geometry.get("coordinates", [])
    if kind not in ("Polygon", "MultiPolygon"):
        return []
    try:
        several: list[Any] = [coordinates] if kind == "Polygon" else list(coordinates)
        regions = [[np.asarray(ring, float)[:, :2] for ring in rings] for rings in several]
    except (TypeError, ValueError, IndexError) as error:
        raise DataError(f"{path}: a {kind} has coordinates that are no rings of x, y") from error
    for ring in (ring for region in regions for ring in region):
        if len(ring) < 3 or ring.shape[1] != 2 or not np.isfinite(ring).all():
            raise DataError(f"{path}: a {kind} has a ring that is not three or more finite x, y")
    return [region for region in regions if region]


def draw_regions(
    regions: Sequence[Region], scale: float, shape: tuple[int, int]
) -> NDArray[np.bool_]:
    """Return a mask (h, w) of the regions; `scale` is mask pixels per level-0 pixel."""
    from PIL import Image, ImageDraw

    result = np.zeros(shape, bool)
    for rings in regions:
        picture = Image.new("1", (shape[1], shape[0]))
        draw = ImageDraw.Draw(picture)
        for index, ring in enumerate(rings):
            corners = [(float(x) * scale - 0.5, float(y) * scale - 0.5) for x, y in ring]
            draw.polygon(corners, fill=1 if index == 0 else 0)
        result |= np.asarray(picture)
    return result


def inside_regions(
    regions: Sequence[Region], x_px: NDArray[np.float64], y_px: NDArray[np.float64]
) -> NDArray[np.bool_]:
    """Tell which points (n,) lie in any region and in none of its holes."""
    result = np.zeros(len(x_px), bool)
    for rings in regions:
        odd = np.zeros(len(x_px), bool)
        for ring in rings:
            # A ray to the left crosses the rings an odd number of times from inside only.
            following = np.roll(ring, -1, axis=0)
            for (x0, y0), (x1, y1) in zip(ring, following, strict=True):
                if y0 == y1:
                    continue
                within = (y0 > y_px) != (y1 > y_px)
                odd ^= within & (x_px > x0 + (y_px - y0) / (y1 - y0) * (x1 - x0))
        result |= odd
    return result

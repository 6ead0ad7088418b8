"""Points of a file as two arrays, detections in a file, rectangles as regions."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from segmitos.io.points.detections import Detections
from segmitos.io.points.geojson_features import collection_text
from segmitos.io.points.read import read_annotations
from segmitos.io.points.regions import Polygon


def read_points(path: Path, **options: Any) -> tuple[np.ndarray, np.ndarray]:
    """Return mitoses and hard negatives, (n, 2) and (m, 2)."""
    found = read_annotations(path, **options)
    return found.of("mitosis"), found.of("non-mitosis")


def write_geojson(path: Path, found: Detections, *options: Any, **named: Any) -> None:
    """Write `Detections.to_geojson`, with its arguments."""
    path.write_text(collection_text(found.to_geojson(*options, **named)), encoding="utf-8")


def rectangle(x: float, y: float, width: float, height: float) -> Polygon:
    """Return a rectangle as a polygon."""
    corners = [(x, y), (x + width, y), (x + width, y + height), (x, y + height)]
    return (np.array(corners, np.float64),)

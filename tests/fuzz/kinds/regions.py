"""Regions as GeoJSON: read, moved into the slide's frame, drawn and measured."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np

from segmitos.io.points.read_regions import regions_of_slide
from segmitos.io.slide import Slide

from ..kind import Kind

_RING = [[0, 0], [60, 0], [60, 50], [30.5, 70], [0, 50], [0, 0]]


def _make(folder: Path) -> list[Path]:
    def feature(name: str | None, coordinates: object, shape: str = "Polygon") -> object:
        return {
            "type": "Feature",
            "geometry": {"type": shape, "coordinates": coordinates},
            "properties": {
                "objectType": "annotation",
                "name": "a",
                "classification": None if name is None else {"name": name},
            },
        }

    hole = [[10, 10], [20, 10], [20, 20], [10, 10]]
    features = [
        feature("Tumor", [_RING, hole]),
        feature(None, [[_RING], [hole]], "MultiPolygon"),
        feature("Ignore*", [hole]),
        feature("Mitotic figure", [5, 5], "Point"),
    ]
    path = folder / "roi.geojson"
    path.write_text(json.dumps({"type": "FeatureCollection", "features": features}))
    return [path]


def _read(folder: Path) -> object:
    slide = Slide.from_array(np.zeros((80, 100, 3), np.uint8), 0.25)
    regions = regions_of_slide(folder / "roi.geojson", slide)
    regions.mask(0.5, (40, 50))
    regions.contains(np.array([[1.0, 2.0], [50.0, 60.0]]))
    return None


KINDS = [Kind("regions", _make, _read, 150)]

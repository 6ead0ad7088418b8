"""GeoJSON as QuPath writes and reads it: features with a class, measurements and an identity.

Coordinates are level-0 pixels, x before y. QuPath counts from the corner of the first pixel and
SegMitos from its center; that half pixel (about 0.1 um) is not added, so that the numbers in a
GeoJSON file are the numbers everywhere else.
"""

from __future__ import annotations

import json
import math
import uuid
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from segmitos.errors import DataError, InputError, UsageError

Polygons = Literal["refuse", "centroid"]

MITOSIS_CLASS = "Mitotic figure"
MITOSIS_COLOR = (200, 0, 80)
REGION_COLOR = (40, 90, 200)
_NAMESPACE = uuid.UUID("6f1c1f9e-5d0f-5b0c-9d53-6d1b9d0a2f10")

# Outlines of these classes are regions, not cells, and carry no mitosis.
REGION_CLASSES = frozenset(
    {
        "hotspot",
        "ten fields",
        "region*",
        "ignore*",
        "tissue",
        "tumor",
        "tumour",
        "stroma",
        "necrosis",
    }
)
_CONTAINERS = ("root", "tmaCore", "tile", "PathRootObject", "TMACoreObject", "PathTileObject")


@dataclass(frozen=True)
class Mark:
    """One position of a GeoJSON file: `kind` is its class, None where it has none."""

    x_px: float
    y_px: float
    kind: str | None
    where: str
    measurements: Mapping[str, float] = field(default_factory=dict)
    id: str | None = None


def load_json(path: Path, decimals: bool = False) -> Any:
    """Read a JSON file; with `decimals`, fractions keep all their digits (decimal.Decimal).

    Raises:
        InputError: if the file cannot be read.
        DataError: if it is not JSON, naming the line.
    """
    from decimal import Decimal

    try:
        text = path.read_text(encoding="utf-8-sig")
    except OSError as error:
        raise InputError(f"cannot read {path}: {error.strerror or error}") from error
    except UnicodeDecodeError as error:
        raise DataError(f"{path} is not a text file (UTF-8)") from error
    if not text.strip():
        raise DataError(f"{path} is empty")
    try:
        return json.loads(text, parse_float=Decimal if decimals else None)
    except json.JSONDecodeError as error:
        raise DataError(f"{path}, line {error.lineno}: not JSON ({error.msg})") from error
    except RecursionError as error:
        raise DataError(f"{path} is nested too deeply to be an annotation file") from error


def point_ids(xy_px: NDArray[np.float64], salt: str) -> list[str]:
    """Return an identity for each position (n, 2) in level-0 pixels.

    It is a UUID5 of the position and `salt` (the image's name), so that the same blob has the same
    id in every run, with every threshold, and in every file.
    """
    seen: dict[str, int] = {}
    ids = []
    for x, y in xy_px.tolist():
        content = f"{salt}|{x!r}|{y!r}"
        seen[content] = seen.get(content, 0) + 1
        ids.append(str(uuid.uuid5(_NAMESPACE, f"{content}|{seen[content]}")))
    return ids


def point_features(
    rows: NDArray[np.float64], names: Sequence[str], object_type: str, ids: Sequence[str]
) -> Iterator[dict[str, Any]]:
    """Yield a Point feature for each row: x, y, then a measurement per name; nan is left out."""
    for identity, (x, y, *values) in zip(ids, rows.tolist(), strict=True):
        measured = {
            name: value for name, value in zip(names, values, strict=True) if not math.isnan(value)
        }
        yield {
            "type": "Feature",
            "id": identity,
            "geometry": {"type": "Point", "coordinates": [x, y]},
            "properties": {
                "objectType": object_type,
                "classification": {"name": MITOSIS_CLASS, "color": list(MITOSIS_COLOR)},
                "measurements": measured,
            },
        }


def region_feature(name: str, outline_xy: NDArray[Any], salt: str) -> dict[str, Any]:
    """Return a named, locked polygon annotation from its outline (k, 2), closed or not.

    Raises:
        UsageError: if the outline has fewer than three corners.
    """
    corners = np.asarray(outline_xy, dtype=np.float64).tolist()
    if len(corners) > 1 and corners[0] == corners[-1]:
        corners = corners[:-1]
    if len(corners) < 3:
        raise UsageError(f"region {name!r} needs at least three corners, not {len(corners)}")
    corners.append(corners[0])
    return {
        "type": "Feature",
        "id": str(uuid.uuid5(_NAMESPACE, f"{salt}|region|{name}|{corners!r}")),
        "geometry": {"type": "Polygon", "coordinates": [corners]},
        "properties": {
            "objectType": "annotation",
            "name": name,
            "classification": {"name": name, "color": list(REGION_COLOR)},
            "isLocked": True,
        },
    }


def read_marks(path: Path, content: Any, polygons: Polygons = "refuse") -> list[Mark]:
    """Return every position of a parsed GeoJSON: FeatureCollection, Feature, or bare array.

    MultiPoint gives one mark per point. Regions (`REGION_CLASSES`) and containers are passed over.
    Other outlines are refused, or with `polygons="centroid"` stand for their centroid.

    Raises:
        DataError: for what is not GeoJSON of features or has outlines or lines where points belong,
            naming the feature.
    """
    if polygons not in ("refuse", "centroid"):
        raise UsageError(f"polygons={polygons!r}: choose 'refuse' or 'centroid'")
    if isinstance(content, dict) and content.get("type") == "FeatureCollection":
        features = content.get("features")
    elif isinstance(content, dict) and content.get("type") == "Feature":
        features = [content]
    else:
        features = content
    if not isinstance(features, list):
        raise DataError(
            f"{path} is not GeoJSON: expected a FeatureCollection, a Feature or an array of them"
        )
    marks: list[Mark] = []
    for number, feature in enumerate(features, start=1):
        marks.extend(_marks_of(feature, f"{path}, feature {number}", polygons))
    return marks


def _marks_of(feature: Any, where: str, polygons: Polygons) -> Iterator[Mark]:
    if not isinstance(feature, dict) or feature.get("type") != "Feature":
        raise DataError(f"{where} is not a GeoJSON Feature")
    properties = feature.get("properties") or {}
    if not isinstance(properties, dict):
        raise DataError(f"{where}: properties must be an object")
    kind = _kind(properties.get("classification"), where)
    object_type = properties.get("objectType", properties.get("object_type", feature.get("id")))
    children = properties.get("childObjects", properties.get("children")) or []
    if object_type not in _CONTAINERS:
        measured = _measurements(properties.get("measurements"), where)
        identity = feature.get("id")
        for x, y in _positions(feature.get("geometry"), kind, where, polygons):
            yield Mark(x, y, kind, where, measured, identity if isinstance(identity, str) else None)
    if not isinstance(children, list):
        raise DataError(f"{where}: childObjects must be an array")
    for number, child in enumerate(children, start=1):
        yield from _marks_of(child, f"{where}, child {number}", polygons)


def _kind(classification: Any, where: str) -> str | None:
    """Return the class: a name, an object with `name` or `names`, or a derived `A: B` (its `A`)."""
    if isinstance(classification, dict):
        names = classification.get("names")
        classification = (
            names[0] if isinstance(names, list) and names else classification.get("name")
        )
    if classification is None:
        return None
    if not isinstance(classification, str):
        raise DataError(f"{where}: classification must be a name, not {classification!r}")
    return classification.split(":")[0].strip() or None


def _measurements(values: Any, where: str) -> dict[str, float]:
    """Read measurements as an object (QuPath 0.4 on) or as a list of name and value (before)."""
    if values is None:
        return {}
    if isinstance(values, list) and all(isinstance(item, dict) for item in values):
        values = {str(item.get("name")): item.get("value") for item in values}
    if not isinstance(values, dict):
        raise DataError(f"{where}: measurements must be an object or a list of name and value")
    return {
        str(name): float(value)
        for name, value in values.items()
        if isinstance(value, int | float) and not isinstance(value, bool)
    }


def _positions(
    geometry: Any, kind: str | None, where: str, polygons: Polygons
) -> list[tuple[float, float]]:
    shape = geometry.get("type") if isinstance(geometry, dict) else None
    coordinates = geometry.get("coordinates") if isinstance(geometry, dict) else None
    if shape == "Point":
        return [_position(coordinates, where)]
    if shape == "MultiPoint" and isinstance(coordinates, list):
        return [_position(item, where) for item in coordinates]
    if kind is not None and kind.lower() in REGION_CLASSES:
        return []
    if shape in ("Polygon", "MultiPolygon") and isinstance(coordinates, list):
        if polygons == "centroid":
            return [_centroid([coordinates] if shape == "Polygon" else coordinates, where)]
        raise DataError(
            f"{where} is a {shape} of class {kind or 'none'}: mitoses are points; draw points, or "
            "ask for polygons='centroid' to take the middle of each outline"
        )
    raise DataError(f"{where}: geometry {shape or 'missing'} cannot be a mitosis; expected Point")


def _position(value: Any, where: str) -> tuple[float, float]:
    if (
        isinstance(value, list)
        and len(value) >= 2
        and all(isinstance(item, int | float) and math.isfinite(item) for item in value[:2])
    ):
        return float(value[0]), float(value[1])
    raise DataError(f"{where}: coordinates {value!r} are not [x, y]")


def _centroid(parts: list[Any], where: str) -> tuple[float, float]:
    """Return the center of mass of polygons; holes count negative, whichever way they wind."""
    total, moment = 0.0, np.zeros(2)
    corners: list[tuple[float, float]] = []
    for rings in parts:
        if not isinstance(rings, list) or not all(isinstance(ring, list) for ring in rings):
            raise DataError(f"{where}: polygon coordinates must be rings of [x, y]")
        for index, ring in enumerate(rings):
            points = np.array([_position(item, where) for item in ring]).reshape(-1, 2)
            corners += [tuple(point) for point in points.tolist()]
            origin = points[:1]
            here, there = points - origin, np.roll(points, -1, axis=0) - origin
            cross = here[:, 0] * there[:, 1] - there[:, 0] * here[:, 1]
            sign = math.copysign(1.0, cross.sum()) * (-1 if index else 1)
            area = sign * cross.sum() / 2
            total += area
            moment += sign * ((here + there) * cross[:, None]).sum(axis=0) / 6
            moment += area * origin.sum(axis=0)
    if not corners:
        raise DataError(f"{where}: polygon without corners")
    x, y = moment / total if total > 0 else np.mean(corners, axis=0)
    return float(x), float(y)

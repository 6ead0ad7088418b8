"""GeoJSON as QuPath writes it: features with a class, a name and measurements.

Coordinates in a file are in QuPath's frame: level-0 pixels, x before y, counted from the corner of
the scanned area where a slide has one (`openslide.bounds-x`, `-y`); the caller adds that corner.
QuPath counts from the corner of the first pixel and SegMitos from its center; that half pixel
(about 0.1 um) is not added, so that the numbers in a GeoJSON file are the numbers everywhere else.
"""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np

from segmitos.errors import DataError, UsageError
from segmitos.io.geometry import check_mpp
from segmitos.io.json_files import is_number
from segmitos.io.points.annotations import Annotations
from segmitos.io.points.classes import (
    CLASSES,
    Classes,
    Label,
    plain_name,
    unknown_class,
)
from segmitos.io.points.geometries import (
    POINTS,
    POLYGONS,
    geometry_type,
    parts_of,
    polygons_of,
    position_of,
    positions_of,
)
from segmitos.io.points.regions import Polygon, Regions
from segmitos.io.problems import collected, refuse_all

Polygons = Literal["refuse", "centroid"]

REVIEWED_CLASSES = frozenset(
    {"region*", "region", "roi", "reviewed", "reviewed region", "reviewed area"}
)
"""Outlines of these classes, and those without one, are where every mitosis is marked."""
EXCLUDED_CLASSES = frozenset(
    {
        *("ignore", "ignored", "exclude", "excluded", "excluding", "exclusion"),
        *("necrosis", "necroses", "necrotic", "artefact", "artifact"),
    }
)
"""Outlines whose class begins with one of these words are left out (`is_excluded`)."""
OTHER_REGION_CLASSES = frozenset({"hotspot", "ten fields", "tissue", "tumor", "tumour", "stroma"})
"""Outlines of these classes say nothing about where mitoses are marked."""
# The two plates of an anaphase are no further apart than so many times their length.
_PLATES_APART = 3.0
# That are kept; all others are counted.
_MEASUREMENTS = ("score", "area_um2", "confidence")
_CONTAINERS = ("root", "tmaCore", "tile", "PathRootObject", "TMACoreObject", "PathTileObject")
_CELLS = ("detection", "cell", "PathDetectionObject", "PathCellObject")


@dataclass(frozen=True)
class Annotation:
    """One point of a GeoJSON file: `kind` is its class, None where it has none."""

    x_px: float
    y_px: float
    kind: str | None
    where: str
    measurements: Mapping[str, float] = field(default_factory=dict)
    id: str | None = None


@dataclass(frozen=True)
class Outline:
    """One polygon or several of a GeoJSON file, as one object."""

    polygons: tuple[Polygon, ...]
    kind: str | None
    name: str
    where: str
    is_cell: bool
    measurements: Mapping[str, float] = field(default_factory=dict)

    def centroid(self) -> Annotation:
        """Return the center of mass; holes count negative, whichever way they wind."""
        total, moment = 0.0, np.zeros(2)
        for rings in self.polygons:
            for index, points in enumerate(rings):
                origin = points[:1]
                here, there = points - origin, np.roll(points, -1, axis=0) - origin
                cross = here[:, 0] * there[:, 1] - there[:, 0] * here[:, 1]
                sign = math.copysign(1.0, cross.sum()) * (-1 if index else 1)
                area = sign * cross.sum() / 2
                total += area
                moment += sign * ((here + there) * cross[:, None]).sum(axis=0) / 6
                moment += area * origin.sum(axis=0)
        corners = np.concatenate([ring for rings in self.polygons for ring in rings])
        x, y = moment / total if total > 0 else np.mean(corners, axis=0)
        return Annotation(float(x), float(y), self.kind, self.where, self.measurements)


def is_excluded(kind: str | None) -> bool:
    """Tell whether outlines of a class are left out: `Ignore*`, `Artifacts`, `Necrotic area`.

    `Artifact-free` is the opposite.
    """
    first, second = (*re.findall(r"^[a-z]+|\S+", plain_name(kind or "")), "", "")[:2]
    return second != "free" and not EXCLUDED_CLASSES.isdisjoint({first, first.removesuffix("s")})


def own_member(content: Any) -> tuple[float | None, str, tuple[float, float]]:
    """Return the member `segmitos` of a parsed GeoJSON of ours.

    Returns:
        Um per pixel, None where it is not there; the image's name; where QuPath's frame begins.

    Raises:
        DataError: where it is there and not understood.
    """
    about = content.get("segmitos") if isinstance(content, dict) else None
    if about is None:
        return None, "", (0.0, 0.0)
    if not isinstance(about, dict):
        raise DataError(f"the member segmitos must be an object, not {str(about)[:60]!r}")
    mpp, offset = about.get("mpp"), about.get("qupath_offset_px", [0.0, 0.0])
    return (
        None if mpp is None else check_mpp(mpp, "segmitos.mpp"),
        str(about.get("name", "")),
        position_of(offset, "segmitos.qupath_offset_px"),
    )


def read_features(path: Path, content: Any) -> tuple[list[Annotation], list[Outline]]:
    """Return points and outlines of a parsed GeoJSON: FeatureCollection, Feature, or bare array.

    MultiPoint gives one annotation per point. Containers (root, TMA cores) are passed over, what
    is in them is not.

    Raises:
        DataError: for what is not GeoJSON, or a geometry that is neither, naming the feature.
    """
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
    points: list[Annotation] = []
    outlines: list[Outline] = []
    problems: list[str] = []
    for number, feature in enumerate(features, start=1):
        with collected(problems):
            for found in _objects(feature, f"{path}, feature {number}"):
                if isinstance(found, Outline):
                    outlines.append(found)
                else:
                    points.append(found)
    refuse_all(path, problems, "feature")
    return points, outlines


def regions_of(included: Sequence[Outline], excluded: Sequence[Outline]) -> Regions | None:
    """Return outlines to work in and to leave out as regions, None where there is none."""
    inside, outside = (
        tuple(polygon for outline in outlines for polygon in outline.polygons)
        for outlines in (included, excluded)
    )
    names = tuple(one.name or one.kind or "" for one in included for _ in one.polygons)
    return Regions(inside or None, outside, names) if inside or outside else None


def read_geojson_annotations(
    path: Path,
    content: Any,
    qupath_offset_px: tuple[float, float] | None = None,
    polygons: Polygons = "refuse",
    classes: Classes = CLASSES,
) -> Annotations:
    """Return the labeled points and reviewed regions of a parsed GeoJSON, in level-0 pixels.

    Args:
        path: for messages, and the name where the file has none.
        content: from `load_json`.
        qupath_offset_px: where QuPath's frame begins; None takes the file's own word.
        polygons: whether outlines of cells are refused or stand for their centroid.
        classes: the names of mitoses, hard negatives and unsure cells.

    Raises:
        DataError: for a class or geometry that is not understood, naming the feature.
    """
    mpp, name, offset = own_member(content)
    if polygons not in ("refuse", "centroid"):
        raise UsageError(f"polygons={polygons!r}: choose 'refuse' or 'centroid'")
    points, outlines = read_features(path, content)
    left_out: Counter[str] = Counter()
    cells: list[Annotation] = []
    included: list[Outline] = []
    excluded: list[Outline] = []
    problems: list[str] = []
    for outline in outlines:
        with collected(problems):
            role = _role(outline, polygons, classes)
            if role == "cell":
                _check_one_cell(outline)
                cells.append(outline.centroid())
            elif role == "included":
                included.append(outline)
            elif role == "excluded":
                excluded.append(outline)
            else:
                left_out[f"{outline.kind} outline"] += 1
    labels: list[Label] = []
    rows = []
    unread: set[str] = set()
    for point in [*points, *cells]:
        unread.update(set(point.measurements) - set(_MEASUREMENTS))
        with collected(problems):
            label = _label(point, classes)
            if label is None:
                left_out[str(point.kind)] += 1
                continue
            measured = (point.measurements.get(key, math.nan) for key in _MEASUREMENTS[:2])
            rows.append((point.x_px, point.y_px, *measured, _fraction(point)))
            labels.append(label)
    refuse_all(path, problems, "feature")
    if unread:
        first = ", ".join(sorted(unread)[:3])[:80]
        left_out[f"kinds of measurements ({first}{', ...' if len(unread) > 3 else ''})"] += len(
            unread
        )
    regions = regions_of(included, excluded)
    begin = offset if qupath_offset_px is None else qupath_offset_px
    return Annotations.from_rows(
        rows,
        labels,
        mpp=mpp,
        name=name or path.stem,
        regions=regions,
        left_out=left_out,
        qupath_offset_px=begin,
    ).moved(*begin)


def _role(
    outline: Outline, polygons: Polygons, classes: Classes
) -> Literal["cell", "included", "excluded", "other"]:
    """Tell what an outline is. Raises DataError where nobody can."""
    kind = None if outline.kind is None else outline.kind.lower()
    if is_excluded(kind) and not classes.is_named(kind or ""):
        return "excluded"
    if kind in REVIEWED_CLASSES:
        return "included"
    if kind in OTHER_REGION_CLASSES:
        return "other"
    if kind is None and not outline.is_cell:
        return "included"
    if polygons == "centroid":
        return "cell"
    if kind is not None and classes.label(kind) is None:
        raise DataError(
            f"{outline.where}: an outline of class {outline.kind!r}; rename it 'Region*' if every "
            "mitosis in it is marked, 'Ignore*' to leave it out, or delete it"
        )
    raise DataError(
        f"{outline.where} is a Polygon of class {outline.kind or 'none'}: mitoses are points; draw "
        "points, or ask for polygons='centroid' to take the middle of each outline"
    )


def _check_one_cell(outline: Outline) -> None:
    """Refuse an object of several outlines that are too far apart for one cell: its middle is none.

    Raises:
        DataError: naming the feature.
    """
    boxes = np.array([[rings[0].min(axis=0), rings[0].max(axis=0)] for rings in outline.polygons])
    spread = np.ptp(boxes.mean(axis=1), axis=0).max()
    if spread > _PLATES_APART * np.ptp(boxes, axis=1).max():
        raise DataError(
            f"{outline.where}: {len(outline.polygons)} outlines far apart are one object; split it "
            "(Split annotations in QuPath), so that each is a cell"
        )


def _label(point: Annotation, classes: Classes) -> Label | None:
    """Return a point's label, None where it is left out. Raises DataError for other classes."""
    if point.kind is None:
        raise DataError(
            f"{point.where} has no class: classify it as 'Mitotic figure', 'Hard negative' or "
            "'Unsure'"
        )
    label = classes.label(point.kind)
    if label is None and not classes.is_ignored(point.kind):
        raise unknown_class(point.kind, point.where)
    return label


def _fraction(point: Annotation) -> float:
    value = point.measurements.get("confidence", math.nan)
    if not (math.isnan(value) or 0 <= value <= 1):
        raise DataError(f"{point.where}: confidence {value} is not between 0 and 1")
    return value


def _objects(feature: Any, where: str) -> Iterator[Annotation | Outline]:
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
        identity = feature["id"] if isinstance(feature.get("id"), str) else None
        parts = list(parts_of(feature.get("geometry"), where))
        points = [part for part in parts if geometry_type(part) in POINTS]
        areas = [part for part in parts if geometry_type(part) in POLYGONS]
        if points and areas:
            raise DataError(f"{where}: points and areas are one object; split it, as in QuPath")
        for part in points:
            for x, y in positions_of(part, where):
                yield Annotation(x, y, kind, where, measured, identity)
        if areas:
            name = properties.get("name")
            polygons = tuple(one for part in areas for one in polygons_of(part, where))
            is_cell = object_type in _CELLS
            yield Outline(
                polygons, kind, name if isinstance(name, str) else "", where, is_cell, measured
            )
        elif (
            len(points) < max(len(parts), 1)
            and not is_excluded(kind)
            and (kind or "").lower() not in OTHER_REGION_CLASSES
        ):
            shape = next((geometry_type(part) for part in parts if part not in points), None)
            raise DataError(
                f"{where}: geometry {shape or 'missing'} cannot be a mitosis; expected Point"
            )
    if not isinstance(children, list):
        raise DataError(f"{where}: childObjects must be an array")
    for number, child in enumerate(children, start=1):
        yield from _objects(child, f"{where}, child {number}")


def _kind(classification: Any, where: str) -> str | None:
    """Return the class: a name, an object with `name` or `names`, or a derived `A: B`."""
    if isinstance(classification, dict):
        names = classification.get("names")
        classification = (
            ": ".join(map(str, names))
            if isinstance(names, list) and names
            else classification.get("name")
        )
    if classification is None:
        return None
    if not isinstance(classification, str):
        raise DataError(f"{where}: classification must be a name, not {classification!r:.60}")
    return classification.strip() or None


def _measurements(values: Any, where: str) -> dict[str, float]:
    """Read measurements as an object (QuPath 0.4 on) or as a list of name and value (before)."""
    if values is None:
        return {}
    if isinstance(values, list) and all(isinstance(item, dict) for item in values):
        values = {str(item.get("name")): item.get("value") for item in values}
    if not isinstance(values, dict):
        raise DataError(f"{where}: measurements must be an object or a list of name and value")
    return {str(name): float(value) for name, value in values.items() if is_number(value)}

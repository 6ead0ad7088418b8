"""Regions from GeoJSON files: which outlines limit the work, which are cut out."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from segmitos.errors import DataError, InputError
from segmitos.io.json_files import load_json
from segmitos.io.points.classes import CLASSES
from segmitos.io.points.geojson import (
    Outline,
    is_excluded,
    read_features,
    regions_of,
)
from segmitos.io.points.geometries import POLYGONS, geometry_type, parts_of, polygons_of
from segmitos.io.points.regions import Regions
from segmitos.io.slide import Slide

_SUFFIXES = (".geojson", ".json")
_GEOMETRIES = frozenset(
    {"Point", "MultiPoint", "LineString", "MultiLineString", "Polygon", "MultiPolygon"}
)


def read_regions(path: Path) -> Regions:
    """Read regions from GeoJSON: features, as QuPath exports them, or bare geometries.

    Every outline is a region whatever its class, but for those that `is_excluded` names, which are
    cut out, and for outlines of cells (mitosis, hard negative, unsure, and what QuPath has
    detected), which are passed over as points are. Where only outlines to cut out are there, the
    region is everything but them.

    Returns:
        The regions, in the file's frame.

    Raises:
        InputError: where the file cannot be read.
        DataError: where it is not GeoJSON or holds no outline.
    """
    content = load_json(path)
    included: list[Outline] = []
    excluded: list[Outline] = []
    detected = 0
    bare = _bare_geometries(content, path)
    for number, geometry in enumerate(bare or [], start=1):
        where = f"{path}, geometry {number}"
        included.append(Outline(polygons_of(geometry, where), None, "", where, False))
    for outline in read_features(path, content)[1] if bare is None else []:
        kind = (outline.kind or "").lower()
        if is_excluded(kind):
            excluded.append(outline)
        elif outline.is_cell:
            detected += 1
        elif CLASSES.label(kind) is None:
            included.append(outline)
    regions = regions_of(included, excluded)
    if regions is None:
        hint = (
            f"; outlines that QuPath has detected: {detected}, which are cells here; make those of "
            "regions annotations"
        )
        raise DataError(f"{path} holds no polygon to limit the work to{hint if detected else ''}")
    return regions


def regions_for(roi: Path, image: Path) -> Path:
    """Return the file of regions that belongs to an image.

    Args:
        roi: a GeoJSON file for all images, or a folder with one for each: `slide.geojson` or
            `slide.svs.geojson` for `slide.svs`; `.json` where there is neither, since beside
            them such a file may hold anything.
        image: the image's path.

    Raises:
        InputError: where there is none, or a folder holds two.
    """
    if not roi.is_dir():
        if not roi.exists():
            raise InputError(f"{roi}: no such file or folder of regions")
        return roi
    for suffix in _SUFFIXES:
        names = [f"{stem}{suffix}" for stem in (image.stem, image.name)]
        there = [name for name in names if (roi / name).is_file()]
        if there:
            break
    else:
        raise InputError(
            f"{roi} holds no regions of {image.name}: {image.stem}{_SUFFIXES[0]} is missing"
        )
    if len(there) > 1:
        raise InputError(
            f"{roi} holds two files of regions of {image.name}, {there[0]} and {there[1]}; keep "
            "one of them"
        )
    return roi / there[0]


def regions_of_slide(roi: Path, slide: Slide) -> Regions:
    """Read the regions of a slide, from QuPath's frame into level-0 pixels.

    Args:
        roi: as for `regions_for`.
        slide: opened.

    Raises:
        InputError: where there is no file, or it cannot be read.
        DataError: where it is not GeoJSON, holds no polygon, or one that touches nothing of the
            slide.
    """
    path = regions_for(roi, slide.path)
    left, top = slide.bounds[:2]
    regions = read_regions(path).moved(left, top)
    if problem := regions.misplaced(slide.width, slide.height, (left, top)):
        raise DataError(
            f"{path}: {problem} {slide.path.name} of {slide.width} x {slide.height} px; were they "
            "drawn on another image, or at another scale?"
        )
    return regions


def _bare_geometries(content: Any, path: Path) -> list[Any] | None:
    """Return the polygons of geometries without features around them, None where it is others."""
    items = content if isinstance(content, list) else [content]
    parts = [part for item in items for part in parts_of(item, str(path))]
    if not all(geometry_type(part) in _GEOMETRIES for part in parts):
        return None
    return [part for part in parts if geometry_type(part) in POLYGONS]

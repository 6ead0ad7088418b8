"""Annotated points from any file: the one place that tells formats apart."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import replace
from pathlib import Path

from segmitos.errors import DataError, ScaleError
from segmitos.io.json_files import load_json
from segmitos.io.points.annotations import Annotations
from segmitos.io.points.classes import (
    HARD_NEGATIVE_CLASSES,
    MITOSIS_CLASSES,
    UNSURE_CLASSES,
    Classes,
    Unclassified,
)
from segmitos.io.points.csv_points import read_csv_annotations
from segmitos.io.points.exchange import read_midog
from segmitos.io.points.geojson import Polygons, own_member, read_geojson_annotations
from segmitos.io.points.native_json import read_native_annotations


def read_annotations(
    path: Path | str,
    mpp: float | None = None,
    qupath_offset_px: tuple[float, float] | None = None,
    unclassified: Unclassified = "refuse",
    polygons: Polygons = "refuse",
    mitosis_classes: Collection[str] = MITOSIS_CLASSES,
    hard_negative_classes: Collection[str] = HARD_NEGATIVE_CLASSES,
    unsure_classes: Collection[str] = UNSURE_CLASSES,
) -> Annotations:
    """Read the annotated points of one image: CSV, GeoJSON (as QuPath exports it), JSON.

    A CSV names its columns in the first line: `x_px,y_px` (or `x,y`, or `column,row`), and where
    not all are mitoses a column of classes: names, or 1 and 0. A GeoJSON point needs a class.

    Args:
        path: the file; its ending (.csv, .tsv, .txt; .geojson, .json) and content tell the format.
        mpp: um per level-0 pixel of the image; needed for Grand Challenge files (millimetres).
        qupath_offset_px: where QuPath's frame begins on the slide, in level-0 pixels
            (`openslide.bounds-x`, `-y`); added to positions of GeoJSON. Without it the file's own
            word is taken where it is ours, else (0, 0).
        unclassified: what a GeoJSON point without a class is: refused, a mitosis, or ignored.
        polygons: whether outlines of cells are refused or stand for their centroid.
        mitosis_classes: class names of mitoses, compared without case.
        hard_negative_classes: class names of look-alikes.
        unsure_classes: class names of cells that are neither.

    Returns:
        Points with their labels, in file order, in level-0 pixels, and reviewed regions.

    Raises:
        InputError: if the file cannot be read.
        DataError: if it is not in its format, with feature or line and value.
        ScaleError: for a file in millimetres without `mpp`.
    """
    path = Path(path)
    classes = Classes(mitosis_classes, hard_negative_classes, unsure_classes)
    if path.suffix.lower() in (".csv", ".tsv", ".txt"):
        return read_csv_annotations(path, mpp, classes)
    if path.suffix.lower() not in (".geojson", ".json"):
        raise DataError(f"{path}: points are read from .csv, .geojson or .json files")
    content = load_json(path)
    if isinstance(content, dict) and content.get("format") is not None:
        return read_native_annotations(path, content)
    if isinstance(content, dict) and content.get("type") == "Multiple points":
        if mpp is None:
            raise ScaleError(f"{path} is in millimetres: give um per pixel, e.g. --mpp 0.25")
        mitoses, others = read_midog(path, mpp), read_midog(path, mpp, rejected=True)
        return Annotations.from_groups(mitoses.xy, others.xy, mpp=mpp, name=mitoses.name)
    about = own_member(content)
    found = read_geojson_annotations(path, content, unclassified, polygons, classes)
    offset = about.qupath_offset_px if qupath_offset_px is None else qupath_offset_px
    found = replace(found, mpp=mpp or about.mpp, name=about.name or path.stem)
    return found.moved(*offset)

"""Annotated points from any file: the one place that tells formats apart."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

from segmitos.errors import DataError, ScaleError, UsageError
from segmitos.io.json_files import load_json
from segmitos.io.points.annotations import Annotations
from segmitos.io.points.boxes import Layout
from segmitos.io.points.classes import CLASSES, Classes
from segmitos.io.points.coco import choose_image, coco_annotations, is_coco, layout_of, parse_coco
from segmitos.io.points.csv_points import read_csv_annotations
from segmitos.io.points.geojson import Polygons, read_geojson_annotations
from segmitos.io.points.grand_challenge import POINTS_TYPE, read_grand_challenge
from segmitos.io.points.native_json import read_native_annotations
from segmitos.io.points.sliderunner import is_sliderunner, read_sliderunner

TABLES = (".csv", ".tsv", ".txt")
_JSON = (".geojson", ".json")


def read_annotations(
    path: Path | str,
    mpp: float | None = None,
    qupath_offset_px: tuple[float, float] | None = None,
    polygons: Polygons = "refuse",
    classes: Classes = CLASSES,
    image: str | None = None,
    boxes: Layout | None = None,
) -> Annotations:
    """Read the annotated points of one image, whatever program saved them.

    Tables (.csv, .tsv, .txt) name their columns in the first line: `x_px,y_px` (or `x,y`, or
    `column,row`), and where not all are mitoses a column of classes. JSON is told by its members:
    GeoJSON as QuPath exports it, COCO or MIDOG's labels, Grand Challenge points, our own. A
    SlideRunner database is told by its first bytes.

    Args:
        path: the file.
        mpp: um per level-0 pixel of the image; needed for Grand Challenge files (millimeters).
        qupath_offset_px: where QuPath's frame begins on the slide, in level-0 pixels
            (`openslide.bounds-x`, `-y`); added to positions of GeoJSON. Without it the file's own
            word is taken where it is ours, else (0, 0).
        polygons: whether outlines of cells are refused or stand for their centroid.
        classes: the names of mitoses, hard negatives and unsure cells.
        image: file name of the image to take from a file of several.
        boxes: what the boxes of a COCO-like file are; None has it told from the numbers.

    Returns:
        Points with their labels, in file order, in level-0 pixels, and reviewed regions.

    Raises:
        InputError: if the file cannot be read.
        DataError: if it is not in its format, with feature or line and value.
        ScaleError: for a file in millimeters without `mpp`.
        UsageError: where `image` or `boxes` are given for a file that has none.
    """
    path = Path(path)
    if is_sliderunner(path):
        return _of_database(path, image, mpp, classes)
    suffix = path.suffix.lower()
    if suffix not in TABLES + _JSON:
        raise DataError(
            f"{path}: points are read from .csv, .tsv, .txt, .geojson and .json files and from "
            "SlideRunner databases"
        )
    is_json = suffix in _JSON
    content = load_json(path, decimals=True) if is_json else None
    if is_coco(content):
        file = parse_coco(path, _plain(content))
        chosen = choose_image(path, file, image)
        return coco_annotations(path, file, boxes or layout_of(path, file), chosen, mpp, classes)
    if image is not None:
        raise UsageError(f"{path} is of one image: --image is for COCO and SlideRunner files")
    if boxes is not None:
        raise UsageError(f"{path} has no boxes: --boxes is for COCO and MIDOG files")
    if not is_json:
        return read_csv_annotations(path, mpp, classes)
    if isinstance(content, dict) and content.get("type") == POINTS_TYPE:
        if mpp is None:
            raise ScaleError(f"{path} is in millimeters: give um per pixel, e.g. --mpp 0.25")
        return read_grand_challenge(path, content, mpp, classes)
    content = _plain(content)
    if isinstance(content, dict) and content.get("format") is not None:
        found = read_native_annotations(path, content)
    else:
        found = read_geojson_annotations(path, content, qupath_offset_px, polygons, classes)
    return replace(found, mpp=mpp or found.mpp)


def _of_database(path: Path, image: str | None, mpp: float | None, classes: Classes) -> Annotations:
    slides = [found for found, _ in read_sliderunner(path, classes)]
    chosen = [found for found in slides if image in (None, found.name)]
    if len(chosen) != 1:
        names = ", ".join(found.name for found in slides[:3])
        raise DataError(
            f"{path} holds {len(slides)} slides: name one of them with --image, e.g. {names}"
        )
    return replace(chosen[0], mpp=mpp)


def _plain(content: Any) -> Any:
    """Turn the decimals of parsed JSON into floats; only millimeters need all their digits."""
    from decimal import Decimal

    if isinstance(content, dict):
        return {key: _plain(value) for key, value in content.items()}
    if isinstance(content, list):
        return [_plain(value) for value in content]
    return float(content) if isinstance(content, Decimal) else content

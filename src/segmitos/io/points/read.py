"""Annotated points: what a person clicked, as mitoses and hard negatives."""

from __future__ import annotations

import csv
import io
from collections.abc import Collection
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from segmitos.errors import DataError, InputError, ScaleError
from segmitos.io.points.classes import (
    HARD_NEGATIVE_CLASSES,
    MITOSIS_CLASSES,
    Unclassified,
    classify_marks,
    normal_names,
    parse_number,
    plain_name,
)
from segmitos.io.points.detections import read_json
from segmitos.io.points.exchange import read_midog
from segmitos.io.points.geojson import Polygons, load_json, read_marks

PointPair = tuple[NDArray[np.float64], NDArray[np.float64]]

_X_AND_Y = (
    ("x_px", "y_px"),
    ("x", "y"),
    ("column", "row"),
    ("col", "row"),
    ("centroid x px", "centroid y px"),
)
_LABELS = ("label", "class", "classification", "category")


def read_points(
    path: Path | str,
    unclassified: Unclassified = "refuse",
    polygons: Polygons = "refuse",
    mpp: float | None = None,
    mitosis_classes: Collection[str] = MITOSIS_CLASSES,
    hard_negative_classes: Collection[str] = HARD_NEGATIVE_CLASSES,
) -> PointPair:
    """Read clicked points from CSV, GeoJSON (as QuPath exports it) or SegMitos's own JSON.

    A CSV names its columns in the first line: `x_px,y_px` (or `x,y`, or `column,row`), and where
    there are hard negatives a column `label` (or `class`): a class name, or 1 and 0. Without one
    every line is a mitosis. A GeoJSON object needs a class.

    Args:
        path: the file; its ending (.csv, .tsv, .txt; .geojson, .json) tells the format.
        unclassified: what a GeoJSON object without a class is: refused, a mitosis, or ignored.
        polygons: whether outlines of cells are refused or stand for their centroid.
        mpp: only for Grand Challenge files, which are in millimetres.
        mitosis_classes: class names of mitoses, compared without case.
        hard_negative_classes: class names of look-alikes.

    Returns:
        Mitoses (n, 2) and hard negatives (m, 2), level-0 pixels (x, y), float64, in file order.

    Raises:
        InputError: if the file cannot be read.
        DataError: if it is not in its format, with feature or line and value.
    """
    path = Path(path)
    if path.suffix.lower() in (".csv", ".tsv", ".txt"):
        return _read_table(path, mitosis_classes, hard_negative_classes)
    if path.suffix.lower() not in (".geojson", ".json"):
        raise DataError(f"{path}: points are read from .csv, .geojson or .json files")
    content = load_json(path)
    if isinstance(content, dict) and content.get("format") is not None:
        return read_json(path).xy, np.zeros((0, 2))
    if isinstance(content, dict) and content.get("type") == "Multiple points":
        if mpp is None:
            raise ScaleError(f"{path} is in millimetres: give um per pixel, e.g. --mpp 0.25")
        mitoses, others = read_midog(path, mpp), read_midog(path, mpp, rejected=True)
        return mitoses.xy, others.xy
    marks = read_marks(path, content, polygons)
    groups = classify_marks(marks, unclassified, mitosis_classes, hard_negative_classes)
    mitoses_xy, negatives_xy = (
        np.array([(mark.x_px, mark.y_px) for mark in group], dtype=np.float64).reshape(-1, 2)
        for group in groups
    )
    return mitoses_xy, negatives_xy


def _read_table(path: Path, mitosis: Collection[str], hard_negative: Collection[str]) -> PointPair:
    rows = _rows(path)
    header = [cell.strip().lower() for cell in rows[0]] if rows else []
    pair = next((pair for pair in _X_AND_Y if set(pair) <= set(header)), None)
    if pair is None:
        raise DataError(
            f"{path}: the first line must name the columns x_px,y_px (and label where there are "
            f"hard negatives), not {','.join(header)[:60]!r}"
        )
    label = next((header.index(name) for name in _LABELS if name in header), None)
    column, row_ = header.index(pair[0]), header.index(pair[1])
    positive, negative = normal_names(mitosis) | {"1"}, normal_names(hard_negative) | {"0"}
    mitoses: list[tuple[float, float]] = []
    negatives: list[tuple[float, float]] = []
    for number, row in enumerate(rows[1:], start=2):
        if not any(cell.strip() for cell in row):
            continue
        where = f"{path}, line {number}"
        if len(row) != len(header):
            raise DataError(f"{where}: {len(row)} values for {len(header)} columns")
        point = (
            parse_number(row[column], pair[0], where),
            parse_number(row[row_], pair[1], where),
        )
        kind = "1" if label is None else plain_name(row[label].split(":")[0])
        if kind not in positive | negative:
            raise DataError(
                f"{where}: {header[label or 0]} {row[label or 0]!r} is neither mitosis nor hard "
                "negative; write 'mitosis' or 'hard negative' (or 1 or 0)"
            )
        (mitoses if kind in positive else negatives).append(point)
    return _array(mitoses), _array(negatives)


def _rows(path: Path) -> list[list[str]]:
    try:
        text = path.read_text(encoding="utf-8-sig")
        first = text.partition("\n")[0]
        delimiter = max(",;\t", key=first.count)
        return list(csv.reader(io.StringIO(text), delimiter=delimiter))
    except OSError as error:
        raise InputError(f"cannot read {path}: {error.strerror or error}") from error
    except (UnicodeDecodeError, csv.Error) as error:
        raise DataError(f"{path} is not a CSV file") from error


def _array(points: list[Any]) -> NDArray[np.float64]:
    return np.array(points, dtype=np.float64).reshape(-1, 2)

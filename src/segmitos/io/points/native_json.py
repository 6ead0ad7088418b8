"""SegMitos's own JSON: points with all that is known of them."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np

from segmitos.errors import DataError
from segmitos.io.geometry import LARGEST_PX, check_mpp
from segmitos.io.json_files import is_number
from segmitos.io.points.annotations import Annotations
from segmitos.io.points.classes import LABELS, Label

FORMAT = "segmitos detections"
_VALUES = ("x_px", "y_px", "score", "area_um2", "confidence")


def native_content(annotations: Annotations) -> dict[str, Any]:
    """Return an object for `json.dumps`; an unknown value is null, a confidence left out.

    Version 1 holds mitoses alone; version 2 has a `label` for each point.
    """
    version = 1 if set(annotations.labels) <= {"mitosis"} else 2
    columns = {
        "x_px": annotations.xy[:, 0],
        "y_px": annotations.xy[:, 1],
        "area_um2": np.asarray(annotations.area_um2),
        "score": np.asarray(annotations.score),
        "confidence": np.asarray(annotations.confidence),
    }
    if np.isnan(columns["confidence"]).all():
        del columns["confidence"]
    items: list[dict[str, Any]] = []
    for index, label in enumerate(annotations.labels):
        item: dict[str, Any] = {
            name: None if math.isnan(values[index]) else float(values[index])
            for name, values in columns.items()
        }
        items.append(item if version == 1 else item | {"label": label})
    return {
        "format": FORMAT,
        "version": version,
        "name": annotations.name,
        "mpp": annotations.mpp,
        "detections": items,
    }


def read_native_annotations(path: Path, content: Any) -> Annotations:
    """Read what `native_content` returned. Raises DataError, ScaleError."""
    if not isinstance(content, dict) or content.get("format") != FORMAT:
        raise DataError(f"{path} is not a SegMitos JSON file (format {FORMAT!r})")
    if content.get("version") not in (1, 2):
        raise DataError(f"{path}: version {content.get('version')!r} is not known; expected 1 or 2")
    items = content.get("detections")
    if not isinstance(items, list) or not all(isinstance(item, dict) for item in items):
        raise DataError(f"{path}: 'detections' must be an array of objects")
    rows: list[tuple[float, float, float, float, float]] = []
    labels: list[Label] = []
    for number, item in enumerate(items, start=1):
        where = f"{path}, detection {number}"
        x, y, score, area, confidence = (_value(item.get(name), name, where) for name in _VALUES)
        label = item.get("label", "mitosis")
        if label not in LABELS:
            raise DataError(f"{where}: label {str(label)[:60]!r} is not one of {', '.join(LABELS)}")
        labels.append(label)
        rows.append((x, y, score, area, confidence))
    mpp = content.get("mpp")
    return Annotations.from_rows(
        rows,
        labels,
        mpp=None if mpp is None else check_mpp(mpp, f"{path}: mpp"),
        name=str(content.get("name", "")),
    )


def _value(value: Any, name: str, where: str) -> float:
    required = name in ("x_px", "y_px")
    if value is None and not required:
        return math.nan
    if not is_number(value):
        raise DataError(f"{where}: {name} {str(value)[:60]!r} is not a number")
    if not abs(value) <= LARGEST_PX and required:
        raise DataError(f"{where}: {name} {value} is no position: positions must be finite")
    return float(value)

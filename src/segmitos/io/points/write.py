"""Annotated points into any format, and what each of them cannot hold."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from segmitos.errors import ScaleError, UsageError
from segmitos.io.files import json_text, write_text
from segmitos.io.points.annotations import Annotations
from segmitos.io.points.coco import coco_content, midog_content
from segmitos.io.points.csv_points import csv_text
from segmitos.io.points.geojson_features import annotations_content, collection_text
from segmitos.io.points.grand_challenge import grand_challenge_text
from segmitos.io.points.native_json import native_content
from segmitos.io.points.sliderunner import write_sliderunner

_CANNOT_HOLD: dict[str, frozenset[str]] = {
    "geojson": frozenset({"laboratory"}),
    "csv": frozenset({"regions"}),
    "json": frozenset({"regions", "laboratory"}),
    "grand-challenge": frozenset({"unsure", "area", "confidence", "regions", "laboratory"}),
    "midog": frozenset({"unsure", "area", "confidence", "regions", "laboratory"}),
    "coco": frozenset({"regions", "laboratory"}),
    "midog-labels": frozenset({"unsure", "score", "area", "confidence", "regions", "laboratory"}),
    "sliderunner": frozenset({"score", "area", "confidence", "regions", "laboratory"}),
}
FORMATS = tuple(_CANNOT_HOLD)
"""`midog` is MIDOG's output, which is Grand Challenge's; `midog-labels` are its annotations."""


def not_held(annotations: Annotations, target: str) -> dict[str, int]:
    """Count what a format cannot hold of these annotations, by kind."""
    there: Mapping[str, int] = {
        "unsure": annotations.counts()["unsure"],
        "score": int(np.isfinite(np.asarray(annotations.score)).sum()),
        "area": int(np.isfinite(np.asarray(annotations.area_um2)).sum()),
        "confidence": int(np.isfinite(np.asarray(annotations.confidence)).sum()),
        "regions": _number_of_regions(annotations),
        "laboratory": int(bool(annotations.laboratory)),
    }
    return {kind: there[kind] for kind in there if kind in _CANNOT_HOLD[target] and there[kind]}


def _number_of_regions(annotations: Annotations) -> int:
    regions = annotations.regions
    return 0 if regions is None else len(regions.included or ()) + len(regions.excluded)


def write_annotations(
    path: Path,
    annotations: Annotations,
    target: str,
    object_type: str = "annotation",
    qupath_offset_px: tuple[float, float] = (0.0, 0.0),
    size_px: tuple[int, int] | None = None,
) -> dict[str, int]:
    """Write annotations in a format of `FORMATS`.

    Args:
        path: to write, whole or not at all.
        annotations: of one image.
        target: the format.
        object_type: of GeoJSON: `annotation` or `detection`.
        qupath_offset_px: where QuPath's frame begins, subtracted from positions of GeoJSON.
        size_px: width and height of the image, where known.

    Returns:
        What the format cannot hold, counted by kind.

    Raises:
        OutputError: if it cannot be written.
        ScaleError: for a format in millimeters where the scale is unknown.
        UsageError: for an unknown format or object type.
    """
    if target not in FORMATS:
        raise UsageError(f"format {target!r} is not one of {', '.join(FORMATS)}")
    if target in ("midog", "grand-challenge") and annotations.mpp is None:
        raise ScaleError(f"{target} is in millimeters: give um per pixel, e.g. --mpp 0.25")
    if target == "sliderunner":
        write_sliderunner(path, annotations, size_px)
    elif target == "geojson":
        content = annotations_content(annotations, object_type, qupath_offset_px)
        write_text(path, collection_text(content))
    elif target == "csv":
        write_text(path, csv_text(annotations))
    elif target == "json":
        write_text(path, json_text(native_content(annotations)))
    elif target == "coco":
        write_text(path, json_text(coco_content(annotations, size_px)))
    elif target == "midog-labels":
        write_text(path, json_text(midog_content(annotations, size_px)))
    else:
        write_text(path, grand_challenge_text(annotations))
    return not_held(annotations, target)


def summary_of(counts: Mapping[str, int]) -> str:
    """Return counts by kind as text: `3 unsure, 1 regions`."""
    return ", ".join(f"{count} {kind}" for kind, count in Counter(counts).items())

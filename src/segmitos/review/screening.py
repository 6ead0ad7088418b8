"""Screening: an area looked at field by field, and how much of an area was looked at."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

import numpy as np

from segmitos.errors import DataError

if TYPE_CHECKING:
    from shapely.geometry.base import BaseGeometry

Outline = Sequence[tuple[float, float]]
OVERLAP = 0.1
_MAX_FIELDS = 20_000
# Fraction from which a window counts as screened: outlines are rounded to 0.01 px.
_WHOLE = 0.999


def screening_fields(
    areas: Sequence[Outline], field_px: tuple[float, float], size_px: tuple[int, int]
) -> list[list[float]]:
    """Cut areas into overlapping fields, in serpentine order.

    Args:
        areas: outlines, level-0 pixels.
        field_px: width and height of a field, level-0 pixels.
        size_px: of the image.

    Returns:
        x0, y0, x1, y1 of each field that touches an area: rows from the top, odd ones from the
        right, so that the next field is always beside the last.

    Raises:
        DataError: where there would be too many fields.
    """
    fields: list[list[float]] = []
    if not areas:
        return fields
    corners = np.concatenate([np.asarray(area, float) for area in areas])
    low = np.maximum(corners.min(axis=0), -0.5)
    high = np.minimum(corners.max(axis=0), np.asarray(size_px) - 0.5)
    if (high <= low).any():
        return fields
    columns, rows = (
        _starts(float(start), float(end), size)
        for start, end, size in zip(low, high, field_px, strict=True)
    )
    if len(columns) * len(rows) > _MAX_FIELDS:
        raise DataError(
            f"{len(columns) * len(rows)} fields are too many to screen; choose a smaller area"
        )
    import shapely

    area = _union(areas)
    shapely.prepare(area)
    for number, top in enumerate(rows):
        for left in columns if number % 2 == 0 else reversed(columns):
            box = [left, top, left + field_px[0], top + field_px[1]]
            if area.intersects(shapely.box(box[0], box[1], box[2], box[3])):
                fields.append(box)
    return fields


def _starts(low: float, high: float, size: float) -> list[float]:
    """Return where fields begin so that they cover low..high, overlapping by a tenth or more."""
    length = high - low
    if length <= size:
        return [low + (length - size) / 2]
    number = 1 + math.ceil((length - size) / (size * (1 - OVERLAP)) - 1e-9)
    return [float(start) for start in np.linspace(low, high - size, number)]


def polygon(area: Outline) -> BaseGeometry:
    """Return a valid geometry; lines drawn freehand may cross themselves."""
    import shapely

    valid: BaseGeometry = shapely.make_valid(shapely.Polygon(area))
    return valid


def _union(areas: Sequence[Outline]) -> BaseGeometry:
    import shapely

    united: BaseGeometry = shapely.union_all([polygon(area) for area in areas])
    return united


def is_seen(box: Sequence[float], seen: Iterable[Outline]) -> bool:
    """Tell whether fields that were seen cover a field, whatever size they had."""
    x, y = np.meshgrid(np.linspace(box[0], box[2], 5), np.linspace(box[1], box[3], 5))
    left = np.ones(x.shape, bool)
    for outline in seen:
        corners = np.asarray(outline, float)
        (x0, y0), (x1, y1) = corners.min(axis=0) - 1, corners.max(axis=0) + 1
        left &= ~((x >= x0) & (x <= x1) & (y >= y0) & (y <= y1))
        if not left.any():
            return True
    return False


def covers(regions: Sequence[Outline], outline: Outline) -> bool:
    """Tell whether reviewed regions cover an outline whole."""
    if not regions:
        return False
    window = polygon(outline)
    return bool((window & _union(regions)).area >= _WHOLE * window.area)


def area_mm2(regions: Sequence[Outline], mpp: float) -> float:
    """Return the area of regions, each place counted once."""
    return float(_union(regions).area) * mpp**2 / 1e6 if regions else 0.0

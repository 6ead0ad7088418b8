"""Tables of points: numbers checked line by line, places checked against the image."""

from __future__ import annotations

import csv
import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from segmitos.errors import DataError

# A point may lie this far beyond the border: annotations are rounded.
_SLACK_PX = 2.0


def read_lines(path: Path) -> list[list[str]]:
    """Read a CSV as rows of stripped cells, blank rows as empty lists. Raises DataError."""
    try:
        text = path.read_text(encoding="utf-8-sig")
    except OSError as error:
        raise DataError(f"cannot read {path}: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise DataError(f"{path} is not a text file ({error.reason})") from error
    return [[cell.strip() for cell in row] for row in csv.reader(text.splitlines())]


def number(text: str, path: Path, line: int, column: str) -> float:
    """Turn a cell into a finite number. Raises DataError with file, line, column and value."""
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not math.isfinite(value):
        raise DataError(f"{path}, line {line}: {column} is {text!r}, not a number")
    return value


def headless_points(path: Path, columns: Sequence[str]) -> NDArray[np.float64]:
    """Read a CSV without header whose first cells are `columns`; returns (n, len(columns)).

    Raises:
        DataError: for a row that is too short or a cell that is no number.
    """
    rows = []
    for line, cells in enumerate(read_lines(path), start=1):
        if not any(cells):
            continue
        if len(cells) < len(columns):
            raise DataError(
                f"{path}, line {line}: {len(cells)} columns instead of {','.join(columns)}"
            )
        rows.append(
            [number(cell, path, line, name) for cell, name in zip(cells, columns, strict=False)]
        )
    return np.array(rows, float).reshape(-1, len(columns))


def image_size(path: Path) -> tuple[int, int]:
    """Read width and height from an image's header. Raises DataError."""
    from segmitos.errors import InputError
    from segmitos.io.slide import Slide

    try:
        with Slide.open(path) as slide:
            return slide.width, slide.height
    except InputError as error:
        raise DataError(str(error)) from error


def check_inside(points_xy: NDArray[np.float64], size: tuple[int, int], path: Path) -> None:
    """Raise DataError where a point lies outside the image; hint at swapped axes."""
    width, height = size
    outside = (
        (points_xy[:, 0] < -_SLACK_PX)
        | (points_xy[:, 1] < -_SLACK_PX)
        | (points_xy[:, 0] > width - 1 + _SLACK_PX)
        | (points_xy[:, 1] > height - 1 + _SLACK_PX)
    )
    if not outside.any():
        return
    x, y = points_xy[outside][0]
    swapped = points_xy[:, 0].max() < height and points_xy[:, 1].max() < width
    hint = "; are x and y swapped?" if swapped else ""
    raise DataError(
        f"{path}: point ({x:g}, {y:g}) lies outside its image of {width} x {height} px{hint}"
    )

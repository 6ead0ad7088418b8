"""Tables of points: numbers checked line by line, places checked against the image."""

from __future__ import annotations

import csv
import math
import re
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from segmitos.errors import DataError, InputError

# A point may lie this far beyond the border: annotations are rounded.
SLACK_PX = 2.0
IMAGES = (".bmp", ".png", ".tif", ".tiff", ".jpg", ".jpeg")


def require_folder(path: Path, name: str) -> None:
    """Raise DataError where a format that is a folder is given a file."""
    if not path.is_dir():
        raise DataError(f"{path} is a file; {name} is a folder of images and tables")


def images_under(folder: Path, recursive: bool = False) -> list[Path]:
    """Return the images of a folder, sorted; hidden files (`._A03.tiff`) are not images."""
    found = folder.rglob("*") if recursive else folder.iterdir()
    return sorted(
        path for path in found if path.suffix.lower() in IMAGES and not path.name.startswith(".")
    )


def read_lines(path: Path) -> list[list[str]]:
    """Read a CSV as rows of stripped cells, blank rows as empty lists. Raises DataError."""
    try:
        text = path.read_text(encoding="utf-8-sig")
    except FileNotFoundError as error:
        raise DataError(f"{path} is missing") from error
    except OSError as error:
        raise DataError(f"cannot read {path}: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise DataError(f"{path} is not a text file ({error.reason})") from error
    try:
        return [[cell.strip() for cell in row] for row in csv.reader(text.splitlines())]
    except csv.Error as error:
        raise DataError(f"{path} is not a CSV file ({error})") from error


def number(text: str, path: Path, line: int, column: str) -> float:
    """Turn a cell into a finite number. Raises DataError with file, line, column and value."""
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not math.isfinite(value):
        raise DataError(f"{path}, line {line}: {column} is {text!r}, not a number")
    return value


def named_rows(path: Path, columns: Sequence[str]) -> Iterator[tuple[int, dict[str, str]]]:
    """Yield line number and cells by column of a CSV with a header; blank lines are passed over.

    Raises:
        DataError: where a column is missing, or a row is of another length than the header.
    """
    lines = read_lines(path)
    header = lines[0] if lines else []
    missing = [name for name in columns if name not in header]
    if missing:
        has = ", ".join(header) or "no header"
        raise DataError(f"{path} lacks the column {missing[0]!r}; it has {has}")
    for line, cells in enumerate(lines[1:], start=2):
        if not any(cells):
            continue
        if len(cells) != len(header):
            raise DataError(f"{path}, line {line}: {len(cells)} columns instead of {len(header)}")
        yield line, dict(zip(header, cells, strict=True))


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
    from segmitos.io.slide import Slide

    try:
        with Slide.open(path) as slide:
            return slide.width, slide.height
    except InputError as error:
        raise DataError(str(error)) from error


def image_header(path: Path) -> tuple[tuple[int, int] | None, float | None]:
    """Read size and scale from an image's header, None each where it cannot be read.

    One damaged image does not keep a data set from being described: `find_problems` names it, and
    so does whatever reads it.
    """
    from segmitos.io.slide import Slide

    try:
        with Slide.open(path) as slide:
            return (slide.width, slide.height), slide.mpp
    except InputError:
        return None, None


def is_inside(
    points_xy: NDArray[np.float64], size: tuple[int, int], slack_px: float = 0.5
) -> NDArray[np.bool_]:
    """Tell which points (n, 2) lie on an image of `size` (width, height), within a slack."""
    last = np.array(size) - 1 + slack_px
    return np.asarray(((points_xy >= -slack_px) & (points_xy <= last)).all(axis=1))


def check_inside(
    points_xy: NDArray[np.float64],
    size: tuple[int, int] | None,
    path: Path,
    slack_px: float = SLACK_PX,
) -> None:
    """Raise DataError where a point of a table lies outside the image; hint at swapped axes."""
    if size is None:
        return
    outside = ~is_inside(points_xy, size, slack_px)
    if not outside.any():
        return
    x, y = points_xy[outside][0]
    swapped = is_inside(points_xy[:, ::-1], size, slack_px).all()
    line = _line_with(path, x, y)
    raise DataError(
        f"{path}{f', line {line}' if line else ''}: point ({x:g}, {y:g}) lies outside its image "
        f"of {size[0]} x {size[1]} px{'; are x and y swapped?' if swapped else ''}"
    )


def _line_with(path: Path, x: float, y: float) -> int | None:
    """Find the line of a table that holds both numbers, for the error message."""
    if path.suffix.lower() not in (".csv", ".tsv", ".txt"):
        return None
    for line, text in enumerate(path.read_text(encoding="utf-8-sig").splitlines(), start=1):
        values = set()
        for cell in re.split(r"[,;\t]", text):
            try:
                values.add(float(cell))
            except ValueError:
                continue
        if {x, y} <= values:
            return line
    return None

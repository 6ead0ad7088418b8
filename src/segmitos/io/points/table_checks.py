"""What a table of points must not leave open: which image, which unit, a point or a box, decimals.

A table may be read in two ways and give a position either way; such a table is refused by name.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

from segmitos.errors import DataError
from segmitos.io.points.classes import plain_name
from segmitos.io.tables import Table, may_be_thousands
from segmitos.io.text import parse_decimal

Rows = Sequence[tuple[int, dict[str, str]]]
"""Line number and cells by column."""

_IMAGES = (
    *("image", "img", "slide", "case", "file", "filename", "path", "frame", "tile", "patch"),
    *("wsi", "scan", "field", "slice", "specimen", "patient"),
)
_IMAGE_COLUMN = re.compile(
    rf"({'|'.join(_IMAGES)})( ?(name|id|file|path|no|nr|number|index|uid))*", re.ASCII
)
# Names of the sides of a box: x and y are then its corner, or its middle.
_SIDES = (
    *(("width", "height"), ("w", "h"), ("x2", "y2"), ("xmax", "ymax"), ("x max", "y max")),
    *(("width px", "height px"), ("box width", "box height"), ("box w", "box h")),
    *(("bbox width", "bbox height"), ("bbox w", "bbox h")),
)
# Of its corner (ImageJ's is BX, BY): beside columns of these names, x and y are the middle.
_CORNERS = (
    *(("bx", "by"), ("x1", "y1"), ("xmin", "ymin"), ("x min", "y min")),
    *(("left", "top"), ("bbox x", "bbox y"), ("box x", "box y")),
)
_CENTROID = "centroid"
_UNITS = ("unit", "units")
_PIXELS = frozenset({"", "px", "pixel", "pixels", "pix"})


def is_image_column(column: str) -> bool:
    """Tell whether a column names the image of a point: `image`, `slide_id`, `File Name`."""
    return _IMAGE_COLUMN.fullmatch(plain_name(column).rstrip(" .#:")) is not None


def check_one_image(table: Table, rows: Rows) -> None:
    """Refuse points of several images, and rows that stand for several points.

    Raises:
        DataError: naming the column.
    """
    for column in filter(is_image_column, _columns(rows)):
        names = list(dict.fromkeys(cells[column] for _, cells in rows if cells[column]))
        if len(names) > 1:
            raise DataError(
                f"{table.path}: the column {column} names {len(names)} images, such as "
                f"{names[0][:60]!r} and {names[1][:60]!r}; write a table for each, or remove the "
                "column where all positions are of one image"
            )
    for line, cells in rows:
        count = parse_decimal(cells.get("num points", ""))
        if count is not None and count > 1:
            raise DataError(
                f"{table.where(line)}: one row for {count:g} points, whose places it does not say; "
                "export objects as GeoJSON instead"
            )


def check_points(table: Table, header: Sequence[str], rows: Rows, places: Sequence[str]) -> None:
    """Refuse boxes, whose corner is no position, and positions in another unit than pixels.

    Args:
        table: for messages.
        header: the columns, in lower case.
        rows: of the table.
        places: the columns that are read as positions.

    Raises:
        DataError: naming the columns.
    """
    plain = {plain_name(name): name for name in header}
    are_middles = places[0].startswith(_CENTROID) or any(
        set(corner) <= set(plain) for corner in _CORNERS
    )
    for first, second in () if are_middles else _SIDES:
        if {first, second} <= set(plain):
            raise DataError(
                f"{table.path}: the columns {plain[first]} and {plain[second]} are of boxes, of "
                "which x and y may be the corner or the middle; write the middle of each, and "
                "leave these columns out"
            )
    for column in (plain[unit] for unit in _UNITS if unit in plain):
        for line, cells in rows:
            if cells[column].lower() not in _PIXELS:
                raise DataError(
                    f"{table.where(line)}: {column} {cells[column][:40]!r}: positions are read in "
                    "level-0 pixels; write them so, and leave this column out"
                )


def check_no_fractions(xy: NDArray[np.float64], where: str) -> None:
    """Refuse positions (n, 2) that are fractions of the image's width and height.

    Nobody marks the first pixel alone, and that at fractions of it.

    Raises:
        DataError: where all lie from 0 to 1, and one is not whole.
    """
    if len(xy) and ((xy >= 0) & (xy <= 1)).all() and (xy != np.rint(xy)).any():
        raise DataError(
            f"{where}: all positions lie from 0 to 1, e.g. ({xy[0, 0]:g}, {xy[0, 1]:g}); they seem "
            "to be fractions of the image: write level-0 pixels"
        )


def check_decimals(table: Table, rows: Rows, columns: Sequence[str], places: Sequence[str]) -> None:
    """Refuse decimal points beside decimal commas, and signs that may stand for thousands.

    Commas between tabs that are all followed by three digits are refused: Excel writes both
    decimals and thousands so, as its language has it. So are points and commas of positions
    between semicolons or tabs where numbers below a thousand have none, unless a number such as
    a score of 0.91 says that the sign is for decimals.

    Args:
        table: for messages.
        rows: of the table.
        columns: of numbers.
        places: those of them that are positions.

    Raises:
        DataError: with a value of either kind.
    """
    found: dict[str, tuple[int, str]] = {}
    for line, value in _values(rows, columns):
        for sign in ".,":
            if sign in value:
                found.setdefault(sign, (line, value))
    if len(found) > 1:
        (line, value), (other_line, other) = sorted(found.values())
        raise DataError(
            f"{table.where(line)}: {value[:40]!r} beside {other[:40]!r} in line {other_line}: a "
            "decimal comma and a decimal point, or one for thousands? write all numbers alike, "
            "without a sign for thousands"
        )
    for sign, (line, value) in found.items():
        signed = [text for _, text in _values(rows, columns) if sign in text]
        in_places = [text for _, text in _values(rows, places)]
        with_sign = [text for text in in_places if sign in text]
        whole = [text for text in in_places if re.fullmatch(r"[+-]?\d{1,3}", text, re.ASCII)]
        undecided = all(may_be_thousands(text.replace(".", ",")) for text in signed)
        all_commas = table.delimiter == "\t" and sign == ","
        only_large = (
            table.delimiter != ","
            and bool(with_sign and whole)
            and len(with_sign) + len(whole) == len(in_places)
        )
        if undecided and (all_commas or only_large):
            what = "comma" if sign == "," else "point"
            raise DataError(
                f"{table.where(line)}: {value[:40]!r}: a decimal {what}, or one for thousands? "
                "save it with commas between the columns and decimal points, without a sign for "
                "thousands"
            )


def _columns(rows: Rows) -> list[str]:
    return list(rows[0][1]) if rows else []


def _values(rows: Rows, columns: Sequence[str]) -> Iterator[tuple[int, str]]:
    """Yield line and text of the cells of some columns."""
    for line, cells in rows:
        for name in columns:
            yield line, cells[name]

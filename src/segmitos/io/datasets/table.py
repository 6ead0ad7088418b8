"""Tables of points: numbers checked line by line, places checked against the image."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from segmitos.errors import DataError, InputError, ScaleError
from segmitos.io.geometry import LARGEST_PX
from segmitos.io.problems import NAMED, collected, refuse_all
from segmitos.io.tables import Table, parse_number, read_table

if TYPE_CHECKING:
    from segmitos.io.slide import Slide

# A point may lie this far beyond the border: annotations are rounded.
SLACK_PX = 2.0
_NAME_BYTES = 255
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


def _table(path: Path) -> Table:
    if not path.exists():
        raise DataError(f"{path} is missing")
    return read_table(path)


def read_lines(path: Path) -> list[tuple[int, list[str]]]:
    """Read a CSV as line numbers and rows of stripped cells, without blank rows.

    Raises:
        DataError: if it is missing or no CSV.
    """
    return [(line, list(cells)) for line, cells in _table(path).rows]


def number(text: str, path: Path, line: int, column: str) -> float:
    """Turn a cell into a finite number. Raises DataError with file, line, column and value.

    A comma that may stand for thousands is refused.
    """
    return parse_number(text, f"{path}, line {line}: {column}", ",")


def named_rows(path: Path, columns: Sequence[str]) -> Iterator[tuple[int, dict[str, str]]]:
    """Yield line number and cells by (lower-case) column of a CSV with a header.

    Raises:
        DataError: where a column is missing, or a row is of another length than the header.
    """
    table = _table(path)
    table.require(columns)
    return table.named()


def headless_points(path: Path, columns: Sequence[str]) -> NDArray[np.float64]:
    """Read a CSV without header whose first cells are `columns`; returns (n, len(columns)).

    Raises:
        DataError: for a row that is too short, a cell that is no number, decimal commas in a
            table whose columns stand between commas, or a first column that counts the lines.
    """
    table = _table(path)
    rows: list[list[float]] = []
    problems: list[str] = []
    for line, cells in table.rows:
        with collected(problems):
            if len(cells) < len(columns):
                raise DataError(
                    f"{path}, line {line}: {len(cells)} columns instead of {','.join(columns)}"
                )
            fractions = "".join(cells[1::2])
            if table.delimiter == "," and len(cells) == 2 * len(columns) and fractions.isdecimal():
                raise DataError(
                    f"{path}, line {line}: {len(cells)} numbers for {','.join(columns)}; are they "
                    "decimal commas? write decimal points"
                )
            pairs = zip(cells, columns, strict=False)
            rows.append([table.number(cell, line, name) for cell, name in pairs])
    refuse_all(path, problems)
    points = np.array(rows, float).reshape(-1, len(columns))
    count, width = len(points), min((len(cells) for _, cells in table.rows), default=0)
    if count > 1 and width > len(columns):
        first = points[:, 0] - points[0, 0]
        if points[0, 0] in (0, 1) and np.array_equal(first, np.arange(count)):
            raise DataError(
                f"{path}: the first column counts the lines, where {columns[0]} should be; write "
                f"{','.join(columns)} alone"
            )
    if (np.abs(points[:, :2]) > LARGEST_PX).any():
        raise DataError(f"{path}: a position is beyond {LARGEST_PX:g} px")
    return points


def named_file(folder: Path, name: str, where: str) -> Path:
    """Return a file that a table or database names, relative to its folder.

    Raises:
        DataError: for what no file can be called.
    """
    parts = Path(name).parts
    is_name = bool(name.strip("/. \\")) and "\0" not in name and "\n" not in name
    if not is_name or max(len(part.encode("utf-8", "replace")) for part in parts) > _NAME_BYTES:
        raise DataError(f"{where}: {name[:60]!r} is not the name of a file")
    return folder / name


def image_size(path: Path) -> tuple[int, int]:
    """Read width and height from an image's header. Raises DataError."""
    from segmitos.io.slide import Slide

    try:
        # Its scale is not asked for, and need not be one that can be used.
        with Slide.open(path, 1.0, True) as slide:
            return slide.width, slide.height
    except InputError as error:
        raise DataError(str(error)) from error


def image_header(
    path: Path,
) -> tuple[tuple[int, int] | None, float | None, tuple[float, float]]:
    """Read an image's width and height, scale, and where QuPath's frame begins, from its header.

    One damaged image does not keep a data set from being described: `find_problems` names it, and
    so does whatever reads it. Size and scale are None where they cannot be read, the scale alone
    where pixels are not square.
    """
    try:
        slide, mpp = _open_header(path)
        with slide:
            x, y = slide.bounds[:2]
            return (slide.width, slide.height), mpp, (float(x), float(y))
    except InputError:
        return None, None, (0.0, 0.0)


def _open_header(path: Path) -> tuple[Slide, float | None]:
    """Open an image, and return its scale: None for pixels that are not square, too."""
    from segmitos.io.slide import Slide

    try:
        slide = Slide.open(path)
    except ScaleError:
        return Slide.open(path, 1.0, True), None
    return slide, slide.mpp


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
    swapped = outside.any() and is_inside(points_xy[:, ::-1], size, slack_px).all()
    hint = "; are x and y swapped?" if swapped else ""
    problems = [
        f"{path}{_line_of(path, x, y) if index < NAMED else ''}: point ({x:g}, {y:g}) lies outside "
        f"its image of {size[0]} x {size[1]} px{hint}"
        for index, (x, y) in enumerate(points_xy[outside].tolist())
    ]
    refuse_all(path, problems, "point")


def _line_of(path: Path, x: float, y: float) -> str:
    """Name the line of a table that holds both numbers, for the error message."""
    if path.suffix.lower() not in (".csv", ".tsv", ".txt"):
        return ""
    for line, cells in read_table(path).rows:
        values = set()
        for cell in cells:
            with suppress(DataError):
                values.add(parse_number(cell, ""))
        if {x, y} <= values:
            return f", line {line}"
    return ""

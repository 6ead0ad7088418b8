"""Points in tables: CSV with a first line that names the columns."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from segmitos.errors import DataError, ScaleError
from segmitos.io.geometry import LARGEST_PX
from segmitos.io.points.annotations import Annotations
from segmitos.io.points.classes import CLASSES, Classes, Label
from segmitos.io.problems import collected, refuse_all
from segmitos.io.tables import Table, may_be_thousands, read_table
from segmitos.io.text import parse_decimal

_X_AND_Y = (
    ("x_px", "y_px"),
    ("x", "y"),
    ("column", "row"),
    ("col", "row"),
    ("centroid x px", "centroid y px"),
)
_CLASS_COLUMNS = (
    *("label", "labels", "class", "class name", "class_name", "classification", "category"),
    *("category_name", "type", "cell type", "cell_type", "kind", "annotation", "diagnosis"),
    *("mitosis", "is_mitosis"),
    *("class_id", "class id", "category_id", "category id", "label_id", "label id"),
)
# Columns of words that do not classify a point.
_NO_CLASS_COLUMNS = frozenset(
    {
        *("id", "name", "image", "file", "filename", "slide", "case", "patient", "laboratory"),
        *("annotator", "reader", "user", "author", "comment", "comments", "note", "notes"),
        *("date", "time", "object id", "parent", "roi", "server", "project", "scanner", ""),
    }
)
_IMAGE_COLUMNS = ("image", "image name", "image_name", "file", "filename", "file_name", "slide")
_NUMBER_COLUMNS = frozenset(
    {*(name for pair in _X_AND_Y for name in pair), "score", "area_um2", "confidence"}
    | {"x_um", "y_um"}
)
_YES_NO: dict[str, Label] = {"1": "mitosis", "0": "non-mitosis"}
_TRUE_FALSE: dict[str, Label] = {
    "true": "mitosis",
    "false": "non-mitosis",
    "yes": "mitosis",
    "no": "non-mitosis",
}


def read_csv_annotations(
    path: Path, mpp: float | None = None, classes: Classes = CLASSES
) -> Annotations:
    """Read points from a table.

    The columns `x_px,y_px` (or `x,y`, or `column,row`) are level-0 pixels. A column of classes
    (`label`, `class`, `type`, ..., or any other that holds class names) says what each point is;
    without one all are mitoses. `score`, `area_um2` and `confidence` are kept where they are
    there. Where `x_um` is, the scale is the shortest number that turns every x_px into its x_um.

    Args:
        path: of the table.
        mpp: micrometers per pixel, in place of what the table says.
        classes: the names of mitoses, hard negatives and unsure cells.

    Raises:
        InputError: if the file cannot be read.
        DataError: for missing columns or a value that is not understood, with its line.
    """
    table = read_table(path)
    header = [name.lower() for name in table.header]
    pair = next((pair for pair in _X_AND_Y if set(pair) <= set(header)), None)
    if pair is None:
        raise DataError(
            f"{path}: the first line must name the columns x_px,y_px or x,y (and label where there "
            f"are hard negatives), not {','.join(header)[:60]!r}"
        )
    problems: list[str] = []
    rows = list(table.named(problems))
    _check_one_image(table, rows)
    _check_decimals(table, rows, [name for name in header if name in _NUMBER_COLUMNS])
    label_column = _class_column(table, header, rows, classes)
    labels: list[Label] = []
    values: list[tuple[float, ...]] = []
    positions_um: list[tuple[float, float]] = []
    laboratories = set()
    for line, cells in rows:
        with collected(problems):
            numbers, xy_um = _numbers(table, cells, line, pair)
            label: Label = "mitosis"
            if label_column is not None:
                label = _label(table, cells[label_column], line, label_column, classes)
            labels.append(label)
            values.append(numbers)
            positions_um.append(xy_um)
        laboratories.add(cells.get("laboratory", ""))
    refuse_all(path, problems)
    if len(laboratories) > 1:
        named = ", ".join(sorted(laboratories))[:80]
        raise DataError(f"{path}: the column laboratory names several: {named}")
    if mpp is None and "x_um" in header:
        places = np.array(values, float).reshape(-1, 5)[:, :2]
        mpp = scale_between(places.T.ravel(), np.array(positions_um).reshape(-1, 2).T.ravel(), path)
    return Annotations.from_rows(
        values,
        labels,
        mpp=mpp,
        name=path.stem,
        laboratory=next(iter(laboratories), ""),
    )


def _check_one_image(table: Table, rows: list[tuple[int, dict[str, str]]]) -> None:
    """Refuse points of several images, and rows that stand for several points.

    Raises:
        DataError: naming the column.
    """
    for column in _IMAGE_COLUMNS:
        names = list(dict.fromkeys(cells[column] for _, cells in rows if cells.get(column)))
        if len(names) > 1:
            raise DataError(
                f"{table.path}: the column {column} names {len(names)} images, such as "
                f"{names[0][:60]!r} and {names[1][:60]!r}; write a table for each"
            )
    for line, cells in rows:
        count = parse_decimal(cells.get("num points", ""))
        if count is not None and count > 1:
            raise DataError(
                f"{table.where(line)}: one row for {count:g} points, whose places it does not say; "
                "export objects as GeoJSON instead"
            )


def _check_decimals(
    table: Table, rows: list[tuple[int, dict[str, str]]], columns: list[str]
) -> None:
    """Refuse decimal points beside decimal commas: one of them parts thousands.

    Commas between tabs that are all followed by three digits are refused, too: Excel writes both
    decimals and thousands so, as its language has it.

    Raises:
        DataError: with a value of either kind.
    """
    found: dict[str, tuple[int, str]] = {}
    commas: list[tuple[int, str]] = []
    for line, cells in rows:
        for name in columns:
            for sign in ".,":
                if sign in cells[name]:
                    found.setdefault(sign, (line, cells[name]))
            if "," in cells[name]:
                commas.append((line, cells[name]))
    if len(found) > 1:
        (line, value), (other_line, other) = sorted(found.values())
        raise DataError(
            f"{table.where(line)}: {value[:40]!r} beside {other[:40]!r} in line {other_line}: a "
            "decimal comma and a decimal point, or one for thousands? write all numbers alike, "
            "without a sign for thousands"
        )
    if table.delimiter == "\t" and commas and all(may_be_thousands(text) for _, text in commas):
        line, value = commas[0]
        raise DataError(
            f"{table.where(line)}: {value[:40]!r}: a decimal comma, or one for thousands? write "
            "numbers with a decimal point, without a sign for thousands"
        )


def _numbers(
    table: Table, cells: dict[str, str], line: int, pair: tuple[str, str]
) -> tuple[tuple[float, ...], tuple[float, float]]:
    """Return x, y, score, area and confidence of a row, and x_um and y_um; nan where not there."""
    x, y = (_position(table, cells[name], line, name) for name in pair)
    score, area, x_um, y_um = (
        table.number(cells.get(name, ""), line, name, required=False)
        for name in ("score", "area_um2", "x_um", "y_um")
    )
    return (x, y, score, area, _confidence(table, cells, line)), (x_um, y_um)


def _position(table: Table, text: str, line: int, column: str) -> float:
    value = table.number(text, line, column)
    if abs(value) > LARGEST_PX:
        raise DataError(f"{table.where(line, column)} {text!r} is no position in pixels")
    return value


def _confidence(table: Table, cells: dict[str, str], line: int) -> float:
    text = cells.get("confidence", "")
    value = table.number(text, line, "confidence", required=False)
    if not (math.isnan(value) or 0 <= value <= 1):
        raise DataError(f"{table.where(line)}: confidence {text!r} is not between 0 and 1")
    return value


def _class_column(
    table: Table, header: list[str], rows: list[tuple[int, dict[str, str]]], classes: Classes
) -> str | None:
    """Return the column that holds classes, by its name or else by what is in it.

    Raises:
        DataError: where two columns of classes disagree.
    """
    named = [name for name in _CLASS_COLUMNS if name in header]
    others = [
        name
        for name in header
        if name not in named and any(classes.label(cells[name]) for _, cells in rows)
    ]
    found = named[:1] or others[:1]
    if not found:
        _check_columns(table, header, rows)
        return None
    for line, cells in rows:
        for other in [*named, *others]:
            label, own = classes.label(cells[other]), classes.label(cells[found[0]])
            if label is not None and own is not None and label != own:
                raise DataError(
                    f"{table.where(line)}: {found[0]} says {cells[found[0]]!r} and {other} "
                    f"{cells[other]!r}; keep one column of classes"
                )
    return found[0]


def _check_columns(table: Table, header: list[str], rows: list[tuple[int, dict[str, str]]]) -> None:
    """Refuse a table without classes that has words in a column nobody knows: classes, maybe.

    Raises:
        DataError: naming the column.
    """
    for name in header:
        for line, cells in rows if name not in _NO_CLASS_COLUMNS else ():
            cell = cells[name]
            try:
                table.number(cell, line, name, required=False)
            except DataError as error:
                if name in _NUMBER_COLUMNS:
                    break
                raise DataError(
                    f"{table.where(line)}: the column {name!r} with {cell[:40]!r} is not "
                    "understood; if it holds classes, name it 'label' and write 'mitosis', "
                    "'non-mitosis' or 'unsure', else remove it"
                ) from error


def _label(table: Table, text: str, line: int, column: str, classes: Classes) -> Label:
    label = classes.label(text)
    if label is None and column.endswith("id"):
        # Of two classes the first may be 0 or 1, and mitoses may be either.
        raise DataError(
            f"{table.where(line)}: {column} {text[:60]!r} is a number that may mean anything; name "
            "the column 'label' and write 'mitosis', 'non-mitosis' or 'unsure'"
        )
    label = label or _YES_NO.get(text)
    if label is None and column in ("mitosis", "is_mitosis"):
        label = _TRUE_FALSE.get(text.lower())
    if label is None:
        raise DataError(
            f"{table.where(line)}: {column} {text[:60]!r} is neither mitosis nor hard negative nor "
            "unsure; write 'mitosis', 'non-mitosis' or 'unsure' (or 1 or 0)"
        )
    return label


def scale_between(px: NDArray[np.float64], um: NDArray[np.float64], path: Path) -> float | None:
    """Return the shortest decimal mpp with px * mpp == um for every value, None without values.

    Raises:
        ScaleError: where they are not one multiple of each other, or it is impossible.
    """
    used = np.isfinite(um) & (px != 0)
    if not used.any():
        return None
    px, um = px[used], um[used]
    widest = int(np.argmax(np.abs(px)))
    ratio = float(um[widest] / px[widest])
    if not 0 < ratio < math.inf:
        raise ScaleError(f"{path}: x_um and y_um are not x_px and y_px times a scale")
    neighbors = [ratio, math.nextafter(ratio, 0), math.nextafter(ratio, math.inf)]
    for candidate in [*(float(f"{ratio:.{digits}g}") for digits in range(1, 17)), *neighbors]:
        if np.array_equal(px * candidate, um):
            return candidate
    if np.allclose(px * ratio, um, rtol=1e-6, atol=1e-3):
        return ratio
    worst = int(np.argmax(np.abs(px * ratio - um)))
    raise ScaleError(
        f"{path}: x_um and y_um are not one multiple of x_px and y_px: {um[widest]:g} um are "
        f"{px[widest]:g} px, and {um[worst]:g} um are {px[worst]:g} px; give the scale with --mpp, "
        "or remove the columns x_um and y_um"
    )


def csv_text(annotations: Annotations) -> str:
    """Return CSV text; an unknown value is left empty, a column without values left out.

    Columns: `x_px,y_px`, `x_um,y_um` where the scale is known, `area_um2`, `score`, `label`,
    `confidence`, `laboratory`.
    """
    columns: dict[str, list[str]] = {
        "x_px": _cells(annotations.xy[:, 0]),
        "y_px": _cells(annotations.xy[:, 1]),
    }
    if annotations.mpp is not None:
        columns["x_um"] = _cells(annotations.xy[:, 0] * annotations.mpp)
        columns["y_um"] = _cells(annotations.xy[:, 1] * annotations.mpp)
    for name in ("area_um2", "score", "label", "confidence"):
        values = np.asarray(getattr(annotations, name, np.zeros(0)))
        if name == "label":
            columns[name] = list(annotations.labels)
        elif not np.isnan(values).all():
            columns[name] = _cells(values)
    if annotations.laboratory:
        columns["laboratory"] = [_quoted(annotations.laboratory)] * len(annotations)
    lines = [",".join(row) for row in zip(*columns.values(), strict=True)]
    return "\n".join([",".join(columns), *lines]) + "\n"


def _cells(values: NDArray[np.float64]) -> list[str]:
    return ["" if math.isnan(value) else repr(value) for value in values.tolist()]


def _quoted(text: str) -> str:
    return '"' + text.replace('"', '""') + '"' if set(text) & set(',;"\n\t') else text

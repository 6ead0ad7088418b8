"""Points in tables: CSV with a first line that names the columns."""

from __future__ import annotations

import math
from collections import Counter
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from segmitos.errors import DataError, ScaleError
from segmitos.io.geometry import LARGEST_PX
from segmitos.io.points.annotations import Annotations
from segmitos.io.points.classes import CLASSES, Classes, Label
from segmitos.io.points.table_checks import (
    check_decimals,
    check_no_fractions,
    check_one_image,
    check_points,
    is_image_column,
)
from segmitos.io.problems import collected, refuse_all
from segmitos.io.tables import Table, read_table

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
        *("id", "name", "laboratory"),
        *("annotator", "reader", "user", "author", "comment", "comments", "note", "notes"),
        *("date", "time", "object id", "parent", "roi", "server", "project", "scanner", ""),
        *("unit", "units"),
    }
)
_NUMBER_COLUMNS = frozenset(
    {*(name for pair in _X_AND_Y for name in pair), "score", "area_um2", "confidence"}
    | {"x_um", "y_um"}
)
# Of our own candidates: 1 for those that pass the thresholds.
_DETECTION = "detection"
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
    check_one_image(table, rows)
    check_points(table, header, rows, pair)
    check_decimals(table, rows, [name for name in header if name in _NUMBER_COLUMNS], pair)
    label_column = _class_column(table, header, rows, classes)
    left_out = _not_read(header, rows, pair, label_column)
    labels: list[Label] = []
    values: list[tuple[float, ...]] = []
    positions_um: list[tuple[float, float]] = []
    laboratories = set()
    for line, cells in rows:
        with collected(problems):
            label: Label = "mitosis"
            if label_column is not None:
                name = cells[label_column]
                if classes.is_ignored(name):
                    left_out[name] += 1
                    continue
                label = _label(table, name, line, label_column, classes)
            numbers, xy_um = _numbers(table, cells, line, pair)
            labels.append(label)
            values.append(numbers)
            positions_um.append(xy_um)
        laboratories.add(cells.get("laboratory", ""))
    refuse_all(path, problems)
    if pair == ("x", "y"):
        check_no_fractions(np.array(values, float).reshape(-1, 5)[:, :2], str(path))
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
        left_out=left_out,
        laboratory=next(iter(laboratories), ""),
    )


def _not_read(
    header: list[str],
    rows: list[tuple[int, dict[str, str]]],
    pair: tuple[str, str],
    label_column: str | None,
) -> Counter[str]:
    """Count the numbers in columns that are not understood, such as `probability`, by column."""
    read = {*pair, label_column, *_NUMBER_COLUMNS, *_CLASS_COLUMNS, *_NO_CLASS_COLUMNS}
    unread = [name for name in header if name not in read and not is_image_column(name)]
    counts = {name: sum(bool(cells[name]) for _, cells in rows) for name in unread}
    return Counter({f"values of {name[:40]!r}": n for name, n in counts.items() if n})


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
        # After what somebody wrote of candidates: this is what the model makes of them.
        told = _DETECTION in header and all(cells[_DETECTION] in _YES_NO for _, cells in rows)
        return _DETECTION if told else None
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
        is_known = name in _NO_CLASS_COLUMNS or is_image_column(name)
        for line, cells in () if is_known else rows:
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

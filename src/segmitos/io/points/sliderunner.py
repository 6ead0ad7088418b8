"""SlideRunner databases (SQLite): annotated points of many slides in one file.

The tables are joined as SlideRunner's README and the repository of TUPAC16's alternative labels
describe it: the class of an annotation is the agreed one; a position is the center of its corners
(one corner for spots, two for circles and boxes), x, y in level-0 pixels.
"""

from __future__ import annotations

import math
import sqlite3
from collections import Counter
from collections.abc import Mapping, Sequence
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

from segmitos.errors import DataError, OutputError
from segmitos.io.files import new_file
from segmitos.io.geometry import LARGEST_PX
from segmitos.io.points.annotations import Annotations
from segmitos.io.points.classes import CLASSES, LABELS, Classes, Label

# A view in a hostile file may never end; a database of a million annotations takes some 1e8.
_INSTRUCTIONS, _MAX_CALLS = 1_000_000, 5_000
_LARGEST_SIDE_PX = 10_000_000
_CLASS_NAMES: dict[Label, str] = {
    "mitosis": "Mitosis",
    "non-mitosis": "Hard negative",
    "unsure": "Unsure",
}
_CLASS_COLORS: dict[Label, str] = {
    "mitosis": "#00aa00",
    "non-mitosis": "#ffff00",
    "unsure": "#ff8800",
}


def is_sliderunner(path: Path) -> bool:
    """Tell whether a file is an SQLite database."""
    try:
        with path.open("rb") as stream:
            return stream.read(16) == b"SQLite format 3\0"
    except OSError:
        return False


def read_sliderunner(
    path: Path, known: Classes = CLASSES
) -> list[tuple[Annotations, tuple[int, int] | None]]:
    """Read all slides of a database: annotations by file name, and the image's size if known.

    Deleted annotations are left out, other classes counted so.

    Raises:
        DataError: for a file that is no such database, has no class of mitoses, holds a value that
            is not understood, or is being written to.
    """
    _check_at_rest(path)
    try:
        with closing(_connect(path)) as database:
            classes, slides, rows = _read_tables(database)
    except (sqlite3.Error, UnicodeDecodeError, OverflowError) as error:
        raise DataError(f"{path} is not a SlideRunner database: {error}") from error
    kinds = {uid: known.label(name) for uid, name in classes.items() if isinstance(name, str)}
    if "mitosis" not in kinds.values():
        names = ", ".join(str(name)[:40] for name in classes.values())[:200]
        raise DataError(f"{path}: none of its classes is mitosis: {names}")
    found: dict[Any, tuple[list[tuple[float, ...]], list[Label], Counter[str]]] = {}
    for uid, slide, kind, x, y in rows:
        points, labels, left_out = found.setdefault(slide, ([], [], Counter()))
        label = kinds.get(kind)
        if label is None:
            left_out[str(classes.get(kind, "no class"))[:40]] += 1
            continue
        if not all(isinstance(v, int | float) and abs(v) <= LARGEST_PX for v in (x, y)):
            raise DataError(
                f"{path}: annotation {uid} lies at ({x!r}, {y!r}), which is no position"
            )
        points.append((float(x), float(y), math.nan, math.nan, math.nan))
        labels.append(label)
    unknown = set(found) - {uid for uid, *_ in slides}
    if unknown:
        raise DataError(
            f"{path}: annotations name slide {sorted(map(repr, unknown))[0]}, not there"
        )
    return [_slide(path, row, found.get(row[0], ([], [], Counter()))) for row in slides]


def _check_at_rest(path: Path) -> None:
    """Refuse a database with changes beside it: it is read as it is, and would lack them."""
    for end, mark in (("-wal", b""), ("-journal", b"\xd9\xd5\x05\xf9\x20\xa1\x63\xd7")):
        beside = path.with_name(path.name + end)
        try:
            with beside.open("rb") as stream:
                head = stream.read(8)
        except OSError:
            continue
        if head and head.startswith(mark):
            raise DataError(
                f"{path}: {beside.name} holds changes that are not in it yet; close the program "
                "that has it open, or open it there once, then try again"
            )


def _slide(
    path: Path, row: Sequence[Any], found: tuple[Any, Any, Any]
) -> tuple[Annotations, tuple[int, int] | None]:
    uid, filename, width, height = row
    if not isinstance(filename, str) or not filename.strip("/.\\ ") or "\0" in filename:
        raise DataError(f"{path}: slide {uid} has the file name {filename!r:.60}, which is none")
    size = None
    if width or height:
        if not all(isinstance(v, int) and 0 < v <= _LARGEST_SIDE_PX for v in (width, height)):
            raise DataError(f"{path}: slide {uid} is {width!r:.20} x {height!r:.20} px, no size")
        size = (width, height)
    points, labels, left_out = found
    return Annotations.from_rows(points, labels, name=filename, left_out=left_out), size


def _connect(path: Path) -> sqlite3.Connection:
    database = sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro&immutable=1", uri=True)
    calls = iter(range(_MAX_CALLS))
    database.set_progress_handler(lambda: next(calls, None) is None, _INSTRUCTIONS)
    return database


def _read_tables(
    database: sqlite3.Connection,
) -> tuple[Mapping[Any, Any], list[Any], list[Any]]:
    database.execute("PRAGMA trusted_schema = OFF")
    classes = dict(database.execute("SELECT uid, name FROM Classes"))
    columns = {row[1] for row in database.execute("PRAGMA table_info(Slides)")}
    size = "width, height" if {"width", "height"} <= columns else "NULL, NULL"
    slides = database.execute(f"SELECT uid, filename, {size} FROM Slides").fetchall()
    columns = {row[1] for row in database.execute("PRAGMA table_info(Annotations)")}
    rows = database.execute(
        "SELECT a.uid, a.slide, a.agreedClass, AVG(c.coordinateX), AVG(c.coordinateY) "
        "FROM Annotations a JOIN Annotations_coordinates c ON c.annoId = a.uid "
        + ("WHERE a.deleted = 0 " if "deleted" in columns else "")
        + "GROUP BY a.uid ORDER BY a.uid"
    ).fetchall()
    return classes, slides, rows


def write_sliderunner(
    path: Path, annotations: Annotations, size_px: tuple[int, int] | None = None
) -> None:
    """Write one slide's points as spots of a new database. Raises OutputError."""
    # A slide without a name is none to its readers.
    annotations = replace(annotations, name=annotations.name or path.stem)
    try:
        with new_file(path) as aside, closing(sqlite3.connect(aside)) as database:
            _fill(database, annotations, size_px or (None, None))
            database.commit()
    except sqlite3.Error as error:
        raise OutputError(f"cannot write {path}: {error}") from error


def _fill(
    database: sqlite3.Connection, annotations: Annotations, size: tuple[int | None, int | None]
) -> None:
    key = "uid INTEGER PRIMARY KEY AUTOINCREMENT UNIQUE"
    for table in (
        f"Persons ({key}, name TEXT)",
        f"Classes ({key}, name TEXT, color TEXT)",
        f"Slides ({key}, filename TEXT, width INTEGER, height INTEGER, directory TEXT)",
        f"Annotations ({key}, slide INTEGER, type INTEGER, agreedClass INTEGER, "
        "guid TEXT, lastModified REAL DEFAULT 0, deleted INTEGER DEFAULT 0, description TEXT)",
        f"Annotations_coordinates ({key}, coordinateX INTEGER, coordinateY INTEGER, "
        "slide INTEGER, annoId INTEGER, orderIdx INTEGER)",
        f"Annotations_label ({key}, person INTEGER, class INTEGER, annoId INTEGER)",
        f"Log ({key}, dateTime FLOAT, labelId INTEGER)",
    ):
        database.execute(f"CREATE TABLE {table}")
    database.execute("INSERT INTO Persons VALUES (1, 'SegMitos')")
    classes = [(i, _CLASS_NAMES[k], _CLASS_COLORS[k]) for i, k in enumerate(LABELS, start=1)]
    database.executemany("INSERT INTO Classes VALUES (?, ?, ?)", classes)
    database.execute("INSERT INTO Slides VALUES (1, ?, ?, ?, '')", (annotations.name, *size))
    marks = list(zip(annotations.xy.tolist(), annotations.labels, strict=True))
    for uid, ((x, y), label) in enumerate(marks, start=1):
        kind = LABELS.index(label) + 1
        database.execute(
            "INSERT INTO Annotations (uid, slide, type, agreedClass) VALUES (?, 1, 1, ?)",
            (uid, kind),
        )
        database.execute(
            "INSERT INTO Annotations_coordinates VALUES (?, ?, ?, 1, ?, 1)", (uid, x, y, uid)
        )
        database.execute("INSERT INTO Annotations_label VALUES (?, 1, ?, ?)", (uid, kind, uid))

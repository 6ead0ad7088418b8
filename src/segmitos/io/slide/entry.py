"""One input as the user named it: a path, and what a table says of it."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from segmitos.errors import InputError
from segmitos.io.geometry import check_mpp
from segmitos.io.problems import collected, refuse_all
from segmitos.io.tables import Table, read_table
from segmitos.io.text import parse_mpp, read_text

COLUMNS = ("path", "mpp", "roi", "name")
LIST_SUFFIX, TABLE_SUFFIX = ".txt", ".csv"


@dataclass(frozen=True)
class InputEntry:
    """One image to work on."""

    path: Path
    mpp: float | None = None
    """um per pixel that a table gives, None where it gives none."""
    roi: Path | None = None
    """GeoJSON of the regions that a table gives."""
    name: str | None = None
    """Name of the result that a table gives."""
    slide_name: str | None = None
    """What the result is named after where no table says: the folder or series of a DICOM slide;
    None: the stem."""
    problem: str = ""
    """Why there is no image at `path`, empty where there may be one."""


def is_list(path: Path) -> bool:
    """Tell whether a file is a list or a table of inputs, by its name."""
    return path.suffix.lower() in (LIST_SUFFIX, TABLE_SUFFIX)


def read_list(path: Path) -> list[InputEntry]:
    """Read the entries of a list (.txt) or table (.csv); relative paths are relative to it.

    Raises:
        InputError: if it cannot be read, names nothing, or a table has columns or values that are
            not understood.
    """
    if path.suffix.lower() == TABLE_SUFFIX:
        return _read_input_table(path)
    names = [line.strip() for line in read_text(path, any_bytes=True).splitlines()]
    entries = [
        InputEntry(_resolved(path, _unquoted(name.rstrip(";"))))
        for name in names
        if name.strip("; ") and not name.startswith("#")
    ]
    if not entries:
        raise InputError(f"{path}: this list names no image")
    return entries


def _read_input_table(path: Path) -> list[InputEntry]:
    table = read_table(path, any_bytes=True)
    columns = [name.lower() for name in table.header]
    unknown = [name or "(without a name)" for name in columns if name not in COLUMNS]
    if "path" not in columns or unknown:
        what = (
            "has no column 'path'"
            if "path" not in columns
            else f"has columns that are not understood: {', '.join(unknown)}"
        )
        raise InputError(
            f"{path}: a table of inputs has the columns path, mpp, roi, name; this one {what}"
        )
    entries: list[InputEntry] = []
    problems: list[str] = []
    taken: dict[str, int] = {}
    for line, cells in table.named(problems, fill=True):
        with collected(problems):
            entries.append(_entry(table, line, cells))
            name = entries[-1].name
            if name is not None and taken.setdefault(name, line) != line:
                where = table.where(line)
                raise InputError(f"{where}: name {name!r} is that of line {taken[name]}")
    refuse_all(path, problems)
    if not entries:
        raise InputError(f"{path}: this table names no image")
    return entries


def _entry(table: Table, line: int, cells: dict[str, str]) -> InputEntry:
    path, where = table.path, table.where(line)
    if not cells["path"]:
        raise InputError(f"{where}: no path")
    mpp = None
    if text := cells.get("mpp", ""):
        value = parse_mpp(text)
        if value is None:
            raise InputError(f"{where}: mpp {text!r} is not a number")
        mpp = check_mpp(value, f"{where}: mpp")
    name = cells.get("name") or None
    if name is not None and (name in (".", "..") or any(sign in name for sign in "/\\\n\r")):
        raise InputError(f"{where}: name {name!r} cannot be the name of a folder")
    roi = cells.get("roi")
    return InputEntry(
        _resolved(path, cells["path"]), mpp, _resolved(path, roi) if roi else None, name
    )


def _resolved(listing: Path, name: str) -> Path:
    return listing.parent / Path(os.path.expanduser(name))


def _unquoted(name: str) -> str:
    for sign in "\"'":
        if len(name) > 1 and name[0] == name[-1] == sign:
            return name[1:-1]
    return name

"""What this program wrote, told by its own marks: it is never an input, and alone is replaced."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterable
from pathlib import Path

from segmitos.errors import OutputError, UsageError

PROGRAM = "segmitos"
"""Stands in every picture as its software, and may stand in JSON files under "program"."""

RUN, SUMMARY, REPORT = "run.json", "summary.json", "report.html"
DETECTIONS_CSV, DETECTIONS_GEOJSON = "detections.csv", "detections.geojson"
COHORT_REPORT = "cohort.html"
# What tells the files of results that were written before "program" was.
_RESULT_KEYS = {
    RUN: {"input", "started", "device"},
    SUMMARY: {"input", "model", "settings"},
}
_MAX_JSON_BYTES = 16 << 20
_MARK_WITHIN_BYTES = 512
_PNG_MARK = b"Software\0" + PROGRAM.encode()
_JPEG_MARK = b"\xff\xfe\x00\x0a" + PROGRAM.encode()


def is_result_folder(folder: Path) -> bool:
    """Tell whether a folder holds the result of an input: a `run.json` or `summary.json` of ours.

    Files of these names by other programs are told apart by what is in them.
    """
    return any(is_own_json(folder / name, keys) for name, keys in _RESULT_KEYS.items())


def is_own_json(path: Path, keys: Iterable[str] = (PROGRAM,)) -> bool:
    """Tell whether a JSON file says that this program wrote it, or holds all of these keys."""
    try:
        if not path.is_file():
            return False
        with path.open("rb") as stream:
            content = json.loads(stream.read(_MAX_JSON_BYTES))
    except (OSError, ValueError, RecursionError):
        return False
    return isinstance(content, dict) and (
        content.get("program") == PROGRAM or set(keys) <= content.keys()
    )


def is_own_picture(path: Path) -> bool:
    """Tell whether a PNG or JPEG was drawn by this program (see `files.image_bytes`)."""
    try:
        with path.open("rb") as stream:
            head = stream.read(_MARK_WITHIN_BYTES)
    except (OSError, ValueError):
        return False
    return _PNG_MARK in head or _JPEG_MARK in head


def check_file(
    path: Path,
    overwrite: bool | None = None,
    is_own: Callable[[Path], bool] = lambda path: False,
    sources: Iterable[Path] = (),
) -> None:
    """Refuse to write over what this program did not write, unless that is asked for.

    Args:
        path: to be written.
        overwrite: whether whatever is there may be replaced; None where that cannot be asked for.
        is_own: tells whether a file is of this program.
        sources: what it is made of, which is never replaced.

    Raises:
        OutputError: naming the file in the way; UsageError: where that is a source.
    """
    if any(path.resolve() == source.resolve() for source in sources):
        raise UsageError(f"{path} is the input itself; choose another name")
    if path.is_dir():
        raise OutputError(f"{path} is a folder; name a file")
    if os.path.lexists(path) and not overwrite and not (path.is_file() and is_own(path)):
        remedy = "move it" if overwrite is None else "replace it with --overwrite"
        raise OutputError(
            f"{path} is there already, and stays as it is; choose another name, or {remedy}"
        )


def check_folder(folder: Path, names: Iterable[str], marker: str, keys: Iterable[str] = ()) -> None:
    """Refuse to write files over others of their names in a folder that is not ours.

    Args:
        folder: to write into.
        names: of the files.
        marker: the one of them that tells whose the others are: a JSON file of ours. It is to be
            written first.
        keys: that tell such a file beside its mark.

    Raises:
        OutputError: naming the file in the way.
    """
    if os.path.lexists(folder) and not folder.is_dir():
        raise OutputError(f"{folder} is a file; name a folder")
    there = [name for name in (marker, *names) if os.path.lexists(folder / name)]
    if there and not is_own_json(folder / marker, keys or (PROGRAM,)):
        raise OutputError(
            f"{folder / there[0]} was not written by SegMitos, and stays as it is; move it, or "
            "choose another folder with -o"
        )

"""What this program wrote, told by its own marks: it is never an input."""

from __future__ import annotations

import json
from pathlib import Path

PROGRAM = "segmitos"
"""Stands in every picture as its software, and may stand in JSON files under "program"."""

RUN, SUMMARY = "run.json", "summary.json"
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
    return any(_is_ours(folder / name, keys) for name, keys in _RESULT_KEYS.items())


def _is_ours(path: Path, keys: set[str]) -> bool:
    try:
        if not path.is_file():
            return False
        with path.open("rb") as stream:
            content = json.loads(stream.read(_MAX_JSON_BYTES))
    except (OSError, ValueError, RecursionError):
        return False
    return isinstance(content, dict) and (
        content.get("program") == PROGRAM or keys <= content.keys()
    )


def is_own_picture(path: Path) -> bool:
    """Tell whether a PNG or JPEG was drawn by this program (see `files.image_bytes`)."""
    try:
        with path.open("rb") as stream:
            head = stream.read(_MARK_WITHIN_BYTES)
    except (OSError, ValueError):
        return False
    return _PNG_MARK in head or _JPEG_MARK in head

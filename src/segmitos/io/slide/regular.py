"""Paths that are no files to read: opening a pipe, a socket or a device may wait for ever."""

from __future__ import annotations

import os
import stat
from pathlib import Path


def special_file(path: Path) -> str:
    """Say what a path is, if it is neither missing, a folder nor a regular file."""
    try:
        mode = os.stat(path).st_mode
    except (OSError, ValueError):
        return ""
    kinds = (
        (stat.S_ISFIFO, "a named pipe"),
        (stat.S_ISSOCK, "a socket"),
        (stat.S_ISCHR, "a device"),
        (stat.S_ISBLK, "a device"),
    )
    return next((name for test, name in kinds if test(mode)), "")

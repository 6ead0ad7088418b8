"""Values that a Python caller hands over: of the right kind, or an error that names them."""

from __future__ import annotations

import os
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path
from typing import Any

from segmitos.errors import UsageError


def path_of(value: Any, what: str) -> Path:
    """Return a path. Raises UsageError for what is none."""
    if isinstance(value, str | os.PathLike):
        return Path(value)
    raise UsageError(f"{what} {value!r:.60} must be a path")


def paths_of(value: Any, what: str) -> list[Path | str]:
    """Return one path or several as a list; text stays text, since it may be a pattern.

    Raises:
        UsageError: for what is neither.
    """
    if isinstance(value, str | os.PathLike):
        return [value if isinstance(value, str) else Path(value)]
    if not isinstance(value, Iterable) or isinstance(value, bytes):
        raise UsageError(f"{what} {value!r:.60} must be a path or several")
    return [one if isinstance(one, str) else path_of(one, what) for one in value]


def number_of(value: Any, what: str) -> float:
    """Return a number. Raises UsageError for what is none, as text."""
    if not isinstance(value, str):
        with suppress(TypeError, ValueError, OverflowError):
            return float(value)
    raise UsageError(f"{what} {value!r:.60} must be a number")


def whole_of(value: Any, what: str) -> int:
    """Return a whole number. Raises UsageError for what is none."""
    number = number_of(value, what)
    if not number.is_integer():
        raise UsageError(f"{what} {value!r:.60} must be a whole number")
    return int(number)

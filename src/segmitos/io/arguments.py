"""Values that a Python caller hands over: of the right kind, or an error that names them."""

from __future__ import annotations

import os
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np

from segmitos.errors import UsageError


def path_of(value: Any, what: str) -> Path:
    """Return a path. Raises UsageError for what is none, and for empty text."""
    if isinstance(value, str | os.PathLike):
        _refuse_empty(value, what)
        return Path(value)
    raise UsageError(f"{what} {_shown(value)} must be a path")


def paths_of(value: Any, what: str) -> list[Path | str]:
    """Return one path or several as a list; text stays text, since it may be a pattern.

    Raises:
        UsageError: for what is neither, and for empty text.
    """
    if isinstance(value, str | os.PathLike):
        value = [value]
    if not isinstance(value, Iterable) or isinstance(value, bytes):
        raise UsageError(f"{what} {_shown(value)} must be a path or several")
    found = [one if isinstance(one, str) else path_of(one, what) for one in value]
    for one in found:
        _refuse_empty(one, what)
    return found


def _refuse_empty(value: Any, what: str) -> None:
    """Refuse empty text: as a path it would be the folder where the program stands."""
    if value == "":
        raise UsageError(f"{what} '' is empty; name a file or folder")


def number_of(value: Any, what: str) -> float:
    """Return a number. Raises UsageError for what is none, as text and True."""
    if not isinstance(value, str | bool | np.bool_):
        with suppress(TypeError, ValueError, OverflowError):
            return float(value)
    raise UsageError(f"{what} {_shown(value)} must be a number")


def whole_of(value: Any, what: str) -> int:
    """Return a whole number. Raises UsageError for what is none."""
    number = number_of(value, what)
    if not number.is_integer():
        raise UsageError(f"{what} {_shown(value)} must be a whole number")
    return int(number)


def _shown(value: Any) -> str:
    """Return the beginning of a value on one line."""
    return " ".join(repr(value).split())[:60]

"""JSON files of other programs, read so that no content raises anything but our own errors."""

from __future__ import annotations

import json
import re
from decimal import Decimal, InvalidOperation
from pathlib import Path
from typing import Any, TypeVar

import msgspec

from segmitos.errors import DataError
from segmitos.io.text import read_text

T = TypeVar("T")
_LONGEST_INTEGER = 18
_SURROGATE = re.compile(r"\\u[dD][89abAB]")


def load_json(path: Path, decimals: bool = False) -> Any:
    """Read a JSON file.

    NaN and infinite numbers come through as QuPath writes them; integers too long for a double's
    digits become floats.

    Args:
        path: of the file.
        decimals: fractions keep all their digits (decimal.Decimal).

    Raises:
        InputError: if the file cannot be read.
        DataError: if it is not JSON, naming the line.
    """
    return parse_json(read_text(path), str(path), decimals)


def parse_json(text: str, what: str, decimals: bool = False) -> Any:
    """Parse JSON text; `what` names it in messages. Raises DataError as `load_json` does."""
    if not text.strip():
        raise DataError(f"{what} is empty")
    try:
        content = json.loads(text, parse_float=_decimal if decimals else None, parse_int=_integer)
        if _SURROGATE.search(text):
            json.dumps(content, ensure_ascii=False, default=str).encode()
    except json.JSONDecodeError as error:
        raise DataError(f"{what}, line {error.lineno}: not JSON ({error.msg})") from error
    except RecursionError as error:
        raise DataError(f"{what} is nested too deeply to be read") from error
    except UnicodeEncodeError as error:
        half = error.object[error.start]
        raise DataError(f"{what} holds half of a character ({half!r})") from error
    return content


def _decimal(digits: str) -> Decimal | float:
    try:
        return Decimal(digits)
    except InvalidOperation:
        return float(digits)


def _integer(digits: str) -> int | float:
    return int(digits) if len(digits) <= _LONGEST_INTEGER else float(digits)


def checked(content: Any, kind: type[T], what: str) -> T:
    """Return parsed JSON as a typed object; members it does not know are passed over.

    Args:
        content: from `load_json`.
        kind: a msgspec.Struct.
        what: the file, for messages.

    Raises:
        DataError: naming the place in the file and the value there.
    """
    try:
        return msgspec.convert(content, kind)
    except msgspec.ValidationError as error:
        reason, _, place = str(error).partition(" - at `")
        place = place.rstrip("`")
        value = _value_at(content, place)
        at = f" at {place.lstrip('$.')}" if place.strip("$") else ""
        raise DataError(f"{what}{at}: {reason}, found {value!r:.60}") from error
    except RecursionError as error:
        raise DataError(f"{what} is nested too deeply to be read") from error


def _value_at(content: Any, place: str) -> Any:
    """Return what stands at a path such as `$.annotations[0].bbox`, as far as it leads."""
    for name, index in re.findall(r"\.([^.\[\]]+)|\[(\d+)\]", place):
        try:
            content = content[name] if name else content[int(index)]
        except (KeyError, IndexError, TypeError):
            break
    return content if not isinstance(content, dict | list) else type(content).__name__


def is_number(value: Any) -> bool:
    """Tell whether a JSON value is a number (true and false are none); it may be NaN."""
    return isinstance(value, int | float | Decimal) and not isinstance(value, bool)

"""Text as people's programs save it: byte order marks, decimal commas."""

from __future__ import annotations

import codecs
import math
import os
import re
from collections.abc import Sequence
from pathlib import Path

from segmitos.errors import DataError

_MAX_TEXT_BYTES = 256 << 20
_MAX_LINE = 300
_UM_PER_PX = re.compile(
    r"\s*([uµμ]m|microns?|micromet(er|re)s?)(\s*(/|per)\s*(px|pixels?))?$", re.IGNORECASE
)


def read_text(path: Path, any_bytes: bool = False) -> str:
    r"""Read a text file, whatever program saved it.

    UTF-8 with or without a byte order mark, and UTF-16 with one. Line ends become `\n`.

    Args:
        path: of the file.
        any_bytes: bytes that are no UTF-8 are kept as the system keeps them in file names, so that
            a list may name any file; else they are refused.

    Raises:
        DataError: if the file cannot be read, or is not text.
    """
    try:
        if os.path.getsize(path) > _MAX_TEXT_BYTES:
            raise DataError(f"{path}: {os.path.getsize(path)} bytes are too many for a text file")
        content = path.read_bytes()
    except (OSError, ValueError) as error:
        raise DataError(f"{path}: cannot be read ({reason_of(error)})") from error
    try:
        if content.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
            text = content.decode("utf-16")
        else:
            text = content.decode("utf-8", "surrogateescape")
    except UnicodeDecodeError as error:
        raise DataError(f"{path}: not a text file ({error})") from error
    if "\0" in text:
        raise DataError(f"{path}: not a text file (it holds NUL characters)")
    if not any_bytes and any("\udc80" <= sign <= "\udcff" for sign in text if sign > "\ud7ff"):
        raise DataError(f"{path}: not a text file in UTF-8; save it as one")
    return text.lstrip("\ufeff").replace("\r\n", "\n").replace("\r", "\n")


def parse_decimal(text: str) -> float | None:
    """Parse a number with a decimal point or comma; None for anything else, or not finite.

    A text with both, or with several commas, is no number: what the comma means is unknown.
    """
    cell = text.strip()
    if cell.count(",") == 1 and "." not in cell:
        cell = cell.replace(",", ".")
    try:
        value = float(cell) if cell.isascii() and "_" not in cell else math.nan
    except ValueError:
        return None
    return value if math.isfinite(value) else None


def parse_mpp(text: str) -> float | None:
    """Parse micrometers per pixel, with or without the unit: `0.25`, `0,25 µm`, `0.25 um/px`."""
    return parse_decimal(_UM_PER_PX.sub("", text.strip()))


def reason_of(error: BaseException) -> str:
    """Return what the system says is wrong, in one line."""
    return one_line(getattr(error, "strerror", None) or error)


def listed(names: Sequence[object], limit: int) -> str:
    """Return names joined by commas: the first `limit` of them, and how many more there are."""
    more = f" and {len(names) - limit} more" if len(names) > limit else ""
    return ", ".join(str(name) for name in names[:limit]) + more


def one_line(error: object) -> str:
    """Return what an error says, in one line; its kind where it says nothing."""
    return " ".join(str(error).split())[:_MAX_LINE] or type(error).__name__

"""The header of a DICOM file: which series it belongs to, and how large it is."""

from __future__ import annotations

import struct
from dataclasses import dataclass
from pathlib import Path

_HEADER_BYTES = 1 << 18
_MAGIC_AT = 128
_IMPLICIT, _BIG_ENDIAN = "1.2.840.10008.1.2", "1.2.840.10008.1.2.2"
# Value types whose length takes four bytes, after two that are empty.
_LONG = {b"OB", b"OD", b"OF", b"OL", b"OV", b"OW", b"SQ", b"SV", b"UC", b"UN", b"UR", b"UT", b"UV"}
_UNDEFINED = 0xFFFFFFFF
_ITEM, _ITEM_END, _SEQUENCE_END = (0xFFFE, 0xE000), (0xFFFE, 0xE00D), (0xFFFE, 0xE0DD)
_MAX_DEPTH = 16

_SYNTAX, _IMAGE_TYPE, _SERIES = (0x0002, 0x0010), (0x0008, 0x0008), (0x0020, 0x000E)
_TOTAL_COLUMNS, _TOTAL_ROWS = (0x0048, 0x0006), (0x0048, 0x0007)
_LAST = _TOTAL_ROWS

Tag = tuple[int, int]


@dataclass(frozen=True)
class DicomHeader:
    """What stands in the header of a DICOM file; 0 or empty where it does not say."""

    series: str
    image_type: str
    width: int
    height: int

    @property
    def is_volume(self) -> bool:
        """Whether it holds a level of a slide, not its label or overview."""
        return "VOLUME" in self.image_type


def is_dicom(head: bytes) -> bool:
    """Tell a DICOM file by its first 132 bytes; what stands before the mark is free."""
    return head[_MAGIC_AT : _MAGIC_AT + 4] == b"DICM"


def read_header(path: Path) -> DicomHeader | None:
    """Read the header of a DICOM file; None for any other file, or one that cannot be read."""
    try:
        with path.open("rb") as stream:
            head = stream.read(_MAGIC_AT + 4)
            if not is_dicom(head):
                return None
            content = stream.read(_HEADER_BYTES)
    except (OSError, ValueError):
        return None
    values = _elements(content)
    return DicomHeader(
        series=_text(values.get(_SERIES, b"")),
        image_type=_text(values.get(_IMAGE_TYPE, b"")),
        width=_number(values.get(_TOTAL_COLUMNS, b"")),
        height=_number(values.get(_TOTAL_ROWS, b"")),
    )


def _elements(content: bytes) -> dict[Tag, bytes]:
    """Read the outermost elements as far as they are of use; as many as a cut file holds."""
    values: dict[Tag, bytes] = {}
    at, explicit = 0, True
    try:
        while at < len(content):
            if values.get(_SYNTAX) and content[at : at + 2] != b"\x02\x00":
                syntax = _text(values[_SYNTAX])
                if syntax == _BIG_ENDIAN:
                    break
                explicit = syntax != _IMPLICIT
            tag, at, length = _element(content, at, explicit)
            if tag > _LAST:
                break
            if length == _UNDEFINED:
                at = _skip_items(content, at, explicit, 0)
            else:
                values[tag] = content[at : at + length]
                at += length
    except (struct.error, RecursionError):
        pass
    return values


def _element(content: bytes, at: int, explicit: bool) -> tuple[Tag, int, int]:
    """The tag of an element, where its value begins, and how long that is."""
    group, number = struct.unpack_from("<HH", content, at)
    if group == _ITEM[0] or not explicit:
        (length,) = struct.unpack_from("<I", content, at + 4)
        return (group, number), at + 8, length
    if content[at + 4 : at + 6] in _LONG:
        (length,) = struct.unpack_from("<I", content, at + 8)
        return (group, number), at + 12, length
    (length,) = struct.unpack_from("<H", content, at + 6)
    return (group, number), at + 8, length


def _skip_items(content: bytes, at: int, explicit: bool, depth: int) -> int:
    """Return where a sequence or item of undefined length, whose value begins here, ends."""
    if depth > _MAX_DEPTH:
        raise struct.error("sequences are nested too deeply")
    while at < len(content):
        tag, at, length = _element(content, at, explicit)
        if tag in (_SEQUENCE_END, _ITEM_END):
            return at
        at = _skip_items(content, at, explicit, depth + 1) if length == _UNDEFINED else at + length
    return at


def _text(value: bytes) -> str:
    return value.decode("ascii", "replace").strip("\0 ")


def _number(value: bytes) -> int:
    return int.from_bytes(value, "little") if len(value) in (2, 4) else 0

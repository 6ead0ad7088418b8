"""Is a JPEG stream whole? libjpeg fills what is missing with gray and merely warns.

Pillow and imagecodecs drop the warnings, so a hole would be read as tissue. Cheap signs are
looked for in every stream: no end marker; a marker inside the coded data; a long run of zeros,
which few code tables can mean. A stream with a sign that does not settle it is parsed again by
a strict reader. Flipped bytes that leave the code valid cannot be told from an image: JPEG has
no checksum.
"""

from __future__ import annotations

import re

_START_OF_SCAN = b"\xff\xda"
_END = b"\xff\xd9"
_ZEROS = bytes(32)
_MARKER = 0xFF
# Frame headers are C0 to CF but for the tables (C4, C8, CC); some markers have no length.
_FRAMES = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}
_WITHOUT_LENGTH = frozenset({0x01, *range(0xD0, 0xD9)})
_TABLES = b"\xff\xc4"
_LUMA_AC_TABLE = 0x10
_END_OF_BLOCK = 0
_STRAY_MARKER = re.compile(rb"\xff[^\x00\xd0-\xd7\xff]")


def damage(stream: bytes, tables: bytes | None = None) -> str:
    """What is wrong with a JPEG stream, empty if nothing is.

    Args:
        stream: from start-of-image on.
        tables: an abbreviated stream with the tables, as TIFF keeps them once for all tiles.
    """
    scan = stream.find(_START_OF_SCAN)
    if stream[:2] != b"\xff\xd8":
        return "it does not begin as a JPEG"
    if scan < 0:
        return "it ends before its pixels"
    end = stream.rfind(_END)
    if end < scan:
        return "it ends too early"
    zeros = stream.find(_ZEROS, scan, end) >= 0
    if zeros and not _zeros_mean_flat(tables or stream):
        return "its coded data hold a run of zeros"
    if zeros or _STRAY_MARKER.search(stream, scan + 2, end):
        return strict_damage(stream, tables)
    return ""


def frame_size(stream: bytes) -> tuple[int, int, int] | None:
    """Width, height and channels that the frame header of a JPEG stream states.

    None where there is none before the pixels. Progressive and lossless frames count, too.
    """
    at = 2
    while at + 10 <= len(stream) and stream[at] == _MARKER:
        kind = stream[at + 1]
        if kind == _MARKER:
            at += 1
            continue
        if kind in _FRAMES:
            height = int.from_bytes(stream[at + 5 : at + 7], "big")
            width = int.from_bytes(stream[at + 7 : at + 9], "big")
            return width, height, stream[at + 9]
        if kind == _START_OF_SCAN[1]:
            return None
        at += 2
        if kind not in _WITHOUT_LENGTH:
            at += int.from_bytes(stream[at : at + 2], "big")
    return None


def _zeros_mean_flat(stream: bytes) -> bool:
    """Can a run of zero bits be flat blocks, by the stream's own code?

    Only if the code word of zeros is "end of block" in the table of the luma coefficients. It
    is not in the standard tables, where it means a coefficient of size 1.
    """
    at = stream.find(_TABLES)
    while at >= 0:
        end = at + 2 + int.from_bytes(stream[at + 2 : at + 4], "big")
        at += 4
        while at + 17 < end <= len(stream):
            if stream[at] == _LUMA_AC_TABLE and stream[at + 17] != _END_OF_BLOCK:
                return False
            at += 17 + sum(stream[at + 1 : at + 17])
        at = stream.find(_TABLES, end)
    return True


def strict_damage(stream: bytes, tables: bytes | None = None) -> str:
    """What is wrong with a stream by libjxl's reader, which parses all and accepts no damage."""
    import imagecodecs

    whole = tables[:-2] + stream[2:] if tables else stream
    try:
        imagecodecs.jpegxl_encode_jpeg(whole)
    except (RuntimeError, ValueError) as error:
        return f"its coded data are damaged: {error}"
    return ""

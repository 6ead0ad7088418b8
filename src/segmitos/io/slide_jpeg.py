"""Is a JPEG stream whole? libjpeg fills what is missing with grey and merely warns.

Pillow and imagecodecs drop the warnings, so a hole would be read as tissue. Two cheap signs
are looked for in every stream (no end marker; a marker or a long run of zeros inside the coded
data). Streams that show one are parsed again by a strict reader, which decides. Flipped bytes
that leave the code valid cannot be told from an image: JPEG has no checksum.
"""

from __future__ import annotations

import re

_START_OF_SCAN = b"\xff\xda"
_END = b"\xff\xd9"
_ZEROS = bytes(32)
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
    stray = _STRAY_MARKER.search(stream, scan + 2, end)
    if stray is None and stream.find(_ZEROS, scan, end) < 0:
        return ""
    return _strictly(stream, tables)


def _strictly(stream: bytes, tables: bytes | None) -> str:
    """Parse every coefficient with libjxl's reader, which accepts no damage."""
    import imagecodecs

    whole = tables[:-2] + stream[2:] if tables else stream
    try:
        imagecodecs.jpegxl_encode_jpeg(whole)
    except (RuntimeError, ValueError) as error:
        return f"its coded data are damaged: {error}"
    return ""

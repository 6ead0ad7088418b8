"""Is a PNG whole? Pillow leaves rows black that the compressed data do not reach."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterator, Sequence
from pathlib import Path

_SIGNATURE_BYTES = 8
_BITS_AT = 24
_TEXTS = (b"eXIf", b"tEXt", b"zTXt", b"iTXt")
_SAMPLES = {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}
_CHUNK_BYTES = 1 << 20
# Where the seven passes of an interlaced picture begin, and their steps: x, y, step x, step y.
_PASSES = (
    (0, 0, 8, 8),
    (4, 0, 8, 8),
    (0, 4, 4, 8),
    (2, 0, 4, 4),
    (0, 2, 2, 4),
    (1, 0, 2, 2),
    (0, 1, 1, 2),
)


def shortfall(path: Path) -> str:
    """Say how much less the compressed data of a PNG hold than its header states; empty if none.

    Args:
        path: of a PNG that a reader has accepted.

    Raises:
        OSError: if it cannot be read.
    """
    expected, held = 0, 0
    unpack = zlib.decompressobj()
    for name, content in _chunks(path, (b"IHDR", b"IDAT")):
        if name == b"IHDR" and len(content) >= 13:
            expected = _expected(content)
        elif name == b"IDAT":
            try:
                held += _unpacked(unpack, content)
            except zlib.error as error:
                return f"its compressed data are damaged: {error}"
        if expected and held >= expected:
            return ""
    return f"its pixels end after {held} of {expected} bytes"


def _unpacked(unpack: zlib._Decompress, content: bytes) -> int:
    """How many bytes compressed ones stand for; no more than a chunk of them is kept."""
    held, rest = 0, content
    while not unpack.eof:
        part = unpack.decompress(rest, _CHUNK_BYTES)
        held, rest = held + len(part), unpack.unconsumed_tail
        # What did not fit into a chunk comes out of an empty call.
        if not rest and len(part) < _CHUNK_BYTES:
            break
    return held


def bits_per_sample(path: Path) -> int:
    """Return how many bits a sample of a PNG has, 0 where it does not say."""
    with path.open("rb") as stream:
        head = stream.read(_BITS_AT + 1)
    return head[_BITS_AT] if len(head) > _BITS_AT else 0


def has_text_after_pixels(path: Path) -> bool:
    """Tell whether EXIF or text stands behind the pixels, which are decoded to get there."""
    pixels_seen = False
    for name, _ in _chunks(path):
        if pixels_seen and name in _TEXTS:
            return True
        pixels_seen |= name == b"IDAT"
    return False


def _chunks(path: Path, wanted: Sequence[bytes] = ()) -> Iterator[tuple[bytes, bytes]]:
    """Yield the name of each chunk, and the content of those that are wanted."""
    with path.open("rb") as stream:
        stream.seek(_SIGNATURE_BYTES)
        while len(head := stream.read(8)) == 8:
            length, name = struct.unpack(">I4s", head)
            content = stream.read(length) if name in wanted else b""
            stream.seek(length - len(content) + 4, 1)
            yield name, content


def _expected(header: bytes) -> int:
    """Bytes of all rows, each with that of its filter."""
    width, height, bits, color, _, _, interlaced = struct.unpack(">IIBBBBB", header[:13])
    bits *= _SAMPLES.get(color, 1)
    if not interlaced:
        whole: int = height * (1 + (width * bits + 7) // 8)
        return whole
    total = 0
    for left, top, step_x, step_y in _PASSES:
        columns, rows = -(-(width - left) // step_x), -(-(height - top) // step_y)
        if columns > 0 and rows > 0:
            total += rows * (1 + (columns * bits + 7) // 8)
    return int(total)

"""The directories of a TIFF file, read into checked values: no tag is trusted.

Every image (page) of a TIFF has a directory of tags. Classic TIFF and BigTIFF of both byte orders
are read; only tags that are used are kept, and each is asked for as what it should be.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from functools import cached_property
from pathlib import Path
from typing import BinaryIO, Literal

import numpy as np
import numpy.typing as npt

from segmitos.errors import InputError
from segmitos.io.text import reason_of

ByteOrder = Literal["<", ">"]
MAX_PAGES = 4096
MAX_SUB_PAGES = 64
_MAX_ENTRIES = 4096
_MAX_VALUE_BYTES = 1 << 29

NEW_SUBFILE_TYPE, WIDTH, HEIGHT, BITS, COMPRESSION, PHOTOMETRIC = 254, 256, 257, 258, 259, 262
FILL_ORDER, DESCRIPTION, MAKE, STRIP_OFFSETS, ORIENTATION, SAMPLES = 266, 270, 271, 273, 274, 277
ROWS_PER_STRIP, STRIP_COUNTS, X_RESOLUTION, Y_RESOLUTION, PLANAR = 278, 279, 282, 283, 284
T4_OPTIONS, RESOLUTION_UNIT, SOFTWARE, PREDICTOR, COLOR_MAP = 292, 296, 305, 317, 320
TILE_WIDTH, TILE_HEIGHT, TILE_OFFSETS, TILE_COUNTS, SUB_IFDS = 322, 323, 324, 325, 330
EXTRA_SAMPLES, SAMPLE_FORMAT, JPEG_TABLES, XMP, IMAGE_DEPTH = 338, 339, 347, 700, 32997
STK_PLANES, NDPI = 33629, 65420
_NAMES = {
    **{WIDTH: "ImageWidth", HEIGHT: "ImageLength", BITS: "BitsPerSample"},
    **{COMPRESSION: "Compression", PHOTOMETRIC: "PhotometricInterpretation"},
    **{SAMPLES: "SamplesPerPixel", ROWS_PER_STRIP: "RowsPerStrip", PLANAR: "PlanarConfiguration"},
    **{TILE_WIDTH: "TileWidth", TILE_HEIGHT: "TileLength", PREDICTOR: "Predictor"},
    **{STRIP_OFFSETS: "StripOffsets", STRIP_COUNTS: "StripByteCounts", COLOR_MAP: "ColorMap"},
    **{TILE_OFFSETS: "TileOffsets", TILE_COUNTS: "TileByteCounts", SUB_IFDS: "SubIFDs"},
}
_USED = frozenset(
    {
        *(NEW_SUBFILE_TYPE, WIDTH, HEIGHT, BITS, COMPRESSION, PHOTOMETRIC, FILL_ORDER),
        *(DESCRIPTION, MAKE, STRIP_OFFSETS, ORIENTATION, SAMPLES, ROWS_PER_STRIP, STRIP_COUNTS),
        *(X_RESOLUTION, Y_RESOLUTION, PLANAR, T4_OPTIONS, RESOLUTION_UNIT, SOFTWARE, PREDICTOR),
        *(COLOR_MAP, TILE_WIDTH, TILE_HEIGHT, TILE_OFFSETS, TILE_COUNTS, SUB_IFDS, EXTRA_SAMPLES),
        *(SAMPLE_FORMAT, JPEG_TABLES, XMP, IMAGE_DEPTH, STK_PLANES, NDPI),
    }
)
# Bytes of a value of each field type, and how NumPy names the types that are whole numbers.
_SIZES = {1: 1, 2: 1, 3: 2, 4: 4, 5: 8, 6: 1, 7: 1, 8: 2, 9: 4, 10: 8, 11: 4, 12: 8, 13: 4}
_SIZES |= {16: 8, 17: 8, 18: 8}
_INTEGERS = {1: "u1", 3: "u2", 4: "u4", 6: "i1", 8: "i2", 9: "i4", 13: "u4"}
_INTEGERS |= {16: "u8", 17: "i8", 18: "u8"}
_ASCII, _RATIONAL = 2, 5

Tag = tuple[int, int, bytes | None]
"""Type of field, number of values, and their bytes: None where these lie outside the file."""
_ABSENT: Tag = (0, 0, None)


def damaged(path: Path, reason: str) -> InputError:
    """The error of a TIFF that cannot be what it should."""
    return InputError(f"{path}: truncated or damaged TIFF ({reason})")


class Directory:
    """The tags of one image of a TIFF.

    Attributes:
        path: of the file.
        byte_order: "<" or ">".
        number: of the image in the file, from 1; 0 for one below another.
        below: smaller images that the directory names.
    """

    def __init__(self, path: Path, byte_order: ByteOrder, tags: dict[int, Tag]) -> None:
        self.path, self.byte_order = path, byte_order
        self.number = 0
        self.below: tuple[Directory, ...] = ()
        self._tags = tags

    def __contains__(self, code: int) -> bool:
        return code in self._tags

    def count(self, code: int) -> int:
        """How many values a tag has; 0 where it is not there."""
        return self._tags.get(code, _ABSENT)[1]

    def integers(self, code: int) -> npt.NDArray[np.int64]:
        """The values of a tag of whole numbers; empty where it is not there.

        Raises:
            InputError: if they lie outside the file, are no whole numbers, or beyond 63 bits.
        """
        if code not in self._tags:
            return np.zeros(0, np.int64)
        kind, _, value = self._tags[code]
        name = _NAMES.get(code, f"tag {code}")
        if value is None:
            raise damaged(self.path, f"the values of {name} lie outside the file")
        if kind not in _INTEGERS:
            raise damaged(self.path, f"{name} holds no whole numbers")
        values = np.frombuffer(value, self.byte_order + _INTEGERS[kind])
        if values.dtype.kind == "u" and values.dtype.itemsize == 8 and (values >> 63).any():
            raise damaged(self.path, f"a value of {name} is impossible")
        return values.astype(np.int64)

    def integer(
        self, code: int, default: int | None = None, minimum: int = 0, maximum: int = (1 << 31) - 1
    ) -> int:
        """The first value of a tag, `default` where it is not there.

        Raises:
            InputError: if it is not there and has no default, or not from `minimum` to `maximum`.
        """
        values = self.integers(code)
        name = _NAMES.get(code, f"tag {code}")
        if not len(values):
            if default is None:
                raise damaged(self.path, f"it lacks {name}")
            return default
        value = int(values[0])
        if not minimum <= value <= maximum:
            raise damaged(self.path, f"{name} is {value}")
        return value

    def text(self, code: int) -> str:
        """The text of a tag; empty where it is not there or no text."""
        kind, _, value = self._tags.get(code, _ABSENT)
        if value is None or kind not in (_ASCII, 1, 7):
            return ""
        return value.split(b"\0", 1)[0].decode("utf-8", "replace").strip()

    def content(self, code: int) -> bytes:
        """The bytes of a tag; empty where it is not there."""
        return self._tags.get(code, _ABSENT)[2] or b""

    def ratio(self, code: int) -> float | None:
        """The value of a rational tag; None where it is not there, or not above 0."""
        kind, _, value = self._tags.get(code, _ABSENT)
        if value is None or kind != _RATIONAL or len(value) < 8:
            return None
        above, below = struct.unpack(self.byte_order + "II", value[:8])
        return above / below if above and below else None

    @cached_property
    def size(self) -> tuple[int, int]:
        """Width and height, 0 where that cannot be told. Raises InputError as `integers` does."""
        width, height = (next(iter(self.integers(code).tolist()), 0) for code in (WIDTH, HEIGHT))
        return width * (0 < width < 1 << 31), height * (0 < height < 1 << 31)

    @property
    def area(self) -> int:
        """Pixels of the image."""
        return self.size[0] * self.size[1]

    @property
    def flags(self) -> int:
        """What kind of image it is: 1 reduced, 4 a mask."""
        return int(next(iter(self.integers(NEW_SUBFILE_TYPE)), 0))

    @property
    def is_tiled(self) -> bool:
        """Whether the image is cut into tiles, not strips."""
        return TILE_WIDTH in self._tags and TILE_OFFSETS in self._tags


class TiffReader:
    """Reads the directories of one file."""

    def __init__(self, path: Path, stream: BinaryIO, size: int) -> None:
        self._path, self._stream, self._size = path, stream, size
        head = stream.read(16)
        order: ByteOrder = ">" if head[:2] == b"MM" else "<"
        known = head[:2] in (b"II", b"MM") and len(head) >= 8
        version = struct.unpack(order + "H", head[2:4])[0] if known else 0
        if version not in (42, 43) or (version == 43 and len(head) < 16):
            raise damaged(path, "no TIFF header")
        self._order, self._big = order, version == 43
        self._first = struct.unpack(order + "Q", head[8:])[0] if self._big else 0
        if not self._big:
            self._first = struct.unpack(order + "I", head[4:8])[0]

    def pages(self) -> Iterator[Directory]:
        """The images in order, each with those below it.

        Raises:
            InputError: if a directory lies outside the file, or they run in a circle.
        """
        offset, seen = self._first, set[int]()
        while offset:
            if offset in seen:
                raise damaged(self._path, "its directories run in a circle")
            if len(seen) >= MAX_PAGES:
                raise InputError(f"{self._path}: more than {MAX_PAGES} images in one TIFF")
            seen.add(offset)
            directory, offset = self._directory(offset)
            starts = directory.integers(SUB_IFDS)[:MAX_SUB_PAGES].tolist()
            directory.below = tuple(self._directory(start)[0] for start in starts if start)
            directory.number = len(seen)
            yield directory

    def _bytes(self, offset: int, count: int) -> bytes:
        if offset + count > self._size:
            raise damaged(self._path, f"it ends before byte {offset + count}")
        try:
            self._stream.seek(offset)
            content = self._stream.read(count)
        except (OSError, ValueError, OverflowError) as error:
            raise InputError(f"{self._path}: cannot be read ({reason_of(error)})") from error
        if len(content) < count:
            raise damaged(self._path, f"it ends before byte {offset + count}")
        return content

    def _directory(self, offset: int) -> tuple[Directory, int]:
        """The tags of the directory at an offset, and the offset of the next one."""
        head, entry, pointer = ("Q", 20, "Q") if self._big else ("H", 12, "I")
        width = struct.calcsize(pointer)
        (count,) = struct.unpack(self._order + head, self._bytes(offset, struct.calcsize(head)))
        if not 0 < count <= _MAX_ENTRIES:
            raise damaged(self._path, f"a directory of {count} tags")
        start = offset + struct.calcsize(head)
        content = self._bytes(start, count * entry + width)
        tags: dict[int, Tag] = {}
        for at in range(0, count * entry, entry):
            code, kind = struct.unpack_from(self._order + "HH", content, at)
            if code not in _USED or code in tags or kind not in _SIZES:
                continue
            (length,) = struct.unpack_from(self._order + pointer, content, at + 4)
            inline = content[at + 4 + width : at + entry]
            tags[code] = (kind, length, self._value(inline, length * _SIZES[kind]))
        (following,) = struct.unpack_from(self._order + pointer, content, count * entry)
        return Directory(self._path, self._order, tags), following

    def _value(self, inline: bytes, size: int) -> bytes | None:
        if size <= len(inline):
            return inline[:size]
        (offset,) = struct.unpack(self._order + ("Q" if len(inline) == 8 else "I"), inline)
        if offset + size > self._size or size > _MAX_VALUE_BYTES:
            return None
        return self._bytes(offset, size)


def read_pages(path: Path) -> list[Directory]:
    """The images of a TIFF, in the order of the file.

    Raises:
        InputError: if it holds none, is cut off, or its directories are damaged.
    """
    try:
        with path.open("rb") as stream:
            pages = list(TiffReader(path, stream, path.stat().st_size).pages())
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({reason_of(error)})") from error
    if not pages:
        raise damaged(path, "no image in it")
    return pages

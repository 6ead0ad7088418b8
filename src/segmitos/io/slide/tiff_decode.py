"""From the bytes of a tile or strip of a TIFF to its samples, by the codecs of imagecodecs.

Nothing is decoded that does not fit the place it is meant for: every decoder is given the room for
its result, or asked for its size, before it begins.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from segmitos.io.slide.jpeg import damage, frame_size
from segmitos.io.text import one_line

Samples = npt.NDArray[Any]

JPEG = 7
_NONE, _LZW, _PACKBITS = 1, 5, 32773
_LERC = 34887
_CCITT_RLE, _CCITT_FAX3, _CCITT_FAX4 = 2, 3, 4
_CCITT = (_CCITT_RLE, _CCITT_FAX3, _CCITT_FAX4)
APERIO_YCBCR, APERIO_RGB = 33003, 33005
JPEG_2000 = (APERIO_YCBCR, 33004, APERIO_RGB, 34712)
# Compressions of bytes, whatever they mean; and of pictures. Names of codecs of imagecodecs.
_BYTES = {
    _LZW: "lzw",
    8: "deflate",
    32946: "deflate",
    _PACKBITS: "packbits",
    34925: "lzma",
    34926: "zstd",
    50000: "zstd",
}
_PICTURES = {
    **dict.fromkeys(JPEG_2000, "jpeg2k"),
    **{22610: "jpegxr", 34934: "jpegxr", 34933: "png", 34927: "webp", 50001: "webp"},
    **{_LERC: "lerc", 50002: "jpegxl", 52546: "jpegxl"},
}
LOSSLESS = frozenset({_NONE, *_BYTES})
_HORIZONTAL = 2
_YCBCR, _RGB, _CMYK = 6, 2, 5
_SIZ = b"\xff\x4f\xff\x51"
# imagecodecs' errors are RuntimeErrors, but where a result does not fit the room it is given.
_DECODE_ERRORS = (RuntimeError, ValueError, EOFError, OSError)


@dataclass(frozen=True)
class Coding:
    """How the samples of a TIFF image are laid down in bytes; every value is one that is read.

    Attributes:
        compression: of the TIFF standard or its extensions.
        predictor: 1 none, 2 differences along the row.
        bits: per sample, 1 to 16.
        samples: per pixel in one tile or strip.
        byte_order: "<" or ">".
        reversed_bits: whether the bits of each byte are in reverse order.
        photometric: color space of what is stored.
        separate: whether the channels lie in planes of their own.
        has_extra: whether there are samples beside the colors.
        jpeg_tables: that the file keeps once for all its JPEG streams.
        t4_options: of CCITT group 3.
    """

    compression: int
    predictor: int
    bits: int
    samples: int
    byte_order: Literal["<", ">"]
    reversed_bits: bool
    photometric: int
    separate: bool
    has_extra: bool
    jpeg_tables: bytes
    t4_options: int

    @property
    def dtype(self) -> type[np.uint8] | type[np.uint16]:
        """Of the decoded samples."""
        return np.uint8 if self.bits <= 8 else np.uint16


def problem_of(coding: Coding) -> str:
    """Say what of a coding is not read; empty where all is."""
    known = {_NONE, JPEG, *_BYTES, *_PICTURES, *_CCITT}
    if coding.compression not in known:
        return f"compression {coding.compression}"
    if coding.predictor not in (1, _HORIZONTAL) and coding.compression in _BYTES:
        return f"predictor {coding.predictor}"
    if coding.predictor != 1 and coding.compression == _LERC:
        # tifffile takes differences first, libtiff does not.
        return f"predictor {coding.predictor} with LERC compression"
    if coding.compression == JPEG and coding.bits != 8:
        return f"{coding.bits}-bit JPEG"
    if coding.compression in _CCITT and (coding.bits != 1 or coding.samples != 1):
        return f"CCITT compression of {coding.samples} samples of {coding.bits} bits"
    if coding.compression in _PICTURES and coding.bits not in (8, 16):
        return f"compression {coding.compression} of {coding.bits}-bit samples"
    return ""


def decode(
    coding: Coding, data: bytes, width: int, height: int, inside: tuple[int, int]
) -> Samples:
    """Decode one tile or strip.

    Args:
        coding: of the image; `problem_of` finds nothing in it.
        data: bytes of the tile or strip.
        width: of the tile or strip, pixels.
        height: likewise.
        inside: (width, height) of what of it lies in the image: some writers store no more.

    Returns:
        (height, width, samples), or no more than lies inside.

    Raises:
        ValueError: where the bytes are damaged; it says why, in one line.
    """
    try:
        if coding.compression == JPEG:
            return _jpeg(coding, data, (width, height), inside)
        if coding.compression in _PICTURES:
            return _picture(coding, data, (width, height), inside)
        if coding.compression in _CCITT:
            return _ccitt(coding, data, width, inside[1])
        return _samples(coding, data, width, height, inside[1])
    except _DECODE_ERRORS as error:
        raise ValueError(one_line(error)) from error


def _samples(coding: Coding, data: bytes, width: int, height: int, needed_rows: int) -> Samples:
    """Samples that lie row by row, perhaps packed, perhaps compressed as bytes."""
    import imagecodecs

    row_bytes = (width * coding.samples * coding.bits + 7) // 8
    if coding.compression in _BYTES:
        read = getattr(imagecodecs, f"{_BYTES[coding.compression]}_decode")
        data = bytes(read(data, out=row_bytes * height))
    if coding.reversed_bits:
        data = bytes(imagecodecs.bitorder_decode(data))
    # Below the image's last row writers may store something, or nothing.
    rows = min(height, len(data) // row_bytes)
    if rows < needed_rows:
        raise ValueError(f"{len(data)} of {row_bytes * height} bytes")
    count, shape = rows * width * coding.samples, (rows, width, coding.samples)
    kind = np.dtype(coding.dtype).newbyteorder(coding.byte_order)
    if coding.bits in (8, 16):
        values = np.frombuffer(data, kind, count)
    else:
        values = imagecodecs.packints_decode(
            data[: rows * row_bytes], kind, coding.bits, runlen=width * coding.samples
        )
    values = np.asarray(values)[:count].reshape(shape).astype(coding.dtype, copy=False)
    if coding.predictor == _HORIZONTAL and coding.compression in _BYTES:
        values = imagecodecs.delta_decode(values, axis=1)
    return values


def _ccitt(coding: Coding, data: bytes, width: int, height: int) -> Samples:
    import imagecodecs

    if coding.reversed_bits:
        data = bytes(imagecodecs.bitorder_decode(data))
    readers: dict[int, Callable[..., Samples]] = {
        _CCITT_RLE: imagecodecs.ccittrle_decode,
        _CCITT_FAX3: partial(imagecodecs.ccittfax3_decode, t4options=coding.t4_options),
        _CCITT_FAX4: imagecodecs.ccittfax4_decode,
    }
    values = np.asarray(readers[coding.compression](data, height, width))
    return values.reshape(height, width, 1).astype(np.uint8)


def _jpeg(coding: Coding, data: bytes, size: tuple[int, int], inside: tuple[int, int]) -> Samples:
    import imagecodecs

    problem = damage(data, coding.jpeg_tables or None)
    if problem:
        raise ValueError(problem)
    stored = frame_size(data)
    if stored is None or stored[:2] not in _fitting(size, inside) or stored[2] != coding.samples:
        raise ValueError(f"its JPEG is of {_shown(stored)}, not {_shown((*size, coding.samples))}")
    space, wanted = _jpeg_color_spaces(coding, is_jfif=data[6:10] == b"JFIF")
    shape = (stored[1], stored[0], *((coding.samples,) if coding.samples > 1 else ()))
    values = imagecodecs.jpeg8_decode(
        data,
        tables=coding.jpeg_tables or None,
        colorspace=space,
        outcolorspace=wanted,
        out=np.empty(shape, np.uint8),
    )
    return np.asarray(values).reshape(stored[1], stored[0], coding.samples)


def _jpeg_color_spaces(coding: Coding, is_jfif: bool) -> tuple[int | None, int | str | None]:
    """The color space in a JPEG stream, and the one to give back; None leaves it to the stream."""
    if coding.separate:
        return None, 1
    if coding.has_extra:
        return None, None
    if coding.photometric == _YCBCR:
        return None, _RGB
    if coding.photometric == _RGB:
        # Aperio's streams are RGB and do not say so.
        return (None if is_jfif else _RGB), _RGB
    return None, (4 if coding.photometric == _CMYK else None)


def _picture(
    coding: Coding, data: bytes, size: tuple[int, int], inside: tuple[int, int]
) -> Samples:
    import imagecodecs

    name = _PICTURES[coding.compression]
    read: Callable[..., Any] = getattr(imagecodecs, f"{name}_decode")
    if name == "jpeg2k":
        # The decoder compares the size with that of `out` only after it has decoded everything.
        stored = _jpeg2000_size(data)
        if stored not in _fitting(size, inside):
            raise ValueError(f"its JPEG 2000 is of {_shown(stored)}, not {_shown(size)}")
    error: Exception | None = None
    for width, height in _fitting(size, inside):
        shape = (height, width, *((coding.samples,) if coding.samples > 1 else ()))
        try:
            values = read(data, out=np.empty(shape, coding.dtype))
        except ValueError as mismatch:
            error = mismatch
            continue
        return np.asarray(values).reshape(height, width, coding.samples)
    raise ValueError(one_line(error))


def _jpeg2000_size(data: bytes) -> tuple[int, int] | None:
    """Width and height that the main header of a JPEG 2000 stream states."""
    at = data.find(_SIZ)
    if at < 0 or len(data) < at + 40:
        return None
    right, bottom, left, top = (
        int.from_bytes(data[at + begin : at + begin + 4], "big") for begin in (8, 12, 16, 20)
    )
    return right - left, bottom - top


def _fitting(size: tuple[int, int], inside: tuple[int, int]) -> list[tuple[int, int]]:
    """Sizes that the picture of a tile may have: whole, or cut at the edges of the image."""
    return list(dict.fromkeys([size, inside, (size[0], inside[1]), (inside[0], size[1])]))


def _shown(size: tuple[int, ...] | None) -> str:
    if size is None:
        return "unknown size"
    samples = f" with {size[2]} channels" if len(size) > 2 else ""
    return f"{size[0]} x {size[1]} px{samples}"

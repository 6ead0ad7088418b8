"""What a TIFF holds: which of its pages are the image and its pyramid, its colors, its scale."""

from __future__ import annotations

import logging
import math
import struct
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

import segmitos.io.slide.tiff_scale as scales
from segmitos.errors import InputError
from segmitos.io.slide.backend import Pixels, check_whole_size
from segmitos.io.slide.scale import Scale
from segmitos.io.slide.tiff_color import color_reader

DAMAGE = (
    OSError,
    ValueError,
    KeyError,
    IndexError,
    TypeError,
    AttributeError,
    AssertionError,
    RuntimeError,
    OverflowError,
    ZeroDivisionError,
    MemoryError,
    struct.error,
    zlib.error,
)
"""What tifffile and its codecs raise on broken files (TiffFileError is a ValueError)."""
MOST_PAGES = 64
_APERIO_JPEG = 7
_MOST_DOWNSAMPLE_ERROR_PX = 1.5


@dataclass(frozen=True)
class TiffLevel:
    """One level: where its segments lie in the file and how their bytes become RGB."""

    width: int
    height: int
    tiled: bool
    segment_width: int
    segment_height: int
    compression: int
    orientation: int
    palette: bool
    jpeg_tables: bytes | None
    jpeg_header: bytes | None
    decode: Callable[..., Any]
    to_rgb: Callable[[npt.NDArray[Any]], Pixels]
    offsets: tuple[npt.NDArray[np.int64], ...]
    """One array per page that makes up the level (several where channels are apart)."""
    counts: tuple[npt.NDArray[np.int64], ...]
    planes_per_page: int

    def segments(self, index: int) -> Iterator[tuple[int, int, int]]:
        """(offset, byte count, index in its page) of each part of segment `index`."""
        for offsets, counts in zip(self.offsets, self.counts, strict=True):
            step = len(offsets) // self.planes_per_page
            for at in range(index, index + step * self.planes_per_page, step):
                yield int(offsets[at]), int(counts[at]), at


@dataclass(frozen=True)
class Layout:
    """An image in a TIFF, its levels finest first."""

    format: str
    levels: tuple[TiffLevel, ...]
    scale: Scale | None


def read_layout(path: Path) -> Layout | None:
    """The image of a TIFF, or None where OpenSlide knows the vendor's rules better.

    Raises:
        InputError: if it is truncated, damaged, a stack, fluorescence, or in unknown colors.
    """
    import tifffile

    # tifffile logs what it cannot make sense of; what matters is raised from here instead.
    logging.getLogger("tifffile").addHandler(logging.NullHandler())
    try:
        with tifffile.TiffFile(path) as tif:
            if not len(tif.pages):
                raise InputError(f"{path}: truncated or damaged TIFF (no image in it)")
            return _layout(path, tif)
    except DAMAGE as error:
        reason = " ".join(str(error).split()) or type(error).__name__
        raise InputError(f"{path}: truncated or damaged TIFF ({reason})") from error


def _layout(path: Path, tif: Any) -> Layout | None:
    first = tif.pages[0]
    _check_whole(path, [first])
    if tif.is_svs:
        pages = [page for page in _pages(tif) if page.is_tiled]
        jpeg = all(page.compression == _APERIO_JPEG for page in pages)
        if not pages or not jpeg or any(0 in page.databytecounts for page in pages):
            return None
        _check_whole(path, pages)
        levels = tuple(_plane(path, [page]) for page in _pyramid(pages))
        return Layout("aperio", levels, scales.aperio(first.description))
    vendor = tif.is_ndpi or tif.is_scn or tif.is_philips or tif.is_bif
    if vendor or str(first.software or "").startswith("MedScan"):
        return None
    if tif.is_ome:
        return _ome(path, tif)
    series = tif.series[0]
    _check_single(path, dict(zip(series.axes, series.shape, strict=True)))
    candidates = [first, *_pages(tif)[1:], *(first.pages or [])]
    pages = _pyramid([first, *(page for page in candidates[1:] if page.is_reduced)])
    _check_whole(path, pages)
    levels = tuple(_plane(path, [page]) for page in pages)
    name = "tiled TIFF" if first.is_tiled else "TIFF"
    return Layout(name, levels, scales.generic(tif, first))


def _pages(tif: Any) -> list[Any]:
    return [tif.pages[number].aspage() for number in range(min(len(tif.pages), MOST_PAGES))]


def _ome(path: Path, tif: Any) -> Layout:
    series = max(tif.series, key=lambda s: math.prod(s.shape))
    sizes = dict(zip(series.axes, series.shape, strict=True))
    channels = sizes.get("C", 1)
    names = scales.ome_channel_names(tif.ome_metadata)
    if channels > 1:
        colors = [name.strip().lower() for name in names]
        if channels != 3 or colors not in (["red", "green", "blue"], ["r", "g", "b"]):
            named = f" ({', '.join(names)})" if any(names) else ""
            raise InputError(
                f"{path}: {channels} separate channels{named}, as in fluorescence; only "
                "brightfield RGB or grey images are read"
            )
        sizes["C"] = 1
    _check_single(path, sizes)
    if series.dtype != np.uint8:
        raise InputError(
            f"{path}: OME-TIFF with {series.dtype} samples, so what is white is unknown; convert "
            "the image to 8-bit RGB"
        )
    levels = []
    for level in series.levels:
        # Later pages of a series may be light frames that lean on the first, the key frame.
        pages = [page for page in level.pages if page is not None]
        if len(pages) != channels:
            raise InputError(f"{path}: truncated or damaged TIFF (a level lacks its pages)")
        _check_whole(path, pages)
        levels.append(_plane(path, pages))
    height, width = sizes["Y"], sizes["X"]
    return Layout("OME-TIFF", tuple(levels), scales.ome(tif.ome_metadata, width, height))


def _check_single(path: Path, sizes: dict[str, int]) -> None:
    """Refuse stacks: of focal planes, times or channels."""
    more = {axis: size for axis, size in sizes.items() if axis not in "YXS" and size > 1}
    if more:
        count = math.prod(more.values())
        raise InputError(
            f"{path}: {count} images of one size in a stack (channels, focal planes or times); "
            "only single brightfield images are read"
        )


def _pyramid(pages: list[Any]) -> list[Any]:
    """Of `pages`, the first and its true reductions, finest first."""
    full = pages[0]
    levels = [full]
    for page in sorted(pages[1:], key=lambda page: -page.imagewidth):
        down = full.imagewidth / page.imagewidth
        fits = abs(full.imagelength / down - page.imagelength) <= _MOST_DOWNSAMPLE_ERROR_PX
        if page.imagewidth < levels[-1].imagewidth and fits:
            levels.append(page)
    return levels


def _check_whole(path: Path, pages: list[Any]) -> None:
    """Refuse a file that ends before its pixels do."""
    size = path.stat().st_size
    for page in pages:
        offsets = np.asarray(page.dataoffsets, np.int64)
        counts = np.asarray(page.databytecounts, np.int64)
        if not offsets.size or offsets.size != counts.size:
            raise InputError(f"{path}: truncated or damaged TIFF (its table of pixels is broken)")
        end = int((offsets + counts).max())
        if end > size:
            raise InputError(
                f"{path}: truncated TIFF ({size} bytes, but its pixels reach to byte {end})"
            )


def _plane(path: Path, pages: list[Any]) -> TiffLevel:
    key = pages[0].keyframe
    width, height = int(key.imagewidth), int(key.imagelength)
    tiled = bool(key.is_tiled)
    orientation = int(key.tags.valueof(274, 1) or 1)
    if tiled and orientation != 1:
        raise InputError(f"{path}: a tiled TIFF with orientation {orientation}; rewrite it upright")
    if not tiled:
        check_whole_size(path, width, height)
    elif key.dtype != np.uint8:
        raise InputError(
            f"{path}: {_sample_name(key)} samples in a tiled TIFF, so what is white is unknown; "
            "convert the image to 8-bit RGB"
        )
    segment_width = int(key.tilewidth) if tiled else width
    segment_height = int(key.tilelength) if tiled else min(int(key.rowsperstrip), height)
    planes = int(key.samplesperpixel) if int(key.planarconfig) == 2 else 1
    needed = -(-width // segment_width) * -(-height // segment_height) * planes
    offsets = tuple(np.asarray(page.dataoffsets, np.int64)[:needed] for page in pages)
    counts = tuple(np.asarray(page.databytecounts, np.int64)[:needed] for page in pages)
    if any(len(array) < needed for array in offsets):
        raise InputError(
            f"{path}: truncated or damaged TIFF ({len(offsets[0])} of {needed} tiles or strips)"
        )
    samples = int(key.samplesperpixel) * len(pages)
    to_rgb = color_reader(path, key, samples)
    return TiffLevel(
        width=width,
        height=height,
        tiled=tiled,
        segment_width=segment_width,
        segment_height=segment_height,
        compression=int(key.compression),
        orientation=orientation if 1 <= orientation <= 8 else 1,
        palette=int(key.photometric) == 3,
        jpeg_tables=key.jpegtables,
        jpeg_header=key.jpegheader,
        decode=key.decode,
        to_rgb=to_rgb,
        offsets=offsets,
        counts=counts,
        planes_per_page=planes,
    )


def _sample_name(page: Any) -> str:
    return str(page.dtype) if page.dtype is not None else f"{page.bitspersample}-bit"

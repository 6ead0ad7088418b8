"""TIFF of every layout: strips, tiles, pyramids, BigTIFF, OME-TIFF, JPEG SVS.

Tiles are decoded one by one, straight from the file: several times as fast as OpenSlide on the
same file. Vendor formats with rules of their own are handed to OpenSlide.
"""

from __future__ import annotations

import os
import threading
import weakref
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from segmitos.errors import InputError
from segmitos.io.slide.backend import (
    Level,
    Pixels,
    SlideBackend,
    check_alpha,
    level_downsample,
    reduce_16_bit,
)
from segmitos.io.slide.image import orient
from segmitos.io.slide.scale import Scale
from segmitos.io.slide.tiff_decode import DecodeError, decode
from segmitos.io.slide.tiff_layout import Layout, TiffLevel, check_tile_memory, read_layout
from segmitos.io.slide.tiff_pages import choose_image
from segmitos.io.slide.tiff_tags import read_pages

CACHE_BYTES = 96 << 20
# Formats of OpenSlide's that may not be laid out as TIFF says: NDPI beyond 4 GB.
_OWN_LAYOUT = ("hamamatsu",)
_MAX_ALPHA_TILES = 4096


def open_tiff(path: Path, page: int | None = None) -> SlideBackend:
    """The backend for a TIFF: ours, or OpenSlide's where the vendor's rules matter.

    Args:
        path: of the file.
        page: number of the image to read, from 1; None takes the largest.

    Raises:
        InputError: if it is truncated, damaged, or not a brightfield RGB or grey image.
        UsageError: if it has no such page.
    """
    try:
        pages = read_pages(path)
    except InputError:
        if page is None and _vendor(path) in _OWN_LAYOUT:
            return _through_openslide(path)
        raise
    chosen = choose_image(path, pages, page)
    if chosen is None:
        for one in pages:
            check_tile_memory(path, one.directory)
        return _through_openslide(path)
    return TiffBackend(path, read_layout(path, chosen))


def _vendor(path: Path) -> str | None:
    import openslide

    return openslide.OpenSlide.detect_format(str(path))


def _through_openslide(path: Path) -> SlideBackend:
    from segmitos.io.slide.openslide import OpenSlideBackend

    return OpenSlideBackend(path)


class TiffBackend:
    """One image of a TIFF with its pyramid."""

    def __init__(self, path: Path, layout: Layout) -> None:
        self.format = layout.format
        self.scale: Scale | None = layout.scale
        self._file = _File(path)
        cache = _Cache(CACHE_BYTES)
        self._levels = [
            (_Tiled if level.tiled else _Whole)(self._file, level, number, cache)
            for number, level in enumerate(layout.levels)
        ]
        full = self._levels[0].size
        self.levels: tuple[Level, ...] = tuple(
            Level(level.size[0], level.size[1], level_downsample(full, level.size))
            for level in self._levels
        )
        finest = layout.levels[0]
        self.bounds = finest.bounds() if finest.tiled else (0, 0, full[0], full[1])
        if layout.levels[-1].tiled and layout.levels[-1].coloring.alpha is not None:
            self._levels[-1].check_alpha()

    def read_level(self, level: int, x: int, y: int, width: int, height: int) -> Pixels:
        """RGB of a region of a level.

        Raises:
            InputError: if a tile or strip there is missing or damaged.
        """
        return self._levels[level].read(x, y, width, height)

    def close(self) -> None:
        """Close the file and let decoded pixels go."""
        self._file.close()
        for level in self._levels:
            level.forget()


class _File:
    """Bytes at a position, from any thread."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._handle = os.open(path, os.O_RDONLY | getattr(os, "O_BINARY", 0))
        self._finalizer = weakref.finalize(self, os.close, self._handle)
        self._lock = threading.Lock()

    def read(self, offset: int, count: int) -> bytes:
        """Up to `count` bytes from `offset`; fewer at the end of the file.

        Raises:
            InputError: if the file cannot be read (a lost share, a closed slide).
        """
        try:
            if not self._finalizer.alive:
                raise ValueError("it has been closed")
            if hasattr(os, "pread"):
                return os.pread(self._handle, count, offset)
            with self._lock:
                os.lseek(self._handle, offset, os.SEEK_SET)
                return os.read(self._handle, count)
        except (OSError, ValueError) as error:
            raise InputError(f"{self.path}: cannot be read ({error})") from error

    def close(self) -> None:
        self._finalizer()


class _Cache:
    """The last decoded tiles of all levels, within a number of bytes."""

    def __init__(self, limit: int) -> None:
        self._limit, self._held = limit, 0
        self._tiles: OrderedDict[tuple[int, int], Pixels] = OrderedDict()
        self._lock = threading.Lock()

    def get(self, key: tuple[int, int], make: Callable[[], Pixels]) -> Pixels:
        with self._lock:
            if key in self._tiles:
                self._tiles.move_to_end(key)
                return self._tiles[key]
        tile = make()
        with self._lock:
            if key not in self._tiles:
                self._tiles[key] = tile
                self._held += tile.nbytes
            while self._held > self._limit and len(self._tiles) > 1:
                self._held -= self._tiles.popitem(last=False)[1].nbytes
        return tile

    def clear(self) -> None:
        with self._lock:
            self._tiles.clear()
            self._held = 0


class _Segments:
    """The tiles or strips of one level, decoded to raw samples (h, w, samples)."""

    def __init__(self, file: _File, level: TiffLevel, number: int, cache: _Cache) -> None:
        self._file, self._level, self._number, self._cache = file, level, number, cache
        self.size = (level.width, level.height)

    def forget(self) -> None:
        self._cache.clear()

    def check_alpha(self) -> None:
        """Refuse a tiled image in which nothing can be seen. Raises InputError."""
        level, alpha = self._level, self._level.coloring.alpha
        if alpha is None or level.rows * level.columns > _MAX_ALPHA_TILES:
            return
        for row in range(level.rows):
            for column in range(level.columns):
                samples = self.samples(column, row)
                if samples is not None and samples[..., alpha].any():
                    return
        check_alpha(self._file.path, False)

    def samples(self, column: int, row: int) -> npt.NDArray[Any] | None:
        """Raw samples of one tile or strip, planes joined; None where it is missing.

        Raises:
            InputError: where it is damaged.
        """
        index = row * self._level.columns + column
        if self._level.is_missing(index):
            return None
        parts = [
            self._decode(offset, count, column, row) for offset, count in self._level.parts(index)
        ]
        return parts[0] if len(parts) == 1 else np.concatenate(parts, axis=2)

    def _decode(self, offset: int, count: int, column: int, row: int) -> npt.NDArray[Any]:
        level = self._level
        if not offset or not count:
            raise self._damaged(column, row, "it is missing from the file")
        if count > level.max_segment_bytes:
            raise self._damaged(column, row, f"{count} bytes are more than it can hold")
        data = self._file.read(offset, count)
        if len(data) < count:
            raise self._damaged(column, row, "the file ends within it")
        left, top = column * level.segment_width, row * level.segment_height
        width = min(level.segment_width, level.width - left)
        height = min(level.segment_height, level.height - top)
        try:
            samples = decode(
                level.coding, data, level.segment_width, level.segment_height, (width, height)
            )
        except DecodeError as error:
            raise self._damaged(column, row, str(error)) from error
        return samples[:height, :width]

    def _damaged(self, column: int, row: int, reason: str) -> InputError:
        level = self._level
        what = "tile" if level.tiled else "strip"
        place = (column * level.segment_width, row * level.segment_height)
        where = f"pixel {place}" + (f" of level {self._number}" if self._number else "")
        return InputError(f"{self._file.path}: damaged {what} at {where} ({reason})")


class _Tiled(_Segments):
    def read(self, x: int, y: int, width: int, height: int) -> Pixels:
        out = np.empty((height, width, 3), np.uint8)
        side_x, side_y = self._level.segment_width, self._level.segment_height
        for row in range(y // side_y, (y + height - 1) // side_y + 1):
            for column in range(x // side_x, (x + width - 1) // side_x + 1):
                left, top = column * side_x, row * side_y
                x0, x1 = max(x, left), min(x + width, left + side_x)
                y0, y1 = max(y, top), min(y + height, top + side_y)
                place = out[y0 - y : y1 - y, x0 - x : x1 - x]
                if self._level.is_missing(row * self._level.columns + column):
                    place[:] = 255
                else:
                    place[:] = self._tile(column, row)[y0 - top : y1 - top, x0 - left : x1 - left]
        return out

    def _tile(self, column: int, row: int) -> Pixels:
        key = (self._number, row * self._level.columns + column)
        return self._cache.get(key, lambda: self._colored(column, row))

    def _colored(self, column: int, row: int) -> Pixels:
        samples = self.samples(column, row)
        assert samples is not None, "missing tiles are not asked for"
        return self._level.coloring.to_rgb(samples)


class _Whole(_Segments):
    """A level in strips: decoded once, whole, as strips run across the image."""

    def __init__(self, file: _File, level: TiffLevel, number: int, cache: _Cache) -> None:
        super().__init__(file, level, number, cache)
        self._pixels: Pixels | None = None
        self._lock = threading.Lock()
        if level.orientation >= 5:
            self.size = (level.height, level.width)

    def forget(self) -> None:
        super().forget()
        self._pixels = None

    def read(self, x: int, y: int, width: int, height: int) -> Pixels:
        with self._lock:
            if self._pixels is None:
                self._pixels = self._assemble()
        return self._pixels[y : y + height, x : x + width].copy()

    def _assemble(self) -> Pixels:
        level, path = self._level, self._file.path
        strips = []
        seen = level.coloring.alpha is None
        wide = level.coding.bits == 16 and not level.coloring.is_palette
        for row in range(level.rows):
            samples = self.samples(0, row)
            assert samples is not None, "strips are never missing"
            seen = seen or bool(samples[..., level.coloring.alpha].any())
            # What 16 bits mean shows in all of the image alone; others become RGB at once.
            strips.append(samples if wide else level.coloring.to_rgb(samples))
        check_alpha(path, seen)
        whole = strips[0] if len(strips) == 1 else np.concatenate(strips, axis=0)
        if wide:
            whole = level.coloring.to_rgb(reduce_16_bit(whole, path))
        return orient(whole, level.orientation)

"""TIFF of every layout through tifffile: strips, tiles, pyramids, BigTIFF, OME-TIFF, JPEG SVS.

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
    level_downsample,
    reduce_16_bit,
)
from segmitos.io.slide.image import orient
from segmitos.io.slide.scale import Scale
from segmitos.io.slide.tiff_layout import DAMAGE, Layout, TiffLevel, read_layout

CACHE_BYTES = 96 << 20
_JPEG = (7, 34892, 33007)


def open_tiff(path: Path) -> SlideBackend:
    """The backend for a TIFF: ours, or OpenSlide's where the vendor's rules matter.

    Raises:
        InputError: if it is truncated, damaged, or not a brightfield RGB or grey image.
    """
    layout = read_layout(path)
    if layout is None:
        from segmitos.io.slide.openslide import OpenSlideBackend

        return OpenSlideBackend(path)
    return TiffBackend(path, layout)


class TiffBackend:
    """One image of a TIFF with its pyramid."""

    def __init__(self, path: Path, layout: Layout) -> None:
        self.format = layout.format
        self.scale: Scale | None = layout.scale
        self._file = _File(path)
        cache = _Cache(CACHE_BYTES)
        self._levels = [
            (_Tiled if plane.tiled else _Whole)(self._file, plane, number, cache)
            for number, plane in enumerate(layout.levels)
        ]
        full = self._levels[0].size
        self.levels: tuple[Level, ...] = tuple(
            Level(level.size[0], level.size[1], level_downsample(full, level.size))
            for level in self._levels
        )
        self.bounds = (0, 0, full[0], full[1])

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

    def __init__(self, file: _File, plane: TiffLevel, number: int, cache: _Cache) -> None:
        self._file, self._plane, self._number, self._cache = file, plane, number, cache
        self.size = (plane.width, plane.height)
        self.columns = -(-plane.width // plane.segment_width)
        self.rows = -(-plane.height // plane.segment_height)

    def forget(self) -> None:
        self._cache.clear()

    def samples(self, column: int, row: int) -> npt.NDArray[Any]:
        """Raw samples of one segment; planes that are stored apart are joined."""
        index = row * self.columns + column
        parts = [
            self._decode(offset, count, page_index, column, row)
            for offset, count, page_index in self._plane.segments(index)
        ]
        return parts[0] if len(parts) == 1 else np.concatenate(parts, axis=2)

    def _decode(
        self, offset: int, count: int, index: int, column: int, row: int
    ) -> npt.NDArray[Any]:
        plane = self._plane
        if not offset or not count:
            raise self._damaged(column, row, "it is missing from the file")
        data = self._file.read(offset, count)
        if len(data) < count:
            raise self._damaged(column, row, "the file ends within it")
        if plane.compression in _JPEG:
            from segmitos.io.slide.jpeg import damage

            problem = damage(data, plane.jpeg_tables)
            if problem:
                raise self._damaged(column, row, problem)
        try:
            array, _, shape = plane.decode(
                data, index, jpegtables=plane.jpeg_tables, jpegheader=plane.jpeg_header
            )
        except DAMAGE as error:
            raise self._damaged(column, row, " ".join(str(error).split())) from error
        samples: npt.NDArray[Any] = array.reshape(array.shape[1:])[: shape[1], : shape[2]]
        return samples

    def _damaged(self, column: int, row: int, reason: str) -> InputError:
        plane = self._plane
        what = "tile" if plane.tiled else "strip"
        place = (column * plane.segment_width, row * plane.segment_height)
        where = f"pixel {place}" + (f" of level {self._number}" if self._number else "")
        return InputError(f"{self._file.path}: damaged {what} at {where} ({reason})")


class _Tiled(_Segments):
    def read(self, x: int, y: int, width: int, height: int) -> Pixels:
        out = np.empty((height, width, 3), np.uint8)
        side_x, side_y = self._plane.segment_width, self._plane.segment_height
        for row in range(y // side_y, (y + height - 1) // side_y + 1):
            for column in range(x // side_x, (x + width - 1) // side_x + 1):
                tile = self._tile(column, row)
                left, top = column * side_x, row * side_y
                x0, x1 = max(x, left), min(x + width, left + side_x)
                y0, y1 = max(y, top), min(y + height, top + side_y)
                out[y0 - y : y1 - y, x0 - x : x1 - x] = tile[
                    y0 - top : y1 - top, x0 - left : x1 - left
                ]
        return out

    def _tile(self, column: int, row: int) -> Pixels:
        key = (self._number, row * self.columns + column)
        return self._cache.get(key, lambda: self._plane.to_rgb(self.samples(column, row)))


class _Whole(_Segments):
    """A level in strips: decoded once, whole, as strips run across the image."""

    def __init__(self, file: _File, plane: TiffLevel, number: int, cache: _Cache) -> None:
        super().__init__(file, plane, number, cache)
        self._pixels: Pixels | None = None
        self._lock = threading.Lock()
        if plane.orientation >= 5:
            self.size = (plane.height, plane.width)

    def forget(self) -> None:
        super().forget()
        self._pixels = None

    def read(self, x: int, y: int, width: int, height: int) -> Pixels:
        with self._lock:
            if self._pixels is None:
                self._pixels = self._assemble()
        return self._pixels[y : y + height, x : x + width].copy()

    def _assemble(self) -> Pixels:
        plane = self._plane
        strips = [self.samples(0, row) for row in range(self.rows)]
        samples = strips[0] if len(strips) == 1 else np.concatenate(strips, axis=0)
        if samples.dtype == np.uint16 and not plane.palette:
            samples = reduce_16_bit(samples, self._file.path)
        return orient(plane.to_rgb(samples), plane.orientation)

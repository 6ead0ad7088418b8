"""TIFF of every layout: strips, tiles, pyramids, BigTIFF, OME-TIFF, JPEG SVS.

Tiles are decoded one by one, straight from the file: several times as fast as OpenSlide on the
same file. Vendor formats with rules of their own are handed to OpenSlide.
"""

from __future__ import annotations

import os
import threading
import weakref
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from segmitos.errors import InputError
from segmitos.io.slide.backend import (
    Level,
    PixelCache,
    Pixels,
    SlideBackend,
    check_16_bit,
    check_alpha,
    level_downsample,
    mosaic,
    reduce_16_bit,
)
from segmitos.io.slide.image import orient
from segmitos.io.slide.openslide import OpenSlideBackend
from segmitos.io.slide.tiff_decode import decode
from segmitos.io.slide.tiff_layout import check_tile_memory, read_layout
from segmitos.io.slide.tiff_pages import Chosen, choose_image
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
        InputError: if it is truncated, damaged, or not a brightfield RGB or gray image.
        UsageError: if it has no such page.
    """
    try:
        pages = read_pages(path)
    except InputError:
        if page is None and _vendor(path) in _OWN_LAYOUT:
            return OpenSlideBackend(path)
        raise
    chosen = choose_image(path, pages, page)
    if chosen is None:
        for one in pages:
            check_tile_memory(path, one)
        return OpenSlideBackend(path)
    return TiffBackend(path, chosen)


def _vendor(path: Path) -> str | None:
    import openslide

    return openslide.OpenSlide.detect_format(str(path))


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


class TiffBackend:
    """One image of a TIFF with its pyramid."""

    def __init__(self, path: Path, chosen: Chosen) -> None:
        self.format = chosen.format
        self._levels, self.scale = read_layout(path, chosen)
        self._file = _File(path)
        self._cache = PixelCache(CACHE_BYTES)
        # Levels in strips are decoded once, whole, as strips run across the image.
        self._whole: dict[int, Pixels] = {}
        self._lock = threading.Lock()
        full = self._levels[0].size
        self.levels = tuple(
            Level(*level.size, level_downsample(full, level.size)) for level in self._levels
        )
        finest = self._levels[0]
        self.bounds = finest.bounds() if finest.tiled else (0, 0, *full)
        if self._levels[-1].tiled:
            self._check_alpha(len(self._levels) - 1)

    def read_level(self, level: int, x: int, y: int, width: int, height: int) -> Pixels:
        """RGB of a region of a level.

        Raises:
            InputError: if a tile or strip there is missing or damaged.
        """
        about = self._levels[level]
        if about.tiled:
            tile = (about.segment_width, about.segment_height)
            return mosaic(
                (x, y, width, height), tile, lambda column, row: self._tile(level, column, row)
            )
        with self._lock:
            if level not in self._whole:
                self._whole[level] = self._assemble(level)
            whole = self._whole[level]
        return whole[y : y + height, x : x + width].copy()

    def close(self) -> None:
        """Close the file and release decoded pixels."""
        self._file.close()
        self._cache.clear()
        self._whole.clear()

    def _tile(self, level: int, column: int, row: int) -> Pixels | None:
        about = self._levels[level]
        if about.is_missing(row * about.columns + column):
            return None
        return self._cache.get(
            (level, column, row),
            lambda: about.coloring.to_rgb(self._samples(level, column, row)),
        )

    def _assemble(self, level: int) -> Pixels:
        about, path = self._levels[level], self._file.path
        strips = []
        seen = about.coloring.alpha is None
        wide = about.coding.bits == 16 and not about.coloring.is_palette
        for row in range(about.rows):
            samples = self._samples(level, 0, row)
            seen = seen or bool(samples[..., about.coloring.alpha].any())
            # What 16 bits mean shows in all of the image alone; others become RGB at once.
            strips.append(samples if wide else about.coloring.to_rgb(samples))
        check_alpha(path, seen)
        whole = strips[0] if len(strips) == 1 else np.concatenate(strips, axis=0)
        if wide:
            check_16_bit(int(whole[..., : about.coloring.colors].max()), path)
            whole = about.coloring.to_rgb(reduce_16_bit(whole))
        return orient(whole, about.orientation)

    def _check_alpha(self, level: int) -> None:
        """Refuse a tiled image in which nothing can be seen. Raises InputError."""
        about, alpha = self._levels[level], self._levels[level].coloring.alpha
        if alpha is None or about.rows * about.columns > _MAX_ALPHA_TILES:
            return
        for row, column in np.ndindex(about.rows, about.columns):
            if about.is_missing(row * about.columns + column):
                continue
            if self._samples(level, column, row)[..., alpha].any():
                return
        check_alpha(self._file.path, False)

    def _samples(self, level: int, column: int, row: int) -> npt.NDArray[Any]:
        """Raw samples (h, w, samples) of one tile or strip that is there, planes joined.

        Raises:
            InputError: where it is damaged.
        """
        about = self._levels[level]
        parts = [
            self._decode(level, offset, count, column, row)
            for offset, count in about.parts(row * about.columns + column)
        ]
        return parts[0] if len(parts) == 1 else np.concatenate(parts, axis=2)

    def _decode(
        self, level: int, offset: int, count: int, column: int, row: int
    ) -> npt.NDArray[Any]:
        about = self._levels[level]
        left, top = column * about.segment_width, row * about.segment_height
        width, height = min(about.segment_width, about.width - left), about.segment_height
        height = min(height, about.height - top)
        try:
            if not offset or not count:
                raise ValueError("it is missing from the file")
            if count > about.max_segment_bytes:
                raise ValueError(f"{count} bytes are more than it can hold")
            data = self._file.read(offset, count)
            if len(data) < count:
                raise ValueError("the file ends within it")
            segment = (about.segment_width, about.segment_height)
            samples = decode(about.coding, data, *segment, (width, height))
        except ValueError as error:
            what = "tile" if about.tiled else "strip"
            where = f"pixel {(left, top)}" + (f" of level {level}" if level else "")
            raise InputError(f"{self._file.path}: damaged {what} at {where} ({error})") from error
        return samples[:height, :width]

"""Whole-slide formats through OpenSlide."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any

import numpy as np

from segmitos.errors import InputError
from segmitos.io.slide.backend import (
    Level,
    PixelCache,
    Pixels,
    level_downsample,
    mosaic,
    on_white,
    with_companions,
)
from segmitos.io.slide.memory import check_memory
from segmitos.io.slide.scale import Scale, first_understood, scale_of_texts
from segmitos.io.slide.tiff_scale import aperio
from segmitos.io.text import one_line

# What stands under these, where OpenSlide has no um per pixel, is named to the user.
_SCALE_PROPERTIES = (
    ("openslide.mpp-x", "openslide.mpp-y"),
    ("aperio.MPP", "aperio.MPP"),
    (
        "mirax.LAYER_0_LEVEL_0_SECTION.MICROMETER_PER_PIXEL_X",
        "mirax.LAYER_0_LEVEL_0_SECTION.MICROMETER_PER_PIXEL_Y",
    ),
    ("ventana.ScanRes", "ventana.ScanRes"),
    ("trestle.MPP", "trestle.MPP"),
)
_MAX_LEVELS = 32
WINDOW_PX = 512
CACHED_WINDOWS = 64


class OpenSlideBackend:
    """SVS, NDPI, MRXS, SCN, DICOM, Philips and others; areas never scanned are white."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._lock = threading.Lock()
        self._cache = PixelCache(CACHED_WINDOWS * 3 * WINDOW_PX**2)
        self._slide: Any = self._open()
        properties = dict(self._slide.properties)
        _check_tiles(path, properties)
        self.format = properties.get("openslide.vendor", "OpenSlide")
        full = self._slide.dimensions
        self.levels: tuple[Level, ...] = tuple(
            Level(size[0], size[1], level_downsample(full, size))
            for size in self._slide.level_dimensions
        )
        self._own_downsamples: tuple[float, ...] = self._slide.level_downsamples
        self.scale = _scale(properties, full)
        self.bounds = _bounds(properties, full)

    def _open(self) -> Any:
        import openslide

        try:
            return openslide.OpenSlide(with_companions(self._path))
        except openslide.OpenSlideUnsupportedFormatError as error:
            raise InputError(
                f"{self._path}: not a slide that OpenSlide knows{_hint(self._path)}"
            ) from error
        except (openslide.OpenSlideError, OSError) as error:
            raise InputError(
                f"{self._path}: truncated or damaged slide ({one_line(error)})"
            ) from error

    def read_level(self, level: int, x: int, y: int, width: int, height: int) -> Pixels:
        """RGB of a region of a level.

        Raises:
            InputError: if the slide is damaged there.
        """
        own = self._own_downsamples[level]
        if own == int(own):
            return self._read(level, x, y, width, height)
        # Places are given in level-0 pixels: by fixed windows each pixel of a level whose step
        # is not whole comes from one and the same request, hence out the same each time.
        return mosaic(
            (x, y, width, height),
            (WINDOW_PX, WINDOW_PX),
            lambda column, row: self._cache.get(
                (level, column, row), lambda: self._window(level, column, row)
            ),
        )

    def _window(self, level: int, column: int, row: int) -> Pixels:
        size = self.levels[level]
        left, top = column * WINDOW_PX, row * WINDOW_PX
        width, height = min(WINDOW_PX, size.width - left), min(WINDOW_PX, size.height - top)
        return self._read(level, left, top, width, height)

    def _read(self, level: int, x: int, y: int, width: int, height: int) -> Pixels:
        import openslide

        own = self._own_downsamples[level]
        place = (round(x * own), round(y * own))
        slide = self._slide
        try:
            rgba = np.asarray(slide.read_region(place, level, (width, height)))
        except (openslide.OpenSlideError, OSError) as error:
            self._reopen(slide)
            raise InputError(
                f"{self._path}: damaged at level-0 pixel {place}, in the {width} x {height} px "
                f"read there at level {level} ({one_line(error)})"
            ) from error
        if rgba[..., 3].min(initial=255) == 255:
            return np.ascontiguousarray(rgba[..., :3])
        return on_white(rgba[..., :3], rgba[..., 3])

    def _reopen(self, failed: Any) -> None:
        """A handle that failed once fails for ever, wherever it reads: take a new one."""
        with self._lock:
            if self._slide is failed:
                self._slide = self._open()

    def close(self) -> None:
        """Close the slide."""
        self._slide.close()
        self._cache.clear()


def _scale(properties: dict[str, str], size: tuple[int, int]) -> Scale | None:
    """From OpenSlide's own reading, or what stands in the vendor's where it makes nothing of it."""
    reduced = aperio(properties.get("openslide.comment", ""), size)
    if properties.get("openslide.vendor") == "aperio" and reduced is not None and reduced.other:
        return reduced
    return first_understood(
        scale_of_texts(properties[x], properties[y], x)
        for x, y in _SCALE_PROPERTIES
        if x in properties and y in properties
    )


def _hint(path: Path) -> str:
    """Say what a slide lacks, where it can be seen from outside."""
    folder = path.with_suffix("")
    if path.suffix.lower() == ".mrxs" and not folder.is_dir():
        return f"; the folder {folder.name} with its pixels, which belongs beside it, is missing"
    return ""


def _check_tiles(path: Path, properties: dict[str, str]) -> None:
    """Refuse a slide whose tiles take too much memory. Raises InputError."""
    for level in range(_MAX_LEVELS):
        sides = []
        for side in ("width", "height"):
            text = properties.get(f"openslide.level[{level}].tile-{side}", "")
            sides.append(int(text) if text.isdigit() else 0)
        # OpenSlide's pixels, those of the codec, and ours.
        needed = sides[0] * sides[1] * (4 + 3 + 3)
        check_memory(path, f"a tile of {sides[0]} x {sides[1]} px", needed)


def _bounds(properties: dict[str, str], full: tuple[int, int]) -> tuple[int, int, int, int]:
    names = [f"openslide.bounds-{name}" for name in ("x", "y", "width", "height")]
    try:
        x, y, width, height = (int(properties[name]) for name in names)
    except (KeyError, ValueError):
        return (0, 0, *full)
    if not (0 <= x < full[0] and 0 <= y < full[1] and width > 0 and height > 0):
        return (0, 0, *full)
    return (x, y, min(width, full[0] - x), min(height, full[1] - y))

"""What every image backend offers, and what several of them need."""

from __future__ import annotations

import math
import threading
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from segmitos.errors import InputError
from segmitos.io.slide.scale import Scale

Pixels = npt.NDArray[np.uint8]

MAX_WHOLE_PX = 400_000_000
"""Largest image that is decoded whole (1.2 GB as RGB); larger ones must be tiled files."""


@dataclass(frozen=True)
class Level:
    """One resolution of an image: its size, and level-0 pixels per pixel of it."""

    width: int
    height: int
    downsample: float


class SlideBackend(Protocol):
    """An opened image file: levels, finest first, read in whole pixels of one level."""

    format: str
    levels: tuple[Level, ...]
    scale: Scale | None
    bounds: tuple[int, int, int, int]

    def read_level(self, level: int, x: int, y: int, width: int, height: int) -> Pixels:
        """RGB (height, width, 3) of a region that lies inside the level; safe in threads."""

    def close(self) -> None:
        """Close the file."""


class ArrayBackend:
    """Pixels that are already in memory."""

    def __init__(self, pixels: Pixels) -> None:
        height, width = pixels.shape[:2]
        self.format = "array"
        self.levels: tuple[Level, ...] = (Level(width, height, 1.0),)
        self.scale: Scale | None = None
        self.bounds = (0, 0, width, height)
        self._pixels = pixels

    def read_level(self, level: int, x: int, y: int, width: int, height: int) -> Pixels:
        """A copy of the region."""
        return self._pixels[y : y + height, x : x + width].copy()

    def close(self) -> None:
        """Nothing to close."""


class PixelCache:
    """The last decoded parts of an image, within a number of bytes; safe in threads."""

    def __init__(self, max_bytes: int) -> None:
        self._max_bytes, self._held = max_bytes, 0
        self._parts: OrderedDict[tuple[int, int, int], Pixels] = OrderedDict()
        self._lock = threading.Lock()

    def get(self, key: tuple[int, int, int], make: Callable[[], Pixels]) -> Pixels:
        """Return a part by its level, column and row; `make` decodes what is not held."""
        with self._lock:
            if key in self._parts:
                self._parts.move_to_end(key)
                return self._parts[key]
        part = make()
        with self._lock:
            if key not in self._parts:
                self._parts[key] = part
                self._held += part.nbytes
            while self._held > self._max_bytes and len(self._parts) > 1:
                self._held -= self._parts.popitem(last=False)[1].nbytes
        return part

    def clear(self) -> None:
        """Drop all parts."""
        with self._lock:
            self._parts.clear()
            self._held = 0


def mosaic(
    box: tuple[int, int, int, int],
    tile: tuple[int, int],
    part: Callable[[int, int], Pixels | None],
) -> Pixels:
    """Put a region together from the tiles that hold it.

    Args:
        box: x, y, width and height of the region.
        tile: width and height of a tile; those at the right and bottom may be smaller.
        part: gives a tile by its column and row; None is white.
    """
    x, y, width, height = box
    out = np.full((height, width, 3), 255, np.uint8)
    for row in range(y // tile[1], (y + height - 1) // tile[1] + 1):
        for column in range(x // tile[0], (x + width - 1) // tile[0] + 1):
            pixels = part(column, row)
            if pixels is None:
                continue
            left, top = column * tile[0], row * tile[1]
            x0, x1 = max(x, left), min(x + width, left + pixels.shape[1])
            y0, y1 = max(y, top), min(y + height, top + pixels.shape[0])
            out[y0 - y : y1 - y, x0 - x : x1 - x] = pixels[
                y0 - top : y1 - top, x0 - left : x1 - left
            ]
    return out


def level_downsample(full: tuple[int, int], size: tuple[int, int]) -> float:
    """Level-0 pixels per level pixel, from the (width, height) of both.

    Writers halve and round (or crop) the last row and column, so sizes that fit a whole
    number are taken to mean it: 60,001 -> 30,000 is 2, not 2.00003, which would drift by a
    pixel over the slide.
    """
    ratio = (full[0] / size[0] + full[1] / size[1]) / 2
    whole = round(ratio)
    if whole >= 1 and all(
        math.floor(f / whole) <= s <= math.ceil(f / whole) for f, s in zip(full, size, strict=True)
    ):
        return float(whole)
    return ratio


def check_whole_size(path: Path, width: int, height: int) -> None:
    """Refuse an image too large to be decoded whole.

    Raises:
        InputError: above MAX_WHOLE_PX pixels.
    """
    if width < 1 or height < 1:
        raise InputError(f"{path}: an image of {width} x {height} px holds nothing")
    if width * height > MAX_WHOLE_PX:
        raise InputError(
            f"{path}: {width} x {height} px is more than the {MAX_WHOLE_PX / 1e6:.0f} Mpx that are "
            "read whole; convert it to a tiled pyramidal TIFF "
            "(e.g. vips tiffsave --tile --pyramid --compression jpeg)"
        )


def check_16_bit(largest: int, path: Path) -> None:
    """Refuse 16-bit colors that do not use their range: what is white cannot be known then.

    Args:
        largest: of the colors, transparency left aside.
        path: for the message.

    Raises:
        InputError: if it shows that only 15 bits or fewer are used, as of many cameras.
    """
    if 0 < largest < 1 << 15:
        raise InputError(
            f"{path}: 16-bit samples with values only up to {largest}, so what is white is "
            "unknown; convert the image to 8 bits per sample"
        )


def reduce_16_bit(values: npt.NDArray[Any]) -> Pixels:
    """16-bit samples that use their range (`check_16_bit`), as 8-bit ones."""
    # Multiplying by 1/257 maps 65535 to 255; integers in uint32 keep it exact and rounded.
    return ((values.astype(np.uint32) + 128) // 257).astype(np.uint8)


def check_alpha(path: Path, anything_seen: bool) -> None:
    """Refuse an image that is transparent everywhere: nothing of it is there to see.

    Raises:
        InputError: unless `anything_seen`.
    """
    if not anything_seen:
        raise InputError(
            f"{path}: the image is transparent everywhere (alpha 0); save it without alpha"
        )


def on_white(color: npt.NDArray[Any], alpha: npt.NDArray[Any]) -> Pixels:
    """`color` (h, w, 3) seen through `alpha` (h, w), 0..255, over white."""
    a = alpha.astype(np.uint16)[..., None]
    mixed = (color * a + 255 * (255 - a) + 127) // 255
    return mixed.astype(np.uint8)


def with_companions(path: Path) -> Path:
    """The path to open: where a MIRAX slide is a link without its folder, what it leads to."""
    if path.suffix.lower() == ".mrxs" and not path.with_suffix("").is_dir():
        return path.resolve()
    return path

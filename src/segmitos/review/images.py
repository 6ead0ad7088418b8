"""Pictures of slides for the browser: tiles and crops, from a pool of opened slides.

A slide's pyramid for the browser has tiles of 512 px; level 0 is the finest, each further one half
as fine, the last one tile.
"""

from __future__ import annotations

import hashlib
import math
import threading
from collections import OrderedDict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from segmitos.errors import InputError
from segmitos.io.files import image_bytes
from segmitos.io.geometry import from_corner
from segmitos.io.slide import Slide
from segmitos.review.results import Result

TILE_PX = 512
CROP_PX = 256
CROP_UM = (32, 64, 128)
_QUALITY = 85
_MAX_OPEN = 6
_MAX_CACHED_BYTES = 96 * 2**20
# A picture without a pyramid is whole in memory; a second copy of it would be as large.
_MAX_HANDLES = 2

_Source = tuple[Path, int | None, float]
"""A file, which of its images, and the scale that detection read it at."""


def levels(width_px: int, height_px: int) -> int:
    """Return how many levels a slide has, from the finest to one of a single tile."""
    return 1 + max(0, math.ceil(math.log2(max(width_px, height_px, 1) / TILE_PX)))


def tile_grid(width_px: int, height_px: int, level: int) -> tuple[int, int]:
    """Return columns and rows of tiles on a level."""
    step = TILE_PX * 2**level
    return math.ceil(width_px / step), math.ceil(height_px / step)


class Images:
    """Tiles and crops of a worklist's slides, cached; slides stay open. For several threads."""

    def __init__(self) -> None:
        self._cache = ByteCache(_MAX_CACHED_BYTES)
        self._free: OrderedDict[tuple[_Source, int], Slide] = OrderedDict()
        self._out: dict[_Source, int] = {}
        self._changed = threading.Condition()
        self._count = 0

    def tile(self, result: Result, level: int, column: int, row: int) -> bytes | None:
        """Return a tile as JPEG, None where there is none of that number.

        Raises:
            InputError: where the slide is not there or damaged.
        """
        width, height = result.size_px
        if not 0 <= level < levels(width, height):
            return None
        columns, rows = tile_grid(width, height, level)
        if not (0 <= column < columns and 0 <= row < rows):
            return None
        step = 2**level
        x, y = column * TILE_PX * step, row * TILE_PX * step
        size = (
            min(TILE_PX, math.ceil((width - x) / step)),
            min(TILE_PX, math.ceil((height - y) / step)),
        )
        return self._jpeg(result, x, y, size, None if level == 0 else result.mpp * step)

    def crop(self, result: Result, x_px: float, y_px: float, side_um: int) -> bytes:
        """Return a square around a position as JPEG.

        Raises:
            InputError: where the slide is not there or damaged.
        """
        mpp = max(side_um / CROP_PX, result.mpp)
        side = round(side_um / mpp)
        reach = side * mpp / result.mpp / 2
        left, top = from_corner(x_px) - reach, from_corner(y_px) - reach
        return self._jpeg(result, left, top, (side, side), mpp)

    def _jpeg(
        self, result: Result, left: float, top: float, size: tuple[int, int], mpp: float | None
    ) -> bytes:
        def read() -> bytes:
            with self.borrow(result) as slide:
                return image_bytes(slide.read(left, top, *size, mpp), "jpg", _QUALITY)

        place = (result.name, result.key, result.mpp, left, top, size, mpp)
        return self._cache.get(place, read)

    @contextmanager
    def borrow(self, result: Result) -> Iterator[Slide]:
        """Lend an opened slide to one thread at a time.

        Raises:
            InputError: where the file is not there, or is not the slide of this result.
        """
        path = result.image
        if path is None or not path.exists():
            raise InputError(
                f"{result.title}: the slide is not at {path}; say where it is with --slides"
            )
        source = path, result.page, result.mpp
        slide = self._take(source, result)
        try:
            yield slide
        finally:
            with self._changed:
                self._out[source] -= 1
                self._count += 1
                self._free[source, self._count] = slide
                spare = [
                    self._free.popitem(last=False)[1] for _ in range(len(self._free) - _MAX_OPEN)
                ]
                self._changed.notify_all()
            for one in spare:
                one.close()

    def _take(self, source: _Source, result: Result) -> Slide:
        with self._changed:
            while True:
                key = next((key for key in reversed(self._free) if key[0] == source), None)
                if key is not None:
                    self._out[source] = self._out.get(source, 0) + 1
                    return self._free.pop(key)
                if self._out.get(source, 0) < _MAX_HANDLES:
                    self._out[source] = self._out.get(source, 0) + 1
                    break
                self._changed.wait()
        slide = None
        try:
            slide = _open(source[0], result)
            return slide
        finally:
            if slide is None:
                with self._changed:
                    self._out[source] -= 1
                    self._changed.notify_all()

    def close(self) -> None:
        """Close the slides that are not lent out."""
        with self._changed:
            slides, self._free = list(self._free.values()), OrderedDict()
        for slide in slides:
            slide.close()


def etag(result: Result, *place: object) -> str:
    """Return what stands for the bytes of a picture: the slide's content, scale and the place."""
    text = "|".join(map(str, (result.key.slide_hash, result.mpp, _QUALITY, TILE_PX, *place)))
    return f'"{hashlib.sha256(text.encode()).hexdigest()[:24]}"'


class ByteCache:
    """Keeps what was used last, up to so many bytes. One caller makes a value, others wait."""

    def __init__(self, max_bytes: int) -> None:
        self._max = max_bytes
        self._held = 0
        self._values: OrderedDict[object, bytes] = OrderedDict()
        self._making: dict[object, threading.Lock] = {}
        self._lock = threading.Lock()

    def get(self, key: object, make: Callable[[], bytes]) -> bytes:
        """Return the value of a key, made where it is not held."""
        with self._lock:
            if key in self._values:
                self._values.move_to_end(key)
                return self._values[key]
            making = self._making.setdefault(key, threading.Lock())
        with making:
            with self._lock:
                if key in self._values:
                    return self._values[key]
            try:
                value = make()
            finally:
                with self._lock:
                    self._making.pop(key, None)
            with self._lock:
                self._values[key] = value
                self._held += len(value)
                while self._held > self._max:
                    self._held -= len(self._values.popitem(last=False)[1])
            return value


def _open(path: Path, result: Result) -> Slide:
    result.check_image(path)
    # As detection read it: at its scale, whatever the file says, and the same of several images.
    slide = Slide.open(path, result.mpp, True, result.page)
    if (slide.width, slide.height) != result.size_px:
        size = f"{slide.width} x {slide.height} px"
        slide.close()
        raise InputError(
            f"{path} is {size}, not the slide of {result.name} of "
            f"{result.size_px[0]} x {result.size_px[1]} px"
        )
    return slide

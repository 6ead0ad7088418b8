"""One interface for every image, PNG or whole slide: any region, at any scale in um/px."""

from __future__ import annotations

import math
import os
from pathlib import Path
from types import TracebackType
from typing import NoReturn

import numpy as np
import numpy.typing as npt

from segmitos.errors import InputError, ScaleError, UsageError
from segmitos.io.arguments import path_of, whole_of
from segmitos.io.geometry import check_mpp, check_override
from segmitos.io.slide.backend import ArrayBackend, Pixels, SlideBackend
from segmitos.io.slide.dicom import is_dicom
from segmitos.io.slide.refused import refused_suffix, special_file
from segmitos.io.slide.resample import make_axis, read_grid
from segmitos.io.slide.scale import choose_scale, unknown_scale
from segmitos.io.text import reason_of

# Threads that read one slide at once; decoding leaves Python to the others.
READERS = 2
_OPENSLIDE_SUFFIXES = (".mrxs", ".vms", ".vmu")
"""Formats whose main file is a picture or a text, so that only the name tells."""
_SIGNS: dict[tuple[bytes, ...], str] = {
    (b"\x89PNG\r\n\x1a\n",): "PNG",
    (b"\xff\xd8\xff",): "JPEG",
    (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+"): "TIFF",
    (b"BM",): "BMP",
    (b"SQLite format 3\0", b"ZISRAWFILE"): "OpenSlide",
}
COARSEST_READ_MPP = 2000.0
"""Images have 200 um/px at most, mammograms; they may be read coarser, as networks on masses do."""
COARSER_WITHIN = 1.01
"""A pyramid level this much coarser than needed still counts as fine enough."""


class Slide:
    """An image or whole slide, read by region at any scale.

    Attributes:
        path: the file, or the name given to an array.
        width: level-0 pixels.
        height: level-0 pixels.
        mpp: micrometers per level-0 pixel, None where neither given nor in the file.
        mpp_source: "given", "embedded: <tag>" or "unknown".
        warnings: what a user should know of this image, a line each: scales that differ.
        format: what the file is, e.g. "PNG", "tiled TIFF", "aperio".
        level_downsamples: level-0 pixels per pixel of each pyramid level, finest first.
        bounds: (x, y, width, height) of the scanned area in level-0 pixels; QuPath's frame begins
            at its corner (see `geometry.to_qupath`).
    """

    def __init__(
        self,
        path: Path,
        source: SlideBackend,
        mpp: float | None,
        mpp_source: str,
        warnings: tuple[str, ...] = (),
    ) -> None:
        self.path = path
        self.warnings = warnings
        self.width, self.height = source.levels[0].width, source.levels[0].height
        self.mpp, self.mpp_source = mpp, mpp_source
        self.format = source.format
        self.level_downsamples = tuple(level.downsample for level in source.levels)
        self.bounds = source.bounds
        self._source = source

    @classmethod
    def open(
        cls,
        path: Path | str,
        mpp: float | None = None,
        override_mpp: bool = False,
        page: int | None = None,
    ) -> Slide:
        """Open an image; what it holds decides how, not its name.

        Args:
            path: PNG, JPEG, BMP, TIFF (any layout) or what OpenSlide reads.
            mpp: micrometers per pixel where the file does not say; where it says something that
                differs by more than 2 %, the file's own is used, and `warnings` names both.
            override_mpp: use `mpp` in any case.
            page: number of the image of a TIFF, from 1; None takes the largest.

        Raises:
            InputError: if the file is missing, damaged, or not a brightfield image.
            ScaleError: if `mpp` is impossible, or the file's own pixels are not square.
            UsageError: for `override_mpp` without `mpp`, or a page that is not there.
        """
        path = path_of(path, "image")
        given = None if mpp is None else check_mpp(mpp, f"{path}: mpp")
        check_override(override_mpp, mpp)
        source = _open_source(path, None if page is None else whole_of(page, f"{path}: page"))
        try:
            chosen = choose_scale(path, source.scale, given, override_mpp)
        except ScaleError:
            source.close()
            raise
        return cls(path, source, *chosen)

    @classmethod
    def from_array(cls, image: npt.ArrayLike, mpp: float | None, name: str = "array") -> Slide:
        """A slide of pixels in memory, uint8 RGB (height, width, 3); they are not copied.

        Raises:
            InputError: if the array is of another type or shape.
            ScaleError: if `mpp` is impossible.
        """
        try:
            pixels = np.asarray(image)
        except ValueError:
            # Lists of several lengths.
            pixels = np.empty((), object)
        if pixels.dtype.kind not in "biufc":
            raise InputError(
                f"{name}: a value of type {type(image).__name__} is not an image; give the path "
                "of one, or a uint8 RGB array (height, width, 3)"
            )
        if pixels.dtype != np.uint8 or pixels.ndim != 3 or pixels.shape[2] != 3 or not pixels.size:
            raise InputError(
                f"{name}: an array of {pixels.dtype} {pixels.shape} is not an RGB image; "
                "give uint8 (height, width, 3)"
            )
        checked = None if mpp is None else check_mpp(mpp, f"{name}: mpp")
        source = ArrayBackend(pixels)
        return cls(Path(name), source, checked, "unknown" if checked is None else "given")

    def __reduce__(self) -> NoReturn:
        raise TypeError("an open Slide cannot be pickled; hand over its path, and open it there")

    def require_mpp(self) -> float:
        """The scale.

        Raises:
            ScaleError: if it is unknown, with the remedy.
        """
        if self.mpp is None:
            raise unknown_scale(self.path, self._source.scale)
        return self.mpp

    def read(
        self, x_px: float, y_px: float, width: int, height: int, mpp: float | None = None
    ) -> Pixels:
        """A region as RGB uint8 (height, width, 3), white outside the image.

        Output pixel i has its center at level-0 x = x_px - 0.5 + (i + 0.5) s, s = mpp of the
        output / mpp of the slide. It is taken from the coarsest pyramid level that is fine
        enough, resampled without aliasing. Where x_px and y_px are multiples of s the same
        pixel of the grid comes out the same whatever region is asked for.

        Args:
            x_px: level-0 pixel whose top left corner is the region's; may be a fraction.
            y_px: likewise.
            width: output pixels.
            height: output pixels.
            mpp: micrometers per output pixel; None for level 0 as it is.

        Raises:
            InputError: if the file is damaged there; the message names file and position.
            ScaleError: if `mpp` is given and impossible, or the slide's own is unknown.
        """
        step = 1.0
        if mpp is not None:
            wanted = check_mpp(mpp, f"{self.path}: mpp to read at", COARSEST_READ_MPP)
            step = wanted / self.require_mpp()
        return self._read_step(x_px, y_px, width, height, step)

    def thumbnail(self, max_side_px: int) -> Pixels:
        """The whole image as RGB, its longer side at most `max_side_px`; never enlarged."""
        step = max(1.0, max(self.width, self.height) / max(1, max_side_px))
        width = max(1, round(self.width / step))
        height = max(1, round(self.height / step))
        return self._read_step(0, 0, width, height, step)

    def _read_step(self, x_px: float, y_px: float, width: int, height: int, step: float) -> Pixels:
        if width < 0 or height < 0 or not (math.isfinite(x_px) and math.isfinite(y_px)):
            raise UsageError(
                f"{self.path}: there is no region at ({x_px}, {y_px}) of {width} x {height} px"
            )
        fine = [d for d in self.level_downsamples if d <= step * COARSER_WITHIN]
        number = self.level_downsamples.index(max(fine, default=self.level_downsamples[0]))
        level = self._source.levels[number]
        x = make_axis(x_px, step, width, level.width, level.downsample, self.width)
        y = make_axis(y_px, step, height, level.height, level.downsample, self.height)
        return read_grid(self._source, number, x, y)

    def close(self) -> None:
        """Close the file."""
        self._source.close()

    def __enter__(self) -> Slide:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def __repr__(self) -> str:
        scale = "unknown" if self.mpp is None else f"{self.mpp:g}"
        return f"Slide({str(self.path)!r}, {self.width} x {self.height} px, {scale} um/px)"


def _open_source(path: Path, page: int | None) -> SlideBackend:
    """The backend for a file, by its first bytes."""
    head = _first_bytes(path)
    if (reason := refused_suffix(path.name)) is not None:
        raise InputError(f"{path}: {reason}")
    kind = _kind(head, path.suffix.lower())
    if kind is None:
        raise InputError(
            f"{path}: not an image of a known format (it begins with {head[:12]!r}); "
            "PNG, JPEG, BMP, TIFF and whole-slide formats are read"
        )
    # What a file does not need is not imported: that takes as long as a small image.
    if kind == "TIFF":
        from segmitos.io.slide.tiff import open_tiff

        return open_tiff(path, page)
    if page not in (None, 1):
        raise UsageError(f"{path}: has no page {page}; pages are those of TIFF files")
    if kind == "OpenSlide":
        from segmitos.io.slide.openslide import OpenSlideBackend

        return OpenSlideBackend(path)
    from segmitos.io.slide.image import PillowBackend

    return PillowBackend(path, kind)


def _first_bytes(path: Path) -> bytes:
    """The first bytes of a regular file; nothing else is opened, as it may never answer.

    Raises:
        InputError: for a path that is missing, empty, or no regular file.
    """
    try:
        if os.path.isdir(path):
            raise InputError(f"{path}: is a folder, not an image")
        if kind := special_file(path):
            raise InputError(f"{path}: {kind}, not a regular file")
        with path.open("rb") as stream:
            head = stream.read(132)
    except FileNotFoundError as error:
        raise InputError(f"{path}: no such file") from error
    except (OSError, ValueError) as error:
        raise InputError(f"{path}: cannot be opened ({reason_of(error)})") from error
    if not head:
        raise InputError(f"{path}: the file is empty")
    return head


def _kind(head: bytes, suffix: str) -> str | None:
    """Tell PNG, JPEG, BMP, TIFF and what OpenSlide reads by a file's first bytes; None: others."""
    # The first 128 bytes of a DICOM file are free: often a TIFF header, for other readers.
    if suffix in _OPENSLIDE_SUFFIXES or is_dicom(head):
        return "OpenSlide"
    return next((kind for signs, kind in _SIGNS.items() if head.startswith(signs)), None)

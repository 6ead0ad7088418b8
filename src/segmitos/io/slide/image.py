"""PNG, JPEG and BMP through Pillow: decoded once, whole, when first read."""

from __future__ import annotations

import struct
import threading
import warnings
import zlib
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from segmitos.errors import InputError
from segmitos.io.slide.backend import (
    Level,
    Pixels,
    check_16_bit,
    check_alpha,
    check_whole_size,
    on_white,
    reduce_16_bit,
)
from segmitos.io.slide.memory import check_memory
from segmitos.io.slide.png import bits_per_sample, has_text_after_pixels, shortfall
from segmitos.io.slide.scale import Scale, scale_of_dpi
from segmitos.io.text import one_line, reason_of

if TYPE_CHECKING:
    from PIL import Image, ImageFile

PNG, JPEG, BMP = "PNG", "JPEG", "BMP"
_DAMAGE = (OSError, SyntaxError, ValueError, EOFError, struct.error, zlib.error, IndexError)
_ORIENTATION_TAG = 0x0112
_SCALE_TAGS = {PNG: "PNG pHYs", JPEG: "JPEG density", BMP: "BMP pixels per metre"}
# Pillow's pixels, ours, and a copy where they are turned or seen through.
_PEAK_BYTES_PER_PX = 10
_SIXTEEN_BIT = ("I;16", "I;16B", "I;16L", "I;16N")


class PillowBackend:
    """A plain image file; the header is read at once, the pixels at the first read."""

    def __init__(self, path: Path, kind: str) -> None:
        self._path, self._kind = path, kind
        self._lock = threading.Lock()
        self._pixels: Pixels | None = None
        with self._open() as image:
            check_whole_size(path, *image.size)
            needed = image.size[0] * image.size[1] * _PEAK_BYTES_PER_PX
            check_memory(path, f"an image of {image.size[0]} x {image.size[1]} px", needed)
            self._orientation = _orientation(image, kind == PNG and has_text_after_pixels(path))
            width, height = image.size
            if self._orientation >= 5:
                width, height = height, width
            self.scale = _scale(image, kind)
        self.format = kind
        self.levels: tuple[Level, ...] = (Level(width, height, 1.0),)
        self.bounds = (0, 0, width, height)

    def _open(self) -> ImageFile.ImageFile:
        # The plug-ins are called directly: `Image.open` has a pixel limit of its own that
        # warns, or raises, long before ours. What else Pillow warns of, broken EXIF first of all,
        # says nothing about the pixels.
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                return self._plugin()
        except _DAMAGE as error:
            raise InputError(
                f"{self._path}: damaged {self._kind} file ({one_line(error)})"
            ) from error

    def _plugin(self) -> ImageFile.ImageFile:
        from PIL import BmpImagePlugin, JpegImagePlugin, PngImagePlugin

        if self._kind == PNG:
            return PngImagePlugin.PngImageFile(self._path)
        if self._kind == JPEG:
            return JpegImagePlugin.JpegImageFile(self._path)
        return BmpImagePlugin.BmpImageFile(self._path)

    def read_level(self, level: int, x: int, y: int, width: int, height: int) -> Pixels:
        """A copy of the region.

        Raises:
            InputError: if the file turns out truncated or damaged, or in a mode not read.
        """
        with self._lock:
            if self._pixels is None:
                self._pixels = self._decode()
        return self._pixels[y : y + height, x : x + width].copy()

    def _decode(self) -> Pixels:
        if self._kind == JPEG:
            from segmitos.io.slide.jpeg import damage

            try:
                problem = damage(self._path.read_bytes())
            except OSError as error:
                raise InputError(f"{self._path}: cannot be read ({reason_of(error)})") from error
            if problem:
                raise InputError(f"{self._path}: truncated or damaged JPEG file ({problem})")
        with self._open() as image:
            try:
                image.load()
                problem = self._shortfall(image)
                pixels = to_rgb(image, self._path) if not problem else None
            except _DAMAGE as error:
                raise InputError(
                    f"{self._path}: truncated or damaged {self._kind} file ({one_line(error)})"
                ) from error
        if pixels is None:
            raise InputError(f"{self._path}: truncated or damaged {self._kind} file ({problem})")
        return orient(pixels, self._orientation)

    def _shortfall(self, image: Image.Image) -> str:
        """Say that there are fewer pixels than the header states; empty where all are there.

        What is missing at the end Pillow leaves black, libjpeg in one color; only where the last
        rows are so is the file looked through again.
        """
        last = np.asarray(image.crop((0, max(0, image.height - 8), *image.size)))
        if self._kind == PNG and (not last[-1].any() or image.info.get("interlace")):
            return shortfall(self._path)
        if self._kind == JPEG and (last == last[-1, -1]).all():
            from segmitos.io.slide.jpeg import strict_damage

            return strict_damage(self._path.read_bytes())
        return ""

    def close(self) -> None:
        """Release the pixels."""
        self._pixels = None


def to_rgb(image: Image.Image, path: Path) -> Pixels:
    """RGB (h, w, 3) of a loaded Pillow image: alpha over white, 16 bits brought to 8.

    Raises:
        InputError: for modes without a known white (32-bit integers and floats, Lab, ...).
    """
    if image.mode in _SIXTEEN_BIT or (image.mode == "I" and image.format == "PNG"):
        values = np.asarray(image)
        check_16_bit(int(values.max()), path)
        return np.repeat(reduce_16_bit(values)[..., None], 3, axis=2)
    if image.format == "PNG" and bits_per_sample(path) == 16:
        # Of colors Pillow keeps the upper eight bits.
        colors = np.asarray(image)[..., : 1 if image.mode == "LA" else 3]
        check_16_bit(int(colors.max()) << 8 | 255, path)
    if image.mode == "RGB" and "transparency" not in image.info:
        return np.asarray(image)
    has_alpha = image.mode in ("RGBA", "LA", "PA", "La", "RGBa") or "transparency" in image.info
    if has_alpha:
        rgba = np.asarray(image.convert("RGBA"))
        check_alpha(path, bool(rgba[..., 3].any()))
        return on_white(rgba[..., :3], rgba[..., 3])
    if image.mode in ("L", "1", "P", "CMYK", "YCbCr", "RGBX"):
        return np.asarray(image.convert("RGB"))
    raise InputError(
        f"{path}: pixels of mode {image.mode} cannot be read; convert the image to 8-bit RGB"
    )


def orient(pixels: Pixels, orientation: int) -> Pixels:
    """Apply an EXIF or TIFF orientation (1 to 8); 5 to 8 swap width and height."""
    turned: dict[int, Any] = {
        2: lambda a: a[:, ::-1],
        3: lambda a: a[::-1, ::-1],
        4: lambda a: a[::-1],
        5: lambda a: a.swapaxes(0, 1),
        6: lambda a: a[::-1].swapaxes(0, 1),
        7: lambda a: a[::-1, ::-1].swapaxes(0, 1),
        8: lambda a: a[:, ::-1].swapaxes(0, 1),
    }
    return np.ascontiguousarray(turned.get(orientation, lambda a: a)(pixels))


def _orientation(image: Image.Image, after_pixels: bool) -> int:
    from PIL.Image import Image as Plain

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            exif = image.getexif() if after_pixels else Plain.getexif(image)
            value: object = exif.get(_ORIENTATION_TAG, 1)
    except _DAMAGE:
        # Broken EXIF is common and says nothing about the pixels.
        return 1
    return value if isinstance(value, int) and 1 <= value <= 8 else 1


def _scale(image: Image.Image, kind: str) -> Scale | None:
    density = image.info.get("dpi")
    try:
        dpi_x, dpi_y = (float(value) for value in density) if density else (0.0, 0.0)
    except (TypeError, ValueError, ZeroDivisionError):
        return None
    return scale_of_dpi(dpi_x, dpi_y, _SCALE_TAGS[kind])

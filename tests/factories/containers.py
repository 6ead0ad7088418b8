"""One picture in every container and coding that is read: what fuzzing mutates."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import tifffile
from PIL import Image

from tests.factories import slides
from tests.factories.dicom import save_dicom
from tests.factories.leica import save_scn

Save = Callable[[Path, np.ndarray], object]


def _tiff(**options: Any) -> Save:
    return lambda path, image: slides.save_tiff(path, image, **options)


def _gray(**options: Any) -> Save:
    options = {"photometric": "minisblack"} | options
    return lambda path, image: slides.save_tiff(path, image[..., 1], **options)


def _alpha(kind: str) -> Save:
    def save(path: Path, image: np.ndarray) -> None:
        alpha = np.full((*image.shape[:2], 1), 200, np.uint8)
        slides.save_tiff(path, np.dstack([image, alpha]), extrasamples=[kind], tile=(32, 48))

    return save


def _palette(path: Path, image: np.ndarray) -> None:
    Image.fromarray(image).quantize(32).save(path)


def _stacked(path: Path, image: np.ndarray) -> None:
    """A preview before the image."""
    with tifffile.TiffWriter(path) as tif:
        tif.write(image[::4, ::4], photometric="rgb", metadata=None)
        tif.write(image, photometric="rgb", metadata=None, compression="lzw")


def _sparse(path: Path, image: np.ndarray) -> None:
    slides.save_tiff(path, image[:64, :96], tile=(32, 32))
    slides.drop_tiles(path, (4,))


def _sparse_svs(path: Path, image: np.ndarray) -> None:
    """An SVS that goes to OpenSlide, as a tile is missing."""
    text = slides.APERIO.format(w=96, h=64)
    slides.save_tiff(path, image[:64, :96], compression="jpeg", tile=(32, 32), description=text)
    slides.drop_tiles(path, (4,))


def _imagej(path: Path, image: np.ndarray) -> None:
    tifffile.imwrite(path, image, imagej=True, resolution=(4, 4), metadata={"unit": "um"})


def _bits(bits: int) -> Save:
    """Packed gray of 2 or 4 bits, which no writer at hand makes: by hand, in one strip."""

    def save(path: Path, image: np.ndarray) -> None:
        path.write_bytes(packed_gray_tiff(image[..., 1] >> (8 - bits), bits))

    return save


def packed_gray_tiff(values: np.ndarray, bits: int) -> bytes:
    """A TIFF of gray values below 2 ** bits, packed row by row."""
    height, width = values.shape
    planes = (values[..., None] >> np.arange(bits - 1, -1, -1)) & 1
    content = np.packbits(planes.reshape(height, width * bits).astype(np.uint8), axis=1).tobytes()
    tags = [(256, width), (257, height), (258, bits), (259, 1), (262, 1), (273, 8), (277, 1)]
    tags += [(278, height), (279, len(content))]
    content += bytes(len(content) % 2)
    directory = len(tags).to_bytes(2, "little")
    for code, value in tags:
        directory += code.to_bytes(2, "little") + b"\4\0\1\0\0\0" + value.to_bytes(4, "little")
    return b"II*\0" + (8 + len(content)).to_bytes(4, "little") + content + directory + bytes(4)


CONTAINERS: dict[str, Save] = {
    **slides.LOSSLESS,
    **slides.LOSSY,
    **{
        f"{name}.tif": _tiff(compression=name, tile=(48, 64))
        for name in ("lzw", "packbits", "lzma", "zstd", "jpeg2000", "png", "webp", "jpegxl")
    },
    "jpegxr.tif": _tiff(compression="jpegxr", tile=(48, 64)),
    "lerc.tif": _tiff(compression="lerc", tile=(48, 64)),
    "predictor.tif": _tiff(compression="deflate", predictor=2, rowsperstrip=20),
    "big-endian-16.tif": lambda p, a: slides.save_tiff(p, a.astype(np.uint16) * 257, byteorder=">"),
    "twelve-bit-jpeg-strips.tif": _tiff(compression="jpeg", rowsperstrip=16),
    "gray.tif": _gray(),
    "white-is-zero.tif": _gray(photometric="miniswhite", tile=(32, 32)),
    "gray-jpeg.tif": _gray(compression="jpeg", tile=(32, 32)),
    "alpha.tif": _alpha("unassalpha"),
    "associated.tif": _alpha("assocalpha"),
    "palette.tif": _palette,
    "palette.png": _palette,
    "palette.bmp": _palette,
    "gray.png": lambda p, a: slides.save_png(p, a[..., 0]),
    "alpha.png": lambda p, a: slides.save_png(p, np.dstack([a, a[..., 0]])),
    "sixteen.png": lambda p, a: Image.fromarray(a[..., 0].astype(np.uint16) * 257).save(p),
    "fax.tif": lambda p, a: Image.fromarray(a[..., 0] > 128).save(p, compression="group4"),
    "fax3.tif": lambda p, a: Image.fromarray(a[..., 0] > 128).save(p, compression="group3"),
    "cmyk.tif": lambda p, a: Image.fromarray(a).convert("CMYK").save(p),
    "cmyk.jpg": lambda p, a: Image.fromarray(a).convert("CMYK").save(p),
    "progressive.jpg": lambda p, a: slides.save_jpeg(p, a, progressive=True),
    "preview-first.tif": _stacked,
    "sparse.tif": _sparse,
    "imagej.tif": _imagej,
    "slide.dcm": save_dicom,
    "leica.scn": lambda p, a: save_scn(p, a, (300, 200), (1000, 800)),
    "sparse.svs": _sparse_svs,
    "two-bits.tif": _bits(2),
    "four-bits.tif": _bits(4),
}
"""Every way in which a picture may come, by the name of the file."""

"""Synthetic slides in every format, from one picture that shows any shift or flip."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import tifffile
from PIL import Image

MPP = 0.25
PIXELS_PER_CM = 10_000 / MPP
APERIO = "Aperio Image Library v12.0.15\r\n{w}x{h} (256x256) JPEG/RGB Q=85|AppMag = 40|MPP = 0.2500"


def picture(width: int = 300, height: int = 200, seed: int = 0) -> np.ndarray:
    """Pink ground with dark discs, RGB uint8: no symmetry, each place unlike any other."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[:height, :width].astype(np.float32)
    image = np.stack(
        [
            225 - 40 * x / width + 10 * np.sin(x / 17 + y / 29),
            170 - 50 * y / height + 10 * np.sin(y / 13),
            200 + 20 * np.cos((x + 2 * y) / 41),
        ],
        axis=2,
    )
    for _ in range(max(4, width * height // 4000)):
        cx, cy, radius = rng.uniform(0, width), rng.uniform(0, height), rng.uniform(3, 9)
        box = (
            slice(max(0, int(cy - radius - 2)), int(cy + radius + 3)),
            slice(max(0, int(cx - radius - 2)), int(cx + radius + 3)),
        )
        inside = np.clip(radius + 0.5 - np.hypot(x[box] - cx, y[box] - cy), 0, 1)[..., None]
        image[box] = image[box] * (1 - inside) + np.array([80, 40, 120]) * inside
    return np.clip(image + rng.normal(0, 3, image.shape), 0, 255).astype(np.uint8)


def halved(image: np.ndarray) -> np.ndarray:
    """The next pyramid level: 2 x 2 means."""
    height, width = image.shape[0] // 2 * 2, image.shape[1] // 2 * 2
    blocks = image[:height, :width].reshape(height // 2, 2, width // 2, 2, -1)
    return np.round(blocks.mean(axis=(1, 3))).astype(np.uint8)


def save_png(path: Path, image: np.ndarray, **options: Any) -> None:
    Image.fromarray(image).save(path, "PNG", **options)


def save_jpeg(path: Path, image: np.ndarray, **options: Any) -> None:
    Image.fromarray(image).save(path, "JPEG", **{"quality": 95, "subsampling": 0} | options)


def save_bmp(path: Path, image: np.ndarray) -> None:
    Image.fromarray(image).save(path, "BMP")


def save_rotated_jpeg(path: Path, image: np.ndarray, orientation: int = 6) -> None:
    """A JPEG stored turned, with the EXIF orientation that turns it back to `image`."""
    undo = {
        1: lambda a: a,
        2: lambda a: a[:, ::-1],
        3: lambda a: a[::-1, ::-1],
        4: lambda a: a[::-1],
        5: lambda a: a.swapaxes(0, 1),
        6: lambda a: a.swapaxes(0, 1)[::-1],
        7: lambda a: a.swapaxes(0, 1)[::-1, ::-1],
        8: lambda a: a.swapaxes(0, 1)[:, ::-1],
    }[orientation]
    exif = Image.Exif()
    exif[0x0112] = orientation
    save_jpeg(path, np.ascontiguousarray(undo(image)), exif=exif)


def save_tiff(path: Path, image: np.ndarray, **options: Any) -> None:
    tifffile.imwrite(path, image, **{"photometric": "rgb", "metadata": None} | options)


def save_pyramid(
    path: Path,
    image: np.ndarray,
    levels: int = 3,
    subifds: bool = False,
    tile: int = 64,
    bigtiff: bool = False,
    **options: Any,
) -> None:
    """A tiled pyramid, its levels as pages of their own or as SubIFDs of the first."""
    common: dict[str, Any] = {
        "tile": (tile, tile),
        "photometric": "rgb",
        "metadata": None,
        "compression": "deflate",
    } | options
    with tifffile.TiffWriter(path, bigtiff=bigtiff) as tif:
        tif.write(
            image,
            subifds=levels - 1 if subifds else 0,
            resolution=(PIXELS_PER_CM, PIXELS_PER_CM),
            resolutionunit="CENTIMETER",
            **common,
        )
        for _ in range(levels - 1):
            image = halved(image)
            tif.write(image, subfiletype=1, **common)


def save_ome(path: Path, image: np.ndarray, unit: str = "µm", size: float = MPP) -> None:
    """A pyramidal OME-TIFF with physical pixel sizes."""
    metadata = {
        "axes": "YXS",
        "PhysicalSizeX": size,
        "PhysicalSizeXUnit": unit,
        "PhysicalSizeY": size,
        "PhysicalSizeYUnit": unit,
    }
    options: dict[str, Any] = {"tile": (64, 64), "photometric": "rgb", "compression": "deflate"}
    with tifffile.TiffWriter(path, ome=True) as tif:
        tif.write(image, subifds=1, metadata=metadata, **options)
        tif.write(halved(image), subfiletype=1, **options)


def save_fluorescence(path: Path, channels: int = 5, side: int = 64) -> None:
    """An OME-TIFF of stained channels on black."""
    stack = np.random.default_rng(0).integers(0, 90, (channels, side, side)).astype(np.uint8)
    names = ["DAPI", "FITC", "Cy3", "Cy5", "Cy7"][:channels]
    tifffile.imwrite(
        path,
        stack,
        ome=True,
        photometric="minisblack",
        metadata={"axes": "CYX", "Channel": {"Name": names}},
    )


def save_svs(path: Path, image: np.ndarray, mpp: bool | str = True) -> None:
    """An SVS as Aperio writes it: tiled levels, a thumbnail in strips, scale in the text."""
    text = APERIO.format(w=image.shape[1], h=image.shape[0])
    if isinstance(mpp, str):
        text = text.replace("0.2500", mpp)
    elif not mpp:
        text = text.split("|MPP")[0]
    options: dict[str, Any] = {
        "photometric": "rgb",
        "metadata": None,
        "compression": "jpeg",
        "compressionargs": {"level": 95},
    }
    with tifffile.TiffWriter(path) as tif:
        tif.write(image, tile=(256, 256), description=text, **options)
        tif.write(image[::4, ::4], rowsperstrip=16, description=text, **options)
        small = halved(halved(image))
        tif.write(small, tile=(256, 256), description=text, **options)


def corrupt_tile(path: Path, index: int, content: bytes | None = None, page: int = 0) -> None:
    """Overwrite the bytes of one tile or strip of a TIFF, by zeros unless told."""
    with tifffile.TiffFile(path) as tif:
        offset = tif.pages[page].dataoffsets[index]
        count = tif.pages[page].databytecounts[index]
    with path.open("r+b") as stream:
        stream.seek(offset)
        stream.write((content or bytes(count))[:count])


def drop_tiles(path: Path, indices: Sequence[int]) -> None:
    """Leave tiles of a TIFF out, as scanners do that skip glass: offset 0, count 0."""
    with tifffile.TiffFile(path, mode="r+") as tif:
        for name in ("TileOffsets", "TileByteCounts"):
            tag = tif.pages[0].tags[name]
            tag.overwrite([0 if i in indices else value for i, value in enumerate(tag.value)])


def truncate(path: Path, keep: float) -> None:
    """Cut a file to a share of its length."""
    content = path.read_bytes()
    path.write_bytes(content[: int(len(content) * keep)])


LOSSLESS: dict[str, Callable[[Path, np.ndarray], None]] = {
    "plain.png": save_png,
    "plain.bmp": save_bmp,
    "strips.tif": lambda p, a: save_tiff(p, a, rowsperstrip=16),
    "lzw.tif": lambda p, a: save_tiff(p, a, compression="lzw", predictor=2, rowsperstrip=7),
    "planar.tif": lambda p, a: save_tiff(p, a.transpose(2, 0, 1), planarconfig="separate"),
    "big-endian.tif": lambda p, a: save_tiff(p, a, byteorder=">", rowsperstrip=50),
    "tiled.tif": lambda p, a: save_tiff(p, a, tile=(48, 64), compression="deflate"),
    "planar-tiled.tif": lambda p, a: save_tiff(
        p, a.transpose(2, 0, 1), planarconfig="separate", tile=(32, 64)
    ),
    "pyramid.tif": save_pyramid,
    "pyramid-subifds.tif": lambda p, a: save_pyramid(p, a, subifds=True),
    "bigtiff.btf": lambda p, a: save_pyramid(p, a, bigtiff=True),
    "slide.ome.tiff": save_ome,
}
"""Formats that give back the very pixels written."""

LOSSY: dict[str, Callable[[Path, np.ndarray], None]] = {
    "plain.jpg": save_jpeg,
    "rotated.jpg": save_rotated_jpeg,
    "jpeg-tiles.tif": lambda p, a: save_pyramid(
        p, a, compression="jpeg", compressionargs={"level": 95}
    ),
    "aperio.svs": save_svs,
}
"""Formats that give back nearly the pixels written."""

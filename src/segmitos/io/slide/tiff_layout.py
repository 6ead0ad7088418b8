"""What a TIFF holds: which of its images is the slide and its pyramid, its colors, its scale."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

import segmitos.io.slide.tiff_scale as scales
import segmitos.io.slide.tiff_tags as tags
from segmitos.errors import InputError
from segmitos.io.slide.backend import check_whole_size
from segmitos.io.slide.memory import check_memory
from segmitos.io.slide.scale import Scale
from segmitos.io.slide.tiff_color import PALETTE, Coloring, color_reader
from segmitos.io.slide.tiff_decode import Coding, problem_of
from segmitos.io.slide.tiff_pages import Chosen
from segmitos.io.slide.tiff_tags import Directory, damaged

_MAX_BYTES_PER_RAW = 2
_SLACK_BYTES = 1 << 20


@dataclass(frozen=True)
class TiffLevel:
    """One level: where its tiles or strips lie in the file and how their bytes become RGB.

    Attributes:
        width: pixels, as stored.
        height: pixels, as stored.
        tiled: whether it is cut into tiles, not strips.
        segment_width: of a tile or strip, pixels.
        segment_height: likewise.
        orientation: of the TIFF standard, 1 to 8.
        coding: of the samples in a tile or strip.
        coloring: from samples to RGB.
        offsets: (images that make up the level, planes of each, tiles or strips).
        counts: bytes, of the same shape; 0 where a tile is missing.
    """

    width: int
    height: int
    tiled: bool
    segment_width: int
    segment_height: int
    orientation: int
    coding: Coding
    coloring: Coloring
    offsets: npt.NDArray[np.int64]
    counts: npt.NDArray[np.int64]

    @property
    def size(self) -> tuple[int, int]:
        """Width and height as the image is seen; orientations from 5 on swap them."""
        return (self.height, self.width) if self.orientation >= 5 else (self.width, self.height)

    @property
    def columns(self) -> int:
        """Tiles side by side."""
        return -(-self.width // self.segment_width)

    @property
    def rows(self) -> int:
        """Tiles, or strips, one below the other."""
        return -(-self.height // self.segment_height)

    @property
    def max_segment_bytes(self) -> int:
        """Most that the stored bytes of a tile or strip can be."""
        raw = self.segment_width * self.segment_height * self.coding.samples * 2
        return _MAX_BYTES_PER_RAW * raw + _SLACK_BYTES

    def parts(self, index: int) -> Iterator[tuple[int, int]]:
        """(offset, byte count) of each plane of tile or strip `index`."""
        for offset, count in zip(
            self.offsets[..., index].ravel(), self.counts[..., index].ravel(), strict=True
        ):
            yield int(offset), int(count)

    def is_missing(self, index: int) -> bool:
        """Whether a tile was never written; it is blank, as OpenSlide has it."""
        return self.tiled and not self.counts[..., index].any()

    def bounds(self) -> tuple[int, int, int, int]:
        """(x, y, width, height) of what holds tiles, in pixels of the level."""
        there = self.counts.any(axis=(0, 1)).reshape(self.rows, self.columns)
        down, across = np.flatnonzero(there.any(axis=1)), np.flatnonzero(there.any(axis=0))
        left, top = int(across[0]) * self.segment_width, int(down[0]) * self.segment_height
        right = min(self.width, (int(across[-1]) + 1) * self.segment_width)
        bottom = min(self.height, (int(down[-1]) + 1) * self.segment_height)
        return left, top, right - left, bottom - top


def read_layout(path: Path, chosen: Chosen) -> tuple[tuple[TiffLevel, ...], Scale | None]:
    """The levels of the image that was chosen of a TIFF, finest first, and its scale.

    Raises:
        InputError: if it is truncated, damaged, in unknown colors, or needs too much memory.
    """
    levels = tuple(_level(path, images, chosen.format) for images in chosen.levels)
    first = chosen.levels[0][0]
    if chosen.format == "aperio":
        stated = scales.aperio(first.text(tags.DESCRIPTION), first.size)
        return levels, scales.beside_resolution(stated, first)
    if chosen.format == "OME-TIFF":
        stated = scales.ome(chosen.description, levels[0].width, levels[0].height)
        return levels, scales.beside_resolution(stated, first)
    stated, full = scales.generic(chosen.description, first), chosen.full
    if full is None:
        return levels, stated
    full_stated = scales.generic(full.text(tags.DESCRIPTION), full)
    return levels, scales.of_reduction(stated, full_stated, full.size[0] / first.size[0])


def check_tile_memory(path: Path, directory: Directory) -> None:
    """Refuse an image whose tiles, or strips, take too much memory. Raises InputError."""
    width = directory.integer(tags.WIDTH, minimum=1)
    height = directory.integer(tags.HEIGHT, minimum=1)
    if directory.is_tiled:
        width = directory.integer(tags.TILE_WIDTH, minimum=1)
        height = directory.integer(tags.TILE_HEIGHT, minimum=1)
    samples = directory.integer(tags.SAMPLES, 1, 1, 64)
    wide = 2 if max(directory.integers(tags.BITS), default=1) > 8 else 1
    # The samples, what a predictor or planes apart make of them, and RGB.
    needed = width * height * (2 * samples * wide + 3)
    what = "a tile" if directory.is_tiled else "an image in strips"
    check_memory(path, f"{what} of {width} x {height} px", needed)


def _level(path: Path, images: Sequence[Directory], kind: str) -> TiffLevel:
    """One level, of one image, or of one a channel.

    Raises:
        InputError: for what cannot be read.
    """
    key = images[0]
    width, height = key.integer(tags.WIDTH, minimum=1), key.integer(tags.HEIGHT, minimum=1)
    coding = _coding(path, key)
    tiled = key.is_tiled
    orientation = key.integer(tags.ORIENTATION, 1, maximum=(1 << 16))
    if tiled and orientation != 1:
        raise InputError(f"{path}: a tiled TIFF with orientation {orientation}; rewrite it upright")
    if coding.bits == 16 and (tiled or kind == "OME-TIFF"):
        raise InputError(
            f"{path}: {kind} with uint16 samples, so what is white is unknown; convert the image "
            "to 8-bit RGB"
        )
    if not tiled:
        check_whole_size(path, width, height)
    check_tile_memory(path, key)
    segment_width, segment_height = width, height
    if tiled:
        segment_width = key.integer(tags.TILE_WIDTH, minimum=1)
        segment_height = key.integer(tags.TILE_HEIGHT, minimum=1)
    else:
        segment_height = min(key.integer(tags.ROWS_PER_STRIP, height, 1, (1 << 32) - 1), height)
    samples = key.integer(tags.SAMPLES, 1, 1, 64) * len(images)
    planes = key.integer(tags.SAMPLES, 1, 1, 64) if coding.separate else 1
    needed = -(-width // segment_width) * -(-height // segment_height)
    places = [_places(path, image, planes, needed) for image in images]
    level = TiffLevel(
        width=width,
        height=height,
        tiled=tiled,
        segment_width=segment_width,
        segment_height=segment_height,
        orientation=orientation if 1 <= orientation <= 8 else 1,
        coding=coding,
        coloring=_coloring(path, key, coding, samples),
        offsets=np.stack([offsets for offsets, _ in places]),
        counts=np.stack([counts for _, counts in places]),
    )
    if not level.counts.any():
        raise InputError(f"{path}: all {needed} tiles or strips of the image are missing")
    return level


def _coding(path: Path, key: Directory) -> Coding:
    bits = key.integers(tags.BITS) if tags.BITS in key else np.ones(1, np.int64)
    formats = key.integers(tags.SAMPLE_FORMAT)
    kind = int(formats[0]) if len(formats) else 1
    # 4 says that it is unknown what the samples are: whole numbers, in practice.
    name = f"{ {1: 'uint', 2: 'int', 3: 'float', 4: 'uint'}.get(kind, 'complex') }{bits[:1].sum()}"
    if kind not in (1, 4) or not len(bits) or (bits != bits[0]).any() or not 1 <= bits[0] <= 16:
        raise InputError(
            f"{path}: {name if len(set(bits.tolist())) < 2 else bits.tolist()} samples cannot be "
            "read; convert the image to 8-bit RGB"
        )
    samples = key.integer(tags.SAMPLES, 1, 1, 64)
    separate = key.integer(tags.PLANAR, 1, 1, 2) == 2 and samples > 1
    coding = Coding(
        compression=key.integer(tags.COMPRESSION, 1, 1, (1 << 16) - 1),
        predictor=key.integer(tags.PREDICTOR, 1, maximum=(1 << 16) - 1),
        bits=int(bits[0]),
        samples=1 if separate else samples,
        byte_order=key.byte_order,
        reversed_bits=key.integer(tags.FILL_ORDER, 1) == 2,
        photometric=key.integer(tags.PHOTOMETRIC, 1, maximum=(1 << 16) - 1),
        separate=separate,
        has_extra=key.count(tags.EXTRA_SAMPLES) > 0,
        jpeg_tables=key.content(tags.JPEG_TABLES),
        t4_options=key.integer(tags.T4_OPTIONS, 0),
    )
    if problem := problem_of(coding):
        raise InputError(f"{path}: {problem} is not read; convert the image to 8-bit RGB")
    return coding


def _coloring(path: Path, key: Directory, coding: Coding, samples: int) -> Coloring:
    colormap = key.integers(tags.COLOR_MAP)
    if coding.photometric == PALETTE and (len(colormap) != 3 << coding.bits or coding.bits > 8):
        raise damaged(path, f"a palette of {len(colormap)} values for {coding.bits}-bit samples")
    table = colormap.reshape(3, -1) if len(colormap) % 3 == 0 else colormap.reshape(1, -1)
    return color_reader(path, coding, samples, key.integers(tags.EXTRA_SAMPLES).tolist(), table)


def _places(
    path: Path, image: Directory, planes: int, needed: int
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """Offsets and byte counts (planes, tiles or strips) of one image.

    Raises:
        InputError: if some are not there, or reach beyond the file.
    """
    size = os.path.getsize(path)
    codes = (tags.STRIP_OFFSETS, tags.STRIP_COUNTS)
    if image.is_tiled:
        codes = (tags.TILE_OFFSETS, tags.TILE_COUNTS)
    offsets, counts = image.integers(codes[0]), image.integers(codes[1])
    if not len(counts) and len(offsets) == 1:
        # Some old writers leave out the length of a single strip: it is the rest of the file.
        counts = np.maximum(size - offsets, 0)
    if not len(offsets) or len(offsets) != len(counts):
        raise damaged(path, "its table of pixels is broken")
    if len(offsets) < planes * needed:
        raise damaged(path, f"{len(offsets)} of {planes * needed} tiles or strips")
    if (counts < 0).any() or (offsets < 0).any():
        raise damaged(path, "its table of pixels is broken")
    end = int((offsets + np.minimum(counts, np.iinfo(np.int64).max - offsets)).max())
    if end > size:
        raise InputError(
            f"{path}: truncated TIFF ({size} bytes, but its pixels reach to byte {end})"
        )
    shape = (planes, needed)
    return offsets[: planes * needed].reshape(shape), counts[: planes * needed].reshape(shape)

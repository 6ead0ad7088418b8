"""Make a whole slide of any size from real frames, and write down where each frame went.

    python -m benchmarks.make_slide slide.tif --frames DIR --width 60000 --height 60000

The slide is a JPEG-tiled pyramidal BigTIFF. Frames are cropped to whole tiles and laid out as a
grid; the fraction `--empty` of it is glass, around the tissue. A frame that comes again brings the
same encoded tiles, which are written again as they are, so that size costs little more than
the disk. Memory does not grow with the slide.
"""

from __future__ import annotations

import argparse
import functools
import json
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import imagecodecs
import numpy as np
import numpy.typing as npt
import tifffile
from PIL import Image

from segmitos.console import run_program
from segmitos.io.slide import Slide, find_images

Pixels = npt.NDArray[np.uint8]

GLASS = (243, 242, 244)
SMALLEST_LEVEL_PX = 1500


class Grid:
    """Cells of one size, each a frame or glass."""

    def __init__(
        self, frames: list[Pixels], width: int, height: int, tile: int, empty: float, seed: int
    ) -> None:
        self.width, self.height, self.tile = width, height, tile
        self.cell_height, self.cell_width = frames[0].shape[:2]
        self.columns = math.ceil(width / self.cell_width)
        self.rows = math.ceil(height / self.cell_height)
        self.pyramids = [[frame] for frame in frames]
        self.cells = np.full((self.rows, self.columns), -1)
        # Tissue is one piece in the middle, as on glass: the cells nearest to the center.
        y, x = np.mgrid[: self.rows, : self.columns]
        distance = np.hypot(
            (x + 0.5) * self.cell_width - width / 2, (y + 0.5) * self.cell_height - height / 2
        )
        order = np.argsort(distance, axis=None, kind="stable")
        tissue = order[: round(len(order) * (1 - empty))]
        turns = np.arange(len(tissue)) % len(frames)
        np.random.default_rng(seed).shuffle(turns)
        self.cells.flat[tissue] = turns

    def frame(self, number: int, level: int) -> Pixels:
        """A frame at a level of the pyramid: 2 x 2 means, level by level."""
        pyramid = self.pyramids[number]
        while len(pyramid) <= level:
            last = pyramid[-1].astype(np.uint16)
            total = last[::2, ::2] + last[1::2, ::2] + last[::2, 1::2] + last[1::2, 1::2]
            pyramid.append(((total + 2) // 4).astype(np.uint8))
        return pyramid[level]

    def parts(
        self, level: int, column: int, row: int
    ) -> tuple[tuple[int, int, int, int, int, int, int], ...]:
        """What a tile is made of: (frame, to x, to y, from x, from y, width, height) each."""
        cell_w, cell_h = self.cell_width >> level, self.cell_height >> level
        left, top = column * self.tile, row * self.tile
        parts = []
        for cell_row in range(top // cell_h, (top + self.tile - 1) // cell_h + 1):
            for cell_column in range(left // cell_w, (left + self.tile - 1) // cell_w + 1):
                if cell_row >= self.rows or cell_column >= self.columns:
                    continue
                number = int(self.cells[cell_row, cell_column])
                if number < 0:
                    continue
                x0, y0 = max(left, cell_column * cell_w), max(top, cell_row * cell_h)
                x1 = min(left + self.tile, (cell_column + 1) * cell_w)
                y1 = min(top + self.tile, (cell_row + 1) * cell_h)
                from_x, from_y = x0 - cell_column * cell_w, y0 - cell_row * cell_h
                parts.append((number, x0 - left, y0 - top, from_x, from_y, x1 - x0, y1 - y0))
        return tuple(parts)

    def placements(self, names: list[str]) -> list[dict[str, Any]]:
        """Where the top left of each frame lies, cut at the slide's edges: its name, x, y, size."""
        return [
            {
                "frame": names[int(self.cells[row, column])],
                "x_px": x,
                "y_px": y,
                "width_px": min(self.cell_width, self.width - x),
                "height_px": min(self.cell_height, self.height - y),
            }
            for row, column in np.argwhere(self.cells >= 0).tolist()
            for x, y in [(column * self.cell_width, row * self.cell_height)]
        ]


def encode(tile: Pixels, quality: int) -> bytes:
    """One JPEG tile, complete in itself."""
    return bytes(
        imagecodecs.jpeg8_encode(
            tile, level=quality, colorspace="RGB", outcolorspace="YCBCR", subsampling="420"
        )
    )


def write_slide(path: Path, grid: Grid, mpp: float, quality: int) -> None:
    """Write the pyramid, each distinct tile encoded once."""
    glass = np.full((grid.tile, grid.tile, 3), GLASS, np.uint8)

    @functools.lru_cache(maxsize=20_000)
    def encoded(level: int, parts: tuple[tuple[int, int, int, int, int, int, int], ...]) -> bytes:
        tile = glass.copy()
        for number, x, y, from_x, from_y, width, height in parts:
            frame = grid.frame(number, level)
            tile[y : y + height, x : x + width] = frame[
                from_y : from_y + height, from_x : from_x + width
            ]
        return encode(tile, quality)

    def tiles(level: int, width: int, height: int) -> Iterator[bytes]:
        for row in range(math.ceil(height / grid.tile)):
            for column in range(math.ceil(width / grid.tile)):
                yield encoded(level, grid.parts(level, column, row))

    # A level must halve the cells exactly, or frames would drift from their places.
    deepest = 0
    while max(grid.width, grid.height) >> (deepest + 1) >= SMALLEST_LEVEL_PX and grid.cell_width % (
        2 << deepest
    ) == 0 == grid.cell_height % (2 << deepest):
        deepest += 1
    with tifffile.TiffWriter(path, bigtiff=True) as tif:
        for level in range(deepest + 1):
            width, height = max(1, grid.width >> level), max(1, grid.height >> level)
            per_cm = 10_000 / (mpp * 2**level)
            tif.write(
                tiles(level, width, height),
                shape=(height, width, 3),
                dtype=np.uint8,
                tile=(grid.tile, grid.tile),
                photometric="ycbcr",
                subsampling=(2, 2),
                compression="jpeg",
                subfiletype=1 if level else 0,
                resolution=(per_cm, per_cm),
                resolutionunit="CENTIMETER",
                metadata=None,
            )


def read_frames(
    paths: list[Path], tile: int, frame_mpp: float | None, mpp: float
) -> tuple[list[str], list[Pixels]]:
    """Frames at the slide's scale, cropped to the whole tiles that all of them fill."""
    images = []
    for path in paths:
        with Slide.open(path, mpp=frame_mpp or mpp, override_mpp=True) as slide:
            step = mpp / slide.require_mpp()
            images.append(slide.read(0, 0, int(slide.width / step), int(slide.height / step), mpp))
    height = min(image.shape[0] for image in images) // tile * tile
    width = min(image.shape[1] for image in images) // tile * tile
    if not height or not width:
        raise SystemExit(f"frames must hold at least one tile of {tile} x {tile} px")
    return [path.name for path in paths], [image[:height, :width].copy() for image in images]


def save_cells(folder: Path, names: list[str], frames: list[Pixels], tile: int, q: int) -> None:
    """Each frame as it is in the slide, after its JPEG tiles, as a PNG of its own."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, frame in zip(names, frames, strict=True):
        decoded = frame.copy()
        for y in range(0, frame.shape[0], tile):
            for x in range(0, frame.shape[1], tile):
                part = np.ascontiguousarray(frame[y : y + tile, x : x + tile])
                decoded[y : y + tile, x : x + tile] = imagecodecs.jpeg8_decode(encode(part, q))
        Image.fromarray(decoded).save(folder / f"{Path(name).stem}.png", compress_level=1)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("slide", type=Path, help="the .tif to write; places go to SLIDE.json")
    parser.add_argument("--frames", type=Path, nargs="+", required=True, help="files or folders")
    parser.add_argument("--width", type=int, default=60_000)
    parser.add_argument("--height", type=int, default=60_000)
    parser.add_argument("--mpp", type=float, default=0.25, help="um/px of the slide")
    parser.add_argument("--frame-mpp", type=float, help="um/px of the frames, if not the slide's")
    parser.add_argument("--empty", type=float, default=0.5, help="fraction of glass in the grid")
    parser.add_argument("--most-frames", type=int, default=24, help="distinct frames used")
    parser.add_argument("--tile", type=int, default=256)
    parser.add_argument("--quality", type=int, default=80)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--cells", type=Path, help="folder for the frames as the slide holds them")
    options = parser.parse_args()
    paths = find_images(options.frames)[: options.most_frames]
    names, frames = read_frames(paths, options.tile, options.frame_mpp, options.mpp)
    grid = Grid(frames, options.width, options.height, options.tile, options.empty, options.seed)
    write_slide(options.slide, grid, options.mpp, options.quality)
    if options.cells:
        save_cells(options.cells, names, frames, options.tile, options.quality)
    record = {
        "width": options.width,
        "height": options.height,
        "mpp": options.mpp,
        "tile_px": options.tile,
        "placements": grid.placements(names),
    }
    options.slide.with_suffix(".json").write_text(json.dumps(record, indent=1) + "\n")
    print(
        f"{options.slide}: {options.width} x {options.height} px, {len(record['placements'])} "
        f"frames placed, {options.slide.stat().st_size / 1e6:.0f} MB"
    )


if __name__ == "__main__":
    run_program(main, "benchmarks.make_slide")

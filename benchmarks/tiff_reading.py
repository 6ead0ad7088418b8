"""Our TIFF reading against tiffslide and OpenSlide: time, and whether damaged tiles are noticed.

    python -m benchmarks.tiff_reading [--side 6000] [-o FILE.md]

A JPEG pyramid and an SVS are drawn, and read whole at level 0 in regions of 1,024 px by each
library, in turns; least time of three. Then one JPEG tile is overwritten in three ways. Needs
`pip install tiffslide`.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import tifffile

from benchmarks.timing import markdown
from segmitos.console import run_program
from segmitos.errors import InputError, UsageError
from segmitos.io.slide import Slide

REGION_PX = 1024
TURNS = 3
APERIO = "Aperio Image Library v12.0.15\r\n{0}x{0} (256x256) JPEG/RGB Q=85|AppMag = 40|MPP = 0.25"


def draw(side: int) -> np.ndarray:
    """Noise on slow waves: neither flat nor incompressible."""
    rng = np.random.default_rng(0)
    y, x = np.mgrid[:side, :side].astype(np.float32)
    waves = np.stack([200 + 40 * np.sin(x / f) * np.cos(y / f) for f in (17, 23, 31)], axis=2)
    return np.clip(waves + rng.normal(0, 6, waves.shape), 0, 255).astype(np.uint8)


def save(path: Path, image: np.ndarray, description: str | None = None, tile: int = 256) -> None:
    """One level of JPEG tiles."""
    tifffile.imwrite(
        path,
        image,
        tile=(tile, tile),
        photometric="rgb",
        compression="jpeg",
        compressionargs={"level": 85},
        description=description,
        metadata=None,
    )


def read_ours(path: Path) -> None:
    """All of level 0."""
    with Slide.open(path) as slide:
        for y in range(0, slide.height, REGION_PX):
            for x in range(0, slide.width, REGION_PX):
                slide.read(x, y, REGION_PX, REGION_PX)


def read_theirs(path: Path, library: Callable[[Path], Any]) -> None:
    """All of level 0, through OpenSlide's interface."""
    slide = library(path)
    width, height = slide.dimensions
    for y in range(0, height, REGION_PX):
        for x in range(0, width, REGION_PX):
            np.asarray(slide.read_region((x, y), 0, (REGION_PX, REGION_PX)))
    slide.close()


def readers() -> dict[str, Callable[[Path], None]]:
    """What is compared, by name. Raises UsageError where tiffslide is not installed."""
    import openslide

    try:
        import tiffslide
    except ImportError as error:
        raise UsageError("this needs tiffslide: pip install tiffslide") from error
    return {
        "ours": read_ours,
        "tiffslide": lambda path: read_theirs(path, tiffslide.TiffSlide),
        "OpenSlide": lambda path: read_theirs(path, openslide.OpenSlide),
    }


def least_times(path: Path, by_name: dict[str, Callable[[Path], None]]) -> dict[str, float]:
    """Seconds of each reader, the least of several turns."""
    times = dict.fromkeys(by_name, float("inf"))
    for _ in range(TURNS):
        for name, read in by_name.items():
            began = time.perf_counter()
            read(path)
            times[name] = min(times[name], time.perf_counter() - began)
    return times


def damage(path: Path, how: str) -> None:
    """Overwrite the middle tile: its second half, a run in it, or all."""
    with tifffile.TiffFile(path) as tif:
        page = tif.pages.first
        middle = len(page.dataoffsets) // 2
        offset, count = page.dataoffsets[middle], page.databytecounts[middle]
    begin, end = {
        "second half zero": (count // 2, count),
        "a run of 200 zeros": (count // 2, count // 2 + 200),
        "all zero": (0, count),
    }[how]
    with path.open("r+b") as stream:
        stream.seek(offset + begin)
        stream.write(bytes(end - begin))


def is_noticed(path: Path, read: Callable[[Path], None]) -> bool:
    """Whether reading raises an error of any kind that a decoder may raise."""
    import openslide

    try:
        read(path)
    except (InputError, openslide.OpenSlideError, OSError, RuntimeError, ValueError):
        return True
    return False


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--side", type=int, default=6000)
    parser.add_argument("-o", "--out", type=Path)
    options = parser.parse_args()
    by_name = readers()
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        image = draw(options.side)
        path = Path(folder) / "slide.tif"
        for label, description in (("SVS", APERIO.format(options.side)), ("JPEG TIFF", None)):
            save(path, image, description, 256 if description else 512)
            times = least_times(path, by_name)
            cells = [f"{times[name] / times['ours']:.1f} x" for name in by_name]
            rows.append([label, *cells])
        for how in ("second half zero", "a run of 200 zeros", "all zero"):
            save(path, image[:2048, :2048], None, 512)
            damage(path, how)
            cells = ["error" if is_noticed(path, by_name[name]) else "silent" for name in by_name]
            rows.append([f"a tile {how}", *cells])
    text = markdown(["file", *by_name], rows) + "\n"
    print(text, end="")
    if options.out is not None:
        options.out.write_text(text)
    return 0


if __name__ == "__main__":
    run_program(main, "benchmarks.tiff_reading")

"""What the benchmarks are made of: timed workloads, each in a process of its own.

A process of its own gives each piece the same start and a peak memory that is its alone. All
pieces are functions of plain values, so that they travel there.
"""

from __future__ import annotations

import multiprocessing
import os
import platform
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.make_slide import Grid, write_slide
from segmitos.errors import SegMitosError

SLIDE_TILE_PX = 256
BLOCK_PX = 2048
JPEG_QUALITY = 80
SLIDE_MPP = 0.25

Pixels = NDArray[np.uint8]


@dataclass(frozen=True)
class Timing:
    """Seconds for so many megapixels, and the most memory that the process held."""

    seconds: float
    megapixels: float
    peak_mb: float | None = None

    @property
    def peak(self) -> str:
        """The memory as text."""
        return "" if self.peak_mb is None else f"{self.peak_mb:.0f} MB"

    @property
    def mpx_per_s(self) -> float:
        """Megapixels per second."""
        return self.megapixels / self.seconds


def run_isolated(work: Callable[..., tuple[float, float]], *arguments: Any) -> Timing:
    """Do a piece of work, (seconds, megapixels), in a fresh process.

    Raises:
        SegMitosError: as the work does, and where its process dies.
    """
    context = multiprocessing.get_context("spawn")
    try:
        with ProcessPoolExecutor(1, mp_context=context) as pool:
            (seconds, megapixels), peak_mb = pool.submit(_with_peak, work, *arguments).result()
    except BrokenProcessPool as error:
        raise SegMitosError(f"{work.__name__}: its process died (out of memory?)") from error
    return Timing(seconds, megapixels, peak_mb)


def _with_peak(
    work: Callable[..., tuple[float, float]], *arguments: Any
) -> tuple[tuple[float, float], float | None]:
    done = work(*arguments)
    return done, peak_memory_mb()


def peak_memory_mb(process: int | str = "self") -> float | None:
    """The most memory that a process has held, in MB; None where the system does not tell."""
    status = Path(f"/proc/{process}/status")
    if not status.exists():
        return None
    # getrusage would count what the parent held when it started this process.
    lines = status.read_text().splitlines()
    return next((int(line.split()[1]) / 1000 for line in lines if line.startswith("VmHWM:")), None)


def median(work: Callable[[], object], repeats: int) -> float:
    """Median seconds of some repeats after one that does not count."""
    work()
    seconds = []
    for _ in range(repeats):
        began = time.perf_counter()
        work()
        seconds.append(time.perf_counter() - began)
    return float(np.median(seconds))


def machine_line(threads: int) -> str:
    """What the figures were measured on, in a line."""
    from importlib.metadata import PackageNotFoundError, version

    name, extensions = _processor()
    packages = []
    for package in ("onnxruntime", "openvino", "torch", "monai"):
        try:
            packages.append(f"{package} {version(package)}")
        except PackageNotFoundError:
            continue
    load = f", load before {os.getloadavg()[0]:.1f}" if hasattr(os, "getloadavg") else ""
    return (
        f"{name}{extensions}, {os.cpu_count()} cores, {threads} threads used, "
        f"{platform.system()} {platform.machine()}, Python {platform.python_version()}, "
        f"{', '.join(packages)}{load}"
    )


def _processor() -> tuple[str, str]:
    """The processor's name, and of its extensions those that networks gain from."""
    name, flags = platform.processor() or platform.machine(), ""
    info = Path("/proc/cpuinfo")
    if info.exists():
        for line in info.read_text(errors="replace").splitlines():
            if line.startswith("model name"):
                name = line.split(":", 1)[1].strip()
            elif line.startswith("flags"):
                flags = line
                break
    wanted = ("avx2", "avx512f", "avx512_vnni", "avx512_bf16", "amx_bf16", "amx_int8")
    found = [flag for flag in wanted if f" {flag} " in f"{flags} "]
    return name, f" ({', '.join(found)})" if found else ""


def markdown(columns: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A Markdown table."""
    lines = [columns, ["---"] * len(columns), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def tissue_like(size: int, image: str | None = None) -> Pixels:
    """Return a field (size, size, 3): of an image, mirrored where it ends, or a drawn one.

    The drawn one is pink noise with purple spots, the same each time. A proposal network finds
    more or less there than in tissue; an image tells what tissue takes.

    Raises:
        InputError: for an image that cannot be read.
    """
    if image is not None:
        from segmitos.io.slide import Slide

        with Slide.open(Path(image)) as slide:
            pixels = slide.read(0, 0, min(size, slide.width), min(size, slide.height))
        height, width = pixels.shape[:2]
        room = ((0, size - height), (0, size - width), (0, 0))
        return np.pad(pixels, room, mode="symmetric")
    rng = np.random.default_rng(0)
    drawn = rng.normal((215, 165, 205), 14, (size, size, 3)).astype(np.float32)
    rows, columns = np.mgrid[:24, :24] - 11.5
    disc = np.hypot(rows, columns) < 11
    for _ in range(max(1, size * size // 8000)):
        y, x = rng.integers(0, max(1, size - 24), 2)
        spot = drawn[y : y + 24, x : x + 24]
        inside = disc[: spot.shape[0], : spot.shape[1]]
        spot[inside] = rng.normal((130, 80, 160), 20, 3)
    return np.clip(drawn, 0, 255).astype(np.uint8)


def padded_field(size: int, picture: str | None = None) -> Pixels:
    """The field, (1, side, side, 3), grown with white to sides that networks take."""
    side = -(-size // 32) * 32
    field = np.full((1, side, side, 3), 255, np.uint8)
    field[0, :size, :size] = tissue_like(size, picture)
    return field


def write_tissue(path: Path, side: int, image: str | None = None) -> None:
    """Write a pyramid of `side` x `side` px, all of it like `tissue_like`.

    A block of 2048 px comes again and again, its tiles encoded once; that makes decoding no
    cheaper.
    """
    block = tissue_like(min(BLOCK_PX, -(-side // SLIDE_TILE_PX) * SLIDE_TILE_PX), image)
    if image is None:
        # Noise of single pixels is what no lens gives and no JPEG stream is made for.
        wide = block.astype(np.uint16)
        wide += np.roll(block, 1, 0)
        block = ((wide + np.roll(block, 1, 1)) // 3).astype(np.uint8)
    grid = Grid([block], side, side, SLIDE_TILE_PX, empty=0, seed=0)
    write_slide(path, grid, SLIDE_MPP, JPEG_QUALITY)


def time_network(
    model: str | None,
    device: str,
    threads: int,
    size: int,
    repeats: int,
    image: str | None = None,
) -> tuple[float, float]:
    """The network alone on a field of `size` px."""
    from segmitos.detection.model import Model

    loaded = Model.load(model, device, threads)
    field = padded_field(size, image)
    return median(lambda: loaded.predict(field), repeats), size * size / 1e6


def time_blobs(
    model: str | None, size: int, repeats: int, image: str | None = None
) -> tuple[float, float]:
    """Smoothing, threshold and blobs of a field's map."""
    from segmitos.detection.model import Model
    from segmitos.detection.postprocess import blobs_of_map

    loaded = Model.load(model, "cpu")
    spec = loaded.spec
    probability = loaded.predict(padded_field(size, image))[0]

    def blobs() -> None:
        sigma_um = spec.smoothing_sigma_um
        blobs_of_map(probability, spec.mpp, spec.stride, sigma_um, spec.thresholds.threshold)

    return median(blobs, repeats), size * size / 1e6


def time_image(
    model: str | None, path: str, threads: int, size: int, repeats: int
) -> tuple[float, float]:
    """Detection on an image file, opened and decoded each time."""
    from segmitos.detection.model import Model
    from segmitos.detection.pipeline import DetectOptions, detect_slide
    from segmitos.io.slide import Slide

    loaded = Model.load(model, "auto", threads)

    def detect() -> None:
        with Slide.open(path, mpp=loaded.spec.mpp, override_mpp=True) as slide:
            detect_slide(slide, loaded, DetectOptions())

    return median(detect, repeats), size * size / 1e6


def time_command(model: str | None, path: str, threads: int, size: int, repeats: int) -> Timing:
    """`segmitos detect` on an image file as a user runs it: a cold process, reports and all."""
    command = [sys.executable, "-m", "segmitos", "detect", path, "--mpp", str(SLIDE_MPP)]
    command += ["--threads", str(threads), *(() if model is None else ("--model", model))]
    with tempfile.TemporaryDirectory() as out:
        command += ["--overwrite", "-o", out]
        try:
            seconds = median(
                lambda: subprocess.run(command, check=True, capture_output=True, text=True), repeats
            )
        except subprocess.CalledProcessError as error:
            raise SegMitosError(f"segmitos detect failed: {error.stderr.strip()}") from error
    return Timing(seconds, size * size / 1e6)


def time_decoding(path: str, threads: int) -> tuple[float, float]:
    """Every pixel of a slide's first level, decoded and nothing else."""
    from segmitos.io.slide import Slide

    with Slide.open(path) as slide, ThreadPoolExecutor(threads) as pool:
        blocks = [
            (x, y, min(BLOCK_PX, slide.width - x), min(BLOCK_PX, slide.height - y))
            for y in range(0, slide.height, BLOCK_PX)
            for x in range(0, slide.width, BLOCK_PX)
        ]
        began = time.perf_counter()
        for _ in pool.map(lambda block: slide.read(*block).shape, blocks):
            pass
        seconds = time.perf_counter() - began
        return seconds, slide.width * slide.height / 1e6


def time_slide(model: str | None, path: str, device: str, threads: int) -> tuple[float, float]:
    """Detection on a slide, as megapixels of tissue; the start of the model does not count."""
    from segmitos.detection.model import Model
    from segmitos.detection.pipeline import DetectOptions, detect_slide
    from segmitos.io.slide import Slide

    loaded = Model.load(model, device, threads)
    loaded.predict(np.full((1, 64, 64, 3), 255, np.uint8))
    with Slide.open(path) as slide:
        began = time.perf_counter()
        result = detect_slide(slide, loaded, DetectOptions())
        seconds = time.perf_counter() - began
    return seconds, result.tissue.area_mm2 / result.mpp**2

"""`segmitos bench`: how fast the model runs here."""

from __future__ import annotations

import json
import platform
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from segmitos.errors import UsageError


def run_bench(
    model: Path | None, size: int, repeats: int, threads: int | None, json_out: bool
) -> int:
    """Time network, post-processing and reading on one field; print seconds and Mpx/s."""
    if not 64 <= size <= 8192:
        raise UsageError(f"--size {size} must be from 64 to 8192 px")
    if repeats < 1:
        raise UsageError(f"--repeats {repeats} must be at least 1")
    result = measure(model, size, repeats, threads)
    if json_out:
        print(json.dumps(result, indent=2, sort_keys=True))
        return 0
    print(
        f"{result['model']} on a {size} x {size} px field, {result['threads']} threads, "
        f"{platform.machine()}; median of {repeats}"
    )
    for name, entry in result["parts"].items():
        print(f"{name:<28} {entry['seconds']:8.3f} s {entry['mpx_per_s']:8.1f} Mpx/s")
    return 0


def measure(model: Path | None, size: int, repeats: int, threads: int | None) -> dict[str, Any]:
    """Return the timings as a JSON-able dict."""
    from segmitos.detect.mitoses import MapAccumulator, smooth
    from segmitos.detect.model import Model, available_threads
    from segmitos.detect.pipeline import DetectOptions, detect_slide
    from segmitos.io.slide import Slide

    loaded = Model.load(model, threads=threads)
    spec = loaded.spec
    field = tissue_like(size)
    side = -(-size // 32) * 32
    padded = np.full((1, side, side, 3), 255, np.uint8)
    padded[0, :size, :size] = field
    probability = loaded.predict(padded)[0]
    map_mpp = spec.mpp * spec.stride

    def blobs() -> None:
        accumulator = MapAccumulator(map_mpp, spec.stride, guard=False)
        accumulator.add(smooth(probability, spec.smoothing_sigma_um, map_mpp), 0, 0)
        accumulator.blobs(spec.thresholds.binarisation)

    slide = Slide.from_array(field, spec.mpp)
    parts = {
        "network": lambda: loaded.predict(padded),
        "smooth, binarise, blobs": blobs,
        "detect, image in memory": lambda: detect_slide(slide, loaded, DetectOptions()),
    }
    return {
        "model": spec.name,
        "device": loaded.device,
        "size_px": size,
        "threads": threads or available_threads(),
        "parts": {name: _timed(work, repeats, size * size / 1e6) for name, work in parts.items()},
    }


def tissue_like(size: int) -> np.ndarray[Any, np.dtype[np.uint8]]:
    """Return a field (size, size, 3) of pink noise with purple spots, the same each time."""
    rng = np.random.default_rng(0)
    image = rng.normal((215, 165, 205), 14, (size, size, 3))
    rows, columns = np.mgrid[:24, :24] - 11.5
    disc = np.hypot(rows, columns) < 11
    for _ in range(max(1, size * size // 8000)):
        y, x = rng.integers(0, max(1, size - 24), 2)
        image[y : y + 24, x : x + 24][disc] = rng.normal((130, 80, 160), 20, 3)
    return np.clip(image, 0, 255).astype(np.uint8)


def _timed(work: Callable[[], object], repeats: int, megapixels: float) -> dict[str, float]:
    work()
    seconds = []
    for _ in range(repeats):
        began = time.perf_counter()
        work()
        seconds.append(time.perf_counter() - began)
    middle = float(np.median(seconds))
    return {"seconds": middle, "mpx_per_s": megapixels / middle}

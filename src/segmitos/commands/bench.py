"""`segmitos bench`: how fast the model runs here, beside what this machine could do at best."""

from __future__ import annotations

import json
import tempfile
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from segmitos.commands.measuring import (
    Timing,
    alone,
    machine_line,
    time_blobs,
    time_command,
    time_decoding,
    time_image,
    time_network,
    time_slide,
    tissue_like,
    write_slide,
)
from segmitos.errors import UsageError

Rows = dict[str, Timing]

RUNTIMES = {"cpu": "ONNX Runtime", "openvino": "OpenVINO", "cuda": "CUDA"}
# Sides of a field in the side of the slide: enough tiles for reading and network to overlap.
_SLIDE_SIDES = 4


def run_bench(
    model: Path | None,
    size: int,
    repeats: int,
    threads: int | None,
    image: Path | None,
    json_out: bool,
) -> int:
    """Time a field and a slide on every device there is; print the table."""
    from segmitos.detection.model import Model, available_threads

    if not 64 <= size <= 8192:
        raise UsageError(f"--size {size} must be from 64 to 8192 px")
    if repeats < 1:
        raise UsageError(f"--repeats {repeats} must be at least 1")
    used = threads or available_threads()
    spec = Model.load(model, threads=used).spec
    machine = machine_line(used)
    field, slide = measure(model, size, repeats, used, image=image)
    if json_out:
        result = {
            "machine": machine,
            "model": spec.name,
            "size_px": size,
            "threads": used,
            "parts": {name: _as_dict(timing) for name, timing in (field | slide).items()},
        }
        print(json.dumps(result, indent=2, sort_keys=True))
        return 0
    print(f"{spec.name}; {machine}; median of {repeats}\n")
    print(table(f"{size} x {size} px field", field))
    print()
    print(table("slide, all of it tissue", slide))
    return 0


def devices() -> list[str]:
    """The devices that there are here, the slowest to be expected first."""
    import onnxruntime

    found = ["cpu"]
    if find_spec("openvino") is not None:
        found.append("openvino")
    if "CUDAExecutionProvider" in onnxruntime.get_available_providers():
        found.append("cuda")
    return found


def measure(
    model: Path | None,
    size: int,
    repeats: int,
    threads: int,
    on: Path | None = None,
    image: Path | None = None,
) -> tuple[Rows, Rows]:
    """Time the pieces of a field (`image`, or a drawn one) and of a slide (`on`, or made of it).

    The first row of each is what ratios refer to.
    """
    from PIL import Image

    path = None if model is None else str(model)
    shown = None if image is None else str(image)
    field: Rows = {}
    slide: Rows = {}
    with tempfile.TemporaryDirectory() as folder:
        picture, tiff = str(Path(folder) / "field.jpg"), on or Path(folder) / "slide.tif"
        Image.fromarray(tissue_like(size, shown)).save(picture, quality=80)
        if on is None:
            write_slide(tiff, _SLIDE_SIDES * size, shown)
        for device in devices():
            name = f"network, {RUNTIMES[device]}"
            field[name] = alone(time_network, path, device, threads, size, repeats, shown)
        field["smoothing, threshold, blobs"] = alone(time_blobs, path, size, repeats, shown)
        field["detection from a JPEG file"] = alone(
            time_image, path, picture, threads, size, repeats
        )
        field["the whole command, cold"] = time_command(path, picture, threads, size, repeats)
        for device in devices():
            name = f"detection, {RUNTIMES[device]}"
            slide[name] = alone(time_slide, path, str(tiff), device, threads)
        slide["decoding alone"] = alone(time_decoding, str(tiff), threads)
    return field, slide


def table(title: str, rows: Rows) -> str:
    """A Markdown table of timings, with the ratio of each row's time to the first's, per pixel."""
    first = next(iter(rows.values())).mpx_per_s
    lines = [f"| {title} | seconds | Mpx/s | time, first row = 1 | peak memory |"]
    lines.append("|---|---|---|---|---|")
    for name, timing in rows.items():
        peak = "" if timing.peak_mb is None else f"{timing.peak_mb:.0f} MB"
        lines.append(
            f"| {name} | {timing.seconds:.3f} | {timing.mpx_per_s:.1f} | "
            f"{first / timing.mpx_per_s:.2f} | {peak} |"
        )
    return "\n".join(lines)


def _as_dict(timing: Timing) -> dict[str, Any]:
    return {
        "seconds": timing.seconds,
        "mpx_per_s": timing.mpx_per_s,
        "peak_memory_mb": timing.peak_mb,
    }

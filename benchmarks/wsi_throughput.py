"""Whole slides as a user runs them: time, memory, agreement with single fields, two at once.

    python -m benchmarks.wsi_throughput FOLDER --frames DATA/mitos-atypia-14/H03/frames/x40 \\
        [--sides 60000 100000] [-o FILE.md]

Slides of real frames, half of them glass, are made in FOLDER by `make_slide.py` where they are not
there yet (three gigabytes for the two). Then, each in a fresh process:

- `segmitos detect` on every slide: seconds, Mpx of tissue per second, peak memory;
- the smallest slide against its frames one by one, staining left as it is: every detection more
  than 200 px inside a frame must be there in both, its with bit-identical area and score;
- two slides of 15,000 and 16,000 px, one after the other and by `--workers 2`, in turns;
- a slide that is all tissue against its limits, the network alone on a field of it and decoding
  alone, in turns, by medians.
"""

from __future__ import annotations

import argparse
import filecmp
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import msgspec
import numpy as np
from numpy.typing import NDArray

from benchmarks.timing import (
    machine_line,
    run_isolated,
    time_decoding,
    time_network,
    time_slide,
)
from segmitos.console import run_program
from segmitos.detection.model import Model, available_threads
from segmitos.detection.pipeline import DetectOptions, detect_slide
from segmitos.io.points.detections import Detections
from segmitos.io.slide import Slide

PAIR_PX = (15_000, 16_000)
TISSUE_PX = 12_000
SEAM_PX = 200
FIELD_PX = 2084
ROUNDS = 3
TURNS = 7


def made(folder: Path, side: int, frames: Path, empty: float = 0.5) -> Path:
    """Return a slide of `side` px, made where it is not there yet."""
    path = folder / (f"s{side}.tif" if empty else f"tissue{side}.tif")
    if not path.exists() or not path.with_suffix(".json").exists():
        command = [
            sys.executable,
            "-m",
            "benchmarks.make_slide",
            str(path),
            "--frames",
            str(frames),
        ]
        command += ["--width", str(side), "--height", str(side), "--empty", str(empty)]
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    return path


def detect(inputs: list[Path], out: Path, *arguments: str) -> tuple[float, float]:
    """Run `segmitos detect` in a process of its own: seconds, and its peak memory in MB."""
    shutil.rmtree(out, ignore_errors=True)
    command = [sys.executable, "-m", "segmitos", "detect", *map(str, inputs), "-o", str(out)]
    with tempfile.TemporaryFile("w+") as said:
        began = time.perf_counter()
        process = subprocess.Popen([*command, *arguments], stdout=said, stderr=said)
        _, status, usage = os.wait4(process.pid, 0)
        seconds = time.perf_counter() - began
        if status:
            said.seek(0)
            raise SystemExit(f"segmitos detect failed: {said.read()[-2000:].strip()}")
    return seconds, usage.ru_maxrss / 1000


def rows_of(found: Detections) -> NDArray[np.float64]:
    """Detections as rows of x, y, area, score."""
    return np.stack([found.x_px, found.y_px, found.area_um2, found.score], 1)


def well_inside(rows: NDArray[np.float64], width: int, height: int) -> NDArray[np.bool_]:
    """Mark those more than `SEAM_PX` from every border of a frame."""
    x, y = rows[:, 0], rows[:, 1]
    return (np.minimum(x, width - x) > SEAM_PX) & (np.minimum(y, height - y) > SEAM_PX)


def compare(slide: Path) -> str:
    """Detect on a slide and on each of its frames alone, and say how many differ."""
    model = Model.load(None, "cpu")
    # A slide and a frame of it are stained differently on the whole.
    model.spec = msgspec.structs.replace(model.spec, stain=None)
    with Slide.open(slide) as opened:
        whole = rows_of(detect_slide(opened, model, DetectOptions()).detections)
        placements = json.loads(slide.with_suffix(".json").read_text())["placements"]
        one_by_one: dict[tuple[object, ...], NDArray[np.float64]] = {}
        on_slide, on_frames = [], []
        for place in placements:
            x, y, width, height = (place[key] for key in ("x_px", "y_px", "width_px", "height_px"))
            key = (place["frame"], width, height)
            if key not in one_by_one:
                pixels = opened.read(x, y, width, height)
                with Slide.from_array(pixels, opened.mpp) as frame:
                    result = detect_slide(frame, model, DetectOptions(tissue=False))
                one_by_one[key] = rows_of(result.detections)
            alone = one_by_one[key]
            on_frames.append(alone[well_inside(alone, width, height)] + (x, y, 0, 0))
            moved = whole - (x, y, 0, 0)
            on_slide.append(whole[well_inside(moved, width, height)])
    first, second = (
        rows[np.lexsort(rows.T)] for rows in (np.concatenate(on_slide), np.concatenate(on_frames))
    )
    # Places were moved to and fro; areas and scores were not.
    same = (
        len(first) == len(second)
        and np.allclose(first[:, :2], second[:, :2], rtol=0, atol=1e-6)
        and np.array_equal(first[:, 2:], second[:, 2:])
    )
    return (
        f"{slide.name}: {len(first)} detections more than {SEAM_PX} px inside its "
        f"{len(placements)} frames, {len(second)} on the frames one by one: "
        f"{'the same' if same else 'NOT the same'}."
    )


def two_at_once(slides: list[Path], out: Path) -> str:
    """Time two slides one after the other and at once, in turns, and compare their bytes."""
    seconds: dict[int, list[float]] = {1: [], 2: []}
    for _ in range(ROUNDS):
        for workers in seconds:
            took, _ = detect(slides, out / f"workers{workers}", "--workers", str(workers))
            seconds[workers].append(took)
    files = [
        path.relative_to(out / "workers1")
        for path in sorted((out / "workers1").glob("*/*"))
        if path.name != "run.json"
    ]
    _, different, lost = filecmp.cmpfiles(
        out / "workers1", out / "workers2", [str(path) for path in files], shallow=False
    )
    listed = {
        workers: ", ".join(f"{value:.1f}" for value in values)
        for workers, values in seconds.items()
    }
    ratio = float(np.median(seconds[2]) / np.median(seconds[1]))
    return (
        f"Two slides one after the other {listed[1]} s, by --workers 2 {listed[2]} s: "
        f"{ratio:.2f} of it; {len(files)} files, "
        f"{'the same bytes' if not different and not lost else f'DIFFERENT: {different + lost}'}."
    )


def limits(slide: Path) -> str:
    """Time a slide, the network on a field of it and its decoding in turns."""
    threads, path = available_threads(), str(slide)
    rates: dict[str, list[float]] = {"slide": [], "network": [], "decoding": []}
    for _ in range(TURNS):
        for name, timing in (
            ("slide", run_isolated(time_slide, None, path, "auto", threads)),
            ("network", run_isolated(time_network, None, "auto", threads, FIELD_PX, ROUNDS, path)),
            ("decoding", run_isolated(time_decoding, path, threads)),
        ):
            rates[name].append(timing.mpx_per_s)
    medians = {name: float(np.median(values)) for name, values in rates.items()}
    listed = ", ".join(
        f"{name} {medians[name]:.1f} ({min(values):.1f} to {max(values):.1f})"
        for name, values in rates.items()
    )
    fraction = medians["slide"] / min(medians["network"], medians["decoding"])
    return f"Mpx/s, medians of {TURNS} turns: {listed}; {fraction:.0%} of the slower limit."


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("folder", type=Path, help="of the slides")
    parser.add_argument("--frames", type=Path, required=True, help="folder of fields at 0.25 um/px")
    parser.add_argument("--sides", type=int, nargs="+", default=[60_000, 100_000])
    parser.add_argument("-o", "--out", type=Path, help="file for the table")
    options = parser.parse_args()
    options.folder.mkdir(parents=True, exist_ok=True)
    written: list[str] = []

    def show(text: str) -> None:
        print(text, flush=True)
        written.append(text)

    show(f"{machine_line(available_threads())}\n")
    show("| slide | tissue, mm2 | detections | seconds | Mpx of tissue / s | peak memory |")
    show("|---|---|---|---|---|---|")
    slides = [made(options.folder, side, options.frames) for side in sorted(options.sides)]
    results = options.folder / "results"
    for slide in slides:
        seconds, peak_mb = detect([slide], results)
        summary = json.loads((results / slide.stem / "summary.json").read_text())
        area = summary["tissue_area_mm2"]
        with Slide.open(slide) as opened:
            megapixels = area / opened.require_mpp() ** 2
            size = f"{opened.width} x {opened.height} px"
        show(
            f"| {size} | {area:.1f} | {summary['count']} | {seconds:.0f} | "
            f"{megapixels / seconds:.1f} | {peak_mb:.0f} MB |"
        )
    show("")
    show(compare(slides[0]))
    pair = [made(options.folder, side, options.frames) for side in PAIR_PX]
    show(two_at_once(pair, results))
    show(limits(made(options.folder, TISSUE_PX, options.frames, 0)))
    if options.out:
        options.out.write_text("\n".join(written) + "\n")


if __name__ == "__main__":
    run_program(main, "benchmarks.wsi_throughput")

"""Two older methods beside the shipped network: F on H03 and time for a field, in one run.

    pip install '.[bench]'
    python -m experiments.baselines --data ../shared/data --out results            # train and score
    python -m experiments.baselines --data ../shared/data --out results --time     # time them

`sliding_window.py` is a patch classifier in the manner of IDSIA, `random_forest.py` a detector of
blobs in the blue ratio with a random forest in the manner of IPAL. Both learn from what the map's
networks of `lite` learned from, fields of MITOS-ATYPIA-14 and mitosis crops, but for slide H14, on
which their score thresholds are chosen; H03 is the test. The table also gives each of them its best
threshold on H03 itself, which is too high. Nothing of `lite` was chosen on H03. One to one within
7.5 um, pooled.

Detections with their scores are kept in OUT; what is there is not done again.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import joblib
import numpy as np
import torch
from numpy.typing import NDArray

from benchmarks.timing import Timing, machine_line, median, run_isolated, time_network
from experiments.accuracy import detect_all, row
from experiments.arguments import within
from experiments.random_forest import CandidateForest
from experiments.sliding_window import STRIDE_PX, maxima, onnx_of, session, train_window, window_map
from segmitos.console import run_program
from segmitos.detection.model import Model
from segmitos.evaluation.matching import f_score, match_points
from segmitos.evaluation.scoring import evaluate
from segmitos.io.datasets import Case, load_dataset
from segmitos.io.geometry import rescale
from segmitos.io.pairs import MATCH_UM
from segmitos.io.points.detections import Detections
from segmitos.training.networks.registry import build_network
from segmitos.training.sampling import TrainingImage, common_stain, load_training_images

MPP = 0.25
TEST, TUNING = "H03", "H14"
SCORES = np.arange(0.02, 1.0, 0.02)
PATCH_PX = 500
METHODS = ("forest", "window")

Found = dict[str, NDArray[np.float64]]


def missing(options: argparse.Namespace) -> list[tuple[str, int]]:
    return [
        (method, seed)
        for seed in range(options.seeds)
        for method in METHODS
        if not (options.out / f"{method}-{seed}.npz").exists()
    ]


def train_missing(options: argparse.Namespace) -> None:
    todo = missing(options)
    if not todo:
        return
    torch.set_num_threads(options.threads)
    frames = load_dataset(f"mitos14:{options.data / 'mitos-atypia-14'}")
    crops = load_dataset(f"crops:{options.data / 'mitosis-crops'}")
    training = [case for case in frames if case.slide not in (TEST, TUNING)]
    sources = load_training_images([*training, *crops], MPP)
    searched = load_training_images([case for case in frames if case.slide in (TEST, TUNING)], MPP)
    print(f"{len(training)} fields and {len(crops)} crops to train on", flush=True)
    np.save(options.out / "field.npy", searched[0].image)
    for method, seed in todo:
        began = time.monotonic()
        detect = trained(method, seed, sources, options.out)
        between = time.monotonic()
        found: dict[str, Any] = {source.name: detect(source) for source in searched}
        np.savez_compressed(options.out / f"{method}-{seed}.npz", **found)
        taken = time.monotonic() - between
        print(f"{method}, seed {seed}: trained {between - began:.0f} s, searched {taken:.0f} s")


def trained(
    method: str, seed: int, sources: list[TrainingImage], out: Path
) -> Callable[[TrainingImage], NDArray[np.float64]]:
    """Train a method; return what finds (n, 3) of x, y and score, in pixels of `MPP`."""
    if method == "forest":
        forest = CandidateForest(seed, common_stain(sources))
        forest.fit(sources)
        joblib.dump(forest, out / f"forest-{seed}.joblib")
        return forest.detect
    for source in sources:
        source.mined_xy = np.zeros((0, 2))
    fields = [source for source in sources if not source.centered]
    content = onnx_of(train_window(sources, fields[::6], seed))
    (out / f"window-{seed}.onnx").write_bytes(content)
    run = session(content, torch.get_num_threads())
    return lambda source: maxima(window_map(run, source.image), STRIDE_PX, 0.02, MPP)


def best_score(cases: Sequence[Case], found: Found) -> float:
    """The score threshold of the best F, at the middle of its plateau."""
    values = np.array([pooled_f(cases, found, score) for score in SCORES])
    best = np.flatnonzero(values == values.max())
    return float(SCORES[best[len(best) // 2]])


def pooled_f(cases: Sequence[Case], found: Found, score: float) -> float:
    counts = np.zeros(3, int)
    for case in cases:
        points = at_level_0(found[case.name], score, case)
        match = match_points(points, case.mitoses_xy, MATCH_UM / float(case.mpp or 0))
        counts += (match.tp, match.fp, match.fn)
    return f_score(*counts)


def at_level_0(points: NDArray[np.float64], score: float, case: Case) -> NDArray[np.float64]:
    """Positions of the points from a score on, in the case's own pixels."""
    ratio = MPP / float(case.mpp or 0)
    return rescale(points[points[:, 2] >= score, :2], ratio)


def detections(cases: Sequence[Case], found: Found, score: float) -> dict[str, Detections]:
    return {
        case.name: Detections.from_points(
            at_level_0(found[case.name], score, case), float(case.mpp or 0), case.name
        )
        for case in cases
    }


def print_scores(options: argparse.Namespace) -> None:
    frames = load_dataset(f"mitos14:{options.data / 'mitos-atypia-14'}", cases=[TEST, TUNING])
    tested = [case for case in frames if case.slide == TEST]
    tuning = [case for case in frames if case.slide == TUNING]
    print("| H03 | TP | FP | FN | precision | recall | F | 95 % over fields | |")
    print("|---|---|---|---|---|---|---|---|---|")
    shipped = detect_all(tested, Model.load(None, "cpu", options.threads))
    print(row("`lite` as shipped", evaluate(tested, shipped, groups="case")))
    for method in METHODS:
        for seed in range(options.seeds):
            path = options.out / f"{method}-{seed}.npz"
            if not path.exists():
                continue
            with np.load(path) as stored:
                found = {name: stored[name] for name in stored.files}
            for where, cases in ((TUNING, tuning), (TEST, tested)):
                score = best_score(cases, found)
                result = evaluate(tested, detections(tested, found, score), groups="case")
                name = f"{method}, seed {seed}, score from {score:.2f}, chosen on {where}"
                print(row(name, result))
            reach = evaluate(tested, detections(tested, found, 0.0), groups="case").pooled
            print(f"| {method}, seed {seed}, all candidates | {reach.tp} | {reach.fp} | ", end="")
            print(f"{reach.fn} | {reach.precision:.3f} | {reach.recall:.3f} | | | |")


def mirrored_field(out: Path, size: int) -> NDArray[np.uint8]:
    """A field of H03, mirrored to `size` px a side."""
    image = np.load(out / "field.npy")
    grown = np.pad(
        image,
        [(0, max(0, size - side)) for side in image.shape[:2]] + [(0, 0)],
        mode="symmetric",
    )
    return grown[:size, :size]


def time_torch(name: str, patch_px: int, out: str, threads: int, size: int) -> tuple[float, float]:
    """A network in torch, float32, on the whole field or on patches side by side."""
    torch.set_num_threads(threads)
    network = build_network(name, False).eval().to(memory_format=torch.channels_last)
    image = mirrored_field(Path(out), -(-size // 32) * 32)

    @torch.inference_mode()
    def run() -> None:
        step = patch_px or len(image)
        side = size if patch_px else len(image)
        for top in range(0, side, step):
            for left in range(0, side, step):
                patch = image[top : min(top + step, side), left : min(left + step, side)]
                tensor = torch.from_numpy(np.ascontiguousarray(patch))[None]
                tensor = tensor.permute(0, 3, 1, 2).float()
                network(tensor.contiguous(memory_format=torch.channels_last))

    return timed(run), size * size / 1e6


def timed(run: Callable[[], object]) -> float:
    began = time.perf_counter()
    run()
    first = time.perf_counter() - began
    return first if first > 15 else median(run, 3)


def time_window(out: str, threads: int, size: int) -> tuple[float, float]:
    run = session((Path(out) / "window-0.onnx").read_bytes(), threads)
    image = mirrored_field(Path(out), size)
    found = timed(lambda: maxima(window_map(run, image), STRIDE_PX, 0.02, MPP))
    return found, size * size / 1e6


def time_forest(out: str, threads: int, size: int) -> tuple[float, float]:
    forest = joblib.load(Path(out) / "forest-0.joblib")
    forest.forest.n_jobs = threads
    none = np.zeros((0, 2))
    source = TrainingImage("field", "H03", mirrored_field(Path(out), size), none, none, False)
    return timed(lambda: forest.detect(source)), size * size / 1e6


def print_times(options: argparse.Namespace) -> None:
    threads, size, out = options.threads, options.size, str(options.out)
    print(f"{machine_line(threads)}; {size} x {size} px\n")
    rows: dict[str, Timing] = {}
    lite = "`lite`, ONNX Runtime, as shipped"
    rows[lite] = run_isolated(time_network, None, "cpu", threads, size, 3)
    rows["`lite`, torch"] = run_isolated(time_torch, "lite", 0, out, threads, size)
    rows["`fcn32s`, torch, whole field"] = run_isolated(time_torch, "fcn32s", 0, out, threads, size)
    patches = f"`fcn32s`, torch, patches of {PATCH_PX} px side by side"
    rows[patches] = run_isolated(time_torch, "fcn32s", PATCH_PX, out, threads, size)
    window = f"sliding window, ONNX Runtime, every {STRIDE_PX} px"
    rows[window] = run_isolated(time_window, out, threads, size)
    rows["candidates and forest"] = run_isolated(time_forest, out, threads, size)
    again = run_isolated(time_network, None, "cpu", threads, size, 3)
    print("| one field | seconds | `lite` = 1 | `fcn32s` whole = 1 | peak memory |")
    print("|---|---|---|---|---|")
    whole = rows["`fcn32s`, torch, whole field"].seconds
    first = rows[lite].seconds
    for name, timing in rows.items():
        peak = "" if timing.peak_mb is None else f"{timing.peak_mb:.0f} MB"
        seconds = timing.seconds
        print(
            f"| {name} | {seconds:.2f} | {seconds / first:.1f} | {seconds / whole:.2f} | {peak} |"
        )
    dense = rows[window].seconds * STRIDE_PX**2
    print(f"| the same at every pixel, computed | {dense:.0f} | {dense / first:.0f} |", end="")
    print(f" {dense / whole:.1f} | |")
    print(f"\nThe first row again, at the end: {again.seconds / first:.2f} of before.")


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--seeds", type=within(1), default=1)
    parser.add_argument("--threads", type=within(1), default=1)
    parser.add_argument("--size", type=within(64), default=2084, help="side of the timed field, px")
    parser.add_argument("--time", action="store_true", help="time a field instead of scoring")
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)
    if options.time:
        print_times(options)
        return
    train_missing(options)
    print_scores(options)


if __name__ == "__main__":
    run_program(main, "experiments.baselines")

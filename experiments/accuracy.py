"""F of the default model on H03, and how much of it survives what other laboratories do.

    python -m experiments.accuracy --data ../shared/data [--model FILE] [--device D] [--robustness]
        [--mistakes]

H03 is the validation slide of MITOS-ATYPIA-14 (Hamamatsu): 63 fields that all hold a mitosis, which
flatters precision. Matching is one to one within 7.5 um, counts pooled over fields. `--mistakes`
tells what its false positives are labeled as: the data set gives the fraction of pathologists that
called a look-alike a mitosis, but its look-alikes may lie 10 px off.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
from PIL import Image, ImageFilter
from scipy.optimize import linear_sum_assignment

from experiments.arguments import within
from segmitos.console import run_program
from segmitos.detection.model import DEVICES, Model
from segmitos.detection.pipeline import DetectOptions, detect_slide
from segmitos.detection.stain import Stain, apply_lookup, od_statistics, stain_lookup
from segmitos.evaluation.matching import match_points
from segmitos.evaluation.scoring import Evaluation, evaluate
from segmitos.io.datasets import Case, load_dataset
from segmitos.io.datasets.table import headless_points
from segmitos.io.files import jpeg_copy
from segmitos.io.points.detections import Detections
from segmitos.io.slide import Slide

Change = Callable[[np.ndarray], np.ndarray]


def brightness(factor: float) -> Change:
    return lambda image: np.clip(image * factor, 0, 255).astype(np.uint8)


def hue(image: np.ndarray) -> np.ndarray:
    planes = np.asarray(Image.fromarray(image).convert("HSV")).copy()
    planes[:, :, 0] = (planes[:, :, 0].astype(int) + 10) % 256
    return np.asarray(Image.fromarray(planes, "HSV").convert("RGB"))


def blur(image: np.ndarray) -> np.ndarray:
    return np.asarray(Image.fromarray(image).filter(ImageFilter.GaussianBlur(1.0)))


def through_half_resolution(image: np.ndarray) -> np.ndarray:
    height, width = image.shape[:2]
    small = Image.fromarray(image).resize(
        (round(width * 0.2273 / 0.5), round(height * 0.2273 / 0.5)), Image.Resampling.BILINEAR
    )
    return np.asarray(small.resize((width, height), Image.Resampling.BICUBIC))


def stained_as(target: Stain, source: Stain) -> Change:
    table = stain_lookup(source, target)
    return lambda image: apply_lookup(np.ascontiguousarray(image), table)


def score(cases: list[Case], model: Model, change: Change | None = None) -> Evaluation:
    return evaluate(cases, detect_all(cases, model, change), groups="case")


def detect_all(
    cases: list[Case], model: Model, change: Change | None = None
) -> dict[str, Detections]:
    found = {}
    for case in cases:
        with case.open_image() as slide:
            if change is None:
                result = detect_slide(slide, model, DetectOptions())
            else:
                pixels = change(slide.read(0, 0, slide.width, slide.height))
                changed = Slide.from_array(pixels, case.mpp, case.name)
                result = detect_slide(changed, model, DetectOptions())
        found[case.name] = result.detections
    return found


def independent_f(cases: list[Case], found: dict[str, Detections]) -> float:
    """F by a scorer that shares no code with the package."""
    tp = detected = mitoses = 0
    for case in cases:
        a, b = found[case.name].xy * case.mpp, case.mitoses_xy * case.mpp
        detected, mitoses = detected + len(a), mitoses + len(b)
        if len(a) and len(b):
            apart = np.hypot(*(a[:, None] - b[None]).transpose(2, 0, 1))
            rows, columns = linear_sum_assignment(np.where(apart <= 7.5, apart, 1e6))
            tp += int((apart[rows, columns] <= 7.5).sum())
    return 2 * tp / (detected + mitoses)


def mistakes(cases: list[Case], found: dict[str, Detections], scored: Evaluation) -> str:
    """Count false positives by the votes of the labeled look-alike within reach, if any."""
    called = rejected = unlabeled = 0
    for case, result in zip(cases, scored.cases, strict=True):
        assert case.mpp is not None
        matched = [index for index, _ in result.match.pairs]
        wrong = np.delete(found[case.name].xy, matched, axis=0)
        table = case.image.parents[2] / "mitosis" / f"{case.image.stem}_not_mitosis.csv"
        alike = headless_points(table, ("x", "y", "votes")) if table.is_file() else np.zeros((0, 3))
        pairs = match_points(wrong, alike[:, :2], scored.distance_um / case.mpp).pairs
        votes = alike[[index for _, index in pairs], 2]
        called += int(np.count_nonzero(votes > 0))
        rejected += int(np.count_nonzero(votes == 0))
        unlabeled += len(wrong) - len(pairs)
    return f"{called} called by one of three, {rejected} all rejected, {unlabeled} not labeled"


def stains(data: Path) -> tuple[Stain, Stain]:
    """Stain of H03, and that of the TUPAC16 crops together."""
    frames = load_dataset(f"mitos14:{data / 'mitos-atypia-14'}", cases=["H03"])[::8]
    crops = load_dataset(f"crops:{data / 'mitosis-crops'}", cases=["TUPAC16/*"])[::8]
    sums = []
    for cases in (frames, crops):
        pixels = [np.asarray(Image.open(c.image).convert("RGB"))[::4, ::4] for c in cases]
        sums.append(od_statistics(np.concatenate([p.reshape(-1, 3) for p in pixels])))
    assert sums[0] is not None and sums[1] is not None
    return sums[0], sums[1]


def row(name: str, result: Evaluation, base: float | None = None) -> str:
    counts = result.pooled
    low, high = result.intervals["f_score"]
    drop = "" if base is None else f"{counts.f_score - base:+.3f}"
    return (
        f"| {name} | {counts.tp} | {counts.fp} | {counts.fn} | {counts.precision:.3f} | "
        f"{counts.recall:.3f} | {counts.f_score:.3f} | {low:.3f}-{high:.3f} | {drop} |"
    )


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m experiments.accuracy",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--data", type=Path, required=True, help="folder of all data sets")
    parser.add_argument("--model", type=Path, help="a .segmitos file; default: the built-in model")
    parser.add_argument("--robustness", action="store_true", help="score changed images, too")
    parser.add_argument(
        "--mistakes", action="store_true", help="tell what false positives are labeled as"
    )
    parser.add_argument("--threads", type=within(1))
    parser.add_argument("--device", choices=DEVICES, default="cpu")
    options = parser.parse_args()
    model = Model.load(options.model, options.device, options.threads)
    cases = load_dataset(f"mitos14:{options.data / 'mitos-atypia-14'}", cases=["H03"])
    found = detect_all(cases, model)
    base = evaluate(cases, found, groups="case")
    print("| H03 | TP | FP | FN | precision | recall | F | 95 % over fields | change |")
    print("|---|---|---|---|---|---|---|---|---|")
    print(row("as it is", base))
    if options.robustness:
        own, other = stains(options.data)
        changes: dict[str, Change] = {
            "JPEG quality 50": partial(jpeg_copy, quality=50),
            "20 % brighter": brightness(1.2),
            "20 % darker": brightness(0.8),
            "hue turned by 14 degrees": hue,
            "blurred, sigma 1 px": blur,
            "through 0.5 um/px": through_half_resolution,
            "stained as TUPAC16": stained_as(other, own),
        }
        for name, change in changes.items():
            print(row(name, score(cases, model, change), base.pooled.f_score), flush=True)
    print()
    if options.mistakes:
        print(f"false positives: {mistakes(cases, found, base)}")
    print(
        f"independent scorer: F {independent_f(cases, found):.6f}; ours {base.pooled.f_score:.6f}"
    )


if __name__ == "__main__":
    run_program(main, "experiments.accuracy")

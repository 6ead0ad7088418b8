"""The paper's ablations on MITOS-ATYPIA-14 and the ICPR 2012 tiles, as far as a CPU goes.

    python -m experiments.paper_ablations --data ../shared/data --out results   # run
    python -m experiments.paper_ablations --out results --table   # print the tables

A light protocol, the same for every row, so that rows can be compared and nothing else: network
`lite`, 150 steps of 32 crops of 96 px from at most 20 fields a slide, labeled look-alikes and
background as negatives, nothing mined. Two folds of slides (H03 H05 H10 H14 and H04 H07 H11 H12):
a network trained on one is tested on 10 fields of each slide of the other. Area and score
thresholds of a tested slide are those that suit the fold's three other slides best, so nothing is
tuned on what it is tested on. Matching is one to one within 7.5 um; F pools all eight slides.

The tiles are all of one slide: trained on every second tile and tested on the others, both ways
round, thresholded at 0.5, from 12 um2 and a mean score of 0.5. That flatters every row alike.

One line of JSON a trained network is appended to `OUT/results.jsonl`; what is there is not done
again, and a training that was stopped is resumed.
"""

from __future__ import annotations

import argparse
import json
import shutil
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from experiments.arguments import within
from segmitos.console import run_program
from segmitos.detection.postprocess import FLOOR, Blobs, MapAccumulator, otsu_threshold, smooth
from segmitos.evaluation.matching import match_points
from segmitos.io.datasets import Case, load_dataset
from segmitos.io.pairs import MATCH_UM
from segmitos.training.checkpoint import load_checkpoint
from segmitos.training.networks.registry import build_network
from segmitos.training.predict import predictor
from segmitos.training.recipe import Recipe
from segmitos.training.sampling import TrainingImage, load_training_images
from segmitos.training.train import train

FOLDS = (("H03", "H05", "H10", "H14"), ("H04", "H07", "H11", "H12"))
TRAIN_FIELDS, TEST_FIELDS = 20, 10
SIGMA_UM = 1.0
SCORES = np.arange(0.0, 1.0, 0.05)
AREAS_UM2 = np.array([0, 2, 5, 8, 12, 16, 20, 25, 31], float)
# The paper's patches of 2014, 385 x 344 px, at the strides of the network.
PATCH_PX = (384, 352)

LABELS: dict[str, dict[str, Any]] = {
    "r12": {"kind": "circle", "radius_um": 3.0},
    "r15": {"kind": "circle", "radius_um": 3.75},
    "r12R24": {"kind": "concentric", "radius_um": 3.0, "outer_um": 6.0},
    "r15R30": {"kind": "concentric", "radius_um": 3.75, "outer_um": 7.5},
    "random": {"kind": "random"},
}
LIGHT: dict[str, Any] = {
    "network": "lite",
    "crop_px": 96,
    "batch": 32,
    "epochs": 3,
    "steps_per_epoch": 50,
    "warmup_steps": 30,
    "ema": 0.97,
    "mine_at": [],
    "precision": "bf16-mixed",
    "sampling": {
        "mitosis": 0.5,
        "centered": 0.0,
        "hard_negative": 0.25,
        "mined": 0.0,
        "background": 0.25,
        "shift_px": 24,
    },
}
# Rows in the order in which they are worth their time.
ROWS: dict[str, dict[str, Any]] = {
    **{name: {"labels": LABELS[name]} for name in ("r12", "r12R24", "random", "r15", "r15R30")},
    "random start": {"labels": LABELS["random"], "pretrained": False},
}
TILE_ROWS: dict[str, dict[str, Any]] = {
    "pixel mask": {"labels": {"kind": "mask"}},
    **{name: {"labels": LABELS[name]} for name in ("r12", "r12R24", "random")},
}


@dataclass(frozen=True)
class Post:
    """A way from map to detections."""

    smoothing: bool = True
    threshold: str = "otsu"
    area: bool = True
    score: bool = True


POSTS: dict[str, Post] = {
    "full": Post(),
    "no smoothing": Post(smoothing=False),
    "Otsu per patch": Post(threshold="patch"),
    "fixed 0.5": Post(threshold="0.5"),
    "no area filter": Post(area=False),
    "no score filter": Post(score=False),
    "no filter": Post(area=False, score=False),
}
WHOLE_IN_PATCHES = "map of patches"


def blobs_of(probability: np.ndarray, post: Post, stride: int, mpp: float) -> Blobs:
    """Smooth, threshold and label one field's map."""
    cell = mpp * stride
    if post.smoothing:
        probability = smooth(np.ascontiguousarray(probability), SIGMA_UM, cell)
    if post.threshold == "patch":
        probability = _above_own_otsu(probability, stride)
    held = MapAccumulator(cell, stride, check_plausible=False)
    held.add(probability, 0, 0)
    if post.threshold == "patch":
        return held.blobs(FLOOR)
    return held.blobs("otsu" if post.threshold == "otsu" else float(post.threshold))


def _above_own_otsu(probability: np.ndarray, stride: int) -> np.ndarray:
    result = np.zeros_like(probability)
    for rows, columns in patches(probability.shape, stride):
        part = probability[rows, columns]
        counts = np.bincount(np.clip((part.ravel() * 1024).astype(int), 0, 1023), minlength=1024)
        threshold = max(otsu_threshold(counts), FLOOR)
        result[rows, columns] = np.where(part > threshold, part, 0)
    return result


def patches(shape: tuple[int, ...], stride: int) -> Iterator[tuple[slice, slice]]:
    """Slices of a map that tile it by the paper's patches."""
    width, height = (side // stride for side in PATCH_PX)
    for top in range(0, shape[0], height):
        for left in range(0, shape[1], width):
            yield slice(top, top + height), slice(left, left + width)


def in_patches(
    predict: Callable[[np.ndarray], np.ndarray], image: np.ndarray, stride: int
) -> np.ndarray:
    """A field's map put together from patches without context, as in the paper."""
    shape = tuple(-(-side // stride) for side in image.shape[:2])
    whole = np.zeros(shape, np.float32)
    for rows, columns in patches(shape, stride):
        part = image[
            rows.start * stride : rows.stop * stride, columns.start * stride : columns.stop * stride
        ]
        whole[rows, columns] = predict(np.ascontiguousarray(part))
    return whole


def counts_by_threshold(
    blobs: Blobs, truth_xy: np.ndarray, mpp: float, ignored_xy: np.ndarray | None = None
) -> np.ndarray:
    """(scores, areas, 3) of TP, FP, FN; detections at ignored cells count neither way."""
    result = np.zeros((len(SCORES), len(AREAS_UM2), 3), np.int64)
    xy = np.stack([blobs.x_px, blobs.y_px], axis=1)
    for i, score in enumerate(SCORES):
        for j, area in enumerate(AREAS_UM2):
            kept = (blobs.score >= score) & (blobs.area_um2 >= area)
            match = match_points(xy[kept], truth_xy, MATCH_UM / mpp, ignored_xy=ignored_xy)
            result[i, j] = match.tp, match.fp, match.fn
    return result


def f_score(counts: np.ndarray) -> np.ndarray:
    """F over the last axis of TP, FP, FN."""
    return 2 * counts[..., 0] / np.maximum(1, 2 * counts[..., 0] + counts[..., 1] + counts[..., 2])


def tuned_elsewhere(by_slide: dict[str, np.ndarray], post: Post) -> dict[str, list[int]]:
    """Each slide's counts at the thresholds that are best for the other slides together."""
    allowed = np.ones((len(SCORES), len(AREAS_UM2)), bool)
    if not post.area:
        allowed[:, 1:] = False
    if not post.score:
        allowed[1:] = False
    result = {}
    for slide, counts in by_slide.items():
        others = sum(other for name, other in by_slide.items() if name != slide)
        quality = np.where(allowed, f_score(np.asarray(others)), -1.0)
        best = np.unravel_index(int(np.argmax(quality)), quality.shape)
        result[slide] = [int(n) for n in counts[best]]
    return result


def every_nth(cases: list[Case], count: int) -> list[Case]:
    """At most `count` cases of every slide, evenly spread."""
    result = []
    for slide in sorted({case.slide for case in cases}):
        own = [case for case in cases if case.slide == slide]
        picked = np.unique(np.linspace(0, len(own) - 1, min(count, len(own))).round().astype(int))
        result += [own[index] for index in picked]
    return result


def light(row: dict[str, Any], seed: int) -> Recipe:
    """The recipe of a row."""
    return Recipe.from_dict({**LIGHT, **row, "seed": seed})


def trained(cases: list[Case], recipe: Recipe, folder: Path, threads: int) -> Any:
    """Train one network, or resume it."""
    train(cases, folder, recipe, accelerator="cpu", threads=threads)
    network = build_network(recipe.network, pretrained=False)
    network.load_state_dict(load_checkpoint(folder)[0]["ema"])
    return network.eval()


def test_fields(network: Any, fields: list[TrainingImage], with_patches: bool) -> dict[str, Any]:
    """Counts of every way from map to detections, by slide, and the best F of all thresholds."""
    stride, mpp = network.stride, 0.25
    predict = predictor(network)
    tables: dict[str, dict[str, np.ndarray]] = {}
    for field in fields:
        probability = predict(field.image)
        maps = [(name, post, probability) for name, post in POSTS.items()]
        if with_patches:
            pieced = in_patches(predict, field.image, stride)
            maps.append((WHOLE_IN_PATCHES, POSTS["full"], pieced))
        for name, post, content in maps:
            blobs = blobs_of(content, post, stride, mpp)
            counts = counts_by_threshold(blobs, field.mitoses_xy, mpp)
            slides = tables.setdefault(name, {})
            slides[field.slide] = slides.get(field.slide, np.zeros_like(counts)) + counts
    return {
        name: {
            "slides": tuned_elsewhere(slides, POSTS.get(name, POSTS["full"])),
            "best_f": float(f_score(sum(slides.values(), np.zeros(3, np.int64))).max()),
        }
        for name, slides in tables.items()
    }


def missing(
    out: Path, set_: str, seeds: list[int], rows: list[str]
) -> Iterator[tuple[str, int, int]]:
    """Row, fold and seed of the networks of a set that are not done, whole seeds first."""
    done = {(r["row"], r["fold"], r["seed"]) for r in read(out) if r["set"] == set_}
    every = ((row, fold, seed) for seed in seeds for row in rows for fold in range(len(FOLDS)))
    return (one for one in every if one not in done)


def run_fields(data: Path, out: Path, seeds: list[int], rows: list[str], threads: int) -> None:
    """Train and test what is missing of the rows on fields."""
    every = load_dataset(f"mitos14:{data / 'mitos-atypia-14'}")
    tested: dict[int, list[TrainingImage]] = {}
    for row, fold, seed in missing(out, "fields", seeds, rows):
        began = time.time()
        training = [case for case in every if case.slide not in FOLDS[fold]]
        held_out = [case for case in every if case.slide in FOLDS[fold]]
        folder = out / "runs" / f"{row}-{fold}-{seed}".replace(" ", "-")
        training = every_nth(training, TRAIN_FIELDS)
        network = trained(training, light(ROWS[row], seed), folder, threads)
        if fold not in tested:
            tested = {fold: load_training_images(every_nth(held_out, TEST_FIELDS), 0.25)}
        entry = {
            "set": "fields",
            "row": row,
            "fold": fold,
            "seed": seed,
            "posts": test_fields(network, tested[fold], with_patches=row == "random"),
            "seconds": round(time.time() - began),
        }
        append(out, entry)
        shutil.rmtree(folder)


def run_tiles(data: Path, out: Path, seeds: list[int], rows: list[str], threads: int) -> None:
    """Train and test what is missing of the rows on tiles with pixel masks."""
    every = load_dataset(f"mitos12:{data / 'mitos12-tiles'}")
    # Tiles with mitoses and tiles without are dealt out evenly.
    order = sorted(every, key=lambda case: (len(case.mitoses_xy) == 0, case.name))
    for row, fold, seed in missing(out, "tiles", seeds, rows):
        began = time.time()
        training, held_out = order[1 - fold :: 2], order[fold::2]
        folder = out / "runs" / f"tiles-{row}-{fold}-{seed}".replace(" ", "-")
        network = trained(training, light(TILE_ROWS[row], seed), folder, threads)
        entry = {
            "set": "tiles",
            "row": row,
            "fold": fold,
            "seed": seed,
            **test_tiles(network, load_training_images(held_out, 0.25)),
            "seconds": round(time.time() - began),
        }
        append(out, entry)
        shutil.rmtree(folder)


def test_tiles(network: Any, tiles: list[TrainingImage]) -> dict[str, Any]:
    """Counts at 0.5, 12 um2 and a mean score of 0.5, and the best F of all thresholds."""
    predict, table = predictor(network), np.zeros((len(SCORES), len(AREAS_UM2), 3), np.int64)
    for tile in tiles:
        blobs = blobs_of(predict(tile.image), POSTS["fixed 0.5"], network.stride, 0.25)
        table += counts_by_threshold(blobs, tile.mitoses_xy, 0.25)
    fixed = table[np.searchsorted(SCORES, 0.5 - 1e-9), np.searchsorted(AREAS_UM2, 12)]
    return {"counts": [int(n) for n in fixed], "best_f": float(f_score(table).max())}


def read(out: Path) -> list[dict[str, Any]]:
    """All results so far; a line cut off by a kill is left out."""
    path = out / "results.jsonl"
    entries = []
    for line in path.read_text(encoding="utf-8").splitlines() if path.exists() else ():
        try:
            entries.append(json.loads(line))
        except ValueError:
            continue
    return entries


def append(out: Path, entry: dict[str, Any]) -> None:
    with (out / "results.jsonl").open("a", encoding="utf-8") as file:
        file.write(json.dumps(entry) + "\n")
    print({key: value for key, value in entry.items() if key != "posts"}, flush=True)


def slide_counts(entries: list[dict[str, Any]], row: str, post: str) -> dict[int, dict[str, Any]]:
    """By seed: counts by slide, where both folds are done."""
    result: dict[int, dict[str, Any]] = {}
    for entry in entries:
        if entry["set"] == "fields" and entry["row"] == row and post in entry["posts"]:
            slides = entry["posts"][post]["slides"]
            result.setdefault(entry["seed"], {}).update(slides)
    return {seed: slides for seed, slides in result.items() if len(slides) == 8}


def difference(
    first: dict[int, dict[str, Any]], second: dict[int, dict[str, Any]]
) -> tuple[float, float, float]:
    """Mean over seeds of F(first) - F(second), with a 95 % interval over slides and seeds."""
    seeds = sorted(set(first) & set(second))
    slides = sorted(first[seeds[0]])
    a = np.array([[first[seed][slide] for slide in slides] for seed in seeds])
    b = np.array([[second[seed][slide] for slide in slides] for seed in seeds])
    rng = np.random.default_rng(0)
    drawn = []
    for _ in range(4000):
        which = rng.integers(len(slides), size=len(slides))
        runs = rng.integers(len(seeds), size=len(seeds))
        drawn.append(np.mean(f_score(a[runs][:, which].sum(1)) - f_score(b[runs][:, which].sum(1))))
    low, high = np.percentile(drawn, [2.5, 97.5])
    return float(np.mean(f_score(a.sum(1)) - f_score(b.sum(1)))), float(low), float(high)


def table(out: Path) -> None:
    """Print every table as Markdown."""
    entries = read(out)
    head = "| {} | seeds | P | R | F | s.d. of seeds | F, thresholds at their best | {} |"
    print(head.format("label", "difference from r12 (95 %)"))
    print("|---|---|---|---|---|---|---|---|")
    for row in ROWS:
        print_fields(entries, row, (row, "full"), ("r12", "full"))
    print()
    print(head.format("concentric against circle", "difference (95 %)"))
    print("|---|---|---|---|---|---|---|---|")
    for ring, circle in (("r12R24", "r12"), ("r15R30", "r15"), ("random", "r15R30")):
        print_fields(entries, f"{ring} against {circle}", (ring, "full"), (circle, "full"))
    start = "random start against ImageNet"
    print_fields(entries, start, ("random start", "full"), ("random", "full"))
    print()
    print(head.format("after the map (random labels)", "difference from full (95 %)"))
    print("|---|---|---|---|---|---|---|---|")
    for post in (*POSTS, WHOLE_IN_PATCHES):
        print_fields(entries, post, ("random", post), ("random", "full"))
    print()
    print("| tiles | seeds | P | R | F | s.d. of seeds |")
    print("|---|---|---|---|---|---|")
    for row in TILE_ROWS:
        print_tiles(entries, row)


def print_fields(
    entries: list[dict[str, Any]], name: str, which: tuple[str, str], base: tuple[str, str]
) -> None:
    """Print a line of a table on fields: a row and way, and how it differs from another."""
    own, reference = slide_counts(entries, *which), slide_counts(entries, *base)
    if not own:
        return
    row, post = which
    best = [
        entry["posts"][post]["best_f"]
        for entry in entries
        if entry["set"] == "fields" and entry["row"] == row and post in entry["posts"]
    ]
    against = ""
    if which != base and set(own) & set(reference):
        mean, low, high = difference(own, reference)
        against = f"{mean:+.3f} ({low:+.3f} to {high:+.3f})"
    totals = [np.sum(list(slides.values()), axis=0) for slides in own.values()]
    print(f"| {name} | {figures(totals)} | {np.mean(best):.3f} | {against} |")


def print_tiles(entries: list[dict[str, Any]], row: str) -> None:
    """Print a line of the table on tiles, of the seeds of which both halves are done."""
    by_seed: dict[int, list[np.ndarray]] = {}
    for entry in entries:
        if entry["set"] == "tiles" and entry["row"] == row:
            by_seed.setdefault(entry["seed"], []).append(np.array(entry["counts"]))
    totals = [np.sum(parts, axis=0) for parts in by_seed.values() if len(parts) == len(FOLDS)]
    if totals:
        print(f"| {row} | {figures(totals)} |")


def figures(totals: list[np.ndarray]) -> str:
    """Number of seeds, mean precision, recall and F, and spread of F, of counts by seed."""
    total = np.array(totals)
    scores = f_score(total)
    precision = (total[:, 0] / np.maximum(1, total[:, :2].sum(1))).mean()
    recall = (total[:, 0] / total[:, [0, 2]].sum(1)).mean()
    spread = scores.std(ddof=1) if len(scores) > 1 else float("nan")
    values = (precision, recall, scores.mean(), spread)
    return " | ".join([str(len(total)), *(f"{value:.3f}" for value in values)])


def options_parser(description: str, seeds: list[int]) -> argparse.ArgumentParser:
    """The options that both scripts of the paper's claims take."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--data", type=Path)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--seeds", type=within(0), nargs="+", default=seeds)
    parser.add_argument("--threads", type=within(1), default=torch.get_num_threads())
    parser.add_argument("--table", action="store_true", help="only print what is there")
    return parser


def parsed(parser: argparse.ArgumentParser) -> argparse.Namespace:
    """The options given, checked, and their folder for results made."""
    options = parser.parse_args()
    if not options.table:
        if options.data is None:
            parser.error("--data is needed, or --table")
        try:
            options.out.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            parser.error(f"--out {options.out} cannot be made: {error.strerror}")
    return options


def main() -> None:
    parser = options_parser(__doc__.split("\n\n")[0], [0, 1, 2])
    parser.add_argument("--rows", nargs="+", choices=list(ROWS), default=list(ROWS))
    parser.add_argument("--tiles", nargs="*", choices=list(TILE_ROWS), default=list(TILE_ROWS))
    options = parsed(parser)
    if not options.table:
        for seed in options.seeds:
            run_fields(options.data, options.out, [seed], options.rows, options.threads)
            run_tiles(options.data, options.out, [seed], options.tiles, options.threads)
    table(options.out)


if __name__ == "__main__":
    run_program(main, "experiments.paper_ablations")

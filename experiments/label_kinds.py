"""The paper's kinds of label, compared on whole slides left out, with many seeds.

    python -m experiments.label_kinds --data ../shared/data --out results   # run
    python -m experiments.label_kinds --out results --table   # print the tables

Pixel masks, discs of 12 and 15 px (of 0.25 um), concentric labels of both and random ones on the
ICPR 2012 fields (five slides, 226 mitoses, pixel masks), the last five on MITOS-ATYPIA-14 (eight
slides) and MiDeSeC (seven). Each slide is left out once: a network trained on the others is tested
on it, and its area and score thresholds are those that suit the other slides best, so nothing is
tuned on what it is tested on. The protocol is light, so rows compare with each other and with
nothing else: network `lite-half` at 0.5 um/px from ImageNet weights, batches of 32 crops of 32 um,
false positives mined once. `--completed` leaves out of training the cells that `experiments/labels`
lists as unsure. Every F is given as published and with these cells counted neither way.

One line of JSON a trained network is appended to `OUT/results.jsonl`; what is there is not done
again, and a training that was stopped is resumed.
"""

from __future__ import annotations

import argparse
import math
import shutil
import time
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from experiments.arguments import within
from experiments.laboratories.data import laboratory_cases, with_unsure
from experiments.paper_ablations import (
    LABELS,
    POSTS,
    append,
    blobs_of,
    counts_by_threshold,
    difference,
    every_nth,
    f_score,
    options_parser,
    parsed,
    read,
    trained,
    tuned_elsewhere,
)
from segmitos.console import run_program
from segmitos.detection.postprocess import Blobs
from segmitos.training.predict import predictor
from segmitos.training.recipe import Recipe
from segmitos.training.sampling import TrainingImage, load_training_images

MPP = 0.5
# Of MITOS-ATYPIA-14, at most so many fields a slide: H04 and H05 have three times as many.
MOST_FIELDS = 20
SETS = ("mitos12", "mitos14", "midesec")
KINDS: dict[str, dict[str, Any]] = {"mask": {"kind": "mask"}, **LABELS}
PUBLISHED, UNSURE_OUT = 0, 1

RECIPE: dict[str, Any] = {
    "network": "lite-half",
    "mpp": MPP,
    "crop_px": 64,
    "batch": 32,
    "epochs": 4,
    "warmup_steps": 30,
    "ema": 0.97,
    "mine_at": [0.5],
    "sampling": {
        "mitosis": 0.4,
        "centered": 0.0,
        "hard_negative": 0.15,
        "mined": 0.25,
        "background": 0.2,
        "shift_px": 12,
    },
}


def both_counts(blobs: Blobs, field: TrainingImage) -> NDArray[np.int64]:
    """TP, FP, FN (2, scores, areas, 3): as published, and with unsure cells counted neither way."""
    ways = (None, field.ignored_xy)
    return np.stack([counts_by_threshold(blobs, field.mitoses_xy, MPP, way) for way in ways])


def test_slide(
    network: Any, fields: Sequence[TrainingImage], posts: Sequence[str]
) -> dict[str, Any]:
    """Counts of some ways from map to detections, summed over a slide's fields."""
    predict = predictor(network)
    tables: dict[str, NDArray[np.int64]] = {}
    for field in fields:
        probability = predict(field.image)
        for name in posts:
            blobs = blobs_of(probability, POSTS[name], network.stride, MPP)
            counts = both_counts(blobs, field)
            tables[name] = tables.get(name, np.zeros_like(counts)) + counts
    return {name: table.tolist() for name, table in tables.items()}


def runs(
    set_: str, labels: Sequence[str], seeds: Sequence[int], slides: Sequence[str]
) -> Iterator[tuple[int, str, str]]:
    """Seed, kind of label and slide left out, whole seeds first."""
    for seed in seeds:
        for kind in labels:
            if kind != "mask" or set_ == "mitos12":
                for slide in slides:
                    yield seed, kind, slide


def run(options: argparse.Namespace, set_: str) -> None:
    """Train and test what is missing."""
    cases = every_nth(laboratory_cases(options.data, set_), MOST_FIELDS)
    marked = with_unsure(set_, cases)
    slides = sorted({case.slide for case in marked})
    fields = {
        slide: load_training_images([case for case in marked if case.slide == slide], MPP)
        for slide in slides
    }
    done = {key_of(entry) for entry in read(options.out)}
    for seed, kind, slide in runs(set_, options.labels, options.seeds, slides):
        key = (set_, kind, options.completed, options.steps, seed, slide)
        if key in done:
            continue
        began = time.time()
        training = [case for case in marked if case.slide != slide]
        if not options.completed:
            training = [replace(case, unsure_xy=np.zeros((0, 2))) for case in training]
        recipe = Recipe.from_dict(
            {
                **RECIPE,
                "labels": KINDS[kind],
                "seed": seed,
                "steps_per_epoch": options.steps // RECIPE["epochs"],
            }
        )
        folder = options.out / "runs" / "-".join(map(str, key))
        network = trained(training, recipe, folder, options.threads)
        posts = list(POSTS) if kind == "random" else ["full"]
        entry = {
            "set": set_,
            "labels": kind,
            "completed": options.completed,
            "steps": options.steps,
            "seed": seed,
            "slide": slide,
            "posts": test_slide(network, fields[slide], posts),
            "seconds": round(time.time() - began),
        }
        append(options.out, entry)
        shutil.rmtree(folder)


def key_of(entry: dict[str, Any]) -> tuple[str, str, bool, int, int, str]:
    """What tells one trained network from the others."""
    names = ("set", "labels", "completed", "steps", "seed", "slide")
    set_, labels, completed, steps, seed, slide = (entry[name] for name in names)
    return set_, labels, completed, steps, seed, slide


def counts_by_seed(
    entries: Sequence[dict[str, Any]], set_: str, labels: str, completed: bool, post: str, way: int
) -> dict[int, dict[str, list[int]]]:
    """TP, FP, FN by seed and slide, of the seeds of which every slide is done."""
    tables: dict[int, dict[str, NDArray[np.int64]]] = {}
    slides = {entry["slide"] for entry in entries if entry["set"] == set_}
    for entry in entries:
        named = entry["set"], entry["labels"], entry["completed"]
        if named == (set_, labels, completed) and post in entry["posts"]:
            found = np.array(entry["posts"][post][way])
            tables.setdefault(entry["seed"], {})[entry["slide"]] = found
    return {
        seed: tuned_elsewhere(by_slide, POSTS[post])
        for seed, by_slide in tables.items()
        if set(by_slide) == slides
    }


def needed_slides(count: int, mean: float, low: float, high: float) -> str:
    """How many slides it takes until an interval of such a difference excludes zero."""
    if low > 0 or high < 0:
        return "enough"
    half = mean - low if mean > 0 else high - mean
    return f"{math.ceil(count * (half / mean) ** 2):,}" if mean else "none is enough"


Row = tuple[str, str, bool, str]
"""Name, kind of label, whether labels are completed, way from map to detections."""


def print_table(
    entries: Sequence[dict[str, Any]], set_: str, pairs: Sequence[tuple[Row, Row]]
) -> None:
    """Print the differences of pairs of rows as Markdown."""
    print("| compared | seeds | F | F of the other | difference (95 %) | slides needed | "
          "unsure cells left out |")  # fmt: skip
    print("|---|---|---|---|---|---|---|")
    for first, second in pairs:
        texts = []
        for way in (PUBLISHED, UNSURE_OUT):
            own, other = (counts_by_seed(entries, set_, *row[1:], way) for row in (first, second))
            seeds = set(own) & set(other)
            if not seeds:
                break
            own, other = ({seed: one[seed] for seed in sorted(seeds)} for one in (own, other))
            mean, low, high = difference(own, other)
            texts.append(f"{mean:+.3f} ({low:+.3f} to {high:+.3f})")
            if way == PUBLISHED:
                slides = len(next(iter(own.values())))
                scores = [pooled(one) for one in (own, other)]
                head = f"{first[0]} against {second[0]} | {len(seeds)} | " + " | ".join(
                    f"{score.mean():.3f} (s.d. {score.std(ddof=1):.3f})"
                    if len(score) > 1
                    else f"{score.mean():.3f}"
                    for score in scores
                )
                texts.append(needed_slides(slides, mean, low, high))
        else:
            print(f"| {head} | {' | '.join(texts)} |")
    print()


def pooled(by_seed: dict[int, dict[str, list[int]]]) -> NDArray[np.float64]:
    """F of each seed, all slides together."""
    return f_score(np.array([np.sum(list(slides.values()), axis=0) for slides in by_seed.values()]))


def table(out: Path, set_: str, steps: int) -> None:
    """Print what is done of a set with that many steps."""
    entries = [entry for entry in read(out) if (entry["set"], entry["steps"]) == (set_, steps)]

    def row(labels: str, completed: bool = False, post: str = "full") -> Row:
        name = labels + (", completed" if completed else "")
        return (name if post == "full" else post), labels, completed, post

    kinds = (("r12R24", "r12"), ("r15R30", "r15"), ("random", "r12R24"), ("random", "r15R30"),
             ("random", "r12"), ("mask", "r12"), ("mask", "r15"), ("mask", "random"))  # fmt: skip
    print(f"{set_}: kinds of label\n")
    print_table(entries, set_, [(row(a), row(b)) for a, b in kinds])
    print(f"{set_}: kinds of label, unsure cells ignored in training\n")
    print_table(entries, set_, [(row(a, True), row(b, True)) for a, b in kinds])
    print(f"{set_}: completed labels against published ones\n")
    print_table(entries, set_, [(row(kind, True), row(kind)) for kind in KINDS])
    print(f"{set_}: from map to detections, random labels, against the full method\n")
    ways = [(row("random", post=post), row("random")) for post in POSTS if post != "full"]
    print_table(entries, set_, ways)


def main() -> None:
    parser = options_parser(__doc__.split("\n\n")[0], [0, 1, 2, 3, 4])
    parser.add_argument("--sets", nargs="+", choices=SETS, default=["mitos12"])
    parser.add_argument("--labels", nargs="+", choices=list(KINDS), default=list(KINDS))
    parser.add_argument("--completed", action="store_true", help="ignore unsure cells in training")
    parser.add_argument("--steps", type=within(1), default=200)
    options = parsed(parser)
    if not options.table:
        for set_ in options.sets:
            run(options, set_)
    for set_ in options.sets:
        table(options.out, set_, options.steps)


if __name__ == "__main__":
    run_program(main, "experiments.label_kinds")

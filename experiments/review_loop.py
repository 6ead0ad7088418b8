"""What decided marks are worth: `python -m experiments.review_loop DATA NETWORKS OUT`.

A laboratory that the networks never saw is the new user's. On some of its slides a simulated reader
decides on candidates as the labels have it, in the order of training mode (nearest the threshold
first) or at random; the model is adapted to what was decided (`segmitos train --recipe adapt`), and
scored on the laboratory's other slides. NETWORKS is what `experiments.laboratories` trained.

Rule and threshold before any mark are fitted on these laboratories' candidates, test slides among
them, by networks that did not see them: that flatters the start, and not what is gained.
"""

from __future__ import annotations

import argparse
import json
from dataclasses import dataclass
from itertools import combinations, product
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.torch import load_file

from experiments.arguments import within
from experiments.laboratories.candidates import MapMaker, start
from experiments.laboratories.candidates import Scored as Found
from experiments.laboratories.data import FIELDS, MPP, LabImage, mark_unsure, read_images
from experiments.laboratories.graphs import verifier_graph
from experiments.laboratories.pools import SIZES, verifier_file
from experiments.laboratories.protocol import (
    LEFT_OUT,
    Rule,
    choose,
    f_score,
    is_mitosis,
    is_unsure,
)
from experiments.laboratories.screening import pooled_features
from segmitos.console import run_program
from segmitos.detection.model import find_model
from segmitos.detection.model_file import read_model_file
from segmitos.detection.verify import log_odds
from segmitos.io.datasets import load_dataset
from segmitos.training.adapt_fit import (
    counts_at,
    fit_change,
    is_better,
    is_enough,
    validate_change,
)
from segmitos.training.judged_candidates import JudgedCandidates
from segmitos.training.networks.verifier import restore_verifier
from segmitos.training.recipe import AdaptRecipe

MARKS = (0, 25, 50, 100, 200)
ORDERS = ("training mode", "random")
SPLITS = 5
_USER_SHARE = 0.6


@dataclass(frozen=True, eq=False)
class Laboratory:
    """The candidates of a laboratory's fields, by networks that never saw it."""

    images: list[LabImage]
    found: dict[int, Found]
    features: dict[int, NDArray[np.float64]]
    unsure: dict[int, NDArray[np.bool_]]


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m experiments.review_loop", description=__doc__)
    parser.add_argument("data", type=Path, help="folder of all data sets")
    parser.add_argument("networks", type=Path, help="OUT of experiments.laboratories")
    parser.add_argument("out", type=Path, help="folder for the table and the figure")
    parser.add_argument("--seeds", type=within(1), default=3, help="how many")
    parser.add_argument("--threads", type=within(1), default=1, help="of the CPU")
    given = parser.parse_args()
    torch.set_num_threads(given.threads)
    given.out.mkdir(parents=True, exist_ok=True)
    every = _load(given.data)
    rows: list[dict[str, Any]] = []
    looked: dict[tuple[Path, ...], Laboratory] = {}
    for seed in range(given.seeds):
        laboratories = {}
        for name in LEFT_OUT:
            files = _networks(given.networks, name, seed)
            if files not in looked:
                images = [image for image in every if image.laboratory == name]
                looked[files] = _look(images, *files, given.threads)
            laboratories[name] = looked[files]
        rule, threshold = _start(laboratories)
        for name, laboratory in laboratories.items():
            rows += _simulate(name, laboratory, rule, threshold, seed)
            print(f"{name}, seed {seed}: done", flush=True)
    (given.out / "review-loop.json").write_text(json.dumps(rows, indent=1) + "\n")
    print("\n".join(_table(rows)))
    _plot(rows, given.out / "review-loop.png")


def _networks(folder: Path, name: str, seed: int) -> tuple[Path, Path]:
    """Return the verifiers without a laboratory; with fewer seeds than asked for, in turn."""
    chosen = []
    for side in SIZES:
        files = sorted(folder.glob(verifier_file(FIELDS.index(name), side, "*")))
        if not files:
            raise SystemExit(f"{folder} holds no verifier without {name}: experiments.laboratories")
        chosen.append(files[seed % len(files)])
    return chosen[0], chosen[1]


def _load(data: Path) -> list[LabImage]:
    """Read the laboratories' fields, with the cells that are unsure."""
    images = [
        *read_images("mitos12", load_dataset([f"mitos12:{data / 'mitos12'}"])),
        *read_images("midesec", load_dataset([f"points:{data / 'midesec'}"], mpp=MPP)),
    ]
    mark_unsure(images, some=True)
    return images


def _look(images: list[LabImage], small: Path, large: Path, threads: int) -> Laboratory:
    """Find candidates by the built-in networks of the map, judged by two verifiers."""
    verifiers = [restore_verifier(load_file(str(path))) for path in (small, large)]
    graphs = [verifier_graph([verifier]) for verifier in verifiers]
    judges = [start(graph, 1, threads) for graph in graphs]
    maker = MapMaker(read_model_file(find_model(None)), graphs[0], threads)
    found, features, unsure = {}, {}, {}
    for index, image in enumerate(images):
        found[index] = maker.candidates(image, judges)
        xy, pixels = found[index].xy, image.matched()
        of_each = [pooled_features(verifier, pixels, xy) for verifier in verifiers]
        features[index] = np.concatenate(of_each, axis=1)
        unsure[index] = is_unsure(image, xy) & ~is_mitosis(image, xy)
    return Laboratory(images, found, features, unsure)


def _start(laboratories: dict[str, Laboratory]) -> tuple[Rule, float]:
    """Fit the rule on all, each laboratory of equal weight, and the common threshold."""
    images, found = [], {}
    for laboratory in laboratories.values():
        for index, candidates in laboratory.found.items():
            found[len(images)] = candidates
            images.append(laboratory.images[index])
    choice = choose(images, [found])
    return choice.rule, choice.threshold


def _judged(laboratory: Laboratory, index: int, rule: Rule, keep: Any) -> JudgedCandidates:
    """Return those of an image's candidates that are decided on, unsure ones left out."""
    image, found = laboratory.images[index], laboratory.found[index]
    keep = keep & ~laboratory.unsure[index]
    hit = is_mitosis(image, found.xy)
    slide = image.source.slide
    return JudgedCandidates(
        slide,
        slide,
        laboratory.features[index][keep],
        log_odds(rule.score(found))[keep],
        hit[keep],
        len(image.source.mitoses_xy) - int(hit.sum()),
    )


def _simulate(
    name: str, laboratory: Laboratory, rule: Rule, threshold: float, seed: int
) -> list[dict[str, Any]]:
    """Return, by order and number of marks, the counts on other slides, of all splits together."""
    slides = sorted({image.source.slide for image in laboratory.images})
    every = list(combinations(slides, round(_USER_SHARE * len(slides))))
    rng = np.random.default_rng(seed)
    splits = [every[k] for k in rng.choice(len(every), min(SPLITS, len(every)), replace=False)]
    cut = float(log_odds(np.array(threshold)))
    total = {(order, marks): np.zeros((3, 3), int) for order, marks in product(ORDERS, MARKS)}
    for mine in splits:
        own = [k for k, image in enumerate(laboratory.images) if image.source.slide in mine]
        others = [k for k in laboratory.found if k not in own]
        tests = [
            _judged(laboratory, k, rule, np.ones(len(laboratory.found[k].xy), bool)) for k in others
        ]
        places = [(k, place) for k in own for place in range(len(laboratory.found[k].xy))]
        far = [abs(rule.score(laboratory.found[k])[place] - threshold) for k, place in places]
        ranks = {"training mode": np.argsort(far), "random": rng.permutation(len(places))}
        for order, marks in total:
            decided = {k: np.zeros(len(laboratory.found[k].xy), bool) for k in own}
            for rank in ranks[order][:marks]:
                k, place = places[rank]
                decided[k][place] = True
            judged = [_judged(laboratory, k, rule, keep) for k, keep in decided.items()]
            judged = [one for one in judged if len(one.score)]
            total[order, marks] += _adapted(judged, tests, cut)
    return [
        {"laboratory": name, "seed": seed, "order": order, "marks": marks, "splits": len(splits)}
        | {key: counts.tolist() for key, counts in zip(_KEYS, three, strict=True)}
        for (order, marks), three in total.items()
    ]


def _adapted(
    judged: list[JudgedCandidates], tests: list[JudgedCandidates], cut: float
) -> NDArray[np.int64]:
    """Return the counts (3, 3) on test images: before, adapted, and adapted where that is kept."""
    recipe = AdaptRecipe()
    before = np.sum([counts_at(one, one.score, cut) for one in tests], axis=0)
    if not is_enough(judged):
        return np.stack([before, before, before])
    change = fit_change(judged, 1, cut, recipe)
    after = np.sum([counts_at(one, change.score(one), cut) for one in tests], axis=0)
    kept = is_better(validate_change(judged, 1, cut, recipe), cut, recipe)
    return np.stack([before, after, after if kept else before])


_KEYS = ("start", "adapted", "checked")


def _f(rows: list[dict[str, Any]], key: str, **where: Any) -> list[float]:
    """Return F of each seed."""
    chosen = [row for row in rows if all(row[name] == value for name, value in where.items())]
    return [f_score(np.array(row[key])) for row in chosen]


def _table(rows: list[dict[str, Any]]) -> list[str]:
    lines = ["F by decided marks, mean of seeds (least to most)"]
    for name in LEFT_OUT:
        for order in ORDERS:
            for key in _KEYS[1:]:
                cells = []
                for marks in MARKS:
                    values = _f(rows, key, laboratory=name, order=order, marks=marks)
                    cells.append(f"{np.mean(values):.3f} ({min(values):.3f}-{max(values):.3f})")
                lines.append(f"{name:8} {order:13} {key:8} " + "  ".join(cells))
    return lines


def _plot(rows: list[dict[str, Any]], path: Path) -> None:
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8, 3.4), dpi=120, layout="constrained")
    FigureCanvasAgg(figure)
    panels = figure.subplots(1, len(LEFT_OUT), sharey=True)
    for axes, name in zip(panels, LEFT_OUT, strict=True):
        for order, color, marker in zip(ORDERS, ("#0072b2", "#d55e00"), "os", strict=True):
            values = np.array(
                [_f(rows, "checked", laboratory=name, order=order, marks=m) for m in MARKS]
            )
            axes.plot(MARKS, values.mean(1), color=color, marker=marker, label=order)
            axes.fill_between(MARKS, values.min(1), values.max(1), color=color, alpha=0.15, lw=0)
        axes.set_title(f"{name}: other slides of the laboratory", fontsize=10)
        axes.set_xlabel("marks decided")
        axes.set_xticks(MARKS)
        axes.grid(alpha=0.3)
    panels[0].set_ylabel("F within 7.5 um, one to one")
    panels[0].legend(title="order", fontsize=8, title_fontsize=8)
    figure.savefig(path, metadata={"Software": None})


if __name__ == "__main__":
    run_program(main, "experiments.review_loop")

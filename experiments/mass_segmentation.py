"""Masses on mammograms (section 4.6): Dice of networks trained on full discs and concentric labels.

    python -m experiments.mass_segmentation --data ../shared/data --out results
    python -m experiments.mass_segmentation --data ../shared/data --out results --table
    python -m experiments.mass_segmentation --data ../shared/data --out results --pictures PICTURES

Films of mini-MIAS, split by patient: both breasts of a woman are on one side. Each film is tested
by the network of the fold that it was left out of, against its circles, in the pixels of the
recipe's scale. The threshold of a fold is the one that gives the best Dice on the other folds'
films, each under the network that had not seen it. What is black lies outside of the breast,
where nothing was learned, and is never marked.

Maps are kept in OUT, so that a benchmark that was stopped goes on; a half-trained network too.
"""

from __future__ import annotations

import argparse
import shutil
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import ndimage

from experiments.arguments import within
from segmitos.console import run_program
from segmitos.detection.postprocess import smooth
from segmitos.io.datasets import Case, load_dataset
from segmitos.training.checkpoint import load_checkpoint
from segmitos.training.concentric import concentric_label
from segmitos.training.networks.registry import build_network
from segmitos.training.predict import predictor
from segmitos.training.recipe import Recipe, load_recipe
from segmitos.training.sampling import TrainingImage, load_training_images
from segmitos.training.train import train

RECIPES = Path(__file__).parent / "recipes"
LABELS = ("disc", "concentric")
THRESHOLDS = np.concatenate([np.arange(0.01, 0.1, 0.01), np.arange(0.1, 0.96, 0.05)])
BLACK = 4
"""As in training: gray levels up to this are ignored there."""
RESAMPLES = 10_000

Mask = NDArray[np.bool_]


def dice(found: Mask, truth: Mask) -> float:
    """2 |A and B| / (|A| + |B|); 1 where both are empty."""
    total = int(found.sum()) + int(truth.sum())
    return 2 * int((found & truth).sum()) / total if total else 1.0


def truth_mask(source: TrainingImage, reach: float = 1.0) -> Mask:
    """The circles of a film, or `reach` times as large."""
    assert source.radii_px is not None
    radii = source.radii_px * reach
    return concentric_label(source.mitoses_xy, radii, radii, source.image.shape[:2]) == 1


def folds_of(cases: Sequence[Case], folds: int) -> list[int]:
    """A fold for every case, the same for all films of a patient, by a fixed shuffle."""
    patients = sorted({case.patient for case in cases})
    order = np.random.default_rng(0).permutation(len(patients))
    fold = {patients[place]: rank % folds for rank, place in enumerate(order)}
    return [fold[case.patient] for case in cases]


def film_map(source: TrainingImage, probability: NDArray[np.float32], recipe: Recipe) -> NDArray:
    """Smooth a network's map, bring it to the film's pixels, nothing outside of the breast."""
    height, width = source.image.shape[:2]
    stride = round(height / probability.shape[0])
    even = smooth(probability, recipe.smoothing_sigma_um, recipe.mpp * stride)
    large = ndimage.zoom(even, stride, order=1, mode="nearest", grid_mode=True)
    result = np.array(large[:height, :width], np.float32)
    result[source.image.max(axis=2) <= BLACK] = 0
    return result


def trained_maps(
    training: Sequence[Case],
    tested: Sequence[TrainingImage],
    recipe: Recipe,
    folder: Path,
    threads: int,
) -> dict[str, NDArray]:
    """Train a network, return its maps of the tested films."""
    train(training, folder, recipe, accelerator="cpu", threads=threads)
    network = build_network(recipe.network, False)
    network.load_state_dict(load_checkpoint(folder)[0]["ema"])
    predict = predictor(network.eval())
    return {source.name: film_map(source, predict(source.image), recipe) for source in tested}


def run_missing(cases: list[Case], options: argparse.Namespace) -> None:
    torch.set_num_threads(options.threads)
    folds = folds_of(cases, options.folds)
    sources = load_training_images(cases, load_recipe(RECIPES / "mini-mias-disc.toml").mpp)
    for seed in range(options.seeds):
        for fold in range(options.folds):
            for label in LABELS:
                name = f"{label}-{seed}-{fold}"
                kept = options.out / f"{name}.npz"
                if kept.exists():
                    continue
                began = time.monotonic()
                recipe = load_recipe(RECIPES / f"mini-mias-{label}.toml", seed=seed)
                training = [case for case, of in zip(cases, folds, strict=True) if of != fold]
                tested = [film for film, of in zip(sources, folds, strict=True) if of == fold]
                run = options.out / f"run-{name}"
                maps = trained_maps(training, tested, recipe, run, options.threads)
                partial = kept.with_suffix(".part.npz")
                arrays: dict[str, Any] = {k: v.astype(np.float16) for k, v in maps.items()}
                np.savez_compressed(partial, **arrays)
                partial.replace(kept)
                shutil.rmtree(run)
                print(f"{name}: {time.monotonic() - began:.0f} s", flush=True)


def load_maps(out: Path, label: str, seed: int, folds: int) -> dict[str, NDArray] | None:
    """All films' maps of one seed; None where a fold is missing."""
    maps: dict[str, NDArray] = {}
    for fold in range(folds):
        path = out / f"{label}-{seed}-{fold}.npz"
        if not path.exists():
            return None
        with np.load(path) as stored:
            maps |= {name: stored[name].astype(np.float32) for name in stored.files}
    return maps


def chosen_thresholds(dices: NDArray[np.float64], folds: NDArray[np.int64]) -> NDArray[np.int64]:
    """For each film the place of the threshold that is best on the films of the other folds.

    `dices` is (films, thresholds), `folds` (films,).
    """
    best = {fold: int(dices[folds != fold].mean(axis=0).argmax()) for fold in np.unique(folds)}
    return np.array([best[fold] for fold in folds])


def interval(
    values: NDArray[np.float64], patients: Sequence[str], seed: int = 0
) -> tuple[float, float]:
    """95 % interval of the mean over films, by resampling patients."""
    groups = [values[np.array(patients) == patient] for patient in sorted(set(patients))]
    sums, counts = np.array([g.sum() for g in groups]), np.array([len(g) for g in groups])
    drawn = np.random.default_rng(seed).integers(0, len(groups), (RESAMPLES, len(groups)))
    means = sums[drawn].sum(axis=1) / counts[drawn].sum(axis=1)
    low, high = np.percentile(means, (2.5, 97.5))
    return float(low), float(high)


class Scores:
    """Of one label kind: Dice of every film, over seeds."""

    def __init__(
        self, label: str, sources: list[TrainingImage], cases: list[Case], options
    ) -> None:
        folds = np.array(folds_of(cases, options.folds))
        truths = [truth_mask(source) for source in sources]
        windows = [truth_mask(source, 2.0) for source in sources]
        self.film, self.window, self.marked, self.area = [], [], [], []
        self.masks: list[list[Mask]] = []
        for seed in range(options.seeds):
            maps = load_maps(options.out, label, seed, options.folds)
            if maps is None:
                continue
            shown = [maps[source.name] for source in sources]
            dices = np.array(
                [
                    [dice(m >= t, truth) for t in THRESHOLDS]
                    for m, truth in zip(shown, truths, strict=True)
                ]
            )
            levels = THRESHOLDS[chosen_thresholds(dices, folds)]
            found = [m >= level for m, level in zip(shown, levels, strict=True)]
            self.masks.append(found)
            together = list(zip(found, truths, windows, strict=True))
            self.film.append([dice(f, t) for f, t, _ in together])
            self.window.append([dice(f & w, t) for f, t, w in together])
            self.marked.append([float((f & t).any()) for f, t, _ in together])
            self.area.append([f.sum() / t.sum() for f, t, _ in together])
        self.seeds = len(self.film)

    def mean(self, kind: str) -> NDArray[np.float64]:
        """Per film, over seeds."""
        result: NDArray[np.float64] = np.array(getattr(self, kind)).mean(axis=0)
        return result


def print_table(cases: list[Case], options: argparse.Namespace) -> None:
    sources = load_training_images(cases, load_recipe(RECIPES / "mini-mias-disc.toml").mpp)
    patients = [case.patient for case in cases]
    scores = {label: Scores(label, sources, cases, options) for label in LABELS}

    def cell(values: NDArray[np.float64]) -> str:
        low, high = interval(values, patients)
        return f"{values.mean():.3f} ({low:.3f} to {high:.3f})"

    print(
        "| label | seeds | Dice of the film | each seed | within two radii | mass touched | area |"
    )
    print("|---|---|---|---|---|---|---|")
    breast = [source.image.max(axis=2) > BLACK for source in sources]
    truths = [truth_mask(source) for source in sources]
    whole = np.array([dice(b, t) for b, t in zip(breast, truths, strict=True)])
    print(f"| the whole breast marked | | {cell(whole)} | | | 1 | |")
    for label, result in scores.items():
        each = ", ".join(f"{np.mean(values):.3f}" for values in result.film)
        area = float(np.median(result.mean("area")))
        print(
            f"| {label} | {result.seeds} | {cell(result.mean('film'))} | {each} | "
            f"{cell(result.mean('window'))} | {result.mean('marked').mean():.2f} | {area:.2f} |"
        )
    for kind in ("film", "window"):
        apart = scores["concentric"].mean(kind) - scores["disc"].mean(kind)
        print(f"\nconcentric less disc, {kind}: {cell(apart)}")


def draw_pictures(cases: list[Case], options: argparse.Namespace) -> None:
    """Three films, at a quarter, a half and three quarters of the ranking by both labels."""
    from PIL import Image

    sources = load_training_images(cases, load_recipe(RECIPES / "mini-mias-disc.toml").mpp)
    scores = {label: Scores(label, sources, cases, options) for label in LABELS}
    both = scores["disc"].mean("film") + scores["concentric"].mean("film")
    order = both.argsort()
    options.pictures.mkdir(parents=True, exist_ok=True)
    for part in (1, 2, 3):
        index = int(order[round(part * (len(order) - 1) / 4)])
        masks = [truth_mask(sources[index])] + [scores[k].masks[0][index] for k in LABELS]
        panels = [outlined(sources[index].image, mask) for mask in masks]
        gap = np.full((len(panels[0]), 8, 3), 255, np.uint8)
        row = np.concatenate([panels[0], gap, panels[1], gap, panels[2]], axis=1)
        path = options.pictures / f"masses-{part}.png"
        Image.fromarray(row).save(path, optimize=True)
        found = ", ".join(f"{k} {scores[k].film[0][index]:.2f}" for k in LABELS)
        print(f"{path}: {sources[index].name}, Dice {found}")


def outlined(image: NDArray[np.uint8], mask: Mask) -> NDArray[np.uint8]:
    """An image at half its size with the outline of a mask."""
    result = image.copy()
    edge = mask & ~ndimage.binary_erosion(mask)
    result[edge] = (255, 200, 0)
    return result


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--folds", type=within(2), default=5)
    parser.add_argument("--seeds", type=within(1), default=3)
    parser.add_argument("--threads", type=within(1), default=1)
    parser.add_argument("--table", action="store_true", help="print what is there, run nothing")
    parser.add_argument("--pictures", type=Path, help="draw three films into this folder")
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)
    cases = load_dataset(f"mini-mias:{options.data / 'mini-mias'}")
    if options.pictures:
        draw_pictures(cases, options)
        return
    if not options.table:
        run_missing(cases, options)
    print_table(cases, options)


if __name__ == "__main__":
    run_program(main, "experiments.mass_segmentation")

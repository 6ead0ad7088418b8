"""Cross-validation of a training recipe over slides: what its scores are worth on unseen ones.

    python -m experiments.cross_validation --data ../shared/data --recipe lite -o RUNS \\
        [--folds A B] [--seed N] [--threads N] [--match slide|field|none]
        [--flips] [--scout SCOUT.segmitos|SCOUTS [--window PX] [--above P]] [--as-it-is]
        [--table|--train-only]
        [--second RUNS2 ... [--confirm-above P]] [--integers] [--also RUNS ...]
        [--tune fields|both] [--at THRESHOLDS.json]

Each of the folds A and B trains on some slides of MITOS-ATYPIA-14 and four fifths of the crops'
slides, and detects on the others. The folds named by a scanner train on all seven slides and the
crops of the three other scanners, and detect on all crops of that one; they need `--at`. H03 is in
no fold. Finished folds are not trained again; `--table` trains nothing.
Matching is one to one within 7.5 um, counts pooled over fields, all of which hold a mitosis (which
flatters). For the crops recall counts, and marks per mm2 around the labelled mitoses.

RUNS/thresholds.json gets the thresholds that are best for all held-out fields together (`--tune
fields`), or for fields and crops alike, and their counts on the fields, for `segmitos model combine
--thresholds` or `segmitos export --thresholds`. Fields without a mitosis are missing from the data,
so that the best thresholds for these alone are too low for a slide. For crops F is computed as if
their mitoses lay as they do on the slides of MIDOG 2021, 5.7 on a square millimetre, among as many
false positives as are seen beside them. `--also` takes in finished runs, of other seeds. `--second`
names finished runs of other networks, which look again where the first one found something
(`segmitos model combine --ensemble-threshold`), as in the default model. A scout that was trained
on the slides on which it is tested flatters: `--recipe proposal -o SCOUTS --train-only` trains
one for each fold, and `--scout SCOUTS` runs behind them. `--integers` quantizes the networks of
each fold (`segmitos model quantize`), calibrated on the fields that they were trained on.
"""

from __future__ import annotations

import argparse
import dataclasses
import hashlib
import json
import sys
import tempfile
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from segmitos.commands.model import read_thresholds
from segmitos.commands.training_progress import TrainingProgress
from segmitos.console import run_script
from segmitos.detection.postprocess import tuned_thresholds
from segmitos.errors import UsageError
from segmitos.evaluation.matching import f_score, match_points, precision, recall
from segmitos.io.datasets import Case, load_dataset
from segmitos.io.files import write_json
from segmitos.io.geometry import rescale
from segmitos.training.recipe import load_recipe

# Tested slides of each fold: about as many mitoses in one as in the other.
FOLDS = {"A": ("H05", "H10", "H14"), "B": ("H04", "H07", "H11", "H12")}
SCANNERS = {
    "xr": "Hamamatsu XR",
    "s360": "Hamamatsu S360",
    "cs2": "Aperio CS2",
    "tupac16": "TUPAC16, Aperio",
}
NEVER = ("H03",)
SCORES = np.round(np.arange(0.3, 0.996, 0.01), 3)
AREAS_UM2 = (0.0, 8.0, 12.0, 16.0, 20.0, 26.0, 32.0, 40.0)
BINARIZATIONS = (0.3, 0.4, 0.5, 0.6, 0.7)
DISTANCE_UM = 7.5
# Labelled mitoses per mm2 of MIDOG 2021: 1721 on 150 regions of 2 mm2.
PER_MM2 = 5.7
CROP_MM2 = (128 * 0.25 / 1000) ** 2
# Of a scout, and of the first network, where nothing else is said.
ABOVE = 0.1
CONFIRM_ABOVE = 0.2
MPP = 0.25

Found = dict[str, dict[str, list[list[float]]]]


@dataclasses.dataclass(frozen=True)
class Look:
    """A scout, its file or the folder of those of all folds, and what is seen behind it."""

    scout: Path
    window_px: int
    above: float
    confirm_above: float


def scanner(slide: str) -> str:
    """Scanner of a slide of the crops: MIDOG 2021 numbers its cases by it."""
    if not slide.startswith("MIDOG21/"):
        return SCANNERS["tupac16"]
    number = int(slide.split("/")[1])
    return list(SCANNERS.values())[min(2, (number - 1) // 50)]


def split(data: Path, fold: str) -> tuple[list[Case], list[Case]]:
    """Return the cases that a fold trains on and those that it is tested on."""
    fields = load_dataset(f"mitos14:{data / 'mitos-atypia-14'}", exclude=list(NEVER))
    crops = load_dataset(f"crops:{data / 'mitosis-crops'}")
    if fold in SCANNERS:
        of = [scanner(case.slide) == SCANNERS[fold] for case in crops]
        other = [case for case, one in zip(crops, of, strict=True) if not one]
        return fields + other, [case for case, one in zip(crops, of, strict=True) if one]
    slides = sorted({case.slide for case in crops})
    held = set(slides[sorted(FOLDS).index(fold) :: 5])
    train = [case for case in fields if case.slide not in FOLDS[fold]]
    train += [case for case in crops if case.slide not in held]
    test = [case for case in fields if case.slide in FOLDS[fold]]
    test += [case for case in crops if case.slide in held]
    return train, test


def detect_blobs(
    run: Path,
    cases: Sequence[Case],
    match: str = "slide",
    flips: bool = False,
    predict: Any = None,
) -> Found:
    """Return the blobs of each case by binarization: rows of x, y (model px), area, score.

    `match` moves the staining of each slide, or of each field, onto that of the training, or of
    `none`; `flips` averages four mirrored views; `predict` stands in for the run's network, as
    `exported` does for it in windows.
    """
    from segmitos.detection.postprocess import MapAccumulator, smooth
    from segmitos.detection.stain import Stain, apply_lookup, od_statistics, stain_lookup
    from segmitos.training.export import trained_network
    from segmitos.training.predict import predictor
    from segmitos.training.sampling import load_training_images

    network, recipe, state = trained_network(run)
    target = Stain(**state.stain)
    predict = predict or predictor(network)
    found: Found = {}
    for source in load_training_images(cases, recipe.mpp):
        image = source.image
        own = source.stain
        if match == "field" and not source.centered:
            own = od_statistics(image[::4, ::4].reshape(-1, 3))
        if match != "none" and own is not None:
            image = apply_lookup(np.ascontiguousarray(image), stain_lookup(own, target))
        probability = predict(image)
        if flips:
            probability = np.mean([_turned_back(predict, image, axes) for axes in FLIPS], axis=0)
        stride = round(image.shape[0] / probability.shape[0])
        cells = MapAccumulator(recipe.mpp * stride, stride, check_plausible=False)
        cells.add(smooth(probability, recipe.smoothing_sigma_um, cells.map_mpp), 0, 0)
        found[source.name] = {}
        for binarization in BINARIZATIONS:
            blobs = cells.blobs(binarization)
            rows = np.stack([blobs.x_px, blobs.y_px, blobs.area_um2, blobs.score], 1)
            found[source.name][str(binarization)] = np.round(rows, 4).tolist()
    return found


def exported(
    runs: Sequence[Path],
    look: Look | None,
    calibration: Sequence[Case],
) -> Any:
    """Return what the model file of runs gives, as `predictor` does for a network in training.

    Networks of several runs are averaged, and run behind a `look` if there is one; they are in
    integers where there are fields for `calibration`.
    """
    from segmitos.detection.model import Model
    from segmitos.training.combine import combine
    from segmitos.training.export import export_run
    from segmitos.training.predict import padding
    from segmitos.training.quantize import quantize

    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        files = [folder / f"{number}.segmitos" for number in range(len(runs))]
        for number, run in enumerate(runs):
            export_run(run, files[number])
            if calibration:
                files[number] = folder / f"{number}-int8.segmitos"
                quantize(folder / f"{number}.segmitos", calibration, files[number])
        file = files[0]
        if look is not None:
            scout = look.scout
            if scout.is_dir():
                scout = folder / "scout.segmitos"
                export_run(look.scout / runs[0].name, scout)
            file = folder / "model.segmitos"
            confirm_above = look.confirm_above if len(runs) > 1 else 0.0
            combine(files, file, scout, look.above, confirm_above, patch_px=look.window_px)
        model = Model.load(file, "cpu")
    return padding(lambda padded: model.predict(padded[None])[0])


FLIPS: tuple[tuple[int, ...], ...] = ((), (0,), (1,), (0, 1))


def _turned_back(predict: Any, image: np.ndarray, axes: tuple[int, ...]) -> np.ndarray:
    """Predict on a mirrored image and mirror the map back; sides are padded to whole cells."""
    height, width = (-(-side // 32) * 32 for side in image.shape[:2])
    padded = np.full((height, width, 3), 255, np.uint8)
    padded[: image.shape[0], : image.shape[1]] = image
    turned = np.ascontiguousarray(np.flip(padded, axes)) if axes else padded
    result = np.flip(predict(turned), axes) if axes else predict(turned)
    return result[: -(-image.shape[0] // 4), : -(-image.shape[1] // 4)]


def truth(case: Case) -> np.ndarray:
    """Mitoses of a case in pixels of the model's scale."""
    assert case.mpp is not None
    return rescale(np.asarray(case.mitoses_xy, float).reshape(-1, 2), case.mpp / MPP)


class Table:
    """Which blobs of each case are mitoses at any score threshold of a sweep."""

    def __init__(self, cases: Iterable[Case], found: Found, binarization: float, area: float):
        self.counts: dict[str, np.ndarray] = {}
        for case in cases:
            rows = np.array(found[case.name][str(binarization)]).reshape(-1, 4)
            rows = rows[rows[:, 2] >= area]
            points = truth(case)
            counts = np.zeros((len(SCORES), 3), int)
            before = -1
            for index, least in enumerate(SCORES):
                kept = rows[rows[:, 3] >= least][:, :2]
                if len(kept) == before:
                    counts[index] = counts[index - 1]
                else:
                    match = match_points(kept, points, DISTANCE_UM / MPP)
                    counts[index] = match.tp, match.fp, match.fn
                before = len(kept)
            self.counts[case.slide] = self.counts.get(case.slide, 0) + counts

    def f_scores(self, slides: Iterable[str]) -> np.ndarray:
        """F of slides together at each score threshold."""
        total = sum(self.counts[slide] for slide in slides)
        return np.array([f_score(*(int(n) for n in row)) for row in total])


def pooled(data: Path, founds: Sequence[dict[str, Found]]) -> tuple[list[Case], Found]:
    """Return the cases of all folds of all runs, and what was found in them."""
    cases: list[Case] = []
    found: Found = {}
    for number, run in enumerate(founds):
        for fold, rows in run.items():
            for case in split(data, fold)[1]:
                name = f"{case.name} of run {number}"
                cases.append(dataclasses.replace(case, name=name))
                found[name] = rows[case.name]
    return cases, found


def print_table(
    data: Path,
    out: Path,
    founds: Sequence[dict[str, Found]],
    tune: str,
    at: tuple[float, float, float] | None = None,
) -> None:
    """Print F by slide and recall by scanner on the crops, at thresholds that are given or best."""
    cases, found = pooled(data, founds)
    fields = [case for case in cases if not case.centered_crop]
    slides = sorted({case.slide for case in fields})
    crops = [case for case in cases if case.centered_crop]
    if at is None:
        binarization, area, score = best_thresholds(fields, crops if tune == "both" else [], found)
        print(
            f"best common thresholds: binarization {binarization}, area {area:g} um2, score {score}"
        )
    else:
        binarization, area, score = at
        print(f"at binarization {binarization}, area {area:g} um2, score {score}")
    index = int(np.flatnonzero(np.isclose(SCORES, score))[0])
    if crops:
        print_crops(Table(crops, found, binarization, area), crops, index)
    if not fields:
        return
    table = Table(fields, found, binarization, area)
    print("\n| slide | TP | FP | FN | F, common threshold | F, its own best |\n" + "|---" * 6 + "|")
    for slide in slides:
        tp, fp, fn = table.counts[slide][index]
        own = table.f_scores([slide])
        print(f"| {slide} | {tp} | {fp} | {fn} | {own[index]:.3f} | {own.max():.3f} |")
    tp, fp, fn = sum(table.counts[slide] for slide in slides)[index]
    f = f_score(int(tp), int(fp), int(fn))
    print(f"| pooled | {tp} | {fp} | {fn} | **{f:.3f}** | |")
    if at is not None:
        return
    write_json(
        out / "thresholds.json",
        {
            "thresholds": {"threshold": binarization, "min_area_um2": area, "min_score": score},
            "validation": {
                "tp": int(tp),
                "fp": int(fp),
                "fn": int(fn),
                "precision": precision(int(tp), int(fp)),
                "recall": recall(int(tp), int(fn)),
                "f_score": f,
                "data": f"fields of {len(slides)} slides of MITOS-ATYPIA-14, each by a network "
                "that was not trained on it, thresholds tuned on all of them together"
                + (", and on crops of other unseen slides" if tune == "both" else ""),
            },
        },
    )


def fixed_thresholds(path: Path) -> tuple[float, float, float]:
    """Return binarization, area and score of a thresholds.json; the score to the next in `SCORES`.

    Raises:
        UsageError: where blobs of that binarization, or marks of that score, are not looked at.
    """
    given = tuned_thresholds(read_thresholds(path))
    score = float(SCORES[np.argmin(np.abs(SCORES - given.min_score))])
    if given.threshold not in BINARIZATIONS or abs(score - given.min_score) > 0.005:
        raise UsageError(
            f"{path}: the binarization must be one of {BINARIZATIONS}, the score {SCORES[0]} to "
            f"{SCORES[-1]}, not {given.threshold} and {given.min_score}"
        )
    return float(given.threshold), given.min_area_um2, score


def best_thresholds(
    fields: Sequence[Case], crops: Sequence[Case], found: Found
) -> tuple[float, float, float]:
    """Return binarization, area and score of the best F of all fields, and of crops if any."""
    best = (-1.0, 0.5, 0.0, 0.0)
    for binarization in BINARIZATIONS:
        for area in AREAS_UM2:
            table = Table(fields, found, binarization, area)
            scores = table.f_scores(table.counts)
            if crops:
                scores = (scores + crop_f_scores(crops, found, binarization, area)) / 2
            # The middle of what is good all around, not a lucky peak.
            steady = np.convolve(np.pad(scores, 2, mode="edge"), np.full(5, 0.2), "valid")
            index = int(np.argmax(steady))
            best = max(best, (float(steady[index]), binarization, area, float(SCORES[index])))
    return best[1:]


def crop_f_scores(
    crops: Sequence[Case], found: Found, binarization: float, area: float
) -> np.ndarray:
    """F at each score if mitoses were `PER_MM2`, with the recall and false positives of crops."""
    tp, fp, fn = np.sum(list(Table(crops, found, binarization, area).counts.values()), axis=0).T
    hits = PER_MM2 * tp / (tp + fn)
    result: np.ndarray = 2 * hits / (hits + fp / (len(crops) * CROP_MM2) + PER_MM2)
    return result


def print_crops(table: Table, crops: Sequence[Case], index: int) -> None:
    """Print recall and other marks on the crops of each scanner, at a score of `SCORES`."""
    print("\n| crops of | slides | mitoses | recall | other marks per mm2 |\n" + "|---" * 5 + "|")
    for name in sorted({scanner(case.slide) for case in crops}):
        of = [case for case in crops if scanner(case.slide) == name]
        tp, fp, fn = sum(table.counts[s] for s in {case.slide for case in of})[index]
        mm2 = len(of) * CROP_MM2
        print(
            f"| {name} | {len({c.slide for c in of})} | {tp + fn} | {tp / (tp + fn):.3f} | "
            f"{fp / mm2:.0f} |"
        )


def _folder_name(folder: Path) -> str:
    """Name a folder by its last part, and by its whole path in short."""
    place = str(folder.resolve()).encode()
    return f"{folder.name}-{hashlib.sha256(place).hexdigest()[:6]}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--recipe", default="lite")
    parser.add_argument("-o", "--out", type=Path, required=True)
    parser.add_argument(
        "--folds", nargs="+", choices=[*sorted(FOLDS), *SCANNERS], default=sorted(FOLDS)
    )
    parser.add_argument("--seed", type=int)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument(
        "--match",
        choices=("slide", "field", "none"),
        default="slide",
        help="whose staining is moved onto that of the training",
    )
    parser.add_argument(
        "--also", type=Path, nargs="+", default=[], help="folders of finished runs to pool with"
    )
    parser.add_argument(
        "--tune",
        choices=("fields", "both"),
        default="both",
        help="what the best thresholds are best for",
    )
    parser.add_argument("--at", type=Path, help="thresholds.json to use instead of the best")
    parser.add_argument("--flips", action="store_true", help="average four mirrored views")
    parser.add_argument(
        "--scout",
        type=Path,
        help="a first look to run behind: a model file, or a folder of runs, one for each fold",
    )
    parser.add_argument("--window", type=int, default=128, help="behind the scout, px")
    parser.add_argument(
        "--above", type=float, default=ABOVE, help="probability of the scout to look from"
    )
    parser.add_argument(
        "--confirm-above",
        type=float,
        default=CONFIRM_ABOVE,
        help="probability of the first network for those of --second to look again",
    )
    parser.add_argument(
        "--second",
        type=Path,
        nargs="+",
        default=[],
        help="folders of finished runs of networks that look again",
    )
    parser.add_argument("--integers", action="store_true", help="quantize the networks first")
    parser.add_argument(
        "--as-it-is",
        action="store_true",
        help="detect with the checkpoint that a fold has, trained to its end or not",
    )
    only = parser.add_mutually_exclusive_group()
    only.add_argument("--table", action="store_true", help="only print what is there")
    only.add_argument(
        "--train-only", action="store_true", help="detect nothing: runs for --scout or --second"
    )
    options = parser.parse_args()
    if options.at is None and not options.train_only and not set(options.folds) & set(FOLDS):
        parser.error("folds of scanners have no fields to tune thresholds on; give --at")
    if options.second and not options.scout:
        parser.error("--second looks again in windows; give --scout")
    if options.scout and not options.scout.exists():
        parser.error(f"{options.scout} is not there")
    for folder in (*options.second, options.scout):
        for fold in options.folds if folder and not folder.is_file() else []:
            if not (folder / fold).is_dir():
                parser.error(f"{folder} holds no fold {fold}; train it there first")
    at = None if options.at is None else fixed_thresholds(options.at)
    recipe = load_recipe(options.recipe, seed=options.seed)
    if recipe.mpp != MPP and not options.train_only:
        parser.error(
            f"{options.recipe} reads {recipe.mpp:g} um per pixel, and the tables are of {MPP:g}; "
            "give --train-only"
        )
    variant = "" if options.match == "slide" else f"-{options.match}"
    variant += "-flips" if options.flips else ""
    variant += f"-window{options.window}" if options.scout else ""
    variant += f"-{_folder_name(options.scout)}" if options.scout and options.scout.is_dir() else ""
    variant += f"-above{options.above:g}" if options.above != ABOVE else ""
    if options.second and options.confirm_above != CONFIRM_ABOVE:
        variant += f"-confirm{options.confirm_above:g}"
    variant += "".join(f"-{_folder_name(folder)}" for folder in options.second)
    variant += "-integers" if options.integers else ""
    name = f"found{variant}.json"
    look = None
    if options.scout:
        look = Look(options.scout, options.window, options.above, options.confirm_above)
    founds: dict[str, Found] = {}
    for fold in options.folds:
        run = options.out / fold
        place = run / name
        if options.train_only or not place.exists():
            if options.table:
                continue
            from segmitos.training.train import train

            training, tested = split(options.data, fold)
            if not options.as_it_is:
                train(training, run, recipe, on_event=TrainingProgress(), threads=options.threads)
            if options.train_only:
                continue
            predict = None
            if look is not None or options.integers:
                runs = [run, *(folder / fold for folder in options.second)]
                fields = [case for case in training if not case.centered_crop]
                predict = exported(runs, look, fields if options.integers else [])
            blobs = detect_blobs(
                run,
                tested,
                options.match,
                options.flips,
                predict,
            )
            write_json(place, blobs)
        founds[fold] = json.loads(place.read_text())
    if options.train_only:
        return
    if not founds:
        parser.error(f"{options.out} holds no fold that was detected on in this way")
    others = [
        {
            fold: json.loads((folder / fold / name).read_text())
            for fold in options.folds
            if (folder / fold / name).exists()
        }
        for folder in options.also
    ]
    print_table(options.data, options.out, [founds, *others], options.tune, at)


if __name__ == "__main__":
    sys.exit(run_script(main, "experiments.cross_validation"))

"""Makes the built-in model from the data: `python -m experiments.laboratories DATA OUT`.

The networks of the map and their proposal network come from a model file
(`experiments/default_model.sh` trains them); they learnt from MITOS-ATYPIA-14 and crops. Here
verifiers are trained, two for every seed and fold: a small one, which screens proposals, too, and a
large one, which sees the same patch at twice the resolution and begins with the encoder of the
small one. That one's begins with the encoder of a run of a network of the map, its first blocks
frozen, or else with ImageNet's. A fold leaves out a laboratory and a third of the crops and of the
background. How sure each verifier is of that background is taken from its logits; the joining rule
and the threshold are of the laboratories that were left out. All verifiers are brought to int8
first, so that what is measured is what the file holds. The model file takes the verifiers of
both folds of the first seed. Stopped, it goes on after the last finished network.
"""

from __future__ import annotations

import argparse
import copy
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from experiments.laboratories.candidates import (
    MapMaker,
    Scored,
    in_patches,
    screened_cascade,
    start,
)
from experiments.laboratories.data import LABELS, LabImage, load_laboratories
from experiments.laboratories.folds import Verifiers, encoder_of, fold_verifiers, score_left_out
from experiments.laboratories.graphs import calibration_patches, int8_graph
from experiments.laboratories.model import write_model
from experiments.laboratories.pictures import write_pictures
from experiments.laboratories.pools import FOLDS, SIZES, fold_name
from experiments.laboratories.protocol import (
    LEFT_OUT,
    THRESHOLDS,
    Counts,
    background_levels,
    candidate_recall,
    common_threshold,
    figures,
    fit_rule,
)
from experiments.laboratories.screening import find_proposals, screening_network
from segmitos.console import run_program
from segmitos.detection.model import find_model
from segmitos.detection.model_file import read_model_file
from segmitos.training.networks.verifier import VerifierNetwork


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m experiments.laboratories", description=__doc__)
    parser.add_argument("data", type=Path, help="folder of all data sets")
    parser.add_argument("out", type=Path, help="folder for weights, figures and the model file")
    parser.add_argument("--networks", default="lite", help="built-in name or .segmitos file")
    parser.add_argument("--begin", type=Path, help="run of a network of the map; else ImageNet")
    parser.add_argument(
        "--steps", type=int, nargs=2, default=[1200, 1000], help="of the small and the large one"
    )
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1], help="of the trainings")
    named = ", ".join(f"{fold}: {fold_name(fold)}" for fold in FOLDS)
    parser.add_argument(
        "--folds",
        type=int,
        nargs="+",
        choices=FOLDS,
        help=f"train the verifiers of these and stop ({named})",
    )
    parser.add_argument("--threads", type=int, default=1, help="of the CPU")
    given = parser.parse_args()
    torch.set_num_threads(given.threads)
    # What may be wrong with the call is found before hours of training.
    networks = in_patches(read_model_file(find_model(given.networks)))
    screened_cascade(networks)
    begin = encoder_of(given.begin)
    images = load_laboratories(given.data, sorted(LABELS.glob("*.csv")))
    given.out.mkdir(parents=True, exist_ok=True)
    verifiers: dict[int, Verifiers] = {
        seed: {
            fold: fold_verifiers(images, fold, seed, begin, given.steps, given.out)
            for fold in given.folds or FOLDS
        }
        for seed in given.seeds
    }
    if given.folds:
        return
    proposals = find_proposals(images, networks, given.threads)
    left_out = [
        score_left_out(
            images,
            networks,
            verifiers[seed],
            proposals,
            given.out / f"candidates-seed{seed}.safetensors",
            given.threads,
        )
        for seed in given.seeds
    ]
    levels = [background_levels(images, found) for found in left_out]
    runs = [
        {index: of.lowered_by(level[images[index].fold]) for index, of in found.items()}
        for found, level in zip(left_out, levels, strict=True)
    ]
    rule = fit_rule(images, runs)
    counts = [Counts(images, run, rule) for run in runs]
    at = common_threshold(counts)
    first = verifiers[given.seeds[0]]
    # It screens as it was trained, and as it did on what it left out: its level is not taken off.
    screens = screening_network(first[FOLDS[0]][0], images, proposals, FOLDS[0])
    screening = int8_graph([screens], calibration_patches(images, FOLDS[0]))
    lowered = [network for fold in FOLDS for network in _lowered(first[fold], levels[0][fold])]
    together = int8_graph(lowered, calibration_patches(images, None))
    maker = MapMaker(networks, screening, given.threads)
    judge = start(together, 1, given.threads)
    found = {i: maker.candidates(image, [judge]) for i, image in enumerate(images) if image.test}
    test = Counts(images, found, rule)
    content = {
        "seeds": given.seeds,
        "steps": given.steps,
        "rule": vars(rule),
        "threshold": float(THRESHOLDS[at]),
        "candidates": [candidate_recall(images, run) for run in runs],
        "left_out": [figures(images, run, at) for run in counts],
        "without": _without(images, runs),
        "H03": {
            key: test.of("mitos14", unsure, test=True)[at].tolist()
            for key, unsure in (("as_published", False), ("unsure_left_out", True))
        },
    }
    (given.out / "figures.json").write_text(json.dumps(content, indent=1) + "\n")
    print(json.dumps(content, indent=1))
    write_pictures(given.out, images, runs[0], rule, float(THRESHOLDS[at]))
    write_model(
        given.out / "lite.segmitos",
        networks,
        screening,
        together,
        rule,
        float(THRESHOLDS[at]),
        _validation(content),
    )


def _lowered(
    verifiers: Sequence[VerifierNetwork], levels: NDArray[np.float64]
) -> list[VerifierNetwork]:
    """Return copies of verifiers whose logits are less by their levels."""
    lowered = [copy.deepcopy(network) for network in verifiers]
    for network, level in zip(lowered, levels, strict=True):
        network.head.bias.data -= float(level)
    return lowered


def _without(images: Sequence[LabImage], runs: Sequence[dict[int, Scored]]) -> dict[str, Any]:
    """Return the figures of one size of verifier alone, rule and threshold chosen again."""
    result = {}
    for number, input_px in enumerate(SIZES):
        alone = [{i: of.judged_by([number]) for i, of in run.items()} for run in runs]
        rule = fit_rule(images, alone)
        counts = [Counts(images, run, rule) for run in alone]
        at = common_threshold(counts)
        result[f"{input_px} px alone"] = [figures(images, run, at) for run in counts]
    return result


def _validation(content: dict[str, Any]) -> dict[str, Any]:
    """Return what the model file says of how good it is: of the first seed."""
    first = content["left_out"][0]["as_published"]
    tp, fp, fn = np.sum([first[name]["counts"] for name in LEFT_OUT], axis=0).tolist()
    return {
        "data": "fields of mitos12 and MiDeSeC: no network of the map was trained on either, and "
        "of the verifiers only those count that were not trained on the laboratory; joining rule "
        "and threshold chosen on both together",
        "tp": tp,
        "fp": fp,
        "fn": fn,
        "precision": tp / (tp + fp),
        "recall": tp / (tp + fn),
        "f_score": first["pooled"],
        "left_out": content["left_out"][0],
    }


if __name__ == "__main__":
    run_program(main, "experiments.laboratories")

"""Makes the built-in model from the data: `python -m experiments.laboratories DATA OUT`.

The networks of the map and their proposal network come from a model file
(`experiments/default_model.sh` trains them); they learned from MITOS-ATYPIA-14 and crops. Here
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
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from experiments.arguments import add_verifier_options, laboratories_parser
from experiments.laboratories.candidates import MapMaker, read_networks, screened_cascade, start
from experiments.laboratories.data import TARGET, LabImage, load_laboratories
from experiments.laboratories.folds import Verifiers, encoder_of, fold_verifiers, score_left_out
from experiments.laboratories.graphs import calibration_patches, int8_graph
from experiments.laboratories.model import write_model
from experiments.laboratories.pictures import write_pictures
from experiments.laboratories.pools import FOLDS, SIZES, fold_name
from experiments.laboratories.protocol import (
    LEAVE_UNSURE_OUT,
    LEFT_OUT,
    Choice,
    Counts,
    Found,
    background_levels,
    candidate_recall,
    choose,
    figures,
    lowered,
)
from experiments.laboratories.screening import Proposals, find_proposals, screening_network
from segmitos.console import run_program
from segmitos.detection.stain import Stain


def main() -> None:
    given = _parser().parse_args()
    torch.set_num_threads(given.threads)
    # What may be wrong with the call is found before hours of training.
    networks = read_networks(given.networks)
    screened_cascade(networks)
    begin = encoder_of(given.begin)
    images = load_laboratories(given.data)
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
    runs = [lowered(images, found, level) for found, level in zip(left_out, levels, strict=True)]
    choice = choose(images, runs)
    first = verifiers[given.seeds[0]]
    screening, together = _graphs_of_the_file(
        images, first, levels[0], proposals, networks.spec.stain or TARGET
    )
    maker = MapMaker(networks, screening, given.threads)
    judge = start(together, 1, given.threads)
    found = {i: maker.candidates(image, [judge]) for i, image in enumerate(images) if image.test}
    content = {
        "seeds": given.seeds,
        "steps": given.steps,
        **_figures(images, runs, choice, Counts(images, found, choice.rule)),
    }
    (given.out / "figures.json").write_text(json.dumps(content, indent=1) + "\n")
    print(json.dumps(content, indent=1))
    write_pictures(given.out, images, runs[0], choice.rule, choice.threshold)
    write_model(
        given.out / "lite.segmitos",
        networks,
        screening,
        together,
        choice.rule,
        choice.threshold,
        _validation(content),
    )


def _parser() -> argparse.ArgumentParser:
    parser = laboratories_parser("", __doc__)
    add_verifier_options(parser, seeds=[0, 1])
    parser.add_argument("--networks", default="lite", help="built-in name or .segmitos file")
    named = ", ".join(f"{fold}: {fold_name(fold)}" for fold in FOLDS)
    parser.add_argument(
        "--folds",
        type=int,
        nargs="+",
        choices=FOLDS,
        help=f"train the verifiers of these and stop ({named})",
    )
    return parser


def _graphs_of_the_file(
    images: Sequence[LabImage],
    verifiers: Verifiers,
    levels: Mapping[int, NDArray[np.float64]],
    proposals: Mapping[int, Proposals],
    stain: Stain,
) -> tuple[bytes, bytes]:
    """Return the graph that screens proposals, and that of both folds' verifiers less their levels.

    One screens as it was trained, and as it did on what it left out: its level is not taken off.
    """
    screens = screening_network(verifiers[FOLDS[0]][0], images, proposals, FOLDS[0], stain)
    judges = []
    for fold in FOLDS:
        for network, level in zip(copy.deepcopy(verifiers[fold]), levels[fold], strict=True):
            network.head.bias.data -= float(level)
            judges.append(network)
    screening = int8_graph([screens], calibration_patches(images, FOLDS[0]))
    return screening, int8_graph(judges, calibration_patches(images, None))


def _figures(
    images: Sequence[LabImage], runs: Sequence[Found], choice: Choice, test: Counts
) -> dict[str, Any]:
    """Return every figure: of laboratories left out, of each size alone, and of the test slide."""
    return {
        "rule": vars(choice.rule),
        "threshold": choice.threshold,
        "candidates": [candidate_recall(images, run) for run in runs],
        "left_out": [figures(images, counts, choice.at) for counts in choice.counts],
        "without": _without(images, runs),
        "H03": {
            key: test.of("mitos14", unsure, test=True)[choice.at].tolist()
            for key, unsure in LEAVE_UNSURE_OUT.items()
        },
    }


def _without(images: Sequence[LabImage], runs: Sequence[Found]) -> dict[str, Any]:
    """Return the figures of one size of verifier alone, rule and threshold chosen again."""
    result = {}
    for number, input_px in enumerate(SIZES):
        alone = [{i: of.judged_by([number]) for i, of in run.items()} for run in runs]
        choice = choose(images, alone)
        result[f"{input_px} px alone"] = [figures(images, run, choice.at) for run in choice.counts]
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

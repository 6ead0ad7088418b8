"""Scores the verifiers of a model file on what each of them left out, without any training.

    python -m experiments.laboratories.file_check DATA [--networks FILE ...]

A model file that `experiments.laboratories` wrote holds two verifiers that left out mitos12 and two
that left out MiDeSeC. Taken apart again, each pair judges the candidates of its own laboratory, its
third of the crops and of the background. The joining rule and the threshold are chosen again, and
compared with those of the file. Other networks can stand for those of the map (`--networks`): which
networks are better is told so in minutes.

The screening network of the file had seen one of the two laboratories. So nothing is screened here:
the networks of the map see every proposal, and what is found is a little more than the file finds.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from experiments.arguments import within
from experiments.laboratories.candidates import MapMaker, Scored, read_networks, start
from experiments.laboratories.data import TEST_SLIDE, LabImage, load_laboratories
from experiments.laboratories.model import rule_of
from experiments.laboratories.pools import FOLDS, SIZES
from experiments.laboratories.protocol import (
    Counts,
    background_levels,
    candidate_recall,
    choose,
    f_score,
    figures,
    lowered,
)
from segmitos.console import run_program
from segmitos.detection.model_file import VERIFIER, ModelFile
from segmitos.errors import UsageError


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m experiments.laboratories.file_check", description=__doc__
    )
    parser.add_argument("data", type=Path, help="folder of all data sets")
    parser.add_argument("--model", default="lite", help="built-in name or .segmitos file")
    parser.add_argument(
        "--networks",
        nargs="+",
        action="append",
        default=[],
        help=".segmitos files whose networks stand together for those of the map; may be repeated",
    )
    parser.add_argument("--threads", type=within(1), default=1, help="of the CPU")
    given = parser.parse_args()
    model = read_networks(given.model)
    rule_of(model)
    images = load_laboratories(given.data)
    for files in given.networks or [[given.model]]:
        others = [read_networks(file) for file in files]
        networks = tuple(network for other in others for network in other.networks)
        content = check(images, replace(model, networks=networks), given.threads)
        print(json.dumps({"networks": files, **content}, indent=1), flush=True)


def check(images: Sequence[LabImage], model: ModelFile, threads: int) -> dict[str, Any]:
    """Return the figures of a model file's networks and verifiers.

    Raises:
        UsageError: where the file has not two verifiers of each fold.
    """
    graphs = verifiers_of(model.graphs[VERIFIER])
    if len(graphs) != len(FOLDS) * len(SIZES):
        raise UsageError(f"{model.spec.name} has {len(graphs)} verifiers, not two of each fold")
    judges = [start(graph, 1, threads) for graph in graphs]
    of_fold = {
        fold: range(number * len(SIZES), (number + 1) * len(SIZES))
        for number, fold in enumerate(FOLDS)
    }
    maker = MapMaker(model, None, threads)
    found: dict[int, Scored] = {}
    test: dict[int, Scored] = {}
    for index, image in enumerate(images):
        if image.test:
            test[index] = maker.candidates(image, judges)
        elif image.fold in of_fold:
            found[index] = maker.candidates(image, [judges[k] for k in of_fold[image.fold]])
    levels = background_levels(images, found)
    run = lowered(images, found, levels)
    all_levels = np.concatenate([levels[fold] for fold in FOLDS])
    test = {index: of.lowered_by(all_levels) for index, of in test.items()}
    choice = choose(images, [run])
    slide = Counts(images, test, choice.rule).of("mitos14", False, test=True)[choice.at]
    own_rule, own_at = rule_of(model)
    return {
        "rule": vars(choice.rule),
        "candidates": candidate_recall(images, run),
        **figures(images, choice.counts[0], choice.at),
        TEST_SLIDE: {"counts": slide.tolist(), "f_score": f_score(slide)},
        "rule_and_threshold_of_the_file": {
            **vars(own_rule),
            **figures(images, Counts(images, found, own_rule), own_at),
        },
    }


def verifiers_of(graph: bytes) -> list[bytes]:
    """Take a graph that averages the logits of verifiers apart: one graph of each.

    Args:
        graph: bytes (N, h, w, 3) -> probabilities (N,) of the mean logit.
    """
    import onnx

    whole = onnx.load_model_from_string(graph)
    maker = {name: node for node in whole.graph.node for name in node.output}
    last = maker[whole.graph.output[0].name]
    mean = maker[last.input[0]]
    result = []
    for name in maker[mean.input[0]].input:
        last.input[0] = maker[name].input[0]
        result.append(whole.SerializeToString())
    return result


if __name__ == "__main__":
    run_program(main, "experiments.laboratories.file_check")

"""Scores MITOS-ATYPIA-14 as a laboratory that nothing has seen.

    python -m experiments.laboratories.networks DATA OUT --without mitos14
    python -m experiments.laboratories.unseen DATA OUT --networks OUT/networks.segmitos

The networks of the built-in model's map learned from MITOS-ATYPIA-14. Here other networks stand for
them, of the same recipe, that learned from the other laboratories, and verifiers that leave this
one out are trained in the same way. The joining rule and the threshold are those of a model file:
they were chosen on mitos12 and MiDeSeC. So no label of this laboratory taught or chose anything.
(What the screen lets through is set on the left-out fields, without labels, as for the other two.)
The paper's validation slide, of the same laboratory, is scored on its own. Scanners of the crops
can be left out, too: `--without` of the first command and `--scanners` of the second.

Networks of two trainings do not mean the same by a score, so the file's threshold says little here.
The figures are given at that threshold, and at the lowest one that leaves few enough false marks on
the background that was left out: that one needs no label.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

from experiments.arguments import add_verifier_options, laboratories_parser
from experiments.laboratories.candidates import read_networks, screened_cascade
from experiments.laboratories.data import (
    CROP_GROUPS,
    FIELDS,
    TEST_SLIDE,
    LabImage,
    crop_group,
    load_laboratories,
)
from experiments.laboratories.folds import encoder_of, fold_verifiers, score_left_out
from experiments.laboratories.model import rule_of
from experiments.laboratories.protocol import (
    LEAVE_UNSURE_OUT,
    Counts,
    background_levels,
    candidate_recall,
    f_score,
    few_false_marks,
    figures,
    lowered,
)
from experiments.laboratories.screening import find_proposals
from segmitos.console import run_program
from segmitos.detection.model import find_model
from segmitos.detection.model_file import read_model_file
from segmitos.errors import UsageError

FOLD = 0
LABORATORY = FIELDS[FOLD]


def main() -> None:
    parser = laboratories_parser(".unseen", __doc__)
    add_verifier_options(parser, seeds=[0])
    parser.add_argument(
        "--networks", required=True, help=".segmitos file that did not learn from the laboratory"
    )
    parser.add_argument(
        "--scanners",
        nargs="+",
        default=[],
        choices=CROP_GROUPS,
        help="of the crops, to leave out, too; the networks must have been trained without them",
    )
    parser.add_argument("--model", default="lite", help="whose rule and threshold are taken")
    given = parser.parse_args()
    torch.set_num_threads(given.threads)
    networks = read_networks(given.networks)
    screened_cascade(networks)
    if LABORATORY in networks.spec.datasets:
        raise UsageError(f"{given.networks}: its networks learned from {LABORATORY}")
    rule, at = rule_of(read_model_file(find_model(given.model)))
    begin = encoder_of(given.begin)
    images = load_laboratories(given.data)
    leave_out(images, given.scanners)
    given.out.mkdir(parents=True, exist_ok=True)
    proposals = find_proposals(images, networks, given.threads)
    content = []
    for seed in given.seeds:
        verifiers = fold_verifiers(images, FOLD, seed, begin, given.steps, given.out)
        found = score_left_out(
            images,
            networks,
            {FOLD: verifiers},
            proposals,
            given.out / f"candidates-unseen-seed{seed}.safetensors",
            given.threads,
            with_test=True,
        )
        run = lowered(images, found, background_levels(images, found))
        counts = Counts(images, run, rule)
        content.append(
            {
                "seed": seed,
                "steps": given.steps,
                "scanners": given.scanners,
                "rule": vars(rule),
                "candidates": candidate_recall(images, run, [LABORATORY]),
                "at_the_threshold_of_the_file": _figures(images, counts, at),
                "at_few_false_marks": _figures(
                    images, counts, int(np.argmax(few_false_marks([counts])))
                ),
            }
        )
    (given.out / "unseen.json").write_text(json.dumps(content, indent=1) + "\n")
    print(json.dumps(content, indent=1))


def leave_out(images: Sequence[LabImage], scanners: Sequence[str]) -> None:
    """Put every crop of some scanners among the images that are left out."""
    for image in images:
        if image.laboratory == "crops" and crop_group(image.source.slide) in scanners:
            image.fold = FOLD


def _figures(images: Sequence[LabImage], counts: Counts, at: int) -> dict[str, Any]:
    """Return every figure at a threshold, those of the test slide on their own."""
    slides = {
        key: counts.of(LABORATORY, unsure, test=True)[at]
        for key, unsure in LEAVE_UNSURE_OUT.items()
    }
    return {
        **figures(images, counts, at, [LABORATORY]),
        TEST_SLIDE: {
            key: {"counts": slide.tolist(), "f_score": f_score(slide)}
            for key, slide in slides.items()
        },
    }


if __name__ == "__main__":
    run_program(main, "experiments.laboratories.unseen")

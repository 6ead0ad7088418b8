"""Makes the built-in model from the data: `python -m experiments.laboratories DATA OUT`.

Four proposal networks and four verifiers, three of which leave out a laboratory and a third of the
crops and of the background; thresholds and the joining rule from what they had left out. About
75 minutes of one CPU core for each seed; stopped, it goes on after the last finished network.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from torch import nn

from experiments.laboratories.candidates import Candidates, find_candidates
from experiments.laboratories.data import FIELDS, LABELS, TARGET, LabImage, load_laboratories
from experiments.laboratories.model import write_model
from experiments.laboratories.pools import ALL, learns, make_pools
from experiments.laboratories.proposals import train_proposals
from experiments.laboratories.protocol import fit_rule, report
from segmitos.training.networks.half import LiteHalfNetwork
from segmitos.training.networks.verifier import VerifierNetwork
from segmitos.training.verify import VerifierRecipe, train_verifier

FOLDS = (*range(len(FIELDS)), ALL)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("data", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--proposal-steps", type=int, default=1500)
    parser.add_argument("--verifier-steps", type=int, default=1800)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threads", type=int, default=1)
    given = parser.parse_args()
    torch.set_num_threads(given.threads)
    given.out.mkdir(parents=True, exist_ok=True)
    images = load_laboratories(given.data, sorted(LABELS.glob("*.csv")))
    proposals: dict[int, LiteHalfNetwork] = {}
    verifiers: dict[int, VerifierNetwork] = {}
    for fold in FOLDS:
        proposals[fold], verifiers[fold] = _networks(images, fold, given)
    found: dict[int, Candidates] = {}
    for index, image in enumerate(images):
        fold = ALL if image.test else image.fold
        found[index] = find_candidates(image, proposals[fold], [verifiers[fold]])
    rule = fit_rule(images, found, FIELDS)
    threshold, lines = report(images, found, rule, leave_unsure_out=False)
    _, without = report(images, found, rule, leave_unsure_out=True)
    text = ["as published", *lines, "", "unsure left out", *without]
    print("\n".join(text))
    (given.out / "figures.txt").write_text("\n".join(text) + "\n")
    (given.out / "rule.json").write_text(json.dumps({**vars(rule), "threshold": threshold}))
    write_model(
        given.out / "lite.segmitos",
        proposals[ALL],
        [verifiers[fold] for fold in FOLDS],
        rule,
        threshold,
    )


def _networks(
    images: list[LabImage], fold: int, given: argparse.Namespace
) -> tuple[LiteHalfNetwork, VerifierNetwork]:
    """Train a fold's networks, or read those that are there."""
    used = [image for image in images if learns(image, fold)]
    fields = {image.name: image.source.stain for image in used if not image.source.centered}
    slides = {image.source.slide: image.source.stain for image in used if image.source.centered}
    stains = [s for s in (*fields.values(), *list(slides.values())[::2]) if s is not None]
    sources = [image.source for image in images]

    def told(what: str, step: int, loss: float) -> None:
        if step % 100 == 0:
            print(f"fold {fold}, {what}: step {step}, loss {loss:.4f}", flush=True)

    def proposal() -> nn.Module:
        return train_proposals(
            images, make_pools(images, fold), stains, given.proposal_steps, given.seed,
            on_step=lambda step, loss: told("proposals", step, loss),
        )  # fmt: skip

    def verifier() -> nn.Module:
        recipe = VerifierRecipe(steps=given.verifier_steps, seed=given.seed)
        return train_verifier(
            sources, make_pools(images, fold), recipe, stains, TARGET,
            lambda step, loss: told("verifier", step, loss),
        )  # fmt: skip

    name = "all" if fold == ALL else f"without-{FIELDS[fold]}"
    loaded: list[nn.Module] = []
    for kind, network, train in (
        ("proposals", LiteHalfNetwork(), proposal),
        ("verifier", VerifierNetwork(), verifier),
    ):
        path = given.out / f"{kind}-{name}-seed{given.seed}.safetensors"
        if not path.exists():
            partial = path.with_suffix(".partial")
            save_file(train().state_dict(), str(partial))
            partial.replace(path)
        network.load_state_dict(load_file(str(path)))
        loaded.append(network.eval())
    return loaded[0], loaded[1]  # type: ignore[return-value]


if __name__ == "__main__":
    main()

"""Makes the built-in model from the data: `python -m experiments.laboratories DATA OUT`.

The networks of the map come from a model file (`experiments/default_model.sh` trains them); they
learnt from MITOS-ATYPIA-14 and crops. Here proposal networks and verifiers are trained, for every
seed three of each: two that leave out a laboratory and a third of the crops and of the background,
one that learns from all. The joining rule and the threshold are of what was left out; the shipped
file takes the networks that learnt from all. Stopped, it goes on after the last finished network.
"""

from __future__ import annotations

import argparse
import json
import pickle
from collections.abc import Sequence
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from torch import nn

from experiments.laboratories.candidates import MapMaker, Scored
from experiments.laboratories.data import LABELS, TARGET, LabImage, load_laboratories
from experiments.laboratories.model import proposal_graph, write_model
from experiments.laboratories.pools import ALL, FOLDS, fold_name, make_pools, stains_of
from experiments.laboratories.proposals import train_proposals
from experiments.laboratories.protocol import (
    THRESHOLDS,
    Counts,
    candidate_recall,
    common_threshold,
    figures,
    fit_rule,
)
from segmitos.detection.model import find_model
from segmitos.detection.model_file import ModelFile, read_model_file
from segmitos.training.networks.lite import LiteHalfNetwork
from segmitos.training.networks.verifier import VerifierNetwork, restore_verifier
from segmitos.training.verify import VerifierRecipe, train_verifier

Networks = tuple[LiteHalfNetwork, VerifierNetwork]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("data", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--networks", default="lite", help="built-in name or .segmitos file")
    parser.add_argument("--proposal-steps", type=int, default=1200)
    parser.add_argument("--verifier-steps", type=int, default=1000)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1])
    parser.add_argument(
        "--proposals-of", type=int, help="one seed's for all seeds, not each its own"
    )
    parser.add_argument("--threads", type=int, default=1)
    given = parser.parse_args()
    torch.set_num_threads(given.threads)
    given.out.mkdir(parents=True, exist_ok=True)
    images = load_laboratories(given.data, sorted(LABELS.glob("*.csv")))
    networks = {
        seed: {fold: _networks(images, fold, seed, given) for fold in FOLDS} for seed in given.seeds
    }
    maps = read_model_file(find_model(given.networks))
    runs = [_left_out(images, maps, networks, seed, given) for seed in given.seeds]
    rule = fit_rule(images, runs)
    # One verifier a run, as trained, then all of them, as shipped.
    alone = [
        {index: found.judged_by([number]) for index, found in run.items()}
        for number, run in enumerate(runs)
    ]
    joint = [Counts(images, run, rule) for run in runs]
    at = common_threshold(joint)
    content = {
        "seeds": given.seeds,
        "proposal_steps": given.proposal_steps,
        "verifier_steps": given.verifier_steps,
        "rule": vars(rule),
        "candidates": [candidate_recall(images, run) for run in runs],
        "one_verifier": [figures(images, Counts(images, run, rule), at) for run in alone],
        "all_verifiers": [figures(images, run, at) for run in joint],
    }
    (given.out / "figures.json").write_text(json.dumps(content, indent=1) + "\n")
    print(json.dumps(content, indent=1))
    first = networks[given.seeds[0]]
    write_model(
        given.out / "lite.segmitos",
        maps,
        first[ALL][0],
        [networks[seed][ALL][1] for seed in given.seeds],
        rule,
        float(THRESHOLDS[at]),
        content["all_verifiers"][0],
    )


def _networks(
    images: Sequence[LabImage], fold: int, seed: int, given: argparse.Namespace
) -> Networks:
    """Train a fold's networks, or read those that are there."""
    stains = stains_of(images, fold)
    of_proposals = seed if given.proposals_of is None else given.proposals_of
    sources = [image.source for image in images]

    def told(what: str, step: int, loss: float) -> None:
        if step % 100 == 0:
            print(f"seed {seed}, fold {fold}, {what}: step {step}, loss {loss:.4f}", flush=True)

    def proposal() -> nn.Module:
        return train_proposals(
            images, make_pools(images, fold), stains, given.proposal_steps, of_proposals,
            on_step=lambda step, loss: told("proposals", step, loss),
        )  # fmt: skip

    def verifier() -> nn.Module:
        recipe = VerifierRecipe(steps=given.verifier_steps, frozen_blocks=3, seed=seed)
        return train_verifier(
            sources, make_pools(images, fold), recipe, stains, TARGET,
            lambda step, loss: told("verifier", step, loss), loaded[0].state_dict(),
        )  # fmt: skip

    loaded: list[nn.Module] = []
    for kind, of, train in (("proposals", of_proposals, proposal), ("verifier", seed, verifier)):
        path = given.out / f"{kind}-{fold_name(fold)}-seed{of}.safetensors"
        if not path.exists():
            partial = path.with_suffix(".partial")
            weights = {key: value.contiguous() for key, value in train().state_dict().items()}
            save_file(weights, str(partial))
            partial.replace(path)
        weights = load_file(str(path))
        if kind == "verifier":
            loaded.append(restore_verifier(weights))
        else:
            network = LiteHalfNetwork()
            network.load_state_dict(weights)
            loaded.append(network.eval())
    return loaded[0], loaded[1]  # type: ignore[return-value]


def _left_out(
    images: Sequence[LabImage],
    maps: ModelFile,
    networks: dict[int, dict[int, Networks]],
    seed: int,
    given: argparse.Namespace,
) -> dict[int, Scored]:
    """Return the candidates of images that were left out, by networks that had not seen them."""
    path = given.out / f"candidates-seed{seed}.pickle"
    if path.exists():
        result: dict[int, Scored] = pickle.loads(path.read_bytes())
        return result
    makers = {
        fold: MapMaker(maps, proposal_graph(networks[seed][fold][0]), given.threads)
        for fold in FOLDS
    }
    found = {}
    for index, image in enumerate(images):
        fold = ALL if image.test else image.fold
        if fold in FOLDS:
            verifiers = [of_seed[fold][1] for of_seed in networks.values()]
            found[index] = makers[fold].candidates(image, verifiers)
    path.write_bytes(pickle.dumps(found))
    return found


if __name__ == "__main__":
    main()

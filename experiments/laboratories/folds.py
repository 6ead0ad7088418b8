"""The networks of a fold, and what they say of the images that it leaves out."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from pathlib import Path

from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor

from experiments.laboratories.candidates import (
    MapMaker,
    Scored,
    load_scored,
    save_scored,
    screened_cascade,
    start,
)
from experiments.laboratories.data import TARGET, LabImage
from experiments.laboratories.graphs import calibration_patches, int8_graph
from experiments.laboratories.pools import SIZES, learns, make_pools, stains_of, verifier_file
from experiments.laboratories.screening import Proposals, screening_network
from segmitos.detection.model_file import ModelFile
from segmitos.errors import UsageError
from segmitos.training.networks.lite import LiteNetwork
from segmitos.training.networks.verifier import VerifierNetwork, restore_verifier
from segmitos.training.train_verifier import VerifierRecipe, train_verifier
from segmitos.training.weights import load_run

_RECIPE = "recipe"
_IMAGES = "images"
Verifiers = dict[int, list[VerifierNetwork]]
"""Of one seed: by fold, the small one and the large one."""


def encoder_of(run: Path | None) -> dict[str, Tensor] | None:
    """Return the weights of a run's network; None where none is named."""
    if run is None:
        return None
    network = LiteNetwork()
    load_run(network, run)
    return network.state_dict()


def fold_verifiers(
    images: Sequence[LabImage],
    fold: int,
    seed: int,
    begin: dict[str, Tensor] | None,
    steps_by_size: Sequence[int],
    out: Path,
) -> list[VerifierNetwork]:
    """Train a fold's verifiers, or read those that are there.

    Args:
        images: of all laboratories.
        fold: whose images are left out.
        seed: of the trainings.
        begin: encoder that the small one begins with; None is ImageNet's.
        steps_by_size: of the small one and the large one.
        out: folder of their weights.

    Raises:
        UsageError: where there are weights of another recipe, or of other images.
    """
    about_images = _learned_from(images, fold)
    stains = stains_of(images, fold)
    sources = [image.source for image in images]
    loaded: list[VerifierNetwork] = []
    for input_px, steps in zip(SIZES, steps_by_size, strict=True):
        path = out / verifier_file(fold, input_px, seed)
        weights = loaded[0].encoder.state_dict() if loaded else begin
        frozen = 3 if weights is not None and not loaded else 0
        recipe = VerifierRecipe(steps=steps, frozen_blocks=frozen, seed=seed)
        made_by = {_RECIPE: str(recipe), _IMAGES: about_images}
        if path.exists():
            _check_made_by(path, made_by)
        else:
            stem = path.stem

            def told(step: int, loss: float, stem: str = stem) -> None:
                if step % 100 == 0:
                    print(f"{stem}: step {step}, loss {loss:.4f}", flush=True)

            network = train_verifier(
                sources, make_pools(images, fold), recipe, stains, TARGET, told, weights, input_px
            )
            partial = path.with_suffix(".partial")
            learned = {name: value.contiguous() for name, value in network.state_dict().items()}
            save_file(learned, str(partial), made_by)
            partial.replace(path)
        loaded.append(restore_verifier(load_file(str(path))))
    return loaded


def _learned_from(images: Sequence[LabImage], fold: int) -> str:
    """Tell in one line the images that a fold learns from."""
    names = [f"{image.laboratory}/{image.name}" for image in images if learns(image, fold)]
    digest = hashlib.sha256("\n".join(names).encode()).hexdigest()
    return f"{len(names)} images, {digest[:16]}"


def _check_made_by(path: Path, made_by: Mapping[str, str]) -> None:
    """Raise UsageError where saved weights say that another recipe or other images made them."""
    with safe_open(path, "pt") as file:
        said = file.metadata() or {}
    for key, value in made_by.items():
        if said.get(key, value) != value:
            raise UsageError(
                f"{path} was trained by {said[key]}, not by {value}: give the same --steps, "
                "--begin and scanners, or another folder"
            )


def score_left_out(
    images: Sequence[LabImage],
    networks: ModelFile,
    verifiers: Verifiers,
    proposals: Mapping[int, Proposals],
    path: Path,
    threads: int,
    with_test: bool = False,
) -> dict[int, Scored]:
    """Return the candidates of images that were left out, by verifiers that had not seen them.

    Args:
        images: of all laboratories.
        networks: model file of the networks of the map and their proposal network.
        verifiers: by fold, of one seed.
        proposals: that the screening networks learn from.
        path: where candidates are kept, and taken from if they are of the same networks.
        threads: of a network.
        with_test: whether the images of the test slide are scored, too.
    """
    made_of = _digest(images, networks, verifiers)
    saved = load_scored(path, made_of)
    if saved is not None:
        return saved
    found = {}
    for fold, trained in verifiers.items():
        patches = calibration_patches(images, fold)
        graphs = [int8_graph([network], patches) for network in trained]
        stain = networks.spec.stain or TARGET
        screens = screening_network(trained[0], images, proposals, fold, stain)
        screening = int8_graph([screens], patches)
        maker = MapMaker(networks, screening, threads)
        judges = [start(graph, 1, threads) for graph in graphs]
        for index, image in enumerate(images):
            if image.fold == fold and (with_test or not image.test):
                found[index] = maker.candidates(image, judges)
    save_scored(path, found, made_of)
    return found


def _digest(images: Sequence[LabImage], networks: ModelFile, verifiers: Verifiers) -> str:
    """Tell what candidates are made of: the images, and all networks by their weights."""
    digest = hashlib.sha256(f"{networks.sha256} {screened_cascade(networks)}".encode())
    for image in images:
        digest.update(f"{image.laboratory}/{image.name}/{image.fold}/{image.test};".encode())
    for fold in sorted(verifiers):
        for network in verifiers[fold]:
            for name, value in sorted(network.state_dict().items()):
                digest.update(f"{fold}/{name}:".encode() + value.numpy().tobytes())
    return digest.hexdigest()

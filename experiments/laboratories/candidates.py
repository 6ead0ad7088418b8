"""Candidates of images that a fold left out: map score and verifiers' scores."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path

import msgspec
import numpy as np
from numpy.typing import NDArray
from safetensors import safe_open
from safetensors.numpy import save

from experiments.laboratories.data import MPP, TARGET, LabImage
from segmitos.detection.cascade import CascadeMap
from segmitos.detection.model import BATCH_SIZE, find_model
from segmitos.detection.model_file import ModelFile, read_model_file
from segmitos.detection.patches import judge_places
from segmitos.detection.postprocess import smooth
from segmitos.detection.runtimes import Network, in_batches, open_onnxruntime
from segmitos.detection.spec import CascadeSettings, VerifierSettings
from segmitos.detection.verify import find_candidates, log_odds
from segmitos.errors import ModelError
from segmitos.io.files import write_bytes
from segmitos.io.geometry import pad_to_multiple
from segmitos.training.halves import without_halves
from segmitos.training.networks.verifier import PATCH_PX

SETTINGS = VerifierSettings(
    patch_px=PATCH_PX,
    smoothing_sigma_um=1.0,
    candidate_threshold=0.1,
    map_weight=1.0,
    verifier_weight=1.0,
    intercept=0.0,
)
"""Of the search for candidates; the weights are fitted later (`protocol.fit_rule`)."""
SCREENING_THRESHOLD = 0.4


def screened_cascade(networks: ModelFile) -> CascadeSettings:
    """Return the cascade of a model file with lenient proposals, and a verifier that screens them.

    Raises:
        ModelError: where the file has no proposal network.
    """
    if networks.spec.cascade is None:
        raise ModelError(
            f"{networks.spec.name}: the networks of the map need a proposal network in their file; "
            "'segmitos model combine' puts one before them"
        )
    return msgspec.structs.replace(
        networks.spec.cascade,
        proposal_threshold=0.02,
        ensemble_threshold=0.15,
        screening_patch_px=PATCH_PX,
        screening_threshold=SCREENING_THRESHOLD,
        patch_px=192,
        margin_px=64,
        # Of the `lite` recipe.
        grid_px=16,
    )


def read_networks(path: str) -> ModelFile:
    """Read a model file, so that its networks of the map see patches whole, not in two halves."""
    file = read_model_file(find_model(path))
    return replace(file, networks=tuple(without_halves(graph) for graph in file.networks))


@dataclass(frozen=True)
class Scored:
    """Candidates of one image: positions (n, 2), logits (n,) of the map, (n, k) of verifiers."""

    xy: NDArray[np.float64]
    map_logit: NDArray[np.float64]
    verifier_logits: NDArray[np.float64]

    def judged_by(self, verifiers: Sequence[int]) -> Scored:
        """Return the candidates with the logits of some of the verifiers alone."""
        return replace(self, verifier_logits=self.verifier_logits[:, list(verifiers)])

    def lowered_by(self, levels: NDArray[np.float64]) -> Scored:
        """Return the candidates with a number (k,) for each verifier taken from its logits."""
        return replace(self, verifier_logits=self.verifier_logits - levels)


def save_scored(path: Path, found: Mapping[int, Scored], made_of: str) -> None:
    """Write the candidates of images by their index, and a digest of what they were made of."""
    tensors = {
        f"{index}/{field.name}": np.ascontiguousarray(getattr(of, field.name))
        for index, of in found.items()
        for field in fields(Scored)
    }
    about = {"made_of": made_of, "images": " ".join(map(str, found))}
    write_bytes(path, save(tensors, about))


def load_scored(path: Path, made_of: str) -> dict[int, Scored] | None:
    """Read candidates back, in their order; None where there are none of this digest."""
    if not path.exists():
        return None
    with safe_open(path, "np") as file:
        about = file.metadata() or {}
        if about.get("made_of") != made_of:
            return None
        return {
            int(index): Scored(*(file.get_tensor(f"{index}/{f.name}") for f in fields(Scored)))
            for index in about["images"].split()
        }


def start(graph: bytes, rank: int, threads: int) -> Network:
    """Return a graph ready to run: rank 3 for maps (n, h, w), 1 for probabilities (n,)."""
    return open_onnxruntime(graph, "network", "cpu", threads, rank)[0]


class MapMaker:
    """Makes maps as detection does: proposals, screened, then the networks in patches.

    Args:
        networks: model file of the networks of the map and their proposal network.
        screening: graph that judges the proposals; None lets all of them through.
        threads: of a network.

    Raises:
        ModelError: where the file has no proposal network.
    """

    def __init__(self, networks: ModelFile, screening: bytes | None, threads: int) -> None:
        self._cascade = screened_cascade(networks)
        assert networks.proposal is not None
        self._proposal = start(networks.proposal, 3, threads)
        self._screening = None if screening is None else start(screening, 1, threads)
        self._networks = [
            in_batches(start(graph, 3, 1), BATCH_SIZE, threads) for graph in networks.networks
        ]
        self._stride = networks.spec.stride
        self._stain = networks.spec.stain or TARGET

    def candidates(self, image: LabImage, verifiers: Sequence[Network]) -> Scored:
        """Find and score the candidates of an image."""
        cascade = CascadeMap(
            pad_to_multiple(image.matched(self._stain), 32),
            self._proposal,
            self._networks,
            self._cascade,
            self._stride,
            screening=self._screening,
        )
        map_ = cascade.fill()
        smoothed = smooth(map_, SETTINGS.smoothing_sigma_um, MPP * self._stride)
        _, score, xy = find_candidates(smoothed, SETTINGS.candidate_threshold, self._stride)
        pixels = image.matched()
        logits = [
            log_odds(judge_places(verifier, pixels, xy, PATCH_PX).astype(np.float64))
            for verifier in verifiers
        ]
        return Scored(xy, log_odds(score), np.stack(logits, axis=1))

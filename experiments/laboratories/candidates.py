"""Candidates of images that a fold left out: map score and verifiers' scores."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from experiments.laboratories.data import MPP, LabImage
from segmitos.detection.cascade import run_cascade
from segmitos.detection.model_file import ModelFile
from segmitos.detection.postprocess import smooth
from segmitos.detection.runtimes import Network, open_onnxruntime
from segmitos.detection.spec import CascadeSettings, VerifierSettings
from segmitos.detection.verify import find_candidates, log_odds
from segmitos.io.geometry import pad_to_multiple
from segmitos.training.networks.lite import LiteHalfNetwork
from segmitos.training.networks.verifier import PATCH_PX, VerifierNetwork
from segmitos.training.verify import score_patches

CASCADE = CascadeSettings(
    proposal_network="lite-half",
    proposal_mpp=0.5,
    proposal_stride_px=2 * LiteHalfNetwork.stride,
    proposal_threshold=0.1,
    ensemble_threshold=0.15,
    block_px=32,
    patch_px=224,
    margin_px=80,
)
SETTINGS = VerifierSettings(
    patch_px=PATCH_PX,
    smoothing_sigma_um=1.0,
    candidate_threshold=0.15,
    map_weight=1.0,
    verifier_weight=1.0,
    intercept=0.0,
)
"""Of the search for candidates; the weights are fitted later (`protocol.fit_rule`)."""


@dataclass(frozen=True)
class Scored:
    """Candidates of one image: positions (n, 2), logits (n,) of the map, (n, k) of verifiers."""

    xy: NDArray[np.float64]
    map_logit: NDArray[np.float64]
    verifier_logits: NDArray[np.float64]

    def judged_by(self, verifiers: Sequence[int]) -> Scored:
        """Return the candidates with the logits of some of the verifiers alone."""
        return Scored(self.xy, self.map_logit, self.verifier_logits[:, list(verifiers)])


class MapMaker:
    """Makes maps as detection does: proposals, then the networks in patches.

    Args:
        networks: model file of the networks of the map.
        proposals: graph of the proposal network.
        threads: of a network.
    """

    def __init__(self, networks: ModelFile, proposals: bytes, threads: int) -> None:
        def start(graph: bytes, rank: int) -> Network:
            return open_onnxruntime(graph, "network", "cpu", threads, rank)[0]

        self._proposal = start(proposals, 3)
        self._networks = [start(graph, 3) for graph in networks.networks]
        self._stride = networks.spec.stride

    def candidates(self, image: LabImage, verifiers: Sequence[VerifierNetwork]) -> Scored:
        """Find and score the candidates of an image."""
        pixels = image.matched()
        padded = pad_to_multiple(pixels, 32)
        map_ = run_cascade(padded, self._proposal, self._networks, CASCADE, self._stride)
        map_mpp = MPP * self._stride
        smoothed = smooth(map_, SETTINGS.smoothing_sigma_um, map_mpp)
        _, score, xy = find_candidates(smoothed, SETTINGS.candidate_threshold, self._stride)
        logits = [score_patches(verifier, pixels, xy) for verifier in verifiers]
        return Scored(xy, log_odds(score), np.stack(logits, axis=1))

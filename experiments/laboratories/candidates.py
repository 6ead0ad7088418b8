"""Candidates of images that a fold left out: map score and verifiers' scores."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from experiments.laboratories.data import LabImage
from experiments.laboratories.proposals import halved
from segmitos.detection import verify
from segmitos.detection.postprocess import smooth
from segmitos.detection.spec import VerifierSettings
from segmitos.training.networks.half import LiteHalfNetwork
from segmitos.training.networks.verifier import PATCH_PX, VerifierNetwork
from segmitos.training.patches import OUTSIDE
from segmitos.training.verify import score_patches

STRIDE_PX = 8
"""Pixels at 0.25 um/px per pixel of the map."""
LOGIT_SHIFT = 2.0
"""Taken from the logits: learnt on patches full of mitoses, they are too sure."""
MAP_UM = 2.0
SETTINGS = VerifierSettings(
    patch_px=PATCH_PX,
    smoothing_sigma_um=1.0,
    candidate_threshold=0.03,
    separation_um=8.0,
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


@torch.inference_mode()
def probability_map(network: LiteHalfNetwork, image: NDArray[np.uint8]) -> NDArray[np.float32]:
    """Return the map of a whole image at 0.25 um/px, its stain matched."""
    half = halved(image)
    height, width = half.shape[:2]
    padded = np.full((-(-height // 16) * 16, -(-width // 16) * 16, 3), OUTSIDE, np.uint8)
    padded[:height, :width] = half
    pixels = torch.from_numpy(padded[None]).permute(0, 3, 1, 2).float()
    probability = torch.sigmoid(network(pixels) - LOGIT_SHIFT)[0, 0].numpy()
    result: NDArray[np.float32] = probability[: -(-height // 4), : -(-width // 4)]
    return result


def score_candidates(
    image: LabImage, proposals: LiteHalfNetwork, verifiers: Sequence[VerifierNetwork]
) -> Scored:
    """Find and score the candidates of an image as detection does."""
    pixels = image.matched()
    smoothed = smooth(probability_map(proposals, pixels), SETTINGS.smoothing_sigma_um, MAP_UM)
    found = verify.find_candidates(smoothed, SETTINGS, MAP_UM, STRIDE_PX)
    xy = np.stack([found.x, found.y], axis=1)
    logits = [score_patches(verifier, pixels, xy) for verifier in verifiers]
    return Scored(xy, logit(found.score), np.stack(logits, axis=1))


def logit(probability: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return log-odds, kept within 1e-5 of the ends."""
    clipped = np.clip(np.asarray(probability, np.float64), 1e-5, 1 - 1e-5)
    return np.log(clipped / (1 - clipped))

"""Candidates of images that a fold left out: map score and verifier score."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from experiments.laboratories.data import LabImage
from experiments.laboratories.proposals import _halved as halved
from segmitos.detection.postprocess import MapAccumulator, smooth
from segmitos.training.networks.half import LiteHalfNetwork
from segmitos.training.patches import OUTSIDE
from segmitos.training.verify import score_patches

STRIDE_PX = 8
"""Pixels at 0.25 um/px per pixel of the map."""
LOGIT_SHIFT = 2.0
"""Taken from the logits: learnt on patches full of mitoses, they are too sure."""
BINARIZATION = 0.2
SMOOTHING_UM = 1.0
_MAP_UM = 2.0


@dataclass(frozen=True)
class Candidates:
    """Candidates of one image: positions (n, 2), and logits (n,) of the map and the verifier."""

    xy: NDArray[np.float64]
    map_logit: NDArray[np.float64]
    verifier_logit: NDArray[np.float64]


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


def find_candidates(
    image: LabImage, proposals: LiteHalfNetwork, verifiers: Sequence[nn.Module]
) -> Candidates:
    """Find and score the candidates of an image as detection does."""
    pixels = image.matched()
    smoothed = smooth(probability_map(proposals, pixels), SMOOTHING_UM, _MAP_UM)
    accumulator = MapAccumulator(_MAP_UM, STRIDE_PX, check_plausible=False)
    accumulator.add(smoothed, 0, 0)
    blobs = accumulator.blobs(BINARIZATION)
    xy = np.stack([blobs.x_px, blobs.y_px], axis=1)
    scores = [score_patches(verifier, pixels, xy) for verifier in verifiers]
    return Candidates(xy, logit(blobs.score), np.mean(scores, axis=0))


def logit(probability: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return log-odds, kept within 1e-5 of the ends."""
    clipped = np.clip(np.asarray(probability, np.float64), 1e-5, 1 - 1e-5)
    return np.log(clipped / (1 - clipped))

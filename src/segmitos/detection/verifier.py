"""The verifier: a network that sees a patch round each candidate and changes its score.

Candidates are few, so that what sees them may be strong. The map's score and the verifier's
probability are joined by a logistic rule fitted on validation data (`spec.VerifierSettings`).
"""

from __future__ import annotations

import dataclasses

import numpy as np
from numpy.typing import NDArray

from segmitos.detection.cascade import OUTSIDE
from segmitos.detection.postprocess import Blobs
from segmitos.detection.runtimes import Network
from segmitos.detection.spec import VerifierSettings
from segmitos.detection.view import SlideView

BATCH_SIZE = 32
# Probabilities are kept this far from 0 and 1, where a logit has no end.
_EPSILON = 1e-4


def verify_blobs(
    blobs: Blobs, view: SlideView, verify: Network, settings: VerifierSettings
) -> Blobs:
    """Return the blobs with scores that the verifier has a say in.

    Args:
        blobs: in pixels of the view.
        view: at the model's scale, in its staining.
        verify: patches (n, patch_px, patch_px, 3) uint8 -> probabilities (n,).
        settings: of the verifier.
    """
    if not len(blobs):
        return blobs
    probabilities = []
    for start in range(0, len(blobs), BATCH_SIZE):
        some = slice(start, start + BATCH_SIZE)
        patches = [
            read_patch(view, float(x), float(y), settings.patch_px)
            for x, y in zip(blobs.x_px[some], blobs.y_px[some], strict=True)
        ]
        probabilities.append(verify(np.stack(patches)))
    logits = (
        settings.intercept
        + settings.map_weight * _logit(blobs.score)
        + settings.verifier_weight * _logit(np.concatenate(probabilities).astype(np.float64))
    )
    return dataclasses.replace(blobs, score=1 / (1 + np.exp(-logits)))


def read_patch(view: SlideView, x_px: float, y_px: float, side: int) -> NDArray[np.uint8]:
    """Return a square (side, side, 3) round a point of a view; beyond the view it is gray."""
    left, top = round(x_px + 0.5) - side // 2, round(y_px + 0.5) - side // 2
    x0, y0 = max(0, left), max(0, top)
    x1, y1 = min(view.width, left + side), min(view.height, top + side)
    patch = np.full((side, side, 3), OUTSIDE, np.uint8)
    if x1 > x0 and y1 > y0:
        patch[y0 - top : y1 - top, x0 - left : x1 - left] = view.read(x0, y0, x1 - x0, y1 - y0)
    return patch


def _logit(probability: NDArray[np.float64]) -> NDArray[np.float64]:
    p = np.clip(probability, _EPSILON, 1 - _EPSILON)
    result: NDArray[np.float64] = np.log(p / (1 - p))
    return result

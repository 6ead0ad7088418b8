"""The verifier: a second network judges each candidate of the map, and the map takes its word.

1. Regions of the smoothed map above a low threshold are candidates.
2. A patch is cut round the middle of each, and the verifier gives its probability of a mitosis.
3. Both are joined by a logistic rule that was fitted on laboratories left out of training.
4. The joined score replaces the map inside of the region; elsewhere the map is 0.

What follows, from thresholds to reports, sees one map, whatever made it.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from segmitos.detection.connected import label_pixels
from segmitos.detection.postprocess import smooth
from segmitos.detection.runtimes import Network
from segmitos.detection.spec import VerifierSettings
from segmitos.io.geometry import rescale

# Patches that go through the verifier together.
BATCH_SIZE = 32
# Gray of what lies outside of the image, as in training.
OUTSIDE = 127
# Log-odds are kept within those of this probability.
_EPSILON = 1e-5
# A candidate that touches the output box is mapped whole, if it reaches no further beyond it.
REACH_PX = 64

Box = tuple[int, int, int, int]


def verify_map(
    image: NDArray[np.uint8],
    probability: NDArray[np.float32],
    verifier: Network,
    settings: VerifierSettings,
    stride: int,
    map_mpp: float,
    output_box: Box | None = None,
) -> NDArray[np.float32]:
    """Return the map of an image with each candidate's joined score.

    Args:
        image: (h, w, 3) uint8 RGB at the model's scale.
        probability: map (h / stride, w / stride) of the networks.
        verifier: patches (n, side, side, 3) uint8 -> probabilities (n,).
        settings: of the verifier.
        stride: image pixels per pixel of the map.
        map_mpp: um per pixel of the map.
        output_box: top, left, bottom, right in pixels of the image; candidates that do not touch
            it are left out.

    Returns:
        A map of the same size: the joined score in the regions of candidates, else 0.
    """
    verified = np.zeros_like(probability)
    smoothed = smooth(probability, settings.smoothing_sigma_um, map_mpp)
    found = find_candidates(smoothed, settings.candidate_threshold, stride)
    wanted = np.ones(len(found.score), bool)
    if output_box is not None:
        top, left, bottom, right = (edge / stride for edge in output_box)
        inside = (found.rows >= top - 1) & (found.rows < bottom)
        inside &= (found.columns >= left - 1) & (found.columns < right)
        wanted = np.bincount(found.member, inside, len(wanted)) > 0
    joined = np.zeros(len(wanted), np.float32)
    chosen = np.flatnonzero(wanted)
    patches = cut_patches(image, found.x[chosen], found.y[chosen], settings.patch_px)
    for begin in range(0, len(chosen), BATCH_SIZE):
        some = chosen[begin : begin + BATCH_SIZE]
        judged = verifier(patches[begin : begin + BATCH_SIZE])
        joined[some] = join_scores(found.score[some], judged, settings)
    verified[found.rows, found.columns] = joined[found.member]
    return verified


@dataclass(frozen=True)
class Candidates:
    """Regions of a map above a threshold."""

    rows: NDArray[np.int64]
    columns: NDArray[np.int64]
    """Of all pixels above the threshold, in row-major order."""
    member: NDArray[np.int64]
    """The region of each pixel."""
    score: NDArray[np.float64]
    """(n,) mean of the map over each region."""
    x: NDArray[np.float64]
    y: NDArray[np.float64]
    """(n,) centers of mass, in pixels of the image."""


def find_candidates(smoothed: NDArray[np.float32], threshold: float, stride: int) -> Candidates:
    """Return the regions of a map (h, w) above a threshold; `stride`: image pixels per pixel."""
    rows, columns = np.nonzero(smoothed > threshold)
    member, count = label_pixels(rows.astype(np.int32), columns.astype(np.int32))
    values = smoothed[rows, columns].astype(np.float64)
    mass = np.bincount(member, values, count)
    return Candidates(
        rows,
        columns,
        member,
        mass / np.bincount(member, minlength=count),
        rescale(np.bincount(member, values * columns, count) / mass, stride),
        rescale(np.bincount(member, values * rows, count) / mass, stride),
    )


def grown(box: Box | None) -> Box | None:
    """Return the part of the map that candidates of an output box are sought in."""
    if box is None:
        return None
    top, left, bottom, right = box
    return top - REACH_PX, left - REACH_PX, bottom + REACH_PX, right + REACH_PX


def join_scores(
    map_score: NDArray[np.float64], probability: NDArray[np.float32], settings: VerifierSettings
) -> NDArray[np.float64]:
    """Join the mean map score and the verifier's probability of candidates, both (n,)."""
    logit = (
        settings.intercept
        + settings.map_weight * log_odds(map_score)
        + settings.verifier_weight * log_odds(probability.astype(np.float64))
    )
    result: NDArray[np.float64] = 1 / (1 + np.exp(-logit))
    return result


def log_odds(probability: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return log-odds, kept within those of `_EPSILON` and its complement."""
    clipped = np.clip(probability, _EPSILON, 1 - _EPSILON)
    result: NDArray[np.float64] = np.log(clipped / (1 - clipped))
    return result


def patch_corners(center: NDArray[np.float64], side: int) -> NDArray[np.int64]:
    """Return the first pixel of squares round points, along one axis or both."""
    return np.floor(center + 1).astype(np.int64) - side // 2


def cut_patches(
    image: NDArray[np.uint8], x: NDArray[np.float64], y: NDArray[np.float64], side: int
) -> NDArray[np.uint8]:
    """Cut squares (n, side, side, 3) round points (n,), gray where they reach past the image."""
    height, width = image.shape[:2]
    patches = np.full((len(x), side, side, 3), OUTSIDE, np.uint8)
    lefts, tops = patch_corners(x, side), patch_corners(y, side)
    for patch, left, top in zip(patches, lefts.tolist(), tops.tolist(), strict=True):
        x0, y0 = max(0, left), max(0, top)
        x1, y1 = min(width, left + side), min(height, top + side)
        if x0 < x1 and y0 < y1:
            patch[y0 - top : y1 - top, x0 - left : x1 - left] = image[y0:y1, x0:x1]
    return patches

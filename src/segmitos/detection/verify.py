"""The verifier: a second network judges each candidate of the map; its score goes into the map.

1. Regions of the smoothed map above a low threshold are candidates.
2. A patch is cut round the middle of each, and the verifier gives its probability of a mitosis.
3. Both are joined by a logistic rule that was fitted on laboratories left out of training.
4. The joined score replaces the map inside of the region; elsewhere the map is 0.

What follows, from thresholds to reports, sees one map, whatever made it.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from segmitos.detection.cascade import Box, Boxes, CascadeMap
from segmitos.detection.connected import Indices, measure_regions
from segmitos.detection.patches import judge_places
from segmitos.detection.postprocess import smooth, smoothing_radius
from segmitos.detection.runtimes import Network
from segmitos.detection.spec import VerifierSettings
from segmitos.io.geometry import rescale

# Log-odds are kept within those of this probability.
_EPSILON = 1e-5
# A candidate that crosses the border of the output box is mapped whole so far beyond it.
REACH_PX = 64


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
    pixels, score, xy = find_candidates(smoothed, settings.candidate_threshold, stride)
    rows, columns, member = pixels
    wanted = np.ones(len(score), bool)
    if output_box is not None:
        top, left, bottom, right = (edge / stride for edge in output_box)
        inside = (rows >= top - 1) & (rows < bottom)
        inside &= (columns >= left - 1) & (columns < right)
        wanted = np.bincount(member, inside, len(wanted)) > 0
    joined = np.zeros(len(wanted), np.float32)
    chosen = np.flatnonzero(wanted)
    judged = judge_places(verifier, image, xy[chosen], settings.patch_px)
    joined[chosen] = join_scores(score[chosen], judged, settings)
    verified[rows, columns] = joined[member]
    return verified


def find_candidates(
    smoothed: NDArray[np.float32], threshold: float, stride: int
) -> tuple[tuple[Indices, Indices, Indices], NDArray[np.float64], NDArray[np.float64]]:
    """Find the regions of a map (h, w) above a threshold.

    Args:
        smoothed: the map.
        threshold: a probability.
        stride: image pixels per pixel of the map.

    Returns:
        Row, column and region of each pixel above the threshold; of each region the mean of the
        map (k,) and the center of mass (x, y) in pixels of the image (k, 2).
    """
    rows, columns = np.nonzero(smoothed > threshold)
    member, _, score, column, row = measure_regions(rows, columns, smoothed[rows, columns])
    xy = np.stack([rescale(column, stride), rescale(row, stride)], axis=1)
    return (rows, columns, member), score, xy


def map_of_candidates(
    cascade: CascadeMap,
    settings: VerifierSettings,
    stride: int,
    map_mpp: float,
    output_box: Box,
) -> NDArray[np.float32]:
    """Return a cascade's map in an output box, and beyond it where candidates cross its border.

    A candidate is mapped whole if it, and what smoothing sees round it, reaches no further than
    `REACH_PX` from where it crosses.

    Args:
        cascade: of the image.
        settings: of the verifier.
        stride: image pixels per pixel of the map.
        map_mpp: um per pixel of the map.
        output_box: top, left, bottom, right in pixels of the image.

    Returns:
        Probabilities (h / stride, w / stride).
    """
    # Smoothing the first map pixel beyond the box needs the map this far out.
    seen_px = (smoothing_radius(settings.smoothing_sigma_um, map_mpp) + 1) * stride
    map_ = cascade.fill(_grown(output_box, seen_px))
    smoothed = smooth(map_, settings.smoothing_sigma_um, map_mpp)
    rows, columns = np.nonzero(smoothed > settings.candidate_threshold)
    top, left, bottom, right = (edge // stride for edge in output_box)
    beside = (rows >= top - 1) & (rows <= bottom) & (columns >= left - 1) & (columns <= right)
    within = (rows > top) & (rows < bottom - 1) & (columns > left) & (columns < right - 1)
    crossing = beside & ~within
    y, x = rows[crossing] * stride, columns[crossing] * stride
    reached = np.stack(
        [y - REACH_PX, x - REACH_PX, y + stride + REACH_PX, x + stride + REACH_PX], axis=1
    )
    # Beyond this the image holds too little context.
    furthest = _grown(output_box, REACH_PX)
    reached[:, :2] = np.maximum(reached[:, :2], furthest[:, :2])
    reached[:, 2:] = np.minimum(reached[:, 2:], furthest[:, 2:])
    return cascade.fill(reached)


def _grown(box: Box, pixels: int) -> Boxes:
    """Return a box (1, 4) that reaches further on all sides."""
    top, left, bottom, right = box
    return np.array([[top - pixels, left - pixels, bottom + pixels, right + pixels]], np.int64)


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

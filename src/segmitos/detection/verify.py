"""The verifier: a second network judges each candidate of the map, and the map takes its word.

1. Local maxima of the smoothed map above a low threshold are candidates.
2. A patch is cut round each, and the verifier gives its probability of a mitosis.
3. Both are joined by a logistic rule that was fitted on laboratories left out of training.
4. The joined score is written into the map round the candidate; elsewhere the map is 0.

What follows, from thresholds to reports, sees one map, whatever made it.
"""

from __future__ import annotations

from dataclasses import dataclass, fields

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray

from segmitos.detection.cascade import local_maxima
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
# So far beyond the output box the map is needed: a maximum outside of it may rule out one within.
REACH_PX = 64
# Of candidates, in pixels of the map.
_LEAST_APART = 4

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
        A map of the same size: the joined score at candidates, else 0.
    """
    smoothed = smooth(probability, settings.smoothing_sigma_um, map_mpp)
    found = find_candidates(smoothed, settings, map_mpp, stride)
    if output_box is not None:
        found = found.touching(tuple(edge / stride for edge in output_box))
    if not len(found.score):
        return np.zeros_like(probability)
    patches = cut_patches(image, found.x, found.y, settings.patch_px)
    judged = [
        verifier(patches[begin : begin + BATCH_SIZE])
        for begin in range(0, len(patches), BATCH_SIZE)
    ]
    joined = join_scores(found.score, np.concatenate(judged), settings).astype(np.float32)
    written = np.where(found.peaks > 0, joined[:, None, None], 0)
    reach = written.shape[1] // 2
    verified = np.pad(np.zeros_like(probability), reach)
    side = written.shape[1]
    for row, column, values in zip(
        found.rows.tolist(), found.columns.tolist(), written, strict=True
    ):
        part = verified[row : row + side, column : column + side]
        np.maximum(part, values, out=part)
    return verified[reach:-reach, reach:-reach]


@dataclass(frozen=True)
class Candidates:
    """Local maxima of a map that exceed a threshold, in row-major order."""

    rows: NDArray[np.int64]
    columns: NDArray[np.int64]
    peaks: NDArray[np.float32]
    """(n, side, side) round each maximum: where the map is above half of it, else 0."""
    score: NDArray[np.float64]
    """(n,) the map at each maximum."""
    x: NDArray[np.float64]
    y: NDArray[np.float64]
    """(n,) centers of mass of the peaks, in pixels of the image."""

    def touching(self, box: tuple[float, ...]) -> Candidates:
        """Return those with pixels in a box (top, left, bottom, right) of the map."""
        top, left, bottom, right = box
        reach = self.peaks.shape[1] // 2
        inside = (self.rows + reach >= top) & (self.rows - reach < bottom)
        inside &= (self.columns + reach >= left) & (self.columns - reach < right)
        return Candidates(*(getattr(self, field.name)[inside] for field in fields(self)))


def find_candidates(
    smoothed: NDArray[np.float32], settings: VerifierSettings, map_mpp: float, stride: int
) -> Candidates:
    """Return the candidates of a map (h, w), smoothed.

    Of two maxima that are nearer than the separation, the higher is a candidate, of equals the
    first. The pixels of two candidates' peaks never touch.
    """
    apart = max(_LEAST_APART, round(settings.separation_um / map_mpp))
    rows, columns = local_maxima(smoothed, settings.candidate_threshold).T
    near = _squares(np.pad(smoothed, apart - 1, constant_values=-np.inf), rows, columns, apart - 1)
    near = near.reshape(len(rows), near.shape[1] ** 2)
    middle = near.shape[1] // 2
    value = near[:, middle : middle + 1]
    highest = (value > near[:, :middle]).all(1) & (value >= near[:, middle + 1 :]).all(1)
    rows, columns = rows[highest], columns[highest]
    reach = apart // 2 - 1
    around = _squares(np.pad(smoothed, reach), rows, columns, reach)
    score = around[:, reach, reach].astype(np.float64)
    peaks = around * (around > 0.5 * around[:, reach : reach + 1, reach : reach + 1])
    mass, steps = peaks.sum((1, 2), dtype=np.float64), np.arange(-reach, reach + 1.0)
    across = columns + (peaks.sum(1, dtype=np.float64) @ steps) / mass
    down = rows + (peaks.sum(2, dtype=np.float64) @ steps) / mass
    return Candidates(rows, columns, peaks, score, rescale(across, stride), rescale(down, stride))


def _squares(
    padded: NDArray[np.float32], rows: NDArray[np.int64], columns: NDArray[np.int64], reach: int
) -> NDArray[np.float32]:
    """Return the squares (n, side, side) round pixels of a map that was padded by `reach`."""
    side = 2 * reach + 1
    squares: NDArray[np.float32] = sliding_window_view(padded, (side, side))[rows, columns]
    return squares


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
        + settings.map_weight * _log_odds(map_score)
        + settings.verifier_weight * _log_odds(probability.astype(np.float64))
    )
    result: NDArray[np.float64] = 1 / (1 + np.exp(-logit))
    return result


def _log_odds(probability: NDArray[np.float64]) -> NDArray[np.float64]:
    clipped = np.clip(probability, _EPSILON, 1 - _EPSILON)
    result: NDArray[np.float64] = np.log(clipped / (1 - clipped))
    return result


def cut_patches(
    image: NDArray[np.uint8], x: NDArray[np.float64], y: NDArray[np.float64], side: int
) -> NDArray[np.uint8]:
    """Cut squares (n, side, side, 3) round points (n,), gray where they reach past the image."""
    height, width = image.shape[:2]
    patches = np.full((len(x), side, side, 3), OUTSIDE, np.uint8)
    lefts = np.floor(x + 1).astype(int) - side // 2
    tops = np.floor(y + 1).astype(int) - side // 2
    for patch, left, top in zip(patches, lefts.tolist(), tops.tolist(), strict=True):
        x0, y0 = max(0, left), max(0, top)
        x1, y1 = min(width, left + side), min(height, top + side)
        if x0 < x1 and y0 < y1:
            patch[y0 - top : y1 - top, x0 - left : x1 - left] = image[y0:y1, x0:x1]
    return patches

"""Hard-negative mining: the network's own false positives become negatives of the next rounds."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray
from torch import nn

from segmitos.learn.predict import predictor
from segmitos.learn.sampling import Source

# A peak this close to a mitosis belongs to it, or to its ring.
_NEAR_UM = 8.0


def mine(
    network: nn.Module,
    sources: Sequence[Source],
    above: float,
    mpp: float,
    stride: int,
    advance: Callable[[int], None] = lambda _: None,
) -> int:
    """Set `mined_xy` of every source to the peaks that are no mitosis; return how many there are.

    A peak found in an earlier round stays, so that what was once learnt is not forgotten. Crops
    cut round a mitosis are searched too: they hold little tissue, but that of many slides.
    """
    total = 0
    predict = predictor(network)
    for source in sources:
        found = peaks(predict(source.image), above, stride)
        if source.mask is not None:
            height, width = source.mask.shape
            columns = np.clip(np.rint(found[:, 0]).astype(int), 0, width - 1)
            rows = np.clip(np.rint(found[:, 1]).astype(int), 0, height - 1)
            found = found[source.mask[rows, columns] == 0]
        found = _away_from(found, source.mitoses_xy, _NEAR_UM / mpp)
        found = _away_from(found, source.mined_xy, _NEAR_UM / mpp)
        source.mined_xy = np.concatenate([source.mined_xy, found])
        total += len(source.mined_xy)
        advance(1)
    return total


def peaks(probability: NDArray[np.float32], above: float, stride: int) -> NDArray[np.float64]:
    """Positions (n, 2) in image pixels of local maxima above a probability."""
    from scipy import ndimage

    highest = ndimage.maximum_filter(probability, size=9, mode="nearest")
    rows, columns = np.nonzero((probability >= highest) & (probability > above))
    cells = np.stack([columns, rows], axis=1).astype(np.float64)
    result: NDArray[np.float64] = cells * stride + (stride - 1) / 2
    return result


def _away_from(
    points_xy: NDArray[np.float64], others_xy: NDArray[np.float64], distance_px: float
) -> NDArray[np.float64]:
    if not len(points_xy) or not len(others_xy):
        return points_xy
    gaps = np.hypot(*(points_xy[:, None, :] - others_xy[None, :, :]).transpose(2, 0, 1))
    far: NDArray[np.float64] = points_xy[gaps.min(axis=1) > distance_px]
    return far

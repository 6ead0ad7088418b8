"""F of a network in training on validation cases, by the same steps that detection takes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from torch import nn

from segmitos.detection.postprocess import MapAccumulator, smooth
from segmitos.evaluation.matching import f_score, match_points, precision, recall
from segmitos.training.predict import predictor
from segmitos.training.recipe import Recipe
from segmitos.training.sampling import TrainingImage, is_reviewed

BINARIZATION = 0.5
_DISTANCE_UM = 7.5
_SCORES = np.arange(0.5, 1.0, 0.02)


@dataclass(frozen=True)
class Validation:
    """F-score at the score threshold that is best on the validation cases themselves.

    It guides training and flatters: the threshold was chosen on what it is measured on.
    """

    f_score: float
    precision: float
    recall: float
    min_score: float


def validate(network: nn.Module, sources: Sequence[TrainingImage], recipe: Recipe) -> Validation:
    """Detect on whole images at a fixed binarization and sweep the score threshold.

    Args:
        network: in any mode; it is left as it was.
        sources: images at the recipe's scale with their mitoses.
        recipe: for the scale and smoothing.

    Returns:
        The best of the sweep; one-to-one matching within 7.5 um, counts pooled over all images.
    """
    found: list[tuple[NDArray[np.float64], NDArray[np.float64], TrainingImage]] = []
    predict = predictor(network)
    for source in sources:
        probability = predict(source.image)
        stride = round(source.image.shape[0] / probability.shape[0])
        map_mpp = recipe.mpp * stride
        accumulator = MapAccumulator(map_mpp, stride, guard=False)
        accumulator.add(smooth(probability, recipe.smoothing_sigma_um, map_mpp), 0, 0)
        blobs = accumulator.blobs(BINARIZATION)
        points = np.stack([blobs.x_px, blobs.y_px], 1)
        inside = is_reviewed(source, points)
        found.append((points[inside], blobs.score[inside], source))
    best = Validation(0.0, 0.0, 0.0, float(_SCORES[0]))
    for threshold in _SCORES:
        tp = fp = fn = 0
        for points, scores, source in found:
            match = match_points(
                points[scores >= threshold],
                source.mitoses_xy[is_reviewed(source, source.mitoses_xy)],
                _DISTANCE_UM / recipe.mpp,
                ignored_xy=source.ignored_xy,
            )
            tp, fp, fn = tp + match.tp, fp + match.fp, fn + match.fn
        value = f_score(tp, fp, fn)
        if value > best.f_score:
            best = Validation(value, precision(tp, fp), recall(tp, fn), float(threshold))
    return best

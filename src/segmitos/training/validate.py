"""F of a network in training on validation cases, by the same steps that detection takes."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from torch import nn

from segmitos.detection.postprocess import blobs_of_map
from segmitos.detection.stain import Stain
from segmitos.evaluation.matching import Match, counted_detections, match_points
from segmitos.evaluation.scoring import Counts
from segmitos.io.geometry import rescale
from segmitos.io.pairs import MATCH_UM
from segmitos.training.predict import predictor
from segmitos.training.recipe import Recipe
from segmitos.training.sampling import TrainingImage

THRESHOLD = 0.5
FIXED_SCORE = 0.7
"""The score threshold at which epochs compare; that of a model whose thresholds were not tuned."""
_SCORES = np.round(np.arange(0.5, 1.0, 0.02), 2)
_EXAMPLES = 8
_EXAMPLE_PX = 64

Kind = Literal["found", "wrong", "missed"]
_Found = tuple[TrainingImage, NDArray[np.float64], NDArray[np.float64]]
"""An image, and where it was reviewed its blobs (n, 2) and their scores (n,)."""


@dataclass(frozen=True)
class Example:
    """A crop of a validation image at a detection, right or wrong, or at a mitosis not found.

    Its position is in level-0 pixels, for whoever looks the cell up in the image.
    """

    kind: Kind
    image: str
    x_px: float
    y_px: float
    score: float | None
    crop: NDArray[np.uint8]


def validate(
    network: nn.Module,
    sources: Sequence[TrainingImage],
    recipe: Recipe,
    target: Stain | None = None,
    advance: Callable[[], None] = lambda: None,
) -> tuple[dict[str, float], tuple[Example, ...]]:
    """Detect on whole images at a fixed threshold of the map and sweep the score threshold.

    Args:
        network: in any mode; it is left as it was.
        sources: images at the recipe's scale with their mitoses.
        recipe: for the scale and smoothing.
        target: staining that every slide is matched to first; None leaves colors as they are.
        advance: called after each image; may raise to stop.

    Returns:
        Figures of one-to-one counts within 7.5 um, pooled over all images, and examples. F,
        precision and recall are there `_fixed`, at `FIXED_SCORE`, and `_best`, at `best_score`,
        which is best on these very cases: it guides training and flatters. A ratio of nothing is
        left out.
    """
    found = []
    predict = predictor(network)
    for source in sources:
        found.append(_detect(predict(source.matched(target)), source, recipe))
        advance()
    by_score = [(_count(found, float(score), recipe.mpp), float(score)) for score in _SCORES]
    best, best_score = max(by_score, key=lambda pair: np.nan_to_num(pair[0].f_score))
    fixed = _count(found, FIXED_SCORE, recipe.mpp)
    figures = {"best_score": best_score, **_ratios(fixed, "fixed"), **_ratios(best, "best")}
    return figures, _examples(found, recipe.mpp)


def _ratios(counts: Counts, suffix: str) -> dict[str, float]:
    values = {"f": counts.f_score, "precision": counts.precision, "recall": counts.recall}
    return {f"{name}_{suffix}": value for name, value in values.items() if not math.isnan(value)}


def _detect(probability: NDArray[np.float32], source: TrainingImage, recipe: Recipe) -> _Found:
    stride = round(source.image.shape[0] / probability.shape[0])
    sigma_um = recipe.smoothing_sigma_um
    blobs = blobs_of_map(probability, recipe.mpp, stride, sigma_um, THRESHOLD)
    points = np.stack([blobs.x_px, blobs.y_px], 1)
    reviewed = source.is_reviewed(points)
    counted = counted_detections(points, reviewed, _mitoses_of(source), MATCH_UM / recipe.mpp)
    return source, points[counted], blobs.score[counted]


def _mitoses_of(source: TrainingImage) -> NDArray[np.float64]:
    """Return the reviewed mitoses of an image (n, 2)."""
    return source.mitoses_xy[source.is_reviewed(source.mitoses_xy)]


def _match(found: _Found, threshold: float, mpp: float) -> Match:
    """Match the blobs from a score on to reviewed mitoses; unsure cells count neither way."""
    source, points, scores = found
    unreviewed = source.mitoses_xy[~source.is_reviewed(source.mitoses_xy)]
    ignored = np.concatenate([source.ignored_xy, unreviewed])
    kept, reach = points[scores >= threshold], MATCH_UM / mpp
    return match_points(kept, _mitoses_of(source), reach, ignored_xy=ignored)


def _count(found: Sequence[_Found], threshold: float, mpp: float) -> Counts:
    matches = [_match(one, threshold, mpp) for one in found]
    return sum(map(Counts.of, matches), Counts())


def _examples(found: Sequence[_Found], mpp: float) -> tuple[Example, ...]:
    """Return the surest right and wrong detections, and mitoses that were missed."""
    by_kind: dict[Kind, list[Example]] = {"found": [], "wrong": [], "missed": []}
    for one in found:
        source, points, scores = one
        kept = scores >= FIXED_SCORE
        match = _match(one, FIXED_SCORE, mpp)
        matched = {detected for detected, _ in match.pairs}
        for index, (point, score) in enumerate(zip(points[kept], scores[kept], strict=True)):
            if index not in match.ignored:
                kind: Kind = "found" if index in matched else "wrong"
                by_kind[kind].append(_example(source, kind, point, float(score)))
        mitoses = _mitoses_of(source)
        of_truth = {mitosis for _, mitosis in match.pairs}
        for index, point in enumerate(mitoses):
            if index not in of_truth:
                by_kind["missed"].append(_example(source, "missed", point, None))
    for shown in (by_kind["found"], by_kind["wrong"]):
        shown.sort(key=lambda example: -(example.score or 0))
    # Missed ones have no score: spread over all images.
    missed = by_kind["missed"]
    missed = missed[:: max(1, len(missed) // _EXAMPLES)]
    return (*by_kind["found"][:_EXAMPLES], *by_kind["wrong"][:_EXAMPLES], *missed[:_EXAMPLES])


def _example(
    source: TrainingImage, kind: Kind, point: NDArray[np.float64], score: float | None
) -> Example:
    image = source.image
    half = _EXAMPLE_PX // 2
    x, y = (round(float(value)) for value in point)
    rows = np.clip(np.arange(y - half, y + half), 0, image.shape[0] - 1)
    columns = np.clip(np.arange(x - half, x + half), 0, image.shape[1] - 1)
    crop = image[rows[:, None], columns[None, :]]
    x_px, y_px = rescale(point, source.ratio)
    return Example(kind, source.name, float(x_px), float(y_px), score, crop)

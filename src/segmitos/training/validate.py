"""F of a network in training on validation cases, by the same steps that detection takes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from torch import nn

from segmitos.detection.postprocess import blobs_of_map
from segmitos.detection.stain import Stain, apply_lookup, stain_lookup
from segmitos.evaluation.matching import Match, match_points
from segmitos.evaluation.scoring import Counts
from segmitos.training.predict import predictor
from segmitos.training.recipe import Recipe
from segmitos.training.sampling import TrainingImage, is_reviewed

THRESHOLD = 0.5
FIXED_SCORE = 0.7
"""The score threshold at which epochs compare; that of a model whose thresholds were not tuned."""
DISTANCE_UM = 7.5
_SCORES = np.round(np.arange(0.5, 1.0, 0.02), 2)
_EXAMPLES = 8
_EXAMPLE_PX = 64

Kind = Literal["found", "wrong", "missed"]


@dataclass(frozen=True)
class Example:
    """A crop of a validation image at a detection, right or wrong, or at a mitosis not found."""

    kind: Kind
    image: str
    x_px: float
    y_px: float
    score: float | None
    crop: NDArray[np.uint8]


@dataclass(frozen=True)
class Validation:
    """Counts at `FIXED_SCORE`, and at the threshold that is best on these very cases.

    The second guides training and flatters: the threshold was chosen on what it is measured on.
    """

    fixed: Counts
    best: Counts
    best_score: float
    examples: tuple[Example, ...]


@dataclass(frozen=True)
class _Found:
    """Blobs and mitoses of one image, where it was reviewed."""

    source: TrainingImage
    points_xy: NDArray[np.float64]
    scores: NDArray[np.float64]
    mitoses_xy: NDArray[np.float64]

    def match(self, threshold: float, mpp: float) -> Match:
        """Match the blobs from a score on; unsure cells count neither way."""
        kept = self.points_xy[self.scores >= threshold]
        unsure = self.source.ignored_xy
        return match_points(kept, self.mitoses_xy, DISTANCE_UM / mpp, ignored_xy=unsure)


def validate(
    network: nn.Module,
    sources: Sequence[TrainingImage],
    recipe: Recipe,
    target: Stain | None = None,
    advance: Callable[[], None] = lambda: None,
) -> Validation:
    """Detect on whole images at a fixed threshold of the map and sweep the score threshold.

    Args:
        network: in any mode; it is left as it was.
        sources: images at the recipe's scale with their mitoses.
        recipe: for the scale and smoothing.
        target: staining that every slide is matched to first; None leaves colors as they are.
        advance: called after each image; may raise to stop.

    Returns:
        One-to-one counts within 7.5 um, pooled over all images.
    """
    found = []
    predict = predictor(network)
    for source in sources:
        found.append(_detect(predict(_matched(source, target)), source, recipe))
        advance()
    by_score = [(_count(found, float(score), recipe.mpp), float(score)) for score in _SCORES]
    best, best_score = max(by_score, key=lambda pair: np.nan_to_num(pair[0].f_score))
    return Validation(
        fixed=_count(found, FIXED_SCORE, recipe.mpp),
        best=best,
        best_score=best_score,
        examples=_examples(found, recipe.mpp),
    )


def _matched(source: TrainingImage, target: Stain | None) -> NDArray[np.uint8]:
    if target is None or source.stain is None:
        return source.image
    return apply_lookup(np.ascontiguousarray(source.image), stain_lookup(source.stain, target))


def _detect(probability: NDArray[np.float32], source: TrainingImage, recipe: Recipe) -> _Found:
    stride = round(source.image.shape[0] / probability.shape[0])
    sigma_um = recipe.smoothing_sigma_um
    blobs = blobs_of_map(probability, recipe.mpp, stride, sigma_um, THRESHOLD)
    points = np.stack([blobs.x_px, blobs.y_px], 1)
    inside = is_reviewed(source, points)
    mitoses = source.mitoses_xy[is_reviewed(source, source.mitoses_xy)]
    return _Found(source, points[inside], blobs.score[inside], mitoses)


def _count(found: Sequence[_Found], threshold: float, mpp: float) -> Counts:
    total = Counts()
    for one in found:
        match = one.match(threshold, mpp)
        total += Counts(match.tp, match.fp, match.fn)
    return total


def _examples(found: Sequence[_Found], mpp: float) -> tuple[Example, ...]:
    """Return the surest right and wrong detections, and mitoses that were missed."""
    right: list[Example] = []
    wrong: list[Example] = []
    missed: list[Example] = []
    for one in found:
        kept = one.scores >= FIXED_SCORE
        points, scores = one.points_xy[kept], one.scores[kept]
        match = one.match(FIXED_SCORE, mpp)
        matched = {int(index) for index, _ in match.pairs}
        for index, (point, score) in enumerate(zip(points, scores, strict=True)):
            if index in match.ignored:
                continue
            kind: Kind = "found" if index in matched else "wrong"
            (right if index in matched else wrong).append(_example(one, kind, point, float(score)))
        of_truth = {int(index) for _, index in match.pairs}
        for index, point in enumerate(one.mitoses_xy):
            if index not in of_truth:
                missed.append(_example(one, "missed", point, None))
    right.sort(key=lambda example: -(example.score or 0))
    wrong.sort(key=lambda example: -(example.score or 0))
    # Missed ones have no score: spread over all images.
    step = max(1, len(missed) // _EXAMPLES)
    return (*right[:_EXAMPLES], *wrong[:_EXAMPLES], *missed[::step][:_EXAMPLES])


def _example(found: _Found, kind: Kind, point: NDArray[np.float64], score: float | None) -> Example:
    image = found.source.image
    half = _EXAMPLE_PX // 2
    x, y = (round(float(value)) for value in point)
    rows = np.clip(np.arange(y - half, y + half), 0, image.shape[0] - 1)
    columns = np.clip(np.arange(x - half, x + half), 0, image.shape[1] - 1)
    crop = image[rows[:, None], columns[None, :]]
    return Example(kind, found.source.name, float(point[0]), float(point[1]), score, crop)

"""Hard-negative mining: the network's own false positives become negatives of the next rounds."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray
from torch import nn

from segmitos.io.geometry import map_to_image
from segmitos.io.pairs import is_near
from segmitos.training.predict import predictor
from segmitos.training.recipe import Recipe
from segmitos.training.sampling import TrainingImage

# A peak this close to a mitosis belongs to it, or to its ring.
_NEAR_UM = 8.0
_NONE = np.zeros((0, 2))


def mine(
    network: nn.Module,
    sources: Sequence[TrainingImage],
    recipe: Recipe,
    stride: int,
    advance: Callable[[], None] = lambda: None,
) -> int:
    """Add to `mined_xy` of every source the peaks that are no mitosis; return how many there are.

    Those surer than the recipe's `ignore_above` go to `ignored_xy` instead, unless they lie at a
    labeled look-alike.

    A peak found in an earlier round stays, so that what was once learned is not forgotten. Crops
    cut round a mitosis hold little tissue, but that of many slides; `mine_crops` says whether they
    are searched too.

    Args:
        network: to look for its false positives.
        sources: images at the recipe's scale; changed at the end, all or none of them.
        recipe: for probabilities and scale.
        stride: of the network.
        advance: called after each image; may raise to stop.
    """
    news = []
    predict = predictor(network)
    for source in sources:
        if source.centered and not recipe.mine_crops:
            news.append((_NONE, _NONE))
            advance()
            continue
        found = peaks(predict(source.image), recipe.mine_above, stride)
        found = found[source.is_reviewed(found[:, :2])]
        found, height = found[:, :2], found[:, 2]
        if source.mask is not None:
            rows_, columns_ = source.mask.shape
            columns = np.clip(np.rint(found[:, 0]).astype(int), 0, columns_ - 1)
            rows = np.clip(np.rint(found[:, 1]).astype(int), 0, rows_ - 1)
            outside = source.mask[rows, columns] == 0
            found, height = found[outside], height[outside]
        near = _NEAR_UM / recipe.mpp
        known = np.concatenate([source.mitoses_xy, source.mined_xy, source.ignored_xy])
        new = ~is_near(found, known, near)
        ignored = (
            new & (height > recipe.ignore_above) & ~is_near(found, source.hard_negatives_xy, near)
        )
        news.append((found[new & ~ignored], found[ignored]))
        advance()
    for source, (mined_xy, ignored_xy) in zip(sources, news, strict=True):
        source.mined_xy = np.concatenate([source.mined_xy, mined_xy])
        source.ignored_xy = np.concatenate([source.ignored_xy, ignored_xy])
    return sum(len(source.mined_xy) for source in sources)


def peaks(probability: NDArray[np.float32], above: float, stride: int) -> NDArray[np.float64]:
    """Local maxima above a probability: (n, 3) of x, y in image pixels and the probability."""
    from scipy import ndimage

    highest = ndimage.maximum_filter(probability, size=9, mode="nearest")
    rows, columns = np.nonzero((probability >= highest) & (probability > above))
    x, y = map_to_image(columns, stride), map_to_image(rows, stride)
    return np.stack([x, y, probability[rows, columns]], axis=1)

"""The grid of thresholds: exact counts of every combination, slide by slide (paper, section 3.3).

The same table answers what is best and what leave-slides-out cross-validation says of it.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import fields, replace
from typing import Any, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from segmitos.detection.pipeline import SlideResult
from segmitos.detection.postprocess import Blobs, MapAccumulator, Thresholds
from segmitos.errors import UsageError
from segmitos.evaluation.matching import counted_detections
from segmitos.evaluation.sweep import incremental_matching, neighbors_within
from segmitos.io.datasets import Case
from segmitos.io.geometry import rescale
from segmitos.io.pairs import MATCH_UM, is_near
from segmitos.io.points.regions import Regions

MapThreshold = float | Literal["otsu"]
Objective = Literal["pooled", "mean"]

# Otsu's is the last: in a table without it the others keep their places.
MAP_THRESHOLDS: tuple[MapThreshold, ...] = (0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, "otsu")
AREAS_UM2: tuple[float, ...] = tuple(float(value) for value in range(0, 62, 2))
SCORES: tuple[float, ...] = tuple(round(0.01 * value, 2) for value in range(100))


class Item(NamedTuple):
    """What one image gives to tune on.

    Attributes:
        source: its map.
        truth_xy: mitoses (n, 2) in level-0 pixels.
        mpp: um per level-0 pixel.
        slide: name.
        ignored_xy: unsure cells and mitoses that were not reviewed (k, 2): a blob there counts
            neither way.
        regions: where every mitosis is marked; None is everywhere.
        group: what is never divided (`Case.group`): the slide where it is empty.
    """

    source: MapAccumulator
    truth_xy: NDArray[Any]
    mpp: float
    slide: str
    ignored_xy: NDArray[Any] = np.zeros((0, 2))
    regions: Regions | None = None
    group: str = ""

    @classmethod
    def of(cls, case: Case, result: SlideResult) -> Item:
        """Return what a case gives with the map of its image."""
        return cls(
            result.accumulator,
            case.mitoses_xy,
            result.mpp,
            case.slide,
            case.ignored_xy,
            case.regions,
            case.group,
        )

    def inside(self, points_xy: NDArray[Any]) -> NDArray[np.bool_]:
        """Tell which points (n, 2) count."""
        if self.regions is None:
            return np.ones(len(points_xy), np.bool_)
        return self.regions.contains(points_xy)

    @property
    def counted_xy(self) -> NDArray[Any]:
        """The mitoses that count."""
        return self.truth_xy[self.inside(self.truth_xy)]

    def blobs(self, threshold: MapThreshold) -> tuple[Blobs, NDArray[np.float64]]:
        """Return the blobs that count, and their centers in level-0 pixels."""
        blobs = self.source.blobs(threshold)
        xy = level0_xy(self.source, blobs, self.mpp)
        kept = counted_detections(xy, self.inside(xy), self.counted_xy, MATCH_UM / self.mpp)
        columns = {
            field.name: getattr(blobs, field.name)[kept]
            for field in fields(blobs)
            if field.name != "threshold"
        }
        return replace(blobs, **columns), xy[kept]


def level0_xy(source: MapAccumulator, blobs: Blobs, mpp: float) -> NDArray[np.float64]:
    """Return blob centers (n, 2) in level-0 pixels of `mpp` um; pixel centers are at integers."""
    ratio = source.map_mpp / source.stride / mpp
    return rescale(np.stack([blobs.x_px, blobs.y_px], axis=1), ratio)


def count_items(
    items: Sequence[Item], otsu: bool = True
) -> tuple[tuple[str, ...], NDArray[np.int32]]:
    """Count tp, fp, fn of every slide at every combination of the grid.

    Args:
        items: one of each image.
        otsu: whether Otsu's threshold is one of those of the map.

    Returns:
        Names of the slides, and (slides, map thresholds, areas, scores, 3) counts under the rule
        `one-to-one`.
    """
    slides = tuple(sorted({item.slide for item in items}))
    map_thresholds = tuple(value for value in MAP_THRESHOLDS if otsu or value != "otsu")
    shape = (len(slides), len(map_thresholds), len(AREAS_UM2), len(SCORES), 3)
    table = np.zeros(shape, dtype=np.int32)
    for item in items:
        row, reach = slides.index(item.slide), MATCH_UM / item.mpp
        for index, threshold in enumerate(map_thresholds):
            blobs, xy = item.blobs(threshold)
            near = neighbors_within(xy, item.counted_xy, reach)
            unsure = is_near(xy, item.ignored_xy, reach)
            table[row, index, :, :, :2] += _count_blobs(blobs, near, unsure)
        table[row, ..., 2] += len(item.counted_xy)
    table[..., 2] -= table[..., 0]
    return slides, table


def _count_blobs(
    blobs: Blobs, near: list[list[int]], unsure: NDArray[np.bool_]
) -> NDArray[np.int32]:
    """Count tp and fp of one image: (areas, scores, 2)."""
    result = np.zeros((len(AREAS_UM2), len(SCORES), 2), dtype=np.int32)
    order = np.argsort(-blobs.score, kind="stable")
    close = np.array([bool(item) for item in near], dtype=bool)
    known: dict[bytes, NDArray[np.bool_]] = {}
    for index, area in enumerate(AREAS_UM2):
        kept = order[blobs.area_um2[order] >= area]
        # Only blobs near a mitosis can be true positives; while these stay the same, so do those.
        rivals = kept[close[kept]]
        key = rivals.tobytes()
        if key not in known:
            known[key] = incremental_matching(near, rivals.tolist())
        matched = np.cumsum(known[key][kept], dtype=np.int32)
        ignored = np.cumsum((unsure & ~known[key])[kept], dtype=np.int32)
        # Blobs with score >= threshold; scores are descending along `kept`.
        number = np.searchsorted(-blobs.score[kept], -np.asarray(SCORES), side="right")
        tp, neither = (np.concatenate([[0], values])[number] for values in (matched, ignored))
        result[index, :, 0], result[index, :, 1] = tp, number - tp - neither
    return result


def grid_f_score(table: NDArray[np.int32], objective: Objective) -> NDArray[np.float64]:
    """Return F (map thresholds, areas, scores); nan where there is nothing to judge by."""
    if objective == "pooled":
        return _f(table.sum(axis=0))
    per_slide = _f(table)
    known = ~np.isnan(per_slide)
    total = np.where(known, per_slide, 0).sum(axis=0)
    number = known.sum(axis=0)
    return np.where(number > 0, total / np.maximum(number, 1), math.nan)


def _f(counts: NDArray[Any]) -> NDArray[np.float64]:
    tp, fp, fn = np.moveaxis(counts.astype(np.float64), -1, 0)
    below = 2 * tp + fp + fn
    return np.where(below > 0, 2 * tp / np.maximum(below, 1), math.nan)


def redundant(
    map_thresholds: tuple[MapThreshold, ...], scores: tuple[float, ...]
) -> NDArray[np.bool_]:
    """Mark (map thresholds, scores) that filter nothing: a mean exceeds what it is above.

    The highest of them stays, as the one that stands for no filter.
    """
    unused = np.zeros((len(map_thresholds), len(scores)), dtype=bool)
    for index, threshold in enumerate(map_thresholds):
        if threshold != "otsu":
            below = [s for s, score in enumerate(scores) if score <= threshold]
            unused[index, sorted(below, key=lambda s: scores[s])[:-1]] = True
    return unused


def best_of(values: NDArray[np.float64], unused: NDArray[np.bool_]) -> tuple[int, int, int]:
    """Return the middle of the largest plateau of best values, the first of equal ones.

    A plateau lies in one map threshold: areas and scores that touch. Scores marked in `unused`
    (map thresholds, scores) are left out: they would draw the middle towards no filter.
    """
    from scipy.ndimage import label

    values = np.where(np.isnan(values), -1, values)
    values = np.where(unused[:, None, :], -2, values)
    best = values >= values.max() - 1e-12
    chosen: tuple[int, tuple[int, int, int]] | None = None
    for threshold in range(len(values)):
        plateaus, count = label(best[threshold])
        for number in range(1, count + 1):
            places = np.argwhere(plateaus == number)
            if chosen is None or len(places) > chosen[0]:
                apart = ((places - places.mean(axis=0)) ** 2).sum(axis=1)
                area, score = places[int(np.argmin(apart))].tolist()
                chosen = len(places), (threshold, area, score)
    assert chosen is not None
    return chosen[1]


def best_place(table: NDArray[np.int32], objective: Objective = "pooled") -> tuple[int, int, int]:
    """Return where F of `count_items` is best: map threshold, area, score."""
    values = grid_f_score(table, objective)
    return best_of(values, redundant(_map_thresholds(values), SCORES))


def _map_thresholds(values: NDArray[np.float64]) -> tuple[MapThreshold, ...]:
    """Return the map thresholds of a grid (map thresholds, areas, scores), Otsu's in it or not."""
    return MAP_THRESHOLDS[: len(values)]


def thresholds_at(place: tuple[int, int, int]) -> Thresholds:
    """Return the thresholds at a place of the grid."""
    threshold, area, score = place
    return Thresholds(MAP_THRESHOLDS[threshold], AREAS_UM2[area], SCORES[score])


def curve_at(
    values: NDArray[np.float64], place: tuple[int, int, int], name: str
) -> list[tuple[MapThreshold, float]]:
    """Return (threshold, value) of a grid of values along one axis, through a place.

    Raises:
        UsageError: for an axis other than `threshold`, `min_area_um2` and `min_score`.
    """
    threshold, area, score = place
    axes: dict[str, tuple[Sequence[MapThreshold], NDArray[np.float64]]] = {
        "threshold": (_map_thresholds(values), values[:, area, score]),
        "min_area_um2": (AREAS_UM2, values[threshold, :, score]),
        "min_score": (SCORES, values[threshold, area, :]),
    }
    if name not in axes:
        raise UsageError(f"threshold {name!r}: choose one of {', '.join(axes)}")
    grid, column = axes[name]
    return list(zip(grid, column.tolist(), strict=True))

"""Thresholds from validation cases: binarization, area and score (paper, section 3.3).

The counts of every combination in the grid are exact one-to-one counts, kept per slide, so that the
same table answers both what is best and what leave-slides-out cross-validation says of it. Never
tune on what is called a test.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from typing import Any, Literal, NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from segmitos.detection.postprocess import Blobs, Thresholds
from segmitos.errors import InputError, UsageError
from segmitos.evaluation.matching import RULES, match_points
from segmitos.evaluation.scoring import Counts
from segmitos.evaluation.sweep import added_hits, neighbours_within
from segmitos.io.geometry import rescale
from segmitos.io.pairs import is_near
from segmitos.io.points.regions import Regions

Binarization = float | Literal["otsu"]
Objective = Literal["pooled", "mean"]

BINARIZATIONS: tuple[Binarization, ...] = (0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, "otsu")
AREAS_UM2: tuple[float, ...] = tuple(float(value) for value in range(0, 62, 2))
SCORES: tuple[float, ...] = tuple(round(0.01 * value, 2) for value in range(100))
_FOLDS = 10


class BlobSource(Protocol):
    """A finished map: `detection.postprocess.MapAccumulator`."""

    map_mpp: float
    stride: int

    def blobs(self, binarization: Binarization) -> Blobs:
        """Return the blobs at a binarization, in pixels of the model's scale."""


class Item(NamedTuple):
    """What one image gives to tune on.

    Attributes:
        source: its map.
        truth_xy: mitoses (n, 2) in level-0 pixels.
        mpp: um per level-0 pixel.
        slide: name.
        ignored_xy: unsure cells (k, 2): a blob there counts neither way.
        regions: where every mitosis is marked; None is everywhere.
    """

    source: BlobSource
    truth_xy: NDArray[Any]
    mpp: float
    slide: str
    ignored_xy: NDArray[Any] = np.zeros((0, 2))
    regions: Regions | None = None

    def inside(self, points_xy: NDArray[Any]) -> NDArray[np.bool_]:
        """Tell which points (n, 2) count."""
        if self.regions is None:
            return np.ones(len(points_xy), np.bool_)
        return self.regions.contains(points_xy)

    @property
    def counted_xy(self) -> NDArray[Any]:
        """The mitoses that count."""
        return self.truth_xy[self.inside(self.truth_xy)]

    def blobs(self, binarization: Binarization) -> tuple[Blobs, NDArray[np.float64]]:
        """Return the blobs that count, and their centers in level-0 pixels."""
        blobs = self.source.blobs(binarization)
        xy = level0_xy(self.source, blobs, self.mpp)
        kept = self.inside(xy)
        columns = {
            field.name: getattr(blobs, field.name)[kept]
            for field in fields(blobs)
            if field.name != "threshold"
        }
        return replace(blobs, **columns), xy[kept]


@dataclass(frozen=True)
class Tuning:
    """The best thresholds of a grid, and the whole grid behind them.

    Attributes:
        thresholds: chosen.
        counts: at them, over all items, by exact matching.
        f_score: at them by the objective: pooled, or the mean over slides. It was chosen on what it
            is measured on and flatters; `cross_validated` does not.
        cross_validated: pooled counts where each fold of slides was scored with thresholds tuned on
            the others; None with fewer than two slides.
        objective: `pooled` or `mean`.
        rule: of matching.
        binarizations: the grid's first axis; then `areas_um2` and `scores`.
        areas_um2: see above.
        scores: see above.
        table: (slides, binarizations, areas, scores, 3) counts tp, fp, fn.
        slides: names along the first axis of `table`.
    """

    thresholds: Thresholds
    counts: Counts
    f_score: float
    cross_validated: Counts | None
    objective: Objective
    rule: str
    binarizations: tuple[Binarization, ...]
    areas_um2: tuple[float, ...]
    scores: tuple[float, ...]
    table: NDArray[np.int32]
    slides: tuple[str, ...]

    def curve(self, threshold: str) -> list[tuple[Binarization, float]]:
        """Return (value, F) along one threshold, the other two as chosen.

        Args:
            threshold: `binarization`, `min_area_um2` or `min_score`.
        """
        b, a, s = self._place()
        values = _objective(self.table, self.objective)
        grids: dict[str, tuple[Sequence[Binarization], NDArray[np.float64]]] = {
            "threshold": (self.binarizations, values[:, a, s]),
            "min_area_um2": (self.areas_um2, values[b, :, s]),
            "min_score": (self.scores, values[b, a, :]),
        }
        if threshold not in grids:
            raise UsageError(f"threshold {threshold!r}: choose one of {', '.join(grids)}")
        grid, column = grids[threshold]
        return list(zip(grid, column.tolist(), strict=True))

    def to_dict(self) -> dict[str, Any]:
        """Return the outcome and the three curves as JSON-able values."""
        curves = ("threshold", "min_area_um2", "min_score")
        return {
            "thresholds": {name: getattr(self.thresholds, name) for name in curves},
            "f_score": _none(self.f_score),
            "objective": self.objective,
            "rule": self.rule,
            "tuned_on_itself": self.counts.to_dict(),
            "cross_validated": (
                None if self.cross_validated is None else self.cross_validated.to_dict()
            ),
            "slides": list(self.slides),
            "curves": {
                name: [[value, _none(f)] for value, f in self.curve(name)] for name in curves
            },
        }

    def _place(self) -> tuple[int, int, int]:
        return (
            self.binarizations.index(self.thresholds.threshold),
            self.areas_um2.index(self.thresholds.min_area_um2),
            self.scores.index(self.thresholds.min_score),
        )


def tune(
    items: Sequence[Item | tuple[BlobSource, NDArray[Any], float, str]],
    objective: Objective = "pooled",
    rule: str = "one-to-one",
    binarizations: Sequence[Binarization] = BINARIZATIONS,
    areas_um2: Sequence[float] = AREAS_UM2,
    scores: Sequence[float] = SCORES,
) -> Tuning:
    """Find the thresholds with the best F on validation items.

    Args:
        items: one of each image; plain tuples are taken for `Item`.
        objective: F of the pooled counts, or the mean of the slides' F, which one slide with many
            mitoses cannot dominate.
        rule: a one-to-one rule of `matching.RULES`.
        binarizations: probabilities or `otsu` (of each item's own map).
        areas_um2: least areas.
        scores: least mean probabilities.

    Returns:
        The best of the grid; among equals the middle of the largest plateau.

    Raises:
        UsageError: for an unknown objective, a rule that is not one to one, or an empty grid.
        InputError: if there are no items or no mitosis in any.
    """
    if objective not in ("pooled", "mean"):
        raise UsageError(f"objective {objective!r}: choose 'pooled' or 'mean'")
    if rule not in RULES or RULES[rule].method != "optimal":
        known = ", ".join(name for name, value in RULES.items() if value.method == "optimal")
        raise UsageError(f"tuning needs a one-to-one rule, not {rule!r}: choose one of {known}")
    if not (binarizations and areas_um2 and scores):
        raise UsageError("tuning needs at least one binarization, one area and one score")
    images = [Item(*item) for item in items]
    if not any(len(item.counted_xy) for item in images):
        raise InputError("there is no mitosis in the cases to tune on")
    first: tuple[Binarization, ...] = tuple(
        value if value == "otsu" else float(value) for value in binarizations
    )
    grid = first, tuple(map(float, areas_um2)), tuple(map(float, scores))
    slides = tuple(sorted({item.slide for item in images}))
    table = _count(images, slides, RULES[rule].distance_um, *grid)
    idle = _idle(grid[0], grid[2])
    b, a, s = _best(_objective(table, objective), idle)
    thresholds = Thresholds(grid[0][b], grid[1][a], grid[2][s])
    counts = _counts_at(images, thresholds, RULES[rule].distance_um)
    return Tuning(
        thresholds=thresholds,
        counts=counts,
        f_score=float(_objective(table, objective)[b, a, s]),
        cross_validated=_cross_validate(table, objective, idle),
        objective=objective,
        rule=rule,
        binarizations=grid[0],
        areas_um2=grid[1],
        scores=grid[2],
        table=table,
        slides=slides,
    )


def level0_xy(source: BlobSource, blobs: Blobs, mpp: float) -> NDArray[np.float64]:
    """Return blob centers (n, 2) in level-0 pixels of `mpp` um; pixel centers are at integers."""
    ratio = source.map_mpp / source.stride / mpp
    return rescale(np.stack([blobs.x_px, blobs.y_px], axis=1), ratio)


def _count(
    items: Sequence[Item],
    slides: tuple[str, ...],
    distance_um: float,
    binarizations: tuple[Binarization, ...],
    areas_um2: tuple[float, ...],
    scores: tuple[float, ...],
) -> NDArray[np.int32]:
    """Count tp, fp, fn of every slide at every combination of thresholds."""
    shape = (len(slides), len(binarizations), len(areas_um2), len(scores), 3)
    table = np.zeros(shape, dtype=np.int32)
    for item in items:
        row = slides.index(item.slide)
        for index, binarization in enumerate(binarizations):
            blobs, xy = item.blobs(binarization)
            near = neighbours_within(xy, item.counted_xy, distance_um / item.mpp)
            unsure = is_near(xy, item.ignored_xy, distance_um / item.mpp)
            table[row, index, :, :, :2] += _count_blobs(blobs, near, unsure, areas_um2, scores)
        table[row, ..., 2] += len(item.counted_xy)
    table[..., 2] -= table[..., 0]
    return table


def _count_blobs(
    blobs: Blobs,
    near: list[list[int]],
    unsure: NDArray[np.bool_],
    areas_um2: tuple[float, ...],
    scores: tuple[float, ...],
) -> NDArray[np.int32]:
    """Count tp and fp of one image: (areas, scores, 2)."""
    result = np.zeros((len(areas_um2), len(scores), 2), dtype=np.int32)
    order = np.argsort(-blobs.score, kind="stable")
    close = np.array([bool(item) for item in near], dtype=bool)
    known: dict[bytes, NDArray[np.bool_]] = {}
    for index, area in enumerate(areas_um2):
        kept = order[blobs.area_um2[order] >= area]
        # Only blobs near a mitosis can hit; while these stay the same, so do the hits.
        rivals = kept[close[kept]]
        key = rivals.tobytes()
        if key not in known:
            known[key] = added_hits(near, rivals.tolist())
        hit = np.cumsum(known[key][kept], dtype=np.int32)
        ignored = np.cumsum((unsure & ~known[key])[kept], dtype=np.int32)
        # Blobs with score >= threshold; scores are descending along `kept`.
        number = np.searchsorted(-blobs.score[kept], -np.asarray(scores), side="right")
        tp, neither = (np.concatenate([[0], values])[number] for values in (hit, ignored))
        result[index, :, 0], result[index, :, 1] = tp, number - tp - neither
    return result


def _objective(table: NDArray[np.int32], objective: Objective) -> NDArray[np.float64]:
    """Return F (binarizations, areas, scores); nan where there is nothing to judge by."""
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


def _idle(binarizations: tuple[Binarization, ...], scores: tuple[float, ...]) -> NDArray[np.bool_]:
    """Mark (binarizations, scores) that filter nothing: a mean exceeds the threshold it is above.

    The highest of them stays, as the one that stands for no filter.
    """
    idle = np.zeros((len(binarizations), len(scores)), dtype=bool)
    for index, binarization in enumerate(binarizations):
        if binarization != "otsu":
            below = [s for s, score in enumerate(scores) if score <= binarization]
            idle[index, sorted(below, key=lambda s: scores[s])[:-1]] = True
    return idle


def _best(values: NDArray[np.float64], idle: NDArray[np.bool_]) -> tuple[int, int, int]:
    """Return the middle of the largest plateau of best values, the first of equal ones.

    A plateau lies in one binarization: areas and scores that touch. Scores marked in `idle`
    (binarizations, scores) are left out: they would draw the middle towards no filter.
    """
    from scipy.ndimage import label

    values = np.where(np.isnan(values), -1, values)
    values = np.where(idle[:, None, :], -2, values)
    best = values >= values.max() - 1e-12
    chosen: tuple[int, tuple[int, int, int]] | None = None
    for b in range(len(values)):
        plateaus, count = label(best[b])
        for number in range(1, count + 1):
            cells = np.argwhere(plateaus == number)
            if chosen is None or len(cells) > chosen[0]:
                apart = ((cells - cells.mean(axis=0)) ** 2).sum(axis=1)
                a, s = cells[int(np.argmin(apart))]
                chosen = len(cells), (b, int(a), int(s))
    assert chosen is not None
    return chosen[1]


def _cross_validate(
    table: NDArray[np.int32], objective: Objective, idle: NDArray[np.bool_]
) -> Counts | None:
    """Leave slides out, one by one, or in ten folds where there are more."""
    slides = len(table)
    if slides < 2:
        return None
    fold_of = np.arange(slides) % min(slides, _FOLDS)
    total = Counts()
    for fold in range(int(fold_of.max()) + 1):
        held_out = fold_of == fold
        b, a, s = _best(_objective(table[~held_out], objective), idle)
        tp, fp, fn = (int(value) for value in table[held_out, b, a, s].sum(axis=0))
        total += Counts(tp, fp, fn)
    return total


def _counts_at(items: Sequence[Item], thresholds: Thresholds, distance_um: float) -> Counts:
    """Count by the matching that evaluation uses, apart from the table."""
    total = Counts()
    for item in items:
        blobs, xy = item.blobs(thresholds.threshold)
        match = match_points(
            xy[blobs.keep(thresholds)],
            item.counted_xy,
            distance_um / item.mpp,
            ignored_xy=item.ignored_xy,
        )
        total += Counts(match.tp, match.fp, match.fn, len(match.ignored))
    return total


def _none(value: float) -> float | None:
    return None if math.isnan(value) else value


def count_items(items: Sequence[Item]) -> tuple[tuple[str, ...], NDArray[np.int32]]:
    """Count tp, fp, fn of every slide at every combination of the default grid.

    Returns:
        Names of the slides, and (slides, binarizations, areas, scores, 3) counts under the rule
        `one-to-one`.
    """
    slides = tuple(sorted({item.slide for item in items}))
    distance_um = RULES["one-to-one"].distance_um
    return slides, _count(items, slides, distance_um, BINARIZATIONS, AREAS_UM2, SCORES)


def best_place(table: NDArray[np.int32]) -> tuple[int, int, int]:
    """Return where the pooled F of a table of `count_items` is best: binarization, area, score."""
    return _best(_objective(table, "pooled"), _idle(BINARIZATIONS, SCORES))


def thresholds_at(place: tuple[int, int, int]) -> Thresholds:
    """Return the thresholds at a place of the default grid."""
    b, a, s = place
    return Thresholds(BINARIZATIONS[b], AREAS_UM2[a], SCORES[s])

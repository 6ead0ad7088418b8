"""Thresholds from validation cases: of map, area and score (paper, section 3.3).

Never tune on what is called a test.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from segmitos.detection.postprocess import Thresholds
from segmitos.errors import InputError, UsageError
from segmitos.evaluation.matching import RULES, match_points
from segmitos.evaluation.scoring import Counts
from segmitos.evaluation.threshold_grid import (
    AREAS_UM2,
    MAP_THRESHOLDS,
    SCORES,
    BlobSource,
    Item,
    MapThreshold,
    Objective,
    best_of,
    count_table,
    grid_f_score,
    redundant,
)

_FOLDS = 10


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
        map_thresholds: the grid's first axis; then `areas_um2` and `scores`.
        areas_um2: see above.
        scores: see above.
        table: (slides, map thresholds, areas, scores, 3) counts tp, fp, fn.
        slides: names along the first axis of `table`.
    """

    thresholds: Thresholds
    counts: Counts
    f_score: float
    cross_validated: Counts | None
    objective: Objective
    rule: str
    map_thresholds: tuple[MapThreshold, ...]
    areas_um2: tuple[float, ...]
    scores: tuple[float, ...]
    table: NDArray[np.int32]
    slides: tuple[str, ...]

    def curve(self, threshold: str) -> list[tuple[MapThreshold, float]]:
        """Return (value, F) along one threshold, the other two as chosen.

        Args:
            threshold: `threshold` (of the map), `min_area_um2` or `min_score`.
        """
        b, a, s = self._place()
        values = grid_f_score(self.table, self.objective)
        grids: dict[str, tuple[Sequence[MapThreshold], NDArray[np.float64]]] = {
            "threshold": (self.map_thresholds, values[:, a, s]),
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
            self.map_thresholds.index(self.thresholds.threshold),
            self.areas_um2.index(self.thresholds.min_area_um2),
            self.scores.index(self.thresholds.min_score),
        )


def tune(
    items: Sequence[Item | tuple[BlobSource, NDArray[Any], float, str]],
    objective: Objective = "pooled",
    rule: str = "one-to-one",
    map_thresholds: Sequence[MapThreshold] = MAP_THRESHOLDS,
    areas_um2: Sequence[float] = AREAS_UM2,
    scores: Sequence[float] = SCORES,
) -> Tuning:
    """Find the thresholds with the best F on validation items.

    Args:
        items: one of each image; plain tuples are taken for `Item`.
        objective: F of the pooled counts, or the mean of the slides' F, which one slide with many
            mitoses cannot dominate.
        rule: a one-to-one rule of `matching.RULES`.
        map_thresholds: probabilities or `otsu` (of each item's own map).
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
    if not (map_thresholds and areas_um2 and scores):
        raise UsageError("tuning needs at least one threshold, one area and one score")
    images = [Item(*item) for item in items]
    if not any(len(item.counted_xy) for item in images):
        raise InputError("there is no mitosis in the cases to tune on")
    first: tuple[MapThreshold, ...] = tuple(
        value if value == "otsu" else float(value) for value in map_thresholds
    )
    grid = first, tuple(map(float, areas_um2)), tuple(map(float, scores))
    slides = tuple(sorted({item.slide for item in images}))
    table = count_table(images, slides, RULES[rule].distance_um, *grid)
    unused = redundant(grid[0], grid[2])
    b, a, s = best_of(grid_f_score(table, objective), unused)
    thresholds = Thresholds(grid[0][b], grid[1][a], grid[2][s])
    counts = _counts_at(images, thresholds, RULES[rule].distance_um)
    return Tuning(
        thresholds=thresholds,
        counts=counts,
        f_score=float(grid_f_score(table, objective)[b, a, s]),
        cross_validated=_cross_validate(table, objective, unused),
        objective=objective,
        rule=rule,
        map_thresholds=grid[0],
        areas_um2=grid[1],
        scores=grid[2],
        table=table,
        slides=slides,
    )


def _cross_validate(
    table: NDArray[np.int32], objective: Objective, unused: NDArray[np.bool_]
) -> Counts | None:
    """Leave slides out, one by one, or in ten folds where there are more."""
    slides = len(table)
    if slides < 2:
        return None
    fold_of = np.arange(slides) % min(slides, _FOLDS)
    total = Counts()
    for fold in range(int(fold_of.max()) + 1):
        held_out = fold_of == fold
        b, a, s = best_of(grid_f_score(table[~held_out], objective), unused)
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

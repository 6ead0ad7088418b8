"""Tune the thresholds of map, area and score on validation cases (paper, section 3.3).

Never tune on what is called a test.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from segmitos.detection.model_file import maps_sha256
from segmitos.detection.postprocess import MapAccumulator, Thresholds
from segmitos.detection.spec import ModelSpec
from segmitos.errors import DataError, InputError, UsageError
from segmitos.evaluation.matching import match_points
from segmitos.evaluation.scoring import Counts, json_number
from segmitos.evaluation.threshold_grid import (
    Item,
    MapThreshold,
    Objective,
    best_place,
    count_items,
    curve_at,
    grid_f_score,
    thresholds_at,
)
from segmitos.io.json_files import load_json
from segmitos.io.outputs import PROGRAM
from segmitos.io.pairs import MATCH_UM
from segmitos.io.text import listed

_FOLDS = 10
_NAMED_SLIDES = 12


@dataclass(frozen=True)
class Tuning:
    """The best thresholds of a grid, and the whole grid behind them.

    Attributes:
        thresholds: chosen.
        counts: at them, over all items, by exact matching.
        f_score: at them by the objective: pooled, or the mean over slides. It was chosen on what it
            is measured on and flatters; `cross_validated` does not.
        cross_validated: pooled counts where each fold of slides, those of one patient together,
            was scored with thresholds tuned on the others; None with fewer than two patients.
        objective: `pooled` or `mean`.
        slides: names.
        table: (slides, map thresholds, areas, scores, 3) counts tp, fp, fn of `threshold_grid`.
        place: of the thresholds in the grid.
    """

    thresholds: Thresholds
    counts: Counts
    f_score: float
    cross_validated: Counts | None
    objective: Objective
    slides: tuple[str, ...]
    table: NDArray[np.int32]
    place: tuple[int, int, int]

    @property
    def nothing_found(self) -> str:
        """Say so where no threshold found a mitosis; empty where one did."""
        if self.counts.tp:
            return ""
        which = "the mitosis" if self.counts.fn == 1 else f"any of the {self.counts.fn} mitoses"
        return f"no threshold finds {which} of these cases"

    def curve(self, threshold: str) -> list[tuple[MapThreshold, float]]:
        """Return (value, F) along one threshold, the other two as chosen.

        Args:
            threshold: `threshold` (of the map), `min_area_um2` or `min_score`.
        """
        return curve_at(grid_f_score(self.table, self.objective), self.place, threshold)

    def to_dict(self) -> dict[str, Any]:
        """Return the outcome and the three curves as JSON-able values."""
        curves = ("threshold", "min_area_um2", "min_score")
        return {
            "thresholds": {name: getattr(self.thresholds, name) for name in curves},
            "f_score": json_number(self.f_score),
            "objective": self.objective,
            "rule": "one-to-one",
            "tuned_on_itself": self.counts.to_dict(),
            "cross_validated": (
                None if self.cross_validated is None else self.cross_validated.to_dict()
            ),
            "slides": list(self.slides),
            "curves": {
                name: [[value, json_number(f)] for value, f in self.curve(name)] for name in curves
            },
        }


def tune(
    items: Sequence[Item | tuple[MapAccumulator, NDArray[Any], float, str]],
    objective: Objective = "pooled",
    otsu: bool = True,
) -> Tuning:
    """Find the thresholds with the best F on validation items, one to one within 7.5 um.

    Args:
        items: one of each image; plain tuples are taken for `Item`.
        objective: F of the pooled counts, or the mean of the slides' F, which one slide with many
            mitoses cannot dominate.
        otsu: whether Otsu's threshold may be chosen; a model with a verifier cannot have it.

    Returns:
        The best of the grid; among equals the middle of the largest plateau.

    Raises:
        UsageError: for an unknown objective.
        InputError: if there are no items or no mitosis in any.
    """
    if objective not in ("pooled", "mean"):
        raise UsageError(f"objective {objective!r}: choose 'pooled' or 'mean'")
    images = [Item(*item) for item in items]
    if not any(len(item.counted_xy) for item in images):
        raise InputError("there is no mitosis in the cases to tune on")
    slides, table = count_items(images, otsu)
    place = best_place(table, objective)
    thresholds = thresholds_at(place)
    return Tuning(
        thresholds=thresholds,
        counts=_counts_at(images, thresholds),
        f_score=float(grid_f_score(table, objective)[place]),
        cross_validated=_cross_validate(table, objective, _groups(images, slides)),
        objective=objective,
        slides=slides,
        table=table,
        place=place,
    )


def _groups(items: Sequence[Item], slides: Sequence[str]) -> NDArray[np.intp]:
    """Return the number of each slide's patient, from 0 in the order of the slides."""
    group_of = {item.slide: item.group or item.slide for item in items}
    groups = list(dict.fromkeys(group_of[slide] for slide in slides))
    return np.array([groups.index(group_of[slide]) for slide in slides])


def _cross_validate(
    table: NDArray[np.int32], objective: Objective, group: NDArray[np.intp]
) -> Counts | None:
    """Leave slides out, patient by patient, or in ten folds where there are more."""
    patients = int(group.max()) + 1
    if patients < 2:
        return None
    fold_of = group % min(patients, _FOLDS)
    total = Counts()
    for fold in range(int(fold_of.max()) + 1):
        held_out = fold_of == fold
        threshold, area, score = best_place(table[~held_out], objective)
        total += Counts(*table[held_out, threshold, area, score].sum(axis=0).tolist())
    return total


def _counts_at(items: Sequence[Item], thresholds: Thresholds) -> Counts:
    """Count by the matching that evaluation uses, apart from the table."""
    total = Counts()
    for item in items:
        blobs, xy = item.blobs(thresholds.threshold)
        kept, reach = xy[blobs.keep(thresholds)], MATCH_UM / item.mpp
        match = match_points(kept, item.counted_xy, reach, ignored_xy=item.ignored_xy)
        total += Counts.of(match)
    return total


def thresholds_content(tuning: Tuning, images: int) -> dict[str, Any]:
    """Return the content of thresholds.json: what was chosen, and the score of so many images."""
    about = listed(tuning.slides, _NAMED_SLIDES)
    how = "thresholds cross-validated over them" if tuning.cross_validated else "tuned on them"
    scored = (tuning.cross_validated or tuning.counts).to_dict()
    validation = {**scored, "data": f"{images} images of slides {about}; {how}"}
    return {**tuning.to_dict(), "program": PROGRAM, "validation": validation}


def check_tuned_for(tuned: Mapping[str, Any], spec: ModelSpec, graphs: Mapping[str, bytes]) -> None:
    """Refuse thresholds, and their score, that are of another model.

    Args:
        tuned: content of a thresholds.json; one that does not say its model is let pass.
        spec: of the model that is to have them.
        graphs: of that model, as for `write_model_file`.

    Raises:
        UsageError: naming the model that they are of.
    """
    model = tuned.get("model")
    if isinstance(model, dict) and model.get("maps_sha256") != maps_sha256(spec, graphs):
        raise UsageError(
            f"--thresholds were tuned with another model, {model.get('name')!r:.60}; make this one "
            "without them, and tune it: segmitos evaluate DATA --model FILE --tune -o DIR"
        )


def read_thresholds(path: Path) -> dict[str, Any]:
    """Return the content of a thresholds.json; DataError where it is none."""
    content = load_json(path)
    if not isinstance(content, dict) or not isinstance(content.get("thresholds"), dict):
        raise DataError(f"{path} holds no thresholds; 'segmitos evaluate --tune -o DIR' makes it")
    return content

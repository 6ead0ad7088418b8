"""One common threshold for laboratories that were left out, and the best of each."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from experiments.laboratories.candidates import Scored
from experiments.laboratories.data import BACKGROUND, FIELDS, LabImage, crop_group
from segmitos.errors import DataError
from segmitos.evaluation.matching import match_points
from segmitos.io.pairs import is_near

LEFT_OUT = FIELDS[1:]
"""Laboratories that no network of the map was trained on."""
DISTANCE_PX = 30.0
"""7.5 um at 0.25 um/px."""
THRESHOLDS = np.round(np.arange(0.05, 0.96, 0.025), 3)
MAX_FALSE_PER_MM2 = 1.0
"""Of background that was left out, unsure cells aside, at the common threshold."""
_LEVEL_PERCENTILES = (75, 80, 85, 90, 95)
Found = Mapping[int, Scored]
"""Candidates by image."""
LEAVE_UNSURE_OUT = {"as_published": False, "unsure_left_out": True}
"""By the name in figures: whether detections at unsure cells count neither way."""


def background_levels(images: Sequence[LabImage], found: Found) -> dict[int, NDArray[np.float64]]:
    """Return, by fold, how sure each verifier (k,) is of what it wrongly takes for a mitosis.

    That is the mean of the upper percentiles of its logits of candidates of the background that
    the fold left out, unsure cells aside. Trainings differ in it by more than they differ in what
    they tell apart; less their level, networks of two folds mean the same by a score.
    """
    rows: dict[int, list[NDArray[np.float64]]] = {}
    for index, candidates in found.items():
        image = images[index]
        sure = ~is_unsure(image, candidates.xy) & (image.laboratory in BACKGROUND)
        rows.setdefault(image.fold, []).append(candidates.verifier_logits[sure])
    levels = {}
    for fold, parts in rows.items():
        logits = np.concatenate(parts)
        # Nothing to be wrong about: the logits stay as they are.
        logits = logits if len(logits) else np.zeros((1, logits.shape[1]))
        levels[fold] = np.percentile(logits, _LEVEL_PERCENTILES, axis=0).mean(axis=0)
    return levels


def lowered(
    images: Sequence[LabImage], found: Found, levels: Mapping[int, NDArray[np.float64]]
) -> dict[int, Scored]:
    """Return candidates, each image's verifiers less the level of the fold that left it out."""
    return {index: of.lowered_by(levels[images[index].fold]) for index, of in found.items()}


@dataclass(frozen=True)
class Rule:
    """How the scores are joined: sigmoid(intercept + map * logit + verifier * mean logit)."""

    map_weight: float
    verifier_weight: float
    intercept: float

    def score(self, found: Scored) -> NDArray[np.float64]:
        """Return the joined scores (n,), 0 to 1, of candidates (n)."""
        z = self.map_weight * found.map_logit
        z = z + self.verifier_weight * found.verifier_logits.mean(axis=1)
        result: NDArray[np.float64] = 1 / (1 + np.exp(-(z + self.intercept)))
        return result


def fit_rule(images: Sequence[LabImage], runs: Sequence[Found]) -> Rule:
    """Fit the rule on candidates of left-out laboratories, each laboratory of equal weight."""
    from sklearn.linear_model import LogisticRegression

    features: list[NDArray[np.float64]] = []
    labels: list[NDArray[np.bool_]] = []
    weights: list[NDArray[np.float64]] = []
    for laboratory in LEFT_OUT:
        rows, hits = [np.zeros((0, 2))], [np.zeros(0, bool)]
        for index, found in (pair for run in runs for pair in run.items()):
            image = images[index]
            if image.laboratory == laboratory and not image.test:
                mean = found.verifier_logits.mean(axis=1)
                rows.append(np.stack([found.map_logit, mean], axis=1))
                hits.append(is_mitosis(image, found.xy))
        features.append(np.concatenate(rows))
        labels.append(np.concatenate(hits))
        weights.append(np.full(len(labels[-1]), 1 / max(1, labels[-1].sum())))
    weight = np.concatenate(weights)
    model = LogisticRegression(C=10.0).fit(
        np.concatenate(features), np.concatenate(labels), sample_weight=weight / weight.mean()
    )
    return Rule(float(model.coef_[0, 0]), float(model.coef_[0, 1]), float(model.intercept_[0]))


def is_mitosis(image: LabImage, xy: NDArray[np.float64]) -> NDArray[np.bool_]:
    """Tell which detections are matched, one to one, within 7.5 um."""
    hit = np.zeros(len(xy), bool)
    for detection, _ in match_points(xy, image.source.mitoses_xy, DISTANCE_PX).pairs:
        hit[detection] = True
    return hit


def is_unsure(image: LabImage, xy: NDArray[np.float64]) -> NDArray[np.bool_]:
    """Tell which detections lie within 7.5 um of an unsure cell."""
    return is_near(xy, image.unsure_xy, DISTANCE_PX)


def count(image: LabImage, xy: NDArray[np.float64], leave_unsure_out: bool) -> tuple[int, int, int]:
    """Return true positives, false positives and false negatives of an image's detections."""
    hit = is_mitosis(image, xy)
    wrong = ~hit & ~is_unsure(image, xy) if leave_unsure_out else ~hit
    return int(hit.sum()), int(wrong.sum()), len(image.source.mitoses_xy) - int(hit.sum())


def f_score(counts: NDArray[np.int64]) -> float:
    """Return F of true positives, false positives and false negatives (3,); 0 of nothing."""
    tp, fp, fn = counts.tolist()
    return float(2 * tp / max(1, 2 * tp + fp + fn))


class Counts:
    """Counts of one run of trainings at every threshold, by image."""

    def __init__(self, images: Sequence[LabImage], found: Found, rule: Rule) -> None:
        self._images = images
        self._found = found
        self._scores = {index: rule.score(candidates) for index, candidates in found.items()}
        self._tables: dict[tuple[int, bool], NDArray[np.int64]] = {}

    def of(
        self, laboratory: str, leave_unsure_out: bool, test: bool = False, group: str | None = None
    ) -> NDArray[np.int64]:
        """Return counts (thresholds, 3) of a laboratory's images: tp, fp, fn.

        Args:
            laboratory: its name.
            leave_unsure_out: whether detections at unsure cells count neither way.
            test: whether to count the test slide instead of all other images.
            group: of crops, those that `crop_group` gives this name; None: all.
        """
        total = np.zeros((len(THRESHOLDS), 3), np.int64)
        for index in self._found:
            image = self._images[index]
            if image.laboratory != laboratory or image.test != test:
                continue
            if group is None or crop_group(image.source.slide) == group:
                total += self._table(index, leave_unsure_out)
        return total

    def _table(self, index: int, leave_unsure_out: bool) -> NDArray[np.int64]:
        """Return an image's counts (thresholds, 3)."""
        key = index, leave_unsure_out
        if key not in self._tables:
            image, xy, score = self._images[index], self._found[index].xy, self._scores[index]
            rows = [count(image, xy[score >= t], leave_unsure_out) for t in THRESHOLDS]
            self._tables[key] = np.array(rows, np.int64)
        return self._tables[key]

    def area_mm2(self, laboratory: str) -> float:
        """Return the area of a laboratory's images."""
        chosen = (self._images[index] for index in self._found)
        return sum(image.area_mm2 for image in chosen if image.laboratory == laboratory)

    def calibration(self, laboratory: str) -> tuple[float, list[tuple[float, float, int]]]:
        """Return the expected calibration error, and mean score, mitoses' share and number a bin.

        Ten bins of equal width, of all candidates of a laboratory's images.
        """
        score, hit = [np.zeros(0)], [np.zeros(0, bool)]
        for index, candidates in self._found.items():
            image = self._images[index]
            if image.laboratory == laboratory and not image.test:
                score.append(self._scores[index])
                hit.append(is_mitosis(image, candidates.xy))
        p, y = np.concatenate(score), np.concatenate(hit)
        which = np.minimum((p * 10).astype(int), 9)
        rows = [(p[which == b], y[which == b]) for b in range(10) if (which == b).any()]
        error = sum(abs(a.mean() - b.mean()) * len(a) for a, b in rows) / max(1, len(p))
        return float(error), [(float(a.mean()), float(b.mean()), len(a)) for a, b in rows]


def few_false_marks(runs: Sequence[Counts]) -> NDArray[np.bool_]:
    """Tell which thresholds leave few enough false marks on the background that was left out.

    Raises:
        DataError: where every threshold leaves more.
    """
    false = np.sum([run.of(name, True)[:, 1] for run in runs for name in BACKGROUND], axis=0)
    area = sum(run.area_mm2(name) for run in runs for name in BACKGROUND)
    few: NDArray[np.bool_] = false <= MAX_FALSE_PER_MM2 * area
    if not few.any():
        raise DataError(
            f"more than {MAX_FALSE_PER_MM2:g} false marks per mm2 of background at any threshold"
        )
    return few


def common_threshold(runs: Sequence[Counts]) -> int:
    """Return the index of the threshold with the best F of all laboratories and runs together.

    Of those with few enough false marks on the background that was left out: fields that were
    chosen for their mitoses forgive what a slide does not.

    Raises:
        DataError: where every threshold leaves more.
    """
    total = np.sum([run.of(name, False) for run in runs for name in LEFT_OUT], axis=0)
    score = np.array([f_score(row) for row in total])
    return int(np.argmax(np.where(few_false_marks(runs), score, -1.0)))


@dataclass(frozen=True, eq=False)
class Choice:
    """What is chosen on laboratories that were left out, and the counts of each run by it.

    Attributes:
        rule: joins the scores.
        at: index of the common threshold.
        counts: of each run of trainings.
    """

    rule: Rule
    at: int
    counts: list[Counts]

    @property
    def threshold(self) -> float:
        """The common threshold, of the joined score."""
        return float(THRESHOLDS[self.at])


def choose(images: Sequence[LabImage], runs: Sequence[Found]) -> Choice:
    """Fit the rule on runs of trainings, and choose the threshold common to them.

    Raises:
        DataError: where every threshold leaves too many false marks on the background.
    """
    rule = fit_rule(images, runs)
    counts = [Counts(images, run, rule) for run in runs]
    return Choice(rule, common_threshold(counts), counts)


def figures(
    images: Sequence[LabImage], run: Counts, at: int, left_out: Sequence[str] = LEFT_OUT
) -> dict[str, Any]:
    """Return every figure of one run at a common threshold.

    Args:
        images: of all laboratories.
        run: counts of those that were left out.
        at: index of the threshold.
        left_out: laboratories whose mitoses are counted.
    """
    result: dict[str, Any] = {"threshold": float(THRESHOLDS[at])}
    for key, unsure in LEAVE_UNSURE_OUT.items():
        tables = {name: run.of(name, unsure) for name in left_out}
        pooled = sum(table[at] for table in tables.values())
        curves = {name: [f_score(row) for row in table] for name, table in tables.items()}
        result[key] = {
            name: {
                "counts": table[at].tolist(),
                "f_score": f_score(table[at]),
                "best_f_score": max(curves[name]),
                "best_at": float(THRESHOLDS[int(np.argmax(curves[name]))]),
            }
            for name, table in tables.items()
        }
        gaps = [max(curve) - curve[at] for curve in curves.values()]
        result[key]["pooled"] = f_score(np.asarray(pooled))
        result[key]["calibration_gap"] = float(np.mean(gaps))
    lowest = {name: run.of(name, False)[0] for name in left_out}
    result["calibration"] = {name: run.calibration(name) for name in left_out}
    result["recall_at_lowest_threshold"] = {
        n: float(c[0] / (c[0] + c[2])) for n, c in lowest.items()
    }
    result["background"] = {
        name: {
            "false_marks": int(run.of(name, True)[at][1]),
            "mm2": run.area_mm2(name),
        }
        for name in BACKGROUND
    }
    groups = sorted(
        {crop_group(image.source.slide) for image in images if image.laboratory == "crops"}
    )
    crops = {group: run.of("crops", False, group=group)[at] for group in groups}
    result["crops"] = {group: float(c[0] / max(1, c[0] + c[2])) for group, c in crops.items()}
    return result


def candidate_recall(
    images: Sequence[LabImage], found: Found, left_out: Sequence[str] = LEFT_OUT
) -> dict[str, tuple[float, float]]:
    """Return, by laboratory, the share of mitoses among candidates, and candidates per mm2."""
    result = {}
    for name in left_out:
        chosen = [
            (images[index], candidates)
            for index, candidates in found.items()
            if images[index].laboratory == name and not images[index].test
        ]
        hits = sum(int(is_mitosis(image, candidates.xy).sum()) for image, candidates in chosen)
        mitoses = sum(len(image.source.mitoses_xy) for image, _ in chosen)
        number = sum(len(candidates.xy) for _, candidates in chosen)
        area = sum(image.area_mm2 for image, _ in chosen)
        result[name] = (hits / max(1, mitoses), number / max(area, 1e-9))
    return result

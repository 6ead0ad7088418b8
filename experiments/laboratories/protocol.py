"""One common threshold for laboratories that were left out, and the best of each."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from experiments.laboratories.candidates import Scored
from experiments.laboratories.data import BACKGROUND, FIELDS, LabImage
from segmitos.evaluation.matching import match_points

LEFT_OUT = FIELDS[1:]
"""Laboratories that no network of the map has seen."""
DISTANCE_PX = 30.0
"""7.5 um at 0.25 um/px."""
THRESHOLDS = np.round(np.arange(0.05, 0.96, 0.025), 3)
Found = Mapping[int, Scored]
"""Candidates by image."""


@dataclass(frozen=True)
class Rule:
    """How the scores are joined: sigmoid(intercept + map * logit + verifier * mean logit)."""

    map_weight: float
    verifier_weight: float
    intercept: float

    def score(self, found: Scored) -> NDArray[np.float64]:
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
    apart = np.hypot(*(xy[:, None] - image.unsure_xy[None]).transpose(2, 0, 1))
    result: NDArray[np.bool_] = (apart <= DISTANCE_PX).any(axis=1)
    return result


def count(image: LabImage, xy: NDArray[np.float64], leave_unsure_out: bool) -> tuple[int, int, int]:
    """Return true positives, false positives and false negatives of an image's detections."""
    hit = is_mitosis(image, xy)
    wrong = ~hit & ~is_unsure(image, xy) if leave_unsure_out else ~hit
    return int(hit.sum()), int(wrong.sum()), len(image.source.mitoses_xy) - int(hit.sum())


def f_score(counts: NDArray[np.int64]) -> float:
    tp, fp, fn = counts.tolist()
    return float(2 * tp / max(1, 2 * tp + fp + fn))


class Counts:
    """Counts of one run of trainings at every threshold, by image."""

    def __init__(self, images: Sequence[LabImage], found: Found, rule: Rule) -> None:
        self._images = images
        self._found = found
        self._scores = {index: rule.score(candidates) for index, candidates in found.items()}

    def of(
        self, laboratory: str, leave_unsure_out: bool, test: bool = False, group: str | None = None
    ) -> NDArray[np.int64]:
        """Return counts (thresholds, 3) of a laboratory's images."""
        total = np.zeros((len(THRESHOLDS), 3), np.int64)
        for index, candidates in self._found.items():
            image = self._images[index]
            if image.laboratory != laboratory or image.test != test:
                continue
            if group is not None and crop_group(image) != group:
                continue
            for row, threshold in enumerate(THRESHOLDS):
                kept = candidates.xy[self._scores[index] >= threshold]
                total[row] += count(image, kept, leave_unsure_out)
        return total

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


def crop_group(image: LabImage) -> str:
    """Return the scanner or collection of a crop: MIDOG 2021 has three scanners by slide number."""
    dataset, _, slide = image.source.slide.partition("/")
    if dataset != "MIDOG21":
        return dataset
    scanners = ("Hamamatsu XR", "Hamamatsu S360", "Aperio CS2")
    return f"MIDOG 2021, {scanners[min(2, (int(slide) - 1) // 50)]}"


def common_threshold(runs: Sequence[Counts], leave_unsure_out: bool = False) -> int:
    """Return the index of the threshold with the best F of all laboratories and runs together."""
    total = sum(run.of(name, leave_unsure_out) for run in runs for name in LEFT_OUT)
    return int(np.argmax([f_score(row) for row in total]))


def figures(images: Sequence[LabImage], run: Counts, at: int) -> dict[str, Any]:
    """Return every figure of one run at a common threshold."""
    result: dict[str, Any] = {"threshold": float(THRESHOLDS[at])}
    for unsure, key in ((False, "as_published"), (True, "unsure_left_out")):
        tables = {name: run.of(name, unsure) for name in LEFT_OUT}
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
        test = run.of("mitos14", unsure, test=True)[at]
        result[key]["H03"] = {"counts": test.tolist(), "f_score": f_score(test)}
    lowest = {name: run.of(name, False)[0] for name in LEFT_OUT}
    result["calibration"] = {name: run.calibration(name) for name in LEFT_OUT}
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
    groups = sorted({crop_group(image) for image in images if image.laboratory == "crops"})
    crops = {group: run.of("crops", False, group=group)[at] for group in groups}
    result["crops"] = {group: float(c[0] / max(1, c[0] + c[2])) for group, c in crops.items()}
    return result


def candidate_recall(images: Sequence[LabImage], found: Found) -> dict[str, tuple[float, float]]:
    """Return, by laboratory, the share of mitoses among candidates, and candidates per mm2."""
    result = {}
    for name in LEFT_OUT:
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

"""One common threshold for laboratories that were left out, and the best of each."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from experiments.laboratories.candidates import Candidates
from experiments.laboratories.data import BACKGROUND, FIELDS, LabImage
from segmitos.evaluation.matching import match_points

DISTANCE_PX = 30.0
"""7.5 um at 0.25 um/px."""
Scored = Mapping[int, tuple[NDArray[np.float64], NDArray[np.float64]]]
"""By image: positions (n, 2) and scores (n,)."""
THRESHOLDS = np.round(np.arange(0.05, 0.96, 0.025), 3)


@dataclass(frozen=True)
class Rule:
    """How the scores are joined: sigmoid(intercept + map * logit + verifier * logit)."""

    map_weight: float
    verifier_weight: float
    intercept: float

    def score(self, found: Candidates) -> NDArray[np.float64]:
        z = self.map_weight * found.map_logit + self.verifier_weight * found.verifier_logit
        result: NDArray[np.float64] = 1 / (1 + np.exp(-(z + self.intercept)))
        return result


def fit_rule(
    images: Sequence[LabImage], found: Mapping[int, Candidates], laboratories: Sequence[str]
) -> Rule:
    """Fit the rule on candidates of left-out laboratories, each laboratory of equal weight."""
    from sklearn.linear_model import LogisticRegression

    features: list[NDArray[np.float64]] = []
    labels: list[NDArray[np.bool_]] = []
    weights: list[NDArray[np.float64]] = []
    for laboratory in laboratories:
        rows, hits = [np.zeros((0, 2))], [np.zeros(0, bool)]
        for index, candidates in found.items():
            image = images[index]
            if image.laboratory == laboratory and not image.test:
                rows.append(np.stack([candidates.map_logit, candidates.verifier_logit], axis=1))
                hits.append(is_mitosis(image, candidates.xy))
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


def count(
    images: Sequence[LabImage],
    scored: Scored,
    threshold: float,
    leave_unsure_out: bool,
) -> NDArray[np.int64]:
    """Return true positives, false positives and false negatives of images with scores."""
    total = np.zeros(3, np.int64)
    for index, (xy, score) in scored.items():
        image, kept = images[index], xy[score >= threshold]
        hit = is_mitosis(image, kept)
        wrong = ~hit
        if leave_unsure_out and len(image.unsure_xy) and len(kept):
            apart = np.hypot(*(kept[:, None] - image.unsure_xy[None]).transpose(2, 0, 1))
            wrong &= apart.min(axis=1) > DISTANCE_PX
        total += (hit.sum(), wrong.sum(), len(image.source.mitoses_xy) - hit.sum())
    return total


def f_score(counts: NDArray[np.int64]) -> float:
    tp, fp, fn = counts.tolist()
    return 2 * tp / max(1, 2 * tp + fp + fn)


def report(
    images: Sequence[LabImage],
    found: Mapping[int, Candidates],
    rule: Rule,
    leave_unsure_out: bool,
    threshold: float | None = None,
) -> tuple[float, list[str]]:
    """Return the common threshold that is best for all laboratories, and lines of a table."""
    scored = {index: (c.xy, rule.score(c)) for index, c in found.items()}

    def chosen(
        names: Sequence[str], test: bool = False
    ) -> dict[int, tuple[NDArray[np.float64], NDArray[np.float64]]]:
        return {
            index: value
            for index, value in scored.items()
            if images[index].laboratory in names and images[index].test == test
        }

    tables = {
        name: np.array([count(images, chosen([name]), t, leave_unsure_out) for t in THRESHOLDS])
        for name in FIELDS
    }
    pooled = np.sum(list(tables.values()), axis=0)
    curve = [f_score(row) for row in pooled]
    at = int(np.argmax(curve)) if threshold is None else int(np.argmin(abs(THRESHOLDS - threshold)))
    common = float(THRESHOLDS[at])
    lines = [f"common threshold {common:g}: pooled F {curve[at]:.3f}"]
    gaps = []
    for name, table in tables.items():
        own = [f_score(row) for row in table]
        best = int(np.argmax(own))
        gaps.append(own[best] - own[at])
        lines.append(
            f"{name}: F {own[at]:.3f} (tp, fp, fn {table[at].tolist()}); own best {own[best]:.3f} "
            f"at {THRESHOLDS[best]:g}"
        )
    lines.append(f"calibration gap {np.mean(gaps):.3f}")
    test = count(images, chosen(["mitos14"], test=True), common, leave_unsure_out)
    lines.append(f"H03: F {f_score(test):.3f} (tp, fp, fn {test.tolist()})")
    for name in BACKGROUND:
        wrong = count(images, chosen([name]), common, True)[1]
        area = sum(images[index].area_mm2 for index in chosen([name]))
        lines.append(f"{name}: {wrong} false marks, {wrong / max(area, 1e-9):.2f} per mm2")
    crops = count(images, chosen(["crops"]), common, False)
    lines.append(f"crops: recall {crops[0] / max(1, crops[0] + crops[2]):.3f}")
    return common, lines

"""Fitting a model's last layer to judged candidates, near its start, and F before and after."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from segmitos.detection.postprocess import Thresholds
from segmitos.detection.verify import log_odds
from segmitos.evaluation.matching import f_score
from segmitos.training.judged_candidates import Floats, JudgedCandidates, Mask
from segmitos.training.recipe import AdaptRecipe

MIN_MARKS = 10
"""Candidates that readers decided on, below which nothing is fitted."""


@dataclass(frozen=True)
class Change:
    """What is added: to the log-odds of all candidates, and to the weights of their features."""

    shift: float
    weights: Floats

    def score(self, found: JudgedCandidates) -> Floats:
        """Return the changed log-odds of candidates."""
        result: Floats = found.score + self.shift + found.features @ self.weights
        return result


@dataclass(frozen=True)
class Row:
    """True positives, false positives and false negatives of a slide, before and after."""

    slide: str
    before: tuple[int, int, int]
    after: tuple[int, int, int]


def fit_change(
    found: Sequence[JudgedCandidates], count: int, cut: float, recipe: AdaptRecipe
) -> Change:
    """Fit a change to judged candidates.

    Args:
        found: at least one mitosis and one other.
        count: of verifiers, whose mean the features make.
        cut: log-odds of the model's threshold.
        recipe: penalties.
    """
    from scipy.optimize import minimize
    from scipy.special import expit

    features = np.concatenate([one.features for one in found]) / np.sqrt(count)
    sign = np.where(np.concatenate([one.is_mitosis for one in found]), 1.0, -1.0)
    start = np.concatenate([one.score for one in found]) - cut + _logit(recipe.cut)
    penalty = np.full(features.shape[1] + 1, recipe.weight_penalty)
    penalty[0] = recipe.shift_penalty

    def loss(change: Floats) -> tuple[float, Floats]:
        margin = sign * (start + change[0] + features @ change[1:])
        slope = -sign * expit(-margin)
        value = np.logaddexp(0, -margin).sum() + 0.5 * (penalty * change**2).sum()
        return value, np.concatenate([[slope.sum()], slope @ features]) + penalty * change

    best = minimize(loss, np.zeros(len(penalty)), jac=True, method="L-BFGS-B")
    return Change(float(best.x[0]), best.x[1:] / np.sqrt(count))


def mean_loss(score: Floats, is_mitosis: Mask, cut: float, recipe: AdaptRecipe) -> float:
    """Return the mean log-loss of log-odds, as `fit_change` counts it; 0 of nothing."""
    margin = np.where(is_mitosis, 1.0, -1.0) * (score - cut + _logit(recipe.cut))
    return float(np.logaddexp(0, -margin).mean()) if len(margin) else 0.0


def counts_at(found: JudgedCandidates, score: Floats, cut: float) -> tuple[int, int, int]:
    """Return true positives, false positives and false negatives at a threshold's log-odds."""
    kept = score >= cut
    right = int((kept & found.is_mitosis).sum())
    return right, int(kept.sum()) - right, int(found.is_mitosis.sum()) + found.missed - right


def cut_of(thresholds: Thresholds) -> float:
    """Return the log-odds of the least score that is a detection."""
    threshold = thresholds.threshold
    assert not isinstance(threshold, str)
    return _logit(max(threshold, thresholds.min_score))


def _logit(probability: float) -> float:
    return float(log_odds(np.array(probability)))


def validate_change(
    found: Sequence[JudgedCandidates], count: int, cut: float, recipe: AdaptRecipe
) -> list[tuple[JudgedCandidates, Floats]]:
    """Score each slide by a change that was fitted to the others.

    Returns:
        Candidates with their changed log-odds; empty where there is but one slide and one case.
    """
    groups = sorted({one.group for one in found})
    scored = []
    for group in groups if len(groups) > 1 else []:
        others = [one for one in found if one.group != group]
        change = Change(0.0, np.zeros(found[0].features.shape[1]))
        if is_enough(others, 1):
            change = fit_change(others, count, cut, recipe)
        scored += [(one, change.score(one)) for one in found if one.group == group]
    return scored


def is_enough(found: Sequence[JudgedCandidates], least: int = MIN_MARKS) -> bool:
    """Tell whether candidates hold mitoses and others, and how many at least."""
    kinds = [int(kind) for one in found for kind in one.is_mitosis]
    return len(kinds) >= least and 0 < sum(kinds) < len(kinds)


def before_and_after(scored: Sequence[tuple[JudgedCandidates, Floats]], cut: float) -> list[Row]:
    """Return a row for each slide of what `validate_change` returned."""
    rows: dict[str, Row] = {}
    for one, score in scored:
        old = rows.get(one.slide, Row(one.slide, (0, 0, 0), (0, 0, 0)))
        before, after = counts_at(one, one.score, cut), counts_at(one, score, cut)
        rows[one.slide] = Row(one.slide, _sum([old.before, before]), _sum([old.after, after]))
    return [rows[slide] for slide in sorted(rows)]


def pooled(rows: Sequence[Row]) -> Row:
    """Return the sum of rows."""
    return Row("all", _sum([row.before for row in rows]), _sum([row.after for row in rows]))


def _sum(counts: Sequence[tuple[int, int, int]]) -> tuple[int, int, int]:
    tp, fp, fn = (sum(one[part] for one in counts) for part in range(3))
    return tp, fp, fn


def is_better(
    scored: Sequence[tuple[JudgedCandidates, Floats]], cut: float, recipe: AdaptRecipe
) -> bool:
    """Tell whether the change beats the start where it was not fitted: in log-loss and in F."""
    if not scored:
        return False
    total = pooled(before_and_after(scored, cut))
    is_mitosis = np.concatenate([one.is_mitosis for one, _ in scored])
    old = mean_loss(np.concatenate([one.score for one, _ in scored]), is_mitosis, cut, recipe)
    new = mean_loss(np.concatenate([score for _, score in scored]), is_mitosis, cut, recipe)
    return new < old and f_score(*total.after) >= f_score(*total.before)

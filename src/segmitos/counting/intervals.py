"""How far a count can be from the truth: the model's errors, and chance.

Two things make a count uncertain. The model misses some mitoses and marks some that are none; how
often was measured on validation cases. And mitoses fall into a window by chance: the same tumour,
cut a little deeper, gives another count (Bonert and Tate, BioMed Eng OnLine 2017;16:28: by this
alone 16 % of cases are scored wrongly at a field diameter of 0.40 mm, 9 % at 0.69 mm).

With n detections, hits h ~ Binomial(n, P) and misses ~ NegativeBinomial(h + 1/2, R): what was
missed when each mitosis is seen with chance R and nothing is known of their number. P and R are not
exact either: P ~ Beta(tp + 1/2, fp + 1/2), R ~ Beta(tp + 1/2, fn + 1/2), Jeffreys' interval (Brown,
Cai and DasGupta, Statist Sci 2001;16:101-133). The true count in the window is h + misses; the
count that the tumour's density gives in such windows is ~ Gamma(h + misses + 1/2). All by seeded
simulation. Sampling alone has Garwood's exact interval (Biometrika 1936;28:437-442).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from segmitos.counting.grading import MitoticScore
from segmitos.errors import UsageError

_DRAWS = 20_000


@dataclass(frozen=True)
class ValidationCounts:
    """Counts of a validation: how often the model errs. Take it from cases like the one counted."""

    tp: int
    fp: int
    fn: int

    def __post_init__(self) -> None:
        if min(self.tp, self.fp, self.fn) < 0 or self.tp + self.fn == 0:
            raise UsageError(
                f"validation counts tp={self.tp}, fp={self.fp}, fn={self.fn}: none may be negative "
                "and there must be mitoses"
            )


@dataclass(frozen=True)
class CountInterval:
    """Intervals around one count, all at `level`.

    Attributes:
        count: of detections.
        expected: true count that the model's precision and recall lead to expect, n P / R;
            the count itself where they are not known.
        model: true count in the window, by the model's errors; None where they are not known.
        sampling: expected count of such windows, by chance alone (Garwood).
        combined: expected count of such windows, by both; by chance alone without `model`.
        level: of confidence.
    """

    count: int
    expected: float
    model: tuple[float, float] | None
    sampling: tuple[float, float]
    combined: tuple[float, float]
    level: float = 0.95

    def to_dict(self) -> dict[str, Any]:
        """Return JSON-able values."""
        return {
            "count": self.count,
            "expected": self.expected,
            "model": None if self.model is None else list(self.model),
            "sampling": list(self.sampling),
            "combined": list(self.combined),
            "level": self.level,
        }


def count_interval(
    count: int, model: ValidationCounts | None = None, level: float = 0.95, seed: int = 0
) -> CountInterval:
    """Return the intervals of a count of detections in one window.

    Args:
        count: detections in the window.
        model: validation counts, where there are any.
        level: of confidence, between 0 and 1.
        seed: of the simulation; the same seed gives the same interval.

    Raises:
        UsageError: for a negative count or a level outside 0..1.
    """
    sampling = poisson_interval(count, level)
    if model is None:
        return CountInterval(count, float(count), None, sampling, sampling, level)
    generator = np.random.default_rng(seed)
    precision = generator.beta(model.tp + 0.5, model.fp + 0.5, _DRAWS)
    recall = generator.beta(model.tp + 0.5, model.fn + 0.5, _DRAWS)
    hits = generator.binomial(count, precision)
    true = hits + generator.negative_binomial(hits + 0.5, recall)
    rate = generator.gamma(true + 0.5)
    tail = (1 - level) / 2
    low, high = np.quantile(true, [tail, 1 - tail])
    least, most = np.quantile(rate, [tail, 1 - tail])
    mean_precision = (model.tp + 0.5) / (model.tp + model.fp + 1)
    mean_recall = (model.tp + 0.5) / (model.tp + model.fn + 1)
    return CountInterval(
        count=count,
        expected=count * mean_precision / mean_recall,
        model=(float(low), float(high)),
        sampling=sampling,
        combined=(float(least), float(most)),
        level=level,
    )


def poisson_interval(count: int, level: float = 0.95) -> tuple[float, float]:
    """Return Garwood's exact interval on the mean of a Poisson count.

    Raises:
        UsageError: for a negative count or a level outside 0..1.
    """
    if count < 0:
        raise UsageError(f"count {count} must be 0 or more")
    if not 0 < level < 1:
        raise UsageError(f"level {level} must be between 0 and 1")
    from scipy.special import gammaincinv

    tail = (1 - level) / 2
    low = float(gammaincinv(count, tail)) if count else 0.0
    return low, float(gammaincinv(count + 1, 1 - tail))


def score_is_uncertain(score: MitoticScore, interval: CountInterval) -> bool:
    """Tell whether the score would be another at either end of the combined interval.

    The ends are expected counts and need not be whole; they are rounded to the nearest count.
    """
    low, high = interval.combined
    return score.of(round(low)) != score.score or score.of(round(high)) != score.score

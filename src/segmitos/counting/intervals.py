"""How far a count can be from the truth: the model's errors, and chance.

Two things make a count uncertain. The model misses some mitoses and marks some that are none; how
often was measured on validation cases. And mitoses fall into a window by chance: the same tumor,
cut a little deeper, gives another count (Bonert and Tate, BioMed Eng OnLine 2017;16:28: by this
alone 16 % of cases are scored wrongly at a field diameter of 0.40 mm, 9 % at 0.69 mm).

With n detections, the true positives are h ~ Binomial(n, P) and the false negatives ~
NegativeBinomial(h + 1/2, R): what was missed when each mitosis is seen with chance R and nothing is
known of their number. P and R are not exact either: P ~ Beta(tp + 1/2, fp + 1/2), R ~ Beta(tp +
1/2, fn + 1/2), Jeffreys' interval (Brown, Cai and DasGupta, Statist Sci 2001;16:101-133). The true
count in the window is the sum of both; the count that the tumor's density gives in such windows is
~ Gamma(true count + 1/2). All by seeded simulation. Sampling alone has Garwood's exact interval
(Biometrika 1936;28:437-442).
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

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
    interval = _interval(0, 0, count, model, False, level, seed)
    if model is None:
        return interval
    precision = (model.tp + 0.5) / (model.tp + model.fp + 1)
    recall = (model.tp + 0.5) / (model.tp + model.fn + 1)
    return replace(interval, expected=count * precision / recall)


def reviewed_interval(
    confirmed: int,
    added: int,
    undecided: int = 0,
    model: ValidationCounts | None = None,
    screened: bool = False,
    unsure: int = 0,
) -> CountInterval:
    """Return the 95 % intervals of a reviewed count in one window.

    What the reader has confirmed is true; an undecided detection is true as often as the model's
    precision says, and so is one that the reader is unsure of, which does not count. What the model
    missed is still missing, but for what the reader added, unless the reader has screened the whole
    window: then chance alone remains. The interval of chance reaches from that of none of the open
    marks to that of all of them.

    Args:
        confirmed: detections of the model that the reader calls mitoses.
        added: mitoses that the model did not detect.
        undecided: detections that nobody has looked at; they count.
        model: validation counts, where there are any.
        screened: whether the reader has looked at all of the window.
        unsure: marks that the reader is unsure of; they do not count.

    Raises:
        UsageError: for a negative count.
    """
    if min(confirmed, added, undecided, unsure) < 0:
        raise UsageError(
            f"confirmed {confirmed}, added {added}, undecided {undecided}, unsure {unsure}: none "
            "may be negative"
        )
    number = confirmed + added + undecided
    found = _interval(confirmed, added, undecided + unsure, model, screened)
    chance = (poisson_interval(confirmed + added)[0], found.sampling[1])
    if found.model is not None:
        return replace(found, count=number, sampling=chance)
    return replace(found, count=number, expected=float(number), sampling=chance, combined=chance)


def _interval(
    confirmed: int,
    added: int,
    undecided: int,
    model: ValidationCounts | None,
    screened: bool,
    level: float = 0.95,
    seed: int = 0,
) -> CountInterval:
    number = confirmed + added + undecided
    sampling = poisson_interval(number, level)
    if model is None or (screened and not undecided):
        return CountInterval(number, float(number), None, sampling, sampling, level)
    generator = np.random.default_rng(seed)
    precision = generator.beta(model.tp + 0.5, model.fp + 0.5, _DRAWS)
    recall = generator.beta(model.tp + 0.5, model.fn + 0.5, _DRAWS)
    detected = confirmed + generator.binomial(undecided, precision)
    missed = np.full(_DRAWS, added)
    if not screened:
        missed = np.maximum(missed, generator.negative_binomial(detected + 0.5, recall))
    true = detected + missed
    tail = (1 - level) / 2
    low, high = np.quantile(true, [tail, 1 - tail]).tolist()
    least, most = np.quantile(generator.gamma(true + 0.5), [tail, 1 - tail]).tolist()
    return CountInterval(number, float(true.mean()), (low, high), sampling, (least, most), level)


def poisson_interval(count: int, level: float = 0.95) -> tuple[float, float]:
    """Return Garwood's exact interval on the mean of a Poisson count.

    Raises:
        UsageError: for a negative count or a level outside 0..1.
    """
    if count < 0:
        raise UsageError(f"count {count} must be 0 or more")
    if not 0 < level < 1:
        raise UsageError(f"level {level} must be between 0 and 1")
    tail = (1 - level) / 2
    low = _poisson_mean(count - 1, 1 - tail) if count else 0.0
    return low, _poisson_mean(count, tail)


def _poisson_mean(count: int, probability: float) -> float:
    """Return the mean of the Poisson distribution with P(X <= count) = probability.

    By bisection; SciPy's quantile functions take longer to import than a report to make.
    """
    # Terms further below the count than this are nothing.
    first = max(0, count - math.ceil(40 * math.sqrt(count + 1)) - 50)
    k = np.arange(first, count + 1)
    log_factorial = math.lgamma(first + 1) + np.concatenate([[0.0], np.cumsum(np.log(k[1:]))])
    reach = 20 * math.sqrt(count + 1) + 10
    low, high = max(0.0, count - reach), count + reach + 30
    for _ in range(80):
        middle = (low + high) / 2
        below = np.exp(k * math.log(middle) - middle - log_factorial).sum()
        low, high = (middle, high) if below > probability else (low, middle)
    return (low + high) / 2


def score_is_uncertain(score: MitoticScore, interval: CountInterval) -> bool:
    """Tell whether the score would be another at either end of the combined interval.

    The ends are expected counts and need not be whole; they are rounded to the nearest count.
    """
    low, high = interval.combined
    return score.of(round(low)) != score.score or score.of(round(high)) != score.score

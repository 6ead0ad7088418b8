"""How far readers agree, with intervals: F by pairs, kappa, alpha, ICC, Bland-Altman.

Krippendorff's alpha is that of the package `krippendorff`, kappas are those of scikit-learn.
ICC(2,1) is Shrout and Fleiss's (Psychol Bull 1979;86:420-428), limits of agreement are Bland and
Altman's (Lancet 1986;1:307-310). Intervals are percentiles of a bootstrap over slides, from a fixed
seed: the slide is what was sampled, not the cell.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from itertools import combinations
from typing import Any

import numpy as np
from numpy.typing import NDArray

from segmitos.evaluation.matching import f_score, match_points
from segmitos.io.files import json_text
from segmitos.io.outputs import PROGRAM
from segmitos.io.pairs import MATCH_UM
from segmitos.io.tables import table_text, text_cell
from segmitos.report.html import render
from segmitos.review.access import MODEL
from segmitos.review.readings import SlideReadings

Floats = NDArray[np.float64]
Statistic = Callable[[NDArray[np.intp]], float]
"""Numbers of the slides that were drawn -> a figure over them."""
DRAWS = 1000
LEVEL = 0.95
_COLUMNS = ("first", "second", "slides", "matched", "only_first", "only_second")
_FIGURES = ("f", "kappa", "score_kappa", "count_icc")
_WIDTH, _HEIGHT, _MARGIN = 420, 240, 36


def agreement(slides: Sequence[SlideReadings], draws: int = DRAWS, seed: int = 0) -> dict[str, Any]:
    """Compare readers.

    Args:
        slides: readings; a reader need not have read every slide.
        draws: of the bootstrap; 0 gives no intervals.
        seed: of the bootstrap.

    Returns:
        JSON-able: `readers`, `slides`, `pairs` (one entry for each two readers) and `all`
        (Krippendorff's alpha and ICC(2,1) over all readers, without the model).
    """
    readers = list(dict.fromkeys(reader for one in slides for reader in one.readers))
    pairs = [
        _pair(slides, first, second, draws, seed) for first, second in combinations(readers, 2)
    ]
    people = [reader for reader in readers if reader != MODEL]
    return {
        "readers": readers,
        "slides": [one.name for one in slides],
        "match_um": MATCH_UM,
        "level": LEVEL,
        "draws": draws,
        "seed": seed,
        "pairs": [pair for pair in pairs if pair["slides"]],
        "all": _among_all(slides, people, draws, seed),
    }


def _pair(
    slides: Sequence[SlideReadings], first: str, second: str, draws: int, seed: int
) -> dict[str, Any]:
    both = [
        (one, [one.readers.index(first), one.readers.index(second)])
        for one in slides
        if first in one.readers and second in one.readers
    ]
    matched = np.array([_matched(one, *places) for one, places in both]).reshape(-1, 3)
    votes = [one.votes[places] for one, places in both]
    counts = np.array([one.counts[places] for one, places in both]).reshape(-1, 2)
    scores = np.array([one.scores[places] for one, places in both]).reshape(-1, 2)

    def figure(statistic: Statistic) -> dict[str, float | None]:
        return _with_interval(statistic, len(both), draws, seed)

    in_both, only_first, only_second = (int(number) for number in matched.sum(axis=0))
    return {
        "first": first,
        "second": second,
        "slides": len(both),
        "matched": in_both,
        "only_first": only_first,
        "only_second": only_second,
        "f": figure(lambda chosen: f_score(*matched[chosen].sum(axis=0).tolist())),
        "kappa": figure(lambda chosen: cohen_kappa(np.hstack([votes[i] for i in chosen]))),
        "score_kappa": figure(lambda chosen: weighted_kappa(scores[chosen])),
        "count_icc": figure(lambda chosen: icc_2_1(counts[chosen])),
        "count_difference": _count_difference([one.name for one, _ in both], counts),
    }


def _count_difference(slides: Sequence[str], counts: Floats) -> dict[str, Any]:
    """Return mean and limits of agreement of two readers' counts (n, 2), nan where there is none.

    The limits are Bland and Altman's: 95 % of the differences lie between them.
    """
    difference = counts[:, 0] - counts[:, 1]
    whole = ~np.isnan(difference)
    difference = difference[whole]
    mean = float(difference.mean()) if len(difference) else math.nan
    spread = 1.96 * float(difference.std(ddof=1)) if len(difference) > 1 else math.nan
    return {
        "mean": _plain(mean),
        "low": _plain(mean - spread),
        "high": _plain(mean + spread),
        "values": [
            {"slide": slide, "mean": float(pair.mean()), "difference": float(pair[0] - pair[1])}
            for slide, pair, is_whole in zip(slides, counts, whole, strict=True)
            if is_whole
        ],
    }


def _matched(slide: SlideReadings, first: int, second: int) -> tuple[int, int, int]:
    """Return how many mitoses both marked, one to one, and how many only the one or other.

    A place on which one of them is undecided or unsure counts neither way, as in kappa.
    """
    decided = ~np.isnan(slide.votes[[first, second]].sum(axis=0))
    units = tuple(slide.units[place] for place in np.flatnonzero(decided))
    both = replace(slide, units=units, votes=slide.votes[:, decided])
    match = match_points(both.mitoses_xy(first), both.mitoses_xy(second), MATCH_UM / slide.mpp)
    return match.tp, match.fp, match.fn


def _among_all(
    slides: Sequence[SlideReadings], readers: Sequence[str], draws: int, seed: int
) -> dict[str, Any]:
    if len(readers) < 2:
        return {}

    def by_reader(values: Floats, slide: SlideReadings) -> Floats:
        """Return rows of a slide's values for all readers, nan for who did not read it."""
        missing = np.full(values.shape[1:], math.nan)
        index = slide.readers.index
        return np.array([values[index(r)] if r in slide.readers else missing for r in readers])

    def figure(statistic: Statistic) -> dict[str, float | None]:
        return _with_interval(statistic, len(slides), draws, seed)

    votes = [by_reader(one.votes, one) for one in slides]
    counts = np.array([by_reader(one.counts, one) for one in slides])
    return {
        "readers": list(readers),
        "alpha": figure(lambda chosen: krippendorff_alpha(np.hstack([votes[i] for i in chosen]))),
        "count_icc": figure(lambda chosen: icc_2_1(counts[chosen])),
    }


def cohen_kappa(votes: Floats) -> float:
    """Return Cohen's kappa of two rows of 0 and 1; columns with a nan are left out."""
    both = votes[:, ~np.isnan(votes).any(axis=0)].astype(int)
    return _kappa(both, [0, 1], None)


def weighted_kappa(scores: Floats) -> float:
    """Return linearly weighted kappa of two columns of scores 1 to 3; rows with nan left out."""
    both = scores[~np.isnan(scores).any(axis=1)].astype(int).T
    return _kappa(both, [1, 2, 3], "linear")


def _kappa(both: NDArray[np.int_], labels: list[int], weights: str | None) -> float:
    if both.shape[1] == 0 or len(np.unique(both)) < 2:
        # All say one and the same: chance explains it all, and kappa says nothing.
        return math.nan
    from sklearn.metrics import cohen_kappa_score

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return float(cohen_kappa_score(both[0], both[1], labels=labels, weights=weights))


def krippendorff_alpha(votes: Floats) -> float:
    """Return Krippendorff's alpha (nominal) of readers by units; nan is missing."""
    paired = votes[:, (~np.isnan(votes)).sum(axis=0) >= 2]
    if paired.shape[1] == 0 or len(np.unique(paired[~np.isnan(paired)])) < 2:
        return math.nan
    import krippendorff

    return float(krippendorff.alpha(reliability_data=paired, level_of_measurement="nominal"))


def icc_2_1(values: Floats) -> float:
    """Return ICC(2,1), absolute agreement, of slides by readers; rows with a nan are left out."""
    whole = values[~np.isnan(values).any(axis=1)]
    n, k = whole.shape
    if n < 2 or k < 2:
        return math.nan
    total = whole.mean()
    rows = k * ((whole.mean(axis=1) - total) ** 2).sum() / (n - 1)
    columns = n * ((whole.mean(axis=0) - total) ** 2).sum() / (k - 1)
    error = ((whole - total) ** 2).sum() - rows * (n - 1) - columns * (k - 1)
    error /= (n - 1) * (k - 1)
    below = rows + (k - 1) * error + k * (columns - error) / n
    return float((rows - error) / below) if below > 0 else math.nan


def _with_interval(
    statistic: Statistic, slides: int, draws: int, seed: int
) -> dict[str, float | None]:
    """Return a figure over all slides, and its interval by drawing slides with replacement."""
    if slides == 0:
        return {"value": None, "low": None, "high": None}
    value = statistic(np.arange(slides))
    low = high = math.nan
    if draws and slides > 1:
        generator = np.random.default_rng(seed)
        drawn = np.array([statistic(generator.integers(0, slides, slides)) for _ in range(draws)])
        drawn = drawn[~np.isnan(drawn)]
        if len(drawn):
            tail = (1 - LEVEL) / 2
            low, high = np.quantile(drawn, [tail, 1 - tail]).tolist()
    return {"value": _plain(value), "low": _plain(low), "high": _plain(high)}


def _plain(value: float) -> float | None:
    return None if math.isnan(value) else float(value)


def agreement_files(content: Mapping[str, Any]) -> dict[str, bytes]:
    """Return agreement.json, agreement.csv and agreement.html."""
    return {
        "agreement.json": json_text({"program": PROGRAM, **content}).encode("utf-8"),
        "agreement.csv": _table(content).encode("utf-8"),
        "agreement.html": _page(content).encode("utf-8"),
    }


def _table(content: Mapping[str, Any]) -> str:
    ends = [f"{name}{end}" for name in _FIGURES for end in ("", "_low", "_high")]
    rows = []
    for pair in content["pairs"]:
        figures = [pair[name][end] for name in _FIGURES for end in ("value", "low", "high")]
        limits = [pair["count_difference"][end] for end in ("mean", "low", "high")]
        rows.append([*(text_cell(pair[name]) for name in _COLUMNS), *figures, *limits])
    columns = [*_COLUMNS, *ends, "count_difference", "limit_low", "limit_high"]
    return table_text(columns, rows)


def _page(content: Mapping[str, Any]) -> str:
    plots = [_bland_altman(pair) for pair in content["pairs"]]
    return render("agreement.html", content=content, plots=plots, width=_WIDTH, height=_HEIGHT)


def _bland_altman(pair: Mapping[str, Any]) -> dict[str, Any]:
    """Return places of the points and lines of a plot, in pixels."""
    values = pair["count_difference"]["values"]
    limits = {end: pair["count_difference"][end] for end in ("mean", "low", "high")}
    heights = [one["difference"] for one in values] + [v for v in limits.values() if v is not None]
    reach = float(max([abs(value) for value in heights] + [1.0])) * 1.15
    widest = float(max([one["mean"] for one in values] + [1.0])) * 1.05

    def y(value: float) -> float:
        return _HEIGHT / 2 - value / reach * (_HEIGHT / 2 - _MARGIN / 2)

    def x(value: float) -> float:
        return _MARGIN + value / widest * (_WIDTH - _MARGIN * 1.5)

    return {
        "title": f"{pair['first']} minus {pair['second']}",
        "points": [(x(one["mean"]), y(one["difference"]), one["slide"]) for one in values],
        "lines": [(name, y(v), v) for name, v in limits.items() if v is not None],
        "zero": y(0.0),
        "left": _MARGIN,
        "widest": widest,
    }

"""How good a detector is: counts pooled over all cases, per case and per slide, with intervals."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from segmitos.errors import InputError, ScaleError, UsageError
from segmitos.evaluation.matching import (
    RULES,
    Match,
    bootstrap_interval,
    counted_detections,
    f_score,
    find_rule,
    match_case,
    precision,
    recall,
)
from segmitos.io.datasets import Case
from segmitos.io.geometry import same_scale
from segmitos.io.points.detections import Detections

STATISTICS = ("precision", "recall", "f_score")


@dataclass(frozen=True)
class Counts:
    """True positives, false positives and false negatives; the ratios follow from them.

    `ignored` are detections that count neither way: at an unsure cell, or outside what was
    reviewed.
    """

    tp: int = 0
    fp: int = 0
    fn: int = 0
    ignored: int = 0

    @classmethod
    def of(cls, match: Match) -> Counts:
        """Count the outcome of a match."""
        return cls(match.tp, match.fp, match.fn, len(match.ignored))

    def __add__(self, other: Counts) -> Counts:
        return Counts(
            self.tp + other.tp,
            self.fp + other.fp,
            self.fn + other.fn,
            self.ignored + other.ignored,
        )

    @property
    def precision(self) -> float:
        """Fraction of detections that are mitoses; nan without detections."""
        return precision(self.tp, self.fp)

    @property
    def recall(self) -> float:
        """Fraction of mitoses that were detected; nan without mitoses."""
        return recall(self.tp, self.fn)

    @property
    def f_score(self) -> float:
        """Harmonic mean of both; nan with nothing to find and nothing found."""
        return f_score(self.tp, self.fp, self.fn)

    def to_dict(self) -> dict[str, Any]:
        """Return counts and ratios; a ratio of nothing is None."""
        ratios = {name: json_number(getattr(self, name)) for name in STATISTICS}
        counts = {"tp": self.tp, "fp": self.fp, "fn": self.fn, "ignored": self.ignored}
        return {**counts, **ratios}


@dataclass(frozen=True)
class CaseResult:
    """One image, and how its detections match its mitoses.

    `group` is what never varies apart: the patient of its slide (`Case.group`).
    """

    name: str
    slide: str
    match: Match
    group: str

    @property
    def counts(self) -> Counts:
        """Of the match."""
        return Counts.of(self.match)


@dataclass(frozen=True)
class Evaluation:
    """The outcome of one evaluation under one rule.

    Attributes:
        rule: name in `matching.RULES`.
        distance_um: the rule's.
        groups: what the bootstrap draws: `slide` (those of one patient together) or `case`.
        cases: in the order given.
        slides: counts pooled over each slide, sorted by name.
        pooled: counts over all cases.
        intervals: of precision, recall and f_score, 95 %; nan with fewer than two groups.
        slide_intervals: of each slide's f_score, drawing its cases.
        mean_f_score: over slides, leaving out slides with nothing to find and nothing found.
        unused: names of detections that belong to no case.
    """

    rule: str
    distance_um: float
    groups: str
    cases: tuple[CaseResult, ...]
    slides: dict[str, Counts]
    pooled: Counts
    intervals: dict[str, tuple[float, float]]
    slide_intervals: dict[str, tuple[float, float]]
    mean_f_score: float
    unused: tuple[str, ...]

    def to_dict(self) -> dict[str, Any]:
        """Return everything but the pairs as JSON-able values; nan is None."""
        return {
            "rule": self.rule,
            "rule_note": RULES[self.rule].note,
            "distance_um": self.distance_um,
            "pooled": self.pooled.to_dict(),
            "mean_f_score_over_slides": json_number(self.mean_f_score),
            "intervals": {key: json_interval(value) for key, value in self.intervals.items()},
            "interval_groups": self.groups,
            "slides": {
                name: {
                    **counts.to_dict(),
                    "f_score_interval": json_interval(self.slide_intervals[name]),
                }
                for name, counts in self.slides.items()
            },
            "cases": [
                {"name": case.name, "slide": case.slide, **case.counts.to_dict()}
                for case in self.cases
            ],
            "unused": list(self.unused),
        }


def evaluate(
    cases: Sequence[Case],
    detections: Mapping[str, Detections],
    rule: str = "one-to-one",
    groups: str = "slide",
    seed: int = 0,
) -> Evaluation:
    """Score detections against annotated cases.

    Args:
        cases: with unique names. A case without a scale takes that of its detections.
        detections: by case name.
        rule: name in `matching.RULES`.
        groups: what varies independently, for the intervals: `slide` (those of one patient are
            drawn together), or `case` (field) where there are few slides; fields of one slide are
            alike, so their interval is too narrow.
        seed: of the bootstrap.

    Returns:
        Counts first, pooled over cases, and what follows from them.

    Raises:
        UsageError: for an unknown rule or grouping, two cases of one name, or detections that are
            not by name.
        InputError: if there are no cases, or a case has no detections (an empty `Detections` is
            "nothing found").
        ScaleError: if case and detections disagree on the scale.
    """
    if groups not in ("slide", "case"):
        raise UsageError(f"groups {groups!r}: choose 'slide' or 'case'")
    cases = list(cases)
    if not cases:
        raise InputError("there are no cases to evaluate")
    if not isinstance(detections, Mapping):
        raise UsageError("detections must be a mapping from the names of cases to Detections")
    names = [case.name for case in cases]
    if len(set(names)) < len(names):
        twice = next(name for name in names if names.count(name) > 1)
        raise UsageError(f"two cases are named {twice!r}: evaluate them apart")
    results = tuple(_evaluate_case(case, detections, rule) for case in cases)
    slides = {
        name: sum((result.counts for result in results if result.slide == name), Counts())
        for name in sorted({result.slide for result in results})
    }
    units = [result.counts for result in results]
    if groups == "slide":
        units = [
            sum((result.counts for result in results if result.group == group), Counts())
            for group in sorted({result.group for result in results})
        ]
    values = [counts.f_score for counts in slides.values() if not math.isnan(counts.f_score)]
    return Evaluation(
        rule=rule,
        distance_um=RULES[rule].distance_um,
        groups=groups,
        cases=results,
        slides=slides,
        pooled=sum(slides.values(), Counts()),
        intervals={
            name: bootstrap_interval(_rows(units), seed, statistic=name) for name in STATISTICS
        },
        slide_intervals={
            name: bootstrap_interval(_rows(r.counts for r in results if r.slide == name), seed)
            for name in slides
        },
        mean_f_score=sum(values) / len(values) if values else math.nan,
        unused=tuple(sorted(set(detections) - set(names))),
    )


def compare_rules(
    cases: Sequence[Case],
    detections: Mapping[str, Detections],
    groups: str = "slide",
) -> dict[str, Evaluation]:
    """Evaluate under every rule of `matching.RULES`. Raises as `evaluate` does."""
    cases = list(cases)
    return {rule: evaluate(cases, detections, rule, groups) for rule in RULES}


def format_rules(evaluations: Mapping[str, Evaluation]) -> str:
    """Return a plain-text table of the rules side by side."""
    lines = [f"{'rule':<15} {'um':>6} {'TP':>6} {'FP':>6} {'FN':>6}  prec.  recall  F      95 %"]
    for rule, result in evaluations.items():
        counts = result.pooled
        precision, recall, f = (
            f"{ratio_text(getattr(counts, name)):^5}" for name in ("precision", "recall", "f_score")
        )
        lines.append(
            f"{rule:<15} {result.distance_um:6.3g} {counts.tp:6d} {counts.fp:6d} {counts.fn:6d}  "
            f"{precision}  {recall}   {f}  {interval_text(result.intervals['f_score'])}"
        )
    return "\n".join(lines)


def _evaluate_case(case: Case, detections: Mapping[str, Detections], rule: str) -> CaseResult:
    found = detections.get(case.name)
    if found is None:
        raise InputError(f"case {case.name!r} has no detections: detect on it, or exclude it")
    mpp = found.mpp if case.mpp is None else case.mpp
    if not same_scale(mpp, found.mpp):
        raise ScaleError(
            f"case {case.name!r}: annotated at {mpp} um/px but detected at {found.mpp} um/px; "
            "give the same --mpp to both"
        )
    return CaseResult(case.name, case.slide, _match(case, found.xy, mpp, rule), case.group)


def _match(case: Case, detected_xy: NDArray[np.float64], mpp: float, rule: str) -> Match:
    """Match detections (n, 2) to a case's mitoses inside its reviewed regions."""
    published = find_rule(rule)
    truth = np.flatnonzero(case.is_reviewed(case.mitoses_xy))
    mitoses_xy = case.mitoses_xy[truth]
    counted = counted_detections(
        detected_xy,
        case.is_reviewed(detected_xy),
        mitoses_xy,
        published.distance_um / mpp,
        published.strict,
    )
    inside, outside = np.flatnonzero(counted), np.flatnonzero(~counted)
    match = match_case(detected_xy[inside], mitoses_xy, mpp, rule, case.ignored_xy)
    # Back from the numbers of what was compared to those of the case.
    return replace(
        match,
        pairs=tuple((int(inside[i]), int(truth[j])) for i, j in match.pairs),
        ignored=tuple(sorted([*inside[list(match.ignored)].tolist(), *outside.tolist()])),
        ignored_truth=tuple(np.setdiff1d(np.arange(len(case.mitoses_xy)), truth).tolist()),
        forgiven=tuple(inside[list(match.forgiven)].tolist()),
    )


def warnings_of_crops(cases: Sequence[Case]) -> list[str]:
    """Warn where cases to score on are crops cut round a mitosis: at most one line."""
    crops = sum(case.centered_crop for case in cases)
    if not crops:
        return []
    return [
        f"{crops} of {len(cases)} images are crops that were cut round a mitosis: they say what "
        "recall is, but little of precision, F and thresholds"
    ]


def json_number(value: float) -> float | None:
    """Return a ratio as JSON has it; that of nothing, nan, is None."""
    return None if math.isnan(value) else value


def json_interval(pair: tuple[float, float]) -> list[float] | None:
    """Return an interval as JSON has it; an unknown one is None."""
    return None if math.isnan(pair[0]) else list(pair)


def ratio_text(value: float | None) -> str:
    """Return a ratio with three decimals; that of nothing is a dash."""
    return "-" if value is None or math.isnan(value) else f"{value:.3f}"


def interval_text(pair: tuple[float, float]) -> str:
    """Return an interval with three decimals; an unknown one is a dash."""
    return "-" if math.isnan(pair[0]) else f"{pair[0]:.3f}-{pair[1]:.3f}"


def _rows(counts: Iterable[Counts]) -> list[tuple[int, int, int]]:
    return [(item.tp, item.fp, item.fn) for item in counts]

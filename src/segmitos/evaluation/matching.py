"""Detections matched to annotated mitoses: counts, and from them precision, recall and F.

The default rule is one to one and optimal (Hungarian) within 7.5 um; a second detection on a
mitosis is a false positive. The rules of the published challenges are here as well, by name, since
the rule alone can move an F-score by several points.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from segmitos.errors import UsageError
from segmitos.io.geometry import as_points
from segmitos.io.pairs import MATCH_UM, Pairs, pairs_within

Points = NDArray[np.float64]
_Paired = list[tuple[int, int]]
_Matcher = Callable[[Points, Points, Pairs], _Paired]

_RESAMPLES = 2000


@dataclass(frozen=True)
class Match:
    """Counts of one comparison, and the pairs (detection index, truth index) behind `tp`.

    `ignored` are detections that count neither way: those that match no mitosis and lie at an
    unsure cell, and those outside the reviewed regions; `ignored_truth` are mitoses outside of
    them; `forgiven` are further detections at a mitosis already found, of the rules that do not
    count them as false. Under every rule `tp + fn + len(ignored_truth)` is the number of mitoses,
    and that of detections is `fp + len(ignored) + len(forgiven)` and the detections in `pairs`
    (which are `tp`, but for these rules, under which one may find several mitoses).
    """

    tp: int
    fp: int
    fn: int
    pairs: tuple[tuple[int, int], ...]
    ignored: tuple[int, ...] = ()
    ignored_truth: tuple[int, ...] = ()
    forgiven: tuple[int, ...] = ()


@dataclass(frozen=True)
class Rule:
    """A published way of matching.

    Attributes:
        distance_um: how far a detection may lie from a mitosis.
        method: `optimal` (Hungarian), `any` (within the distance is enough), `nearest` (each
            mitosis, in order, takes its nearest free detection), `first` (each detection, in
            order, takes the first free mitosis within the distance).
        note: where it comes from and what it leaves open.
        strict: whether a pair at exactly the distance is too far.
    """

    distance_um: float
    method: str
    note: str
    strict: bool = False


RULES: dict[str, Rule] = {
    "one-to-one": Rule(
        MATCH_UM,
        "optimal",
        "ours and the default: one to one, optimal; a duplicate is a false positive",
    ),
    "icpr12": Rule(
        5.0,
        "optimal",
        "ICPR 2012: centroid within 5 um; its other criterion, region overlap, needs regions; "
        "duplicates unspecified, counted here as false positives",
    ),
    "icpr14": Rule(
        8.0,
        "optimal",
        "ICPR 2014: centroid within 8 um (the paper takes 7.5); duplicates unspecified, counted "
        "here as false positives",
    ),
    "amida13": Rule(
        7.5, "any", "AMIDA13 and TUPAC16: any detection within 7.5 um; duplicates are forgiven"
    ),
    "midog": Rule(
        7.5,
        "nearest",
        "MIDOG evaluation (evalutils score_detection): each mitosis in order takes its nearest "
        "free detection; duplicates are false positives",
    ),
    "midog-training": Rule(
        6.25,
        "any",
        "MIDOG organizers' training code: within 25 px (of 0.25 um), many to many; duplicates are "
        "forgiven",
    ),
    "paper": Rule(
        8.125,
        "first",
        "the paper's published code: nearer than 32.5 px (of 0.25 um), detections in order, each "
        "takes the first mitosis still free; duplicates are false positives (its text says 5 um on "
        "ICPR 2012, 7.5 um elsewhere: icpr12, one-to-one)",
        strict=True,
    ),
}


def find_rule(name: str) -> Rule:
    """Return a rule by its name. Raises UsageError where there is none."""
    if name not in RULES:
        raise UsageError(f"unknown matching rule {name!r}: choose one of {', '.join(RULES)}")
    return RULES[name]


def match_points(
    detected_xy: NDArray[Any],
    truth_xy: NDArray[Any],
    distance_px: float,
    rule: str = "one-to-one",
    ignored_xy: NDArray[Any] | None = None,
) -> Match:
    """Match detections to mitoses.

    Args:
        detected_xy: (n, 2), in the order in which they were detected (only `paper` depends on it).
        truth_xy: (m, 2), the same frame.
        distance_px: largest distance of a pair; `find_rule(rule).distance_um / mpp` for its own.
        rule: a name in `RULES`.
        ignored_xy: unsure cells (k, 2): a detection within the distance of one, and matched to no
            mitosis, counts neither way.

    Returns:
        Counts and pairs; the same input gives the same pairs.

    Raises:
        UsageError: for an unknown rule, a distance that is not positive, or arrays not (n, 2).
    """
    published = find_rule(rule)
    if not (math.isfinite(distance_px) and distance_px > 0):
        raise UsageError(f"matching distance {distance_px} px must be above 0")
    detected, truth = as_points(detected_xy, "detections"), as_points(truth_xy, "mitoses")
    near = pairs_within(detected, truth, distance_px, published.strict)
    pairs = _METHODS[published.method](detected, truth, near)
    tp = len(pairs)
    matched = np.unique(np.array([i for i, _ in pairs], np.intp))
    at_mitoses = near.first if published.method == "any" else matched
    forgiven = np.setdiff1d(at_mitoses, matched)
    ignored: tuple[int, ...] = ()
    if ignored_xy is not None and len(ignored_xy):
        unsure = as_points(ignored_xy, "unsure cells")
        at_unsure = pairs_within(detected, unsure, distance_px, published.strict).first
        ignored = tuple(np.setdiff1d(at_unsure, [*matched, *forgiven]).tolist())
    false = len(detected) - len(matched) - len(forgiven) - len(ignored)
    return Match(
        tp, false, len(truth) - tp, tuple(pairs), ignored, forgiven=tuple(forgiven.tolist())
    )


def counted_detections(
    detected_xy: NDArray[Any],
    inside: NDArray[np.bool_],
    truth_xy: NDArray[Any],
    distance_px: float,
    strict: bool = False,
) -> NDArray[np.bool_]:
    """Tell which detections take part where only some regions were reviewed.

    Those in the regions; and at their border, of the detections outside, those without which fewer
    mitoses would be matched one to one. That is decided on all detections that are given, so that a
    curve may differ from the counts at a threshold by a detection at the border.

    Args:
        detected_xy: (n, 2).
        inside: whether each lies in the reviewed regions (n,).
        truth_xy: mitoses in the reviewed regions (m, 2).
        distance_px: largest distance of a match.
        strict: whether a pair at exactly the distance is too far.
    """
    result = inside.copy()
    if inside.all():
        return result
    detected, truth = as_points(detected_xy, "detections"), as_points(truth_xy, "mitoses")
    near = pairs_within(detected, truth, distance_px, strict)
    # Of matchings with as many pairs, the one with the most detections inside.
    far = np.where(inside[near.first], 0.0, distance_px * (len(truth) + 1))
    pairs = _optimal(detected, truth, replace(near, distance=near.distance + far))
    result[[first for first, _ in pairs]] = True
    return result


def match_case(
    detected_xy: NDArray[Any],
    truth_xy: NDArray[Any],
    mpp: float,
    rule: str = "one-to-one",
    ignored_xy: NDArray[Any] | None = None,
) -> Match:
    """Match with the rule's own distance, turned into pixels of `mpp` um. Raises as above."""
    return match_points(detected_xy, truth_xy, find_rule(rule).distance_um / mpp, rule, ignored_xy)


def precision(tp: int, fp: int) -> float:
    """Fraction of detections that are mitoses; nan where nothing was detected."""
    return tp / (tp + fp) if tp + fp else math.nan


def recall(tp: int, fn: int) -> float:
    """Fraction of mitoses that were detected; nan where there are none."""
    return tp / (tp + fn) if tp + fn else math.nan


def f_score(tp: int, fp: int, fn: int) -> float:
    """Harmonic mean of precision and recall; 0 for tp = 0, nan with nothing to find or found."""
    return 2 * tp / (2 * tp + fp + fn) if tp + fp + fn else math.nan


def bootstrap_interval(
    counts: Sequence[tuple[int, int, int]] | NDArray[np.int64],
    seed: int = 0,
    statistic: str = "f_score",
) -> tuple[float, float]:
    """95 % percentile bootstrap interval of a pooled ratio, drawing whole groups (Efron 1979).

    Args:
        counts: (tp, fp, fn) of each group (slide or field): groups are what varies independently.
        seed: of the resampling; the same seed gives the same interval.
        statistic: `f_score`, `precision` or `recall`.

    Returns:
        (low, high); (nan, nan) for fewer than two groups, which show no spread.

    Raises:
        UsageError: for an unknown statistic.
    """
    groups = np.asarray(counts, dtype=np.float64).reshape(-1, 3)
    if statistic not in ("f_score", "precision", "recall"):
        raise UsageError(f"unknown statistic {statistic!r}: f_score, precision or recall")
    if len(groups) < 2:
        return math.nan, math.nan
    draws = np.random.default_rng(seed).integers(0, len(groups), (_RESAMPLES, len(groups)))
    tp, fp, fn = groups[draws].sum(axis=1).T
    above, below = {
        "f_score": (2 * tp, 2 * tp + fp + fn),
        "precision": (tp, tp + fp),
        "recall": (tp, tp + fn),
    }[statistic]
    values = above[below > 0] / below[below > 0]
    if not len(values):
        return math.nan, math.nan
    low, high = np.quantile(values, [0.025, 0.975])
    return float(low), float(high)


def _optimal(detected: Points, truth: Points, near: Pairs) -> _Paired:
    """As many pairs as possible, then the smallest sum of distances."""
    from scipy.sparse import coo_matrix
    from scipy.sparse.csgraph import connected_components

    if not len(near.first):
        return []
    size = len(detected) + len(truth)
    ends = near.second + len(detected)
    graph = coo_matrix((np.ones(len(ends), np.int8), (near.first, ends)), shape=(size, size))
    _, label = connected_components(graph, directed=False)
    component = label[near.first]
    order = np.argsort(component, kind="stable")
    starts = np.flatnonzero(np.diff(component[order], prepend=-1))
    lengths = np.diff(starts, append=len(order))
    single = order[starts[lengths == 1]]
    pairs = list(zip(near.first[single].tolist(), near.second[single].tolist(), strict=True))
    for start, length in zip(starts[lengths > 1], lengths[lengths > 1], strict=True):
        pairs += _assign(near, order[start : start + length])
    pairs.sort()
    return pairs


def _assign(near: Pairs, edges: NDArray[np.intp]) -> list[tuple[int, int]]:
    """Solve one connected component of the pairs: a row may also stay alone, at a price."""
    from scipy.sparse import csr_matrix
    from scipy.sparse.csgraph import min_weight_full_bipartite_matching

    rows, row = np.unique(near.first[edges], return_inverse=True)
    columns, column = np.unique(near.second[edges], return_inverse=True)
    cost, alone = near.distance[edges], np.arange(len(rows))
    # One pair more outweighs any sum of distances.
    price = (float(cost.max()) + 1) * (min(len(rows), len(columns)) + 1)
    # Stored zeros count as absent, hence the added 1, which changes no comparison.
    weights = np.concatenate([cost + 1, np.full(len(rows), price + 1)])
    places = np.concatenate([row, alone]), np.concatenate([column, len(columns) + alone])
    graph = csr_matrix((weights, places), shape=(len(rows), len(columns) + len(rows)))
    i, j = min_weight_full_bipartite_matching(graph)
    paired = j < len(columns)
    return list(zip(rows[i[paired]].tolist(), columns[j[paired]].tolist(), strict=True))


def _any(detected: Points, truth: Points, near: Pairs) -> _Paired:
    """A mitosis is found where any detection is near; all such detections are forgiven."""
    best: dict[int, tuple[float, int]] = {}
    for i, j, apart in _edges(near):
        best[j] = min(best.get(j, (math.inf, i)), (apart, i))
    return sorted((i, j) for j, (_, i) in best.items())


def _nearest(detected: Points, truth: Points, near: Pairs) -> _Paired:
    """Each mitosis, in order, takes the nearest detection that is still free."""
    return _taken((i, j) for j, _, i in sorted((j, apart, i) for i, j, apart in _edges(near)))


def _first(detected: Points, truth: Points, near: Pairs) -> _Paired:
    """Each detection, in order, takes the first mitosis that is still free."""
    return _taken((i, j) for i, j, _ in sorted(_edges(near)))


def _taken(edges: Iterable[tuple[int, int]]) -> _Paired:
    """Take edges in their order, where both ends are still free."""
    taken: dict[int, int] = {}
    done: set[int] = set()
    for i, j in edges:
        if i not in taken and j not in done:
            taken[i] = j
            done.add(j)
    return sorted(taken.items())


def _edges(near: Pairs) -> zip[tuple[int, int, float]]:
    return zip(near.first.tolist(), near.second.tolist(), near.distance.tolist(), strict=True)


_METHODS: dict[str, _Matcher] = {
    "optimal": _optimal,
    "any": _any,
    "nearest": _nearest,
    "first": _first,
}

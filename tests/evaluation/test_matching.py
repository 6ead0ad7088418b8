import itertools
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import linear_sum_assignment
from scipy.spatial.distance import cdist

from segmitos.errors import UsageError
from segmitos.evaluation import matching
from segmitos.evaluation.matching import (
    RULES,
    bootstrap_interval,
    f_score,
    match_case,
    match_points,
    precision,
    recall,
)

points = st.lists(
    st.tuples(st.integers(0, 40), st.integers(0, 40)), min_size=0, max_size=6, unique=True
)


def xy(values):
    return np.array(values, dtype=float).reshape(-1, 2)


def best_by_trying_all(detected, truth, distance):
    """Most pairs, then least total distance, by enumeration."""
    best = (0, 0.0)
    small, large = (detected, truth) if len(detected) <= len(truth) else (truth, detected)
    for order in itertools.permutations(range(len(large)), len(small)):
        apart = [math.dist(small[i], large[j]) for i, j in enumerate(order)]
        kept = [d for d in apart if d <= distance]
        best = max(best, (len(kept), -sum(kept)))
    return best


@settings(max_examples=60, deadline=None)
@given(points, points)
def test_optimal_equals_enumeration(detected, truth):
    match = match_points(xy(detected), xy(truth), 10.0)
    count, total = best_by_trying_all(detected, truth, 10.0)
    assert match.tp == count == len(match.pairs)
    assert match.tp + match.fn == len(truth) and match.tp + match.fp == len(detected)
    apart = [math.dist(detected[i], truth[j]) for i, j in match.pairs]
    assert sum(apart) == pytest.approx(-total)
    assert all(value <= 10 for value in apart)


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 10_000))
def test_crowds_are_matched_as_by_a_dense_solver(seed):
    detected, truth = np.random.default_rng(seed).uniform(0, 60, (2, 40, 2))
    match = match_points(detected, truth, 12)
    gaps = cdist(detected, truth)
    best = gaps[linear_sum_assignment(np.where(gaps <= 12, gaps, 1e6))]
    assert match.tp == (best <= 12).sum()
    apart = sum(gaps[pair] for pair in match.pairs)
    assert apart == pytest.approx(best[best <= 12].sum())


@pytest.mark.parametrize("rule", ["one-to-one", "icpr12", "icpr14", "amida13", "midog-training"])
@settings(max_examples=20, deadline=None)
@given(detected=points, truth=points, seed=st.integers(0, 99))
def test_counts_do_not_depend_on_order(rule, detected, truth, seed):
    generator = np.random.default_rng(seed)
    first = match_points(xy(detected), xy(truth), 10, rule)
    again = match_points(
        generator.permutation(xy(detected)), generator.permutation(xy(truth)), 10, rule
    )
    assert (first.tp, first.fp, first.fn) == (again.tp, again.fp, again.fn)


@pytest.mark.parametrize("rule", list(RULES))
@settings(max_examples=15, deadline=None)
@given(detected=points, truth=points)
def test_axes_may_be_swapped_together_only(rule, detected, truth):
    plain = match_points(xy(detected), xy(truth), 10, rule)
    swapped = match_points(xy(detected)[:, ::-1], xy(truth)[:, ::-1], 10, rule)
    assert plain == swapped
    shifted = match_points(xy(detected) + np.array([1000, 0]), xy(truth), 10, rule)
    assert (shifted.tp, shifted.fp, shifted.fn) == (0, len(detected), len(truth))


def test_greedy_would_lose_a_pair():
    # The middle detection is nearest to both; only the optimal assignment finds two pairs.
    truth, detected = xy([(0, 0), (10, 0)]), xy([(4, 0), (-6, 0)])
    assert match_points(detected, truth, 7).pairs == ((0, 1), (1, 0))
    assert match_points(detected, truth, 7, "midog").tp == 1


@pytest.mark.parametrize(
    ("rule", "expected"),
    [
        ("one-to-one", (1, 1, 0)),
        ("icpr12", (1, 1, 0)),
        ("icpr14", (1, 1, 0)),
        ("amida13", (1, 0, 0)),
        ("midog", (1, 1, 0)),
        ("midog-training", (1, 0, 0)),
        ("paper", (1, 1, 0)),
    ],
)
def test_a_second_detection_on_one_mitosis(rule, expected):
    match = match_points(xy([(0, 0), (1, 0)]), xy([(0, 1)]), 5, rule)
    assert (match.tp, match.fp, match.fn) == expected


@pytest.mark.parametrize(
    ("rule", "distance_um"),
    [
        ("one-to-one", 7.5),
        ("icpr12", 5.0),
        ("icpr14", 8.0),
        ("amida13", 7.5),
        ("midog", 7.5),
        ("midog-training", 6.25),
        ("paper", 8.125),
    ],
)
def test_each_rule_has_its_distance(rule, distance_um):
    mpp = 0.25
    inside, outside = distance_um / mpp - 0.01, distance_um / mpp + 0.01
    assert match_case(xy([(inside, 0)]), xy([(0, 0)]), mpp, rule).tp == 1
    assert match_case(xy([(outside, 0)]), xy([(0, 0)]), mpp, rule).tp == 0
    exactly = match_case(xy([(distance_um / mpp, 0)]), xy([(0, 0)]), mpp, rule).tp
    assert exactly == (0 if rule == "paper" else 1)
    assert match_case(xy([(inside, 0)]), xy([(0, 0)]), 2 * mpp, rule).tp == 0


def test_one_detection_between_two_mitoses():
    detected, truth = xy([(0, 0)]), xy([(3, 0), (-4, 0)])
    assert match_points(detected, truth, 5).pairs == ((0, 0),)
    match = match_points(detected, truth, 5, "amida13")
    assert (match.tp, match.fp, match.fn) == (2, 0, 0)
    assert match_points(detected, truth[::-1], 5, "midog").pairs == ((0, 0),)
    assert match_points(detected, truth[::-1], 5, "paper").pairs == ((0, 0),)


def test_paper_takes_the_first_not_the_nearest():
    match = match_points(xy([(0, 0)]), xy([(4, 0), (1, 0)]), 5, "paper")
    assert match.pairs == ((0, 0),)
    assert match_points(xy([(0, 0)]), xy([(4, 0), (1, 0)]), 5).pairs == ((0, 1),)


@pytest.mark.parametrize("rule", list(RULES))
def test_empty_sides(rule):
    none, three = np.zeros((0, 2)), xy([(0, 0), (50, 0), (100, 0)])
    assert match_points(none, none, 5, rule) == matching.Match(0, 0, 0, ())
    assert match_points(three, none, 5, rule) == matching.Match(0, 3, 0, ())
    assert match_points(none, three, 5, rule) == matching.Match(0, 0, 3, ())
    assert match_points(none, three, 5, rule).fn == 3


def test_ratios_of_nothing():
    assert math.isnan(precision(0, 0)) and math.isnan(recall(0, 0)) and math.isnan(f_score(0, 0, 0))
    assert f_score(0, 0, 3) == 0.0 and f_score(0, 3, 0) == 0.0
    assert precision(0, 3) == 0.0 and recall(0, 3) == 0.0
    assert (precision(3, 1), recall(3, 2), f_score(3, 1, 2)) == (0.75, 0.6, pytest.approx(2 / 3))


@pytest.mark.slow
def test_fifty_thousand_points():
    generator = np.random.default_rng(0)
    truth = generator.uniform(0, 40_000, (50_000, 2))
    detected = truth + generator.normal(0, 5, truth.shape)
    match = match_points(detected, truth, 30)
    assert match.tp > 49_900 and match.fp == match.fn


def test_interval_is_seeded_and_covers():
    counts = [(8, 2, 2), (5, 5, 1), (9, 0, 3), (2, 2, 2)]
    low, high = bootstrap_interval(counts, seed=3)
    assert (low, high) == bootstrap_interval(np.array(counts), seed=3)
    assert low < f_score(24, 9, 8) < high
    many = np.random.default_rng(0).integers(0, 30, (25, 3))
    assert bootstrap_interval(many, seed=4) != bootstrap_interval(many, seed=3)
    assert bootstrap_interval(counts, statistic="recall")[1] <= 1
    assert bootstrap_interval([(1, 0, 0)] * 5) == (1.0, 1.0)
    assert all(math.isnan(value) for value in bootstrap_interval([(8, 2, 2)]))
    assert all(math.isnan(value) for value in bootstrap_interval([(0, 0, 0)] * 3))


def test_bad_input_is_named():
    with pytest.raises(UsageError, match=r"'nearest-ish'.*one-to-one"):
        match_points(xy([]), xy([]), 5, "nearest-ish")
    with pytest.raises(UsageError, match="distance 0 px"):
        match_points(xy([]), xy([]), 0)
    with pytest.raises(UsageError, match=r"\(n, 2\), not \(2, 3\)"):
        match_points(np.zeros((2, 3)), xy([]), 5)
    with pytest.raises(UsageError, match="finite"):
        match_points(xy([(math.nan, 0)]), xy([]), 5)
    with pytest.raises(UsageError, match="f2"):
        bootstrap_interval([(1, 1, 1)] * 2, statistic="f2")


@pytest.mark.parametrize("rule", RULES)
@settings(max_examples=60, deadline=None)
@given(points, points, points)
def test_every_detection_is_counted_once_whatever_the_rule(rule, detected, truth, unsure):
    match = match_points(xy(detected), xy(truth), 10.0, rule, xy(unsure))
    found = {i for i, _ in match.pairs}
    assert match.fp >= 0 and match.tp + match.fn == len(truth)
    parts = len(found) + match.fp + len(match.ignored) + len(match.forgiven)
    assert parts == len(detected)
    assert not (found & {*match.ignored}) and not ({*match.forgiven} & {*found, *match.ignored})
    if "any" not in RULES[rule].method:
        assert match.forgiven == () and match.tp == len(found)


def test_one_detection_on_two_mitoses_forgives_the_one_beside_an_unsure_cell():
    found, mitoses = xy([(2, 0), (6, 0)]), xy([(0, 0), (4, 0)])
    match = match_points(found, mitoses, 7.0, "amida13", xy([(8, 0)]))
    assert (match.tp, match.fp, match.fn) == (2, 0, 0)
    assert match.forgiven == (1,) and match.ignored == ()

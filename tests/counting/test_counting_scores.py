"""The Nottingham table row by row, the form per mm2, grades, and intervals on a count."""

import math

import numpy as np
import pytest

from segmitos.counting.grading import (
    NOTTINGHAM_TABLE,
    cut_offs,
    field_area_mm2,
    nottingham_grade,
    nottingham_score,
    who_2019_score,
)
from segmitos.counting.intervals import (
    ValidationCounts,
    count_interval,
    poisson_interval,
    reviewed_interval,
    score_is_uncertain,
)
from segmitos.errors import UsageError

# NHSBSP and Royal College of Pathologists, Pathology reporting of breast disease: field diameter,
# largest count with score 1, smallest count with score 3, in ten fields.
PUBLISHED = """
0.40 4 10, 0.41 4 10, 0.42 5 11, 0.43 5 11, 0.44 5 12, 0.45 5 12, 0.46 6 13, 0.47 6 13, 0.48 6 14,
0.49 6 14, 0.50 7 15, 0.51 7 15, 0.52 7 16, 0.53 8 17, 0.54 8 17, 0.55 8 18, 0.56 8 18, 0.57 9 19,
0.58 9 20, 0.59 9 20, 0.60 10 21, 0.61 10 22, 0.62 11 23, 0.63 11 23, 0.64 11 24, 0.65 12 25,
0.66 12 25, 0.67 12 26, 0.68 13 27, 0.69 13 28
"""
ROWS = [
    (float(d), int(low), int(high))
    for d, low, high in (row.split() for row in PUBLISHED.replace("\n", " ").split(","))
]


@pytest.mark.parametrize(("diameter", "low", "high"), ROWS)
def test_every_row_of_the_nottingham_table(diameter, low, high):
    scores = [nottingham_score(count, diameter).score for count in range(high + 3)]
    assert scores == [1] * (low + 1) + [2] * (high - low - 1) + [3] * 3
    score = nottingham_score(low, diameter)
    assert (score.one_up_to, score.three_from) == (low, high)
    assert "published table" in score.basis and "between" not in score.basis
    # The densities used between rows give the very row.
    assert cut_offs(10 * field_area_mm2(diameter)) == (low, high)


def test_the_table_is_complete():
    assert [round(row[0] * 100) for row in ROWS] == list(NOTTINGHAM_TABLE) == list(range(40, 70))


def test_between_rows_and_outside():
    between = nottingham_score(8, 0.555)
    assert (between.one_up_to, between.three_from) == (8, 18) and "between rows" in between.basis
    for diameter in (0.39, 0.70, math.nan):
        with pytest.raises(UsageError, match=r"covers 0\.40 to 0\.69 mm"):
            nottingham_score(8, diameter)
    with pytest.raises(UsageError, match="count -1"):
        nottingham_score(-1, 0.5)


@pytest.mark.parametrize(("count", "expected"), [(0, 1), (3, 1), (4, 2), (7, 2), (8, 3), (40, 3)])
@pytest.mark.parametrize("area", [1, 2, 3, 5])
def test_who_form_per_mm2(count, expected, area):
    score = who_2019_score(count * area, area)
    assert score.score == expected and score.system == "WHO 2019"
    assert score.density_per_mm2 == count


def test_who_form_needs_an_area():
    with pytest.raises(UsageError, match="area 0 mm2"):
        who_2019_score(3, 0)


def test_grades_of_all_sums():
    grades: dict[int, int] = {}
    for a in (1, 2, 3):
        for b in (1, 2, 3):
            for c in (1, 2, 3):
                grades.setdefault(a + b + c, set()).add(nottingham_grade(a, b, c))
    assert grades == {3: {1}, 4: {1}, 5: {1}, 6: {2}, 7: {2}, 8: {3}, 9: {3}}
    with pytest.raises(UsageError, match="nuclear score 4"):
        nottingham_grade(1, 4, 1)


@pytest.mark.parametrize(
    ("count", "low", "high"),
    # Garwood's limits as tabulated (Biometrika 1936; also Pearson and Hartley, table 40).
    [
        (0, 0.0, 3.689),
        (1, 0.0253, 5.572),
        (5, 1.623, 11.668),
        (10, 4.795, 18.390),
        (30, 20.24, 42.83),
    ],
)
def test_garwood(count, low, high):
    assert poisson_interval(count) == pytest.approx((low, high), abs=6e-3)


def test_interval_without_a_validation_is_sampling_alone():
    interval = count_interval(12)
    assert interval.model is None and interval.expected == 12
    assert interval.combined == interval.sampling == poisson_interval(12)


def test_interval_from_validation():
    model = ValidationCounts(tp=70, fp=30, fn=30)
    interval = count_interval(40, model)
    # Precision and recall are equal, so the count is right on average.
    assert interval.expected == pytest.approx(40)
    low, high = interval.model
    assert 25 < low < 40 < high < 58
    assert interval.combined[0] < low and interval.combined[1] > high
    assert interval == count_interval(40, model) != count_interval(40, model, seed=1)


def test_a_model_that_misses_half_expects_twice_the_count():
    interval = count_interval(40, ValidationCounts(tp=500, fp=0, fn=500))
    assert interval.expected == pytest.approx(80, rel=0.01)
    assert interval.model[0] < 80 < interval.model[1]
    marks_twice = count_interval(40, ValidationCounts(tp=500, fp=500, fn=0))
    assert marks_twice.expected == pytest.approx(20, rel=0.01)
    assert marks_twice.model[0] < 20 < marks_twice.model[1]


def test_more_validation_narrows_the_model_interval():
    little = count_interval(60, ValidationCounts(7, 3, 3)).model
    much = count_interval(60, ValidationCounts(700, 300, 300)).model
    assert much[1] - much[0] < little[1] - little[0]


@pytest.mark.slow
def test_model_interval_covers():
    """Simulate a study as the model says it is; 95 % intervals must cover about 95 %."""
    generator = np.random.default_rng(0)
    precision, recall, covered = 0.75, 0.7, 0
    for trial in range(150):
        true = int(generator.integers(10, 60))
        hits = generator.binomial(true, recall)
        # Of all detections a share `precision` is true.
        false = generator.poisson(true * recall * (1 - precision) / precision)
        tp = generator.binomial(200, recall)
        fp = generator.poisson(200 * recall * (1 - precision) / precision)
        interval = count_interval(int(hits + false), ValidationCounts(tp, fp, 200 - tp), seed=trial)
        covered += interval.model[0] <= true <= interval.model[1]
    assert 0.88 <= covered / 150 <= 1.0


def test_nothing_found_is_not_nothing_there():
    interval = count_interval(0, ValidationCounts(70, 30, 30))
    assert interval.expected == 0 and interval.model[0] == 0 and interval.model[1] >= 1
    assert interval.sampling == (0.0, pytest.approx(3.689, abs=1e-3))


def test_flag_when_the_score_would_change():
    model = ValidationCounts(700, 200, 200)
    near = nottingham_score(9, 0.55)
    assert score_is_uncertain(near, count_interval(9, model))
    far = nottingham_score(80, 0.55)
    assert not score_is_uncertain(far, count_interval(80, model))
    none = who_2019_score(0, 2.0)
    assert not score_is_uncertain(none, count_interval(0, model))
    assert score_is_uncertain(who_2019_score(14, 2.0), count_interval(14))


def test_bad_calls_are_named():
    with pytest.raises(UsageError, match="tp=0, fp=3, fn=0"):
        ValidationCounts(0, 3, 0)
    with pytest.raises(UsageError, match="count -2"):
        count_interval(-2)
    with pytest.raises(UsageError, match="level 1"):
        count_interval(2, level=1)


def test_garwood_is_the_quantile_of_the_gamma_distribution():
    from scipy.special import gammaincinv

    for count in (0, 1, 7, 60, 1700, 4000, 50_000):
        low = float(gammaincinv(count, 0.05)) if count else 0.0
        high = float(gammaincinv(count + 1, 0.95))
        assert poisson_interval(count, 0.9) == pytest.approx((low, high), rel=1e-8)


def test_a_reviewed_window_that_was_screened_has_chance_alone():
    model = ValidationCounts(70, 30, 30)
    interval = reviewed_interval(20, 3, 0, model, screened=True)
    assert interval.model is None and interval.count == 23
    assert interval.combined == poisson_interval(23)


def test_reviewed_marks_leave_the_mitoses_that_the_model_missed():
    model = ValidationCounts(700, 700, 300)
    marks = reviewed_interval(35, 0, 0, model)
    # Precision is known now: what was confirmed is there, and as many more as recall says.
    assert marks.model[0] >= 35 and marks.expected == pytest.approx(35 / 0.7, rel=0.05)
    alone = count_interval(70, model)
    assert marks.model[1] - marks.model[0] < alone.model[1] - alone.model[0]
    # Mitoses that the reader added are among those missed, not on top of them.
    added = reviewed_interval(35, 5, 0, model)
    assert added.expected == pytest.approx(marks.expected, rel=0.02) and added.model[0] >= 40


def test_undecided_marks_widen_a_reviewed_interval():
    model = ValidationCounts(700, 300, 0)
    decided = reviewed_interval(30, 0, 0, model, screened=True)
    open_ = reviewed_interval(20, 0, 10, model, screened=True)
    assert open_.model[0] >= 20 and open_.model[1] <= 30 and open_.count == decided.count == 30
    assert open_.combined[0] < decided.combined[0]
    with pytest.raises(UsageError, match="none may be negative"):
        reviewed_interval(-1, 0, 0, model)


@pytest.mark.parametrize("model", [None, ValidationCounts(700, 300, 100)])
def test_unsure_marks_widen_the_interval_and_do_not_count(model):
    unsure = reviewed_interval(2, 1, 0, model, unsure=5)
    assert unsure.count == 3
    assert unsure.sampling == (poisson_interval(3)[0], poisson_interval(8)[1])
    assert unsure.combined[0] <= 3 <= unsure.combined[1]
    if model is None:
        assert unsure.expected == 3 and unsure.combined == unsure.sampling
    # Of none that counts the least is none, whatever the reader is unsure of.
    assert reviewed_interval(0, 0, 0, None, unsure=5).combined == (0.0, poisson_interval(5)[1])
    undecided = reviewed_interval(2, 1, 5, model)
    assert undecided.count == 8 and undecided.sampling == unsure.sampling

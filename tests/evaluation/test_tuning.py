import json
import math
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from segmitos.detection.postprocess import Blobs, MapAccumulator, Thresholds
from segmitos.errors import InputError, UsageError
from segmitos.evaluation import threshold_grid
from segmitos.evaluation.matching import match_points
from segmitos.evaluation.scoring import Counts
from segmitos.evaluation.sweep import incremental_matching, neighbors_within, rank
from segmitos.evaluation.threshold_grid import Item, best_of, level0_xy, redundant
from segmitos.evaluation.tuning import tune
from segmitos.training.finish import Finished

STRIDE, MODEL_MPP = 4, 0.25


def make_map(seed, mitoses=6, decoys=8, size=160):
    """A map with bright wide mitoses and duller or smaller look-alikes, and the mitoses."""
    generator = np.random.default_rng(seed)
    rows, columns = np.mgrid[:size, :size]
    places = generator.uniform(8, size - 8, (mitoses + decoys, 2))
    probability = np.zeros((size, size), np.float32)
    for index, (x, y) in enumerate(places):
        real = index < mitoses
        peak = generator.uniform(0.7, 0.99) if real else generator.uniform(0.2, 0.8)
        sigma = generator.uniform(2.0, 3.0) if real else generator.uniform(0.8, 2.2)
        bump = peak * np.exp(-((columns - x) ** 2 + (rows - y) ** 2) / (2 * sigma**2))
        probability = np.maximum(probability, bump.astype(np.float32))
    accumulator = MapAccumulator(MODEL_MPP * STRIDE, STRIDE, check_plausible=False)
    accumulator.add(probability, 0, 0)
    truth_px = (places[:mitoses] + 0.5) * STRIDE - 0.5
    return accumulator, truth_px + generator.normal(0, 4, truth_px.shape)


def make_items(count=6, mpp=MODEL_MPP):
    items = []
    for seed in range(count):
        accumulator, truth = make_map(seed)
        items.append((accumulator, (truth + 0.5) * MODEL_MPP / mpp - 0.5, mpp, f"S{seed % 3}"))
    return items


MAP_THRESHOLDS = (0.3, 0.5, "otsu")
AREAS_UM2 = tuple(range(0, 40, 5))
SCORES = tuple(np.arange(0.2, 0.9, 0.05).tolist())


@pytest.fixture(autouse=True)
def small_grid(monkeypatch):
    """A grid that can be counted plainly."""
    monkeypatch.setattr(threshold_grid, "MAP_THRESHOLDS", MAP_THRESHOLDS)
    monkeypatch.setattr(threshold_grid, "AREAS_UM2", AREAS_UM2)
    monkeypatch.setattr(threshold_grid, "SCORES", SCORES)


def count_plainly(items, threshold, area, score):
    """tp, fp, fn by filtering and matching afresh: what the table must hold."""
    total = Counts()
    for accumulator, truth, mpp, _ in items:
        blobs = accumulator.blobs(threshold)
        keep = (blobs.area_um2 >= area) & (blobs.score >= score)
        match = match_points(level0_xy(accumulator, blobs, mpp)[keep], truth, 7.5 / mpp)
        total += Counts(match.tp, match.fp, match.fn)
    return total


@pytest.mark.parametrize("mpp", [0.25, 0.5, 0.2273])
def test_every_cell_of_the_table_is_the_exact_count(mpp):
    items = make_items(3, mpp)
    result = tune(items)
    for b, threshold in enumerate(MAP_THRESHOLDS):
        for a in range(0, len(AREAS_UM2), 2):
            for s in range(0, len(SCORES), 3):
                expected = count_plainly(items, threshold, AREAS_UM2[a], SCORES[s])
                assert Counts(*result.table[:, b, a, s].sum(axis=0).tolist()) == expected


def test_the_best_is_the_best_and_beats_no_filter():
    items = make_items()
    result = tune(items)
    best = max(
        count_plainly(items, b, a, s).f_score
        for b in MAP_THRESHOLDS
        for a in AREAS_UM2[::2]
        for s in SCORES[::2]
    )
    assert result.f_score >= best - 1e-12
    assert result.f_score == pytest.approx(result.counts.f_score)
    chosen = result.thresholds
    assert isinstance(chosen, Thresholds)
    plainly = count_plainly(items, chosen.threshold, chosen.min_area_um2, chosen.min_score)
    assert plainly == result.counts
    assert result.f_score > count_plainly(items, chosen.threshold, 0, 0).f_score


def test_cross_validation_uses_other_slides_only():
    items = make_items()
    result = tune(items)
    expected = Counts()
    for slide in ("S0", "S1", "S2"):
        others = tune([item for item in items if item[3] != slide]).thresholds
        held_out = [item for item in items if item[3] == slide]
        expected += count_plainly(held_out, others.threshold, others.min_area_um2, others.min_score)
    assert result.cross_validated == expected
    assert result.cross_validated.f_score <= result.f_score
    assert tune(make_items(1)).cross_validated is None


def test_two_scans_of_a_patient_are_left_out_together():
    items, patients = make_items(), {"S0": "a", "S1": "a", "S2": "b"}
    result = tune([Item(*item)._replace(group=patients[item[3]]) for item in items])
    expected = Counts()
    for patient in ("a", "b"):
        held_out, others = [], []
        for item in items:
            (held_out if patients[item[3]] == patient else others).append(item)
        chosen = tune(others).thresholds
        expected += count_plainly(held_out, chosen.threshold, chosen.min_area_um2, chosen.min_score)
    assert result.cross_validated == expected
    assert tune([Item(*item)._replace(group="a") for item in items]).cross_validated is None


def test_mean_of_slides():
    items = make_items()
    result = tune(items, objective="mean")
    chosen = result.thresholds
    values = [
        count_plainly(
            [item for item in items if item[3] == slide],
            chosen.threshold,
            chosen.min_area_um2,
            chosen.min_score,
        ).f_score
        for slide in result.slides
    ]
    assert result.f_score == pytest.approx(np.mean(values))


def test_order_of_items_does_not_matter():
    items = make_items()
    first, again = tune(items), tune(items[::-1])
    assert first.thresholds == again.thresholds and first.counts == again.counts


def test_curves_pass_through_the_chosen_thresholds():
    result = tune(make_items())
    for name in ("threshold", "min_area_um2", "min_score"):
        curve = dict(result.curve(name))
        assert curve[getattr(result.thresholds, name)] == pytest.approx(result.f_score)
        assert max(curve.values()) == pytest.approx(result.f_score)
    content = result.to_dict()
    json.dumps(content, allow_nan=False)
    assert Thresholds(**content["thresholds"]) == result.thresholds
    with pytest.raises(UsageError, match="'score'"):
        result.curve("score")


def test_ties_go_to_the_middle_of_the_largest_plateau():
    values = np.zeros((2, 7, 9))
    values[0, 6, 8] = 1
    values[1, 1:6, 2:7] = 1
    none = np.zeros((2, 9), dtype=bool)
    assert best_of(values, none) == (1, 3, 4)
    unused = none.copy()
    unused[1, :5] = True
    assert best_of(values, unused)[2] in (5, 6)
    values[1, 3, 4] = math.nan
    assert best_of(values, none)[0] == 1 and values[best_of(values, none)] == 1


def test_scores_below_the_threshold_of_the_map_are_not_chosen(monkeypatch):
    unused = redundant((0.5, "otsu"), (0.1, 0.3, 0.5, 0.7))
    assert unused.tolist() == [[True, True, False, False], [False] * 4]
    monkeypatch.setattr(threshold_grid, "MAP_THRESHOLDS", (0.5,))
    monkeypatch.setattr(threshold_grid, "SCORES", (0.1, 0.2, 0.3, 0.4, 0.5))
    result = tune(make_items())
    assert result.thresholds.min_score == 0.5


def test_otsu_is_chosen_only_where_it_may_be(monkeypatch):
    items = make_items()
    np.testing.assert_array_equal(tune(items, otsu=False).table, tune(items).table[:, :-1])
    monkeypatch.setattr(threshold_grid, "MAP_THRESHOLDS", (0.9, "otsu"))
    assert tune(items).thresholds.threshold == "otsu"
    without = tune(items, otsu=False)
    assert without.thresholds.threshold == 0.9
    assert [value for value, _ in without.curve("threshold")] == [0.9]


def test_empty_maps_and_slides_without_mitoses():
    empty = MapAccumulator(1.0, STRIDE, check_plausible=False)
    empty.add(np.zeros((20, 20), np.float32), 0, 0)
    accumulator, truth = make_map(0)
    items = [(empty, np.zeros((0, 2)), 0.25, "S9"), (accumulator, truth, 0.25, "S0")]
    assert tune(items, objective="mean").counts.tp > 0
    with pytest.raises(InputError, match="no mitosis"):
        tune([(empty, np.zeros((0, 2)), 0.25, "S9")])
    with pytest.raises(InputError, match="no mitosis"):
        tune([])
    found_nothing = tune([(empty, truth, 0.25, "S9")])
    assert found_nothing.counts == Counts(0, 0, len(truth)) and found_nothing.f_score == 0
    assert found_nothing.nothing_found == "no threshold finds any of the 6 mitoses of these cases"
    assert tune(items).nothing_found == ""
    told = Finished(Path("run.segmitos"), found_nothing, 1).text()
    assert "no threshold finds any of the 6 mitoses" in told and "too high" not in told


def test_bad_calls_are_named():
    items = make_items(1)
    with pytest.raises(UsageError, match="'f2'"):
        tune(items, objective="f2")


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 10_000), st.integers(0, 25), st.integers(0, 25))
def test_the_sum_of_added_pairs_is_the_optimal_count_of_every_prefix(
    seed, detected_count, truth_count
):
    generator = np.random.default_rng(seed)
    detected = generator.uniform(0, 60, (detected_count, 2))
    truth = generator.uniform(0, 60, (truth_count, 2))
    score = generator.choice([0.2, 0.4, 0.6, 0.8], detected_count)
    adds = incremental_matching(neighbors_within(detected, truth, 12), list(range(detected_count)))
    for length in range(detected_count + 1):
        assert adds[:length].sum() == match_points(detected[:length], truth, 12).tp
    ranked = rank([(detected, score, truth, 12.0, np.zeros((0, 2)))])
    for threshold, tp, fp in zip(*ranked.at_distinct_scores(), strict=True):
        match = match_points(detected[score >= threshold], truth, 12)
        assert (tp, fp) == (match.tp, match.fp)


def test_a_long_chain_does_not_exhaust_the_stack():
    count = 3000
    # Every detection can take the mitosis on either side; the last one moves all the others.
    near = [[index, index + 1] for index in range(count)] + [[0]]
    assert incremental_matching(near, list(range(count + 1))).all()
    column = np.zeros(1)
    blobs = Blobs(column, column, column, column, column, 0.5)
    assert level0_xy(MapAccumulator(1.0, 4), blobs, 0.125).tolist() == [[0.5, 0.5]]

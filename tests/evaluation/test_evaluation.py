import json
import math
import random
from pathlib import Path

import numpy as np
import pytest

from segmitos.errors import InputError, ScaleError, UsageError
from segmitos.evaluation.matching import RULES
from segmitos.evaluation.scoring import Counts, compare_rules, evaluate, format_rules
from segmitos.io.datasets import Case
from segmitos.io.points.detections import Detections

NONE = np.zeros((0, 2))


def case_of(name, slide, mitoses_xy=NONE, mpp=0.25, **more):
    return Case(name, Path(f"{name}.png"), mitoses_xy, NONE, mpp, slide, **more)


def found(xy, mpp=0.25):
    return Detections.from_points(np.array(xy, dtype=float).reshape(-1, 2), mpp)


def random_study(seed, images=12, crowded=False):
    generator = np.random.default_rng(seed)
    cases, detections = [], {}
    for index in range(images):
        side = 150 if crowded else 1500
        truth = generator.uniform(0, side, (generator.integers(0, 9), 2))
        seen = truth[generator.random(len(truth)) < 0.7]
        near = np.repeat(seen, 2, axis=0)[generator.random(2 * len(seen)) < 0.7]
        found_xy = np.concatenate(
            [
                near + generator.normal(0, 12, near.shape),
                generator.uniform(0, side, (generator.integers(0, 6), 2)),
            ]
        )
        name = f"A{index % 4:02}_{index:02}"
        cases.append(case_of(name, name[:3], truth))
        detections[name] = found(found_xy)
    return cases, detections


def score_independently(cases, detections, distance_px):
    """A second scorer in plain Python: largest matching by augmenting paths, pooled, and F."""
    tp = fp = fn = 0
    for case in cases:
        truth = [tuple(point) for point in case.mitoses_xy.tolist()]
        seen = [tuple(point) for point in detections[case.name].xy.tolist()]
        partner: dict[int, int] = {}

        def try_to_place(index, visited, seen=seen, truth=truth, partner=partner):
            for j, (x, y) in enumerate(truth):
                near = (seen[index][0] - x) ** 2 + (seen[index][1] - y) ** 2 <= distance_px**2
                if near and j not in visited:
                    visited.add(j)
                    if j not in partner or try_to_place(partner[j], visited):
                        partner[j] = index
                        return True
            return False

        order = list(range(len(seen)))
        random.Random(0).shuffle(order)
        hits = sum(try_to_place(index, set()) for index in order)
        tp, fp, fn = tp + hits, fp + len(seen) - hits, fn + len(truth) - hits
    return tp / (tp + fp), tp / (tp + fn), tp / (tp + (fp + fn) / 2)


@pytest.mark.parametrize("crowded", [False, True])
@pytest.mark.parametrize("seed", range(8))
def test_an_independent_scorer_agrees_to_the_third_decimal(seed, crowded):
    cases, detections = random_study(seed, crowded=crowded)
    pooled = evaluate(cases, detections).pooled
    ours = (pooled.precision, pooled.recall, pooled.f_score)
    assert ours == pytest.approx(score_independently(cases, detections, 30), abs=5e-4)
    assert 0.1 < pooled.f_score < 0.99


def test_pooled_is_the_sum_of_cases_and_of_slides():
    cases, detections = random_study(1)
    result = evaluate(cases, detections)
    for parts in ([case.counts for case in result.cases], result.slides.values()):
        assert sum(parts, Counts()) == result.pooled
    assert sorted(result.slides) == ["A00", "A01", "A02", "A03"]
    mean = np.mean([counts.f_score for counts in result.slides.values()])
    assert result.mean_f_score == pytest.approx(mean)
    low, high = result.intervals["f_score"]
    assert low < result.pooled.f_score < high
    assert set(result.slide_intervals) == set(result.slides)


def test_same_seed_same_result_whatever_the_groups():
    cases, detections = random_study(2)
    assert evaluate(cases, detections) == evaluate(cases, detections)
    by_case = evaluate(cases, detections, groups="case")
    by_slide = evaluate(cases, detections, groups="slide")
    assert by_case.pooled == by_slide.pooled and by_case.intervals != by_slide.intervals


def test_scale_turns_distances():
    case = case_of("a", "s", np.array([[100.0, 100.0]]))
    assert evaluate([case], {"a": found([(129, 100)])}).pooled == Counts(1, 0, 0)
    coarse = case_of("a", "s", case.mitoses_xy, 0.5)
    assert evaluate([coarse], {"a": found([(129, 100)], 0.5)}).pooled == Counts(0, 1, 1)
    unknown = case_of("a", "s", case.mitoses_xy, None)
    assert evaluate([unknown], {"a": found([(129, 100)], 0.5)}).pooled == Counts(0, 1, 1)
    with pytest.raises(ScaleError, match=r"annotated at 0.5 um/px but detected at 0.25"):
        evaluate([coarse], {"a": found([(129, 100)])})


def test_nothing_predicted_is_never_perfect():
    case = case_of("a", "s", np.array([[5.0, 5.0]]))
    pooled = evaluate([case], {"a": found([])}).pooled
    assert math.isnan(pooled.precision) and pooled.recall == 0 and pooled.f_score == 0
    nothing = evaluate([case_of("a", "s")], {"a": found([])})
    assert math.isnan(nothing.pooled.f_score) and math.isnan(nothing.mean_f_score)
    content = nothing.to_dict()
    assert content["pooled"] == {
        "tp": 0,
        "fp": 0,
        "fn": 0,
        "ignored": 0,
        "precision": None,
        "recall": None,
        "f_score": None,
    }
    json.dumps(content, allow_nan=False)


def test_to_dict_says_all():
    cases, detections = random_study(3)
    content = evaluate(cases, detections | {"other": found([])}).to_dict()
    json.dumps(content, allow_nan=False)
    assert content["rule"] == "one-to-one" and content["distance_um"] == 7.5
    assert len(content["cases"]) == 12 and len(content["slides"]) == 4
    assert content["unused"] == ["other"] and content["interval_groups"] == "slide"
    assert content["intervals"]["f_score"][0] < content["pooled"]["f_score"]


def test_all_rules_side_by_side():
    cases, detections = random_study(4)
    results = compare_rules(cases, detections)
    assert list(results) == list(RULES)
    assert results["amida13"].pooled.fp < results["one-to-one"].pooled.fp
    assert results["icpr12"].pooled.tp < results["icpr14"].pooled.tp
    lines = format_rules(results).splitlines()
    assert len(lines) == len(RULES) + 1
    for rule, line in zip(RULES, lines[1:], strict=True):
        pooled = results[rule].pooled
        assert line.split()[0] == rule and line.split()[2] == str(pooled.tp)
        assert f"{pooled.f_score:.3f}" in line
    alone = compare_rules([case_of("a", "s")], {"a": found([])})
    assert format_rules(alone).splitlines()[1].split()[-4:] == ["-"] * 4


def test_bad_calls_are_named():
    case = case_of("a", "s")
    with pytest.raises(InputError, match="no cases"):
        evaluate([], {})
    with pytest.raises(InputError, match="'a' has no detections"):
        evaluate([case], {"b": found([])})
    with pytest.raises(UsageError, match="two cases are named 'a'"):
        evaluate([case, case], {"a": found([])})
    with pytest.raises(UsageError, match="'patient'"):
        evaluate([case], {"a": found([])}, groups="patient")
    with pytest.raises(UsageError, match="unknown matching rule 'x'"):
        evaluate([case], {"a": found([])}, rule="x")


def test_two_scans_of_a_patient_are_drawn_together():
    """An interval over four scans of two patients is one over two, not narrower."""
    truth = np.array([[100.0, 100.0], [300.0, 300.0]])
    xy = {"03": truth, "05": truth[:1]}
    scans = [
        case_of(f"{scanner}{patient}", f"{scanner}{patient}", truth, patient=patient, dataset="d")
        for patient in xy
        for scanner in "AH"
    ]
    detections = {case.name: found(xy[case.patient]) for case in scans}
    both, one = evaluate(scans, detections), evaluate(scans[::2], detections)
    assert both.pooled.recall == one.pooled.recall == 0.75
    assert both.intervals == one.intervals and both.intervals["recall"] == (0.5, 1.0)
    # A single patient shows no spread, however many scans there are.
    assert math.isnan(evaluate(scans[:2], detections).intervals["recall"][0])

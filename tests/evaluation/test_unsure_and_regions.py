"""Unsure cells count neither way, and nothing outside the reviewed regions counts at all."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from segmitos.evaluation.curves import rank_cases
from segmitos.evaluation.gallery import choose_crops
from segmitos.evaluation.matching import RULES, match_points
from segmitos.evaluation.scoring import evaluate
from segmitos.io.datasets import Case
from segmitos.io.points.detections import Detections
from segmitos.io.points.regions import Regions
from tests.factories.points import rectangle

NONE = np.zeros((0, 2))


def make_case(mitoses, unsure=NONE, regions=None):
    return Case(
        name="a",
        image=Path("a.png"),
        mitoses_xy=np.array(mitoses, float).reshape(-1, 2),
        hard_negatives_xy=NONE,
        mpp=0.25,
        slide="s",
        unsure_xy=np.array(unsure, float).reshape(-1, 2),
        regions=regions,
    )


def found(*places, score=None):
    xy = np.array(places, float).reshape(-1, 2)
    score = np.linspace(0.9, 0.5, len(xy)) if score is None else score
    return {"a": Detections(xy[:, 0], xy[:, 1], np.full(len(xy), 20.0), score, 0.25, "a")}


def counts(case, detections):
    pooled = evaluate([case], detections).pooled
    return pooled.tp, pooled.fp, pooled.fn, pooled.ignored


def test_a_detection_at_an_unsure_cell_counts_neither_way():
    case = make_case([(100, 100)], unsure=[(300, 300)])
    assert counts(case, found((101, 100), (305, 300), (500, 500))) == (1, 1, 0, 1)
    assert counts(case, found()) == (0, 0, 1, 0), "an unsure cell that is missed is no miss"


def test_a_mitosis_beside_an_unsure_cell_is_still_to_be_found():
    case = make_case([(100, 100)], unsure=[(110, 100)])
    assert counts(case, found((105, 100))) == (1, 0, 0, 0)
    assert counts(case, found((105, 100), (112, 100))) == (1, 0, 0, 1)


@pytest.mark.parametrize("rule", RULES)
def test_every_rule_knows_unsure_cells(rule):
    match = match_points(
        np.array([[0.0, 0], [50, 0], [90, 0]]),
        np.array([[1.0, 0]]),
        10,
        rule,
        np.array([[52.0, 0]]),
    )
    assert (match.tp, match.fp, match.fn, match.ignored) == (1, 1, 0, (1,))


def test_nothing_outside_the_reviewed_regions_counts():
    regions = Regions((rectangle(0, 0, 200, 200),), (rectangle(150, 0, 50, 200),))
    case = make_case([(100, 100), (170, 100), (400, 400)], regions=regions)
    assert counts(case, found((100, 100), (170, 100), (400, 400), (50, 50))) == (1, 1, 0, 2)
    (result,) = evaluate([case], found((170, 100), (100, 100))).cases
    assert result.match.pairs == ((1, 0),), "indices are those of the whole image"
    assert result.match.ignored == (0,) and result.match.ignored_truth == (1, 2)


BORDER = Regions((rectangle(0, 0, 200, 200),))


@pytest.mark.parametrize("rule", RULES)
def test_at_the_border_a_detection_and_its_mitosis_may_lie_on_two_sides(rule):
    """Of 0.25 um: pairs are 6 px apart, within every rule's distance."""

    def of(mitoses, *places):
        pooled = evaluate([make_case(mitoses, regions=BORDER)], found(*places), rule).pooled
        return pooled.tp, pooled.fp, pooled.fn, pooled.ignored

    assert of([(203, 50)], (197, 50)) == (0, 0, 0, 1), "its mitosis was not reviewed"
    assert of([(197, 50)], (203, 50)) == (1, 0, 0, 0), "the mitosis was found"
    assert of([(197, 50)], (203, 50), (197, 53)) == (1, 0, 0, 1), "what lies inside comes first"
    assert of([(197, 50)], (203, 50), (204, 50)) == (1, 0, 0, 1), "only one of them found it"
    assert of([(150, 50)], (203, 50)) == (0, 0, 1, 1)
    # Two mitoses, each found from outside; and one from inside, which is near both.
    assert of([(197, 50), (197, 60)], (201, 52), (201, 65))[:3] == (2, 0, 0)
    assert of([(197, 50), (197, 58)], (196, 55), (202, 48))[:3] == (2, 0, 0)
    assert of([(203, 50)], (150, 50)) == (0, 1, 0, 0)


def test_curves_agree_with_the_counts_at_the_border():
    case = make_case([(197, 50), (203, 150), (100, 100)], regions=BORDER)
    places = [(203, 50), (197, 150), (100, 103), (60, 60)]
    ranked = rank_cases([case], found(*places))
    _, tp, fp = ranked.at_distinct_scores()
    assert (tp[-1], fp[-1]) == counts(case, found(*places))[:2] == (2, 1)


def test_curves_agree_with_the_counts():
    case = make_case([(100, 100)], [(300, 300)], Regions((rectangle(0, 0, 600, 600),)))
    places = [(101, 100), (302, 300), (500, 500), (900, 900), (102, 101)]
    ranked = rank_cases([case], found(*places))
    _, tp, fp = ranked.at_distinct_scores()
    whole = counts(case, found(*places))
    assert (tp[-1], fp[-1], ranked.mitoses) == (whole[0], whole[1], 1)


def test_a_forgiven_detection_is_not_shown_as_a_false_positive():
    case = make_case([(50, 50)])
    detections = found((50, 50), (54, 50), (250, 250))
    for rule, shown in (("amida13", [250.0]), ("one-to-one", [54.0, 250.0])):
        result = evaluate([case], detections, rule)
        assert result.pooled.fp == len(shown)
        wrong = choose_crops([case], detections, result)["False positives"]
        assert sorted(crop.x_px for crop in wrong) == shown

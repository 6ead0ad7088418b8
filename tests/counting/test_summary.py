"""What is said of an input as a whole, in the plain and in the awkward cases."""

from __future__ import annotations

import json

import numpy as np
import pytest

from segmitos.counting.count import CountSettings, count, known_validation
from segmitos.counting.summary import to_dict
from segmitos.detection.tissue import TissueMask
from tests.factories.results import detections_at, draw_slide, scatter, tissue_of

SIDE_PX, MPP = 3200, 1.25


@pytest.fixture(scope="module")
def tissue() -> TissueMask:
    return tissue_of(draw_slide())


def full_tissue(side_px: int, mpp: float) -> TissueMask:
    return TissueMask(np.ones((50, 50), bool), side_px * mpp / 50, (side_px * mpp / 1000) ** 2)


def summary_of(points, tissue, side_px=SIDE_PX, mpp=MPP, validation=None, **settings):
    counted = count(
        detections_at(points, mpp).xy,
        mpp,
        side_px,
        side_px,
        tissue,
        CountSettings(**settings),
        known_validation(validation),
    )
    content = json.loads(json.dumps(to_dict(counted), allow_nan=False))
    return content, counted.hotspot


def test_no_mitoses_where_a_window_fits_score_1_with_a_count_of_0(tissue):
    content, hotspot = summary_of(scatter(0), tissue)
    assert hotspot is None
    assert content["count"] == 0 and content["density_per_mm2"] == 0
    assert content["hotspot"] is None and content["hotspot_reason"] == "no mitoses were found"
    systems = content["score"]["systems"]
    assert [entry["system"] for entry in systems] == ["WHO 2019", "Nottingham"]
    assert all(entry["score"] == 1 and entry["count"] == 0 for entry in systems)
    # Garwood: none seen, up to 3.69 expected.
    assert systems[0]["interval"]["combined"] == pytest.approx([0, 3.689], abs=0.001)
    assert content["notes"] == ["No hotspot: no mitoses were found."]


def test_no_mitoses_and_too_little_tissue_have_no_score(tissue):
    speck = TissueMask(np.zeros_like(tissue.mask), tissue.mpp, 0.1)
    speck.mask[100:120, 100:120] = True
    content, _ = summary_of(scatter(0), speck)
    assert content["score"] is None
    assert "nowhere" in content["score_reason"] and "50% of tissue" in content["score_reason"]
    assert content["density_per_mm2"] == 0


def test_one_mitosis_is_in_its_hotspot(tissue):
    content, hotspot = summary_of(np.array([[1500.0, 1700.0]]), tissue)
    assert content["count"] == 1 and content["hotspot"]["count"] == 1
    x, y, side = hotspot.x_px, hotspot.y_px, hotspot.width_px
    assert x <= 1500 <= x + side and y <= 1700 <= y + side
    assert side * MPP == pytest.approx(1414.2, abs=0.1)
    assert {entry["score"] for entry in content["score"]["systems"]} == {1}


def test_no_tissue_has_neither_density_nor_score():
    empty = TissueMask(np.zeros((50, 50), bool), 80.0, 0.0)
    content, hotspot = summary_of(scatter(0), empty)
    assert hotspot is None and content["score"] is None
    assert content["tissue_area_mm2"] == 0 and content["density_per_mm2"] is None
    assert content["notes"] == ["No tissue was found, so there is no density."]


def test_a_field_smaller_than_the_window_says_so():
    content, hotspot = summary_of(np.array([[100.0, 90.0]]), full_tissue(1500, 0.25), 1500, 0.25)
    assert hotspot is None and content["score"] is None
    reason = "the image is 0.375 x 0.375 mm: smaller than the 1.41 x 1.41 mm window"
    assert content["score_reason"].startswith(reason)
    assert content["notes"][0].startswith(f"No hotspot: {reason}")
    assert content["density_per_mm2"] == pytest.approx(1 / 0.375**2)


def test_a_field_smaller_than_the_window_by_a_hair_is_not_said_to_be_of_its_size():
    content, _ = summary_of(np.zeros((0, 2)), full_tissue(1414, 1.0), 1414, 1.0)
    reason = "the image is 1.414 x 1.414 mm: smaller than the 1.41421 x 1.41421 mm window of 2 mm2"
    assert content["score_reason"].startswith(reason)


def test_a_field_that_holds_the_window_but_not_ten_fields_says_which_score_is_missing():
    side = 1500  # 1.5 mm: 2 mm2 fit as a square, 2.376 mm2 as 4:3 do not
    points = np.array([[700.0, 700.0]])
    content, hotspot = summary_of(points, full_tissue(side, 1.0), side, 1.0)
    assert hotspot is not None
    assert [entry["system"] for entry in content["score"]["systems"]] == ["WHO 2019"]
    assert content["notes"][0].startswith("No score from ten fields: the image is 1.5 x 1.5 mm")


def test_a_score_near_a_cut_off_is_marked_uncertain_and_one_far_away_is_not(tissue):
    near, _ = summary_of(scatter(7 * 3), tissue)  # a third of them crowd in one place
    far, _ = summary_of(scatter(600), tissue)
    assert near["score"]["uncertain"] and not far["score"]["uncertain"]
    assert far["score"]["systems"][0]["within"].startswith("3 (count ")


def test_validation_counts_of_the_model_widen_the_interval(tissue):
    points = scatter(60)
    chance, _ = summary_of(points, tissue)
    known, _ = summary_of(points, tissue, validation={"tp": 70, "fp": 20, "fn": 30, "data": "x"})
    assert "chance alone" in chance["score"]["interval_note"]
    assert "precision and recall" in known["score"]["interval_note"]
    low, high = known["score"]["systems"][0]["interval"]["combined"]
    least, most = chance["score"]["systems"][0]["interval"]["combined"]
    assert high - low > most - least
    assert known["score"]["systems"][0]["interval"]["model"] is not None


def test_window_and_field_are_as_asked(tissue):
    content, _ = summary_of(scatter(90), tissue, hotspot_area_mm2=1.0, hotspot_shape="circle")
    assert content["hotspot"]["shape"] == "circle" and content["hotspot"]["area_mm2"] == 1.0
    assert content["hotspot"]["density_per_mm2"] == content["hotspot"]["count"]
    smaller, _ = summary_of(scatter(90), tissue, field_diameter_mm=0.44)
    assert smaller["score"]["systems"][1]["three_from"] == 12

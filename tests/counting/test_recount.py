"""A saved result counted again: with other settings, and as a reader corrected it."""

from __future__ import annotations

import json

import numpy as np
import pytest

from segmitos.counting.count import CountSettings
from segmitos.counting.recount import recount
from segmitos.counting.reviewed_marks import ReviewedMark
from segmitos.counting.saved import change_settings, read_saved
from segmitos.errors import DataError, InputError, UsageError
from tests.factories.results import candidates_of, detections_at, draw_slide, make_files, tissue_of

MPP = 1.25
CROWD = np.array([[1500.0 + 30 * i, 1500.0 + 7 * i] for i in range(20)])
FAR = np.array([[800.0, 1700.0], [2500.0, 1700.0]])
FAINT = np.array([[1510.0, 1700.0], [900.0, 1600.0]])


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("result") / "made"
    folder.mkdir()
    slide = draw_slide()
    files = make_files(
        folder, slide, detections_at(np.concatenate([CROWD, FAR]), MPP), tissue_of(slide), FAINT
    )
    for name, content in files.items():
        (folder / name).write_bytes(content)
    return folder


@pytest.fixture(scope="module")
def saved(folder):
    return read_saved(folder)


def mark(saved, place, label, x=0.0, y=0.0):
    """Verdict on the candidate at a place, moved by x, y."""
    index = int(np.argmin(np.hypot(*(saved.candidates.xy - place).T)))
    identity = saved.candidates.ids[index]
    at_x, at_y = (saved.candidates.xy[index] + [x, y]).tolist()
    return ReviewedMark(identity, at_x, at_y, label, identity)


def test_a_saved_result_is_read_as_it_was_written(folder, saved):
    summary = json.loads((folder / "summary.json").read_text())
    assert saved.summary.to_json() == (folder / "summary.json").read_bytes()
    assert saved.candidates.to_csv() == (folder / "candidates.csv").read_text()
    assert len(saved.candidates) == 24 and len(saved.candidates.detections()) == 22
    assert saved.tissue.area_mm2 == summary["tissue_area_mm2"]
    features = json.loads((folder / "detections.geojson").read_text())["features"]
    ids = [one["id"] for one in features if one["geometry"]["type"] == "Point"]
    kept = saved.candidates.is_detection
    assert ids == [one for one, is_kept in zip(saved.candidates.ids, kept, strict=True) if is_kept]


def test_other_settings_give_what_detection_would_have_given(folder, saved, tmp_path):
    changed = change_settings(saved, {"field_diameter_mm": 0.44, "hotspot_shape": "circle"})
    slide = draw_slide()
    fresh = make_files(
        tmp_path,
        slide,
        detections_at(np.concatenate([CROWD, FAR]), MPP),
        tissue_of(slide),
        FAINT,
        field_diameter_mm=0.44,
        hotspot_shape="circle",
    )
    assert changed.summary.to_json() == fresh["summary.json"]
    assert change_settings(saved, {}).summary == saved.summary


def test_a_higher_score_leaves_detections_out_and_a_lower_one_brings_none_from_below(saved):
    scores = np.sort(saved.candidates.detections().score)
    changed = change_settings(saved, {"min_score": float(scores[10])})
    assert changed.summary.count == 12 == len(changed.candidates.detections())
    assert changed.summary.thresholds.min_score == scores[10]
    # Candidates of 0.55 pass; the map was cut at 0.5 and nothing below it is a detection.
    assert change_settings(saved, {"min_score": 0.1}).summary.count == 24
    back = change_settings(changed, {"min_score": None})
    assert back.summary.thresholds.min_score == saved.summary.model_card["thresholds"]["min_score"]


def test_what_takes_the_networks_is_refused(saved):
    with pytest.raises(UsageError, match="without running the networks"):
        change_settings(saved, {"threshold": 0.2})
    with pytest.raises(UsageError, match="hexagon"):
        change_settings(saved, {"hotspot_shape": "hexagon"})
    with pytest.raises(UsageError, match="min_score 2"):
        change_settings(saved, {"min_score": 2})


def test_without_a_verdict_the_count_is_the_models_and_all_is_undecided(saved):
    found = recount(saved, [])
    assert found.reviewed.count == found.model.count == saved.summary.count == 22
    assert found.tally.undecided == 22 and found.range == (0, 22)
    assert found.range_in_hotspot == (0, found.model.hotspot.count) and not found.settled
    assert found.reviewed.hotspot == found.model.hotspot and not found.hotspot_moved
    json.dumps(found.to_dict(), allow_nan=False)


def test_verdicts_change_count_hotspot_and_score(saved):
    rejected = [mark(saved, place, "look-alike") for place in CROWD[:15]]
    confirmed = [mark(saved, place, "mitosis") for place in CROWD[15:18]]
    moved = mark(saved, CROWD[18], "atypical", x=4)
    unsure = mark(saved, CROWD[19], "unsure")
    added = ReviewedMark("mine", 1600.0, 1650.0, "mitosis")
    promoted = mark(saved, FAINT[0], "mitosis")
    marks = [*rejected, *confirmed, moved, unsure, added, promoted]
    found = recount(saved, marks)
    assert recount(saved, iter(marks)) == found
    assert found.tally.confirmed == 4 and found.tally.rejected == 15 and found.tally.added == 2
    assert found.tally.moved == found.tally.atypical == found.tally.unsure == 1
    assert found.tally.undecided == 2 and found.range == (6, 9)
    # Two far away are undecided and still count; the unsure one does not.
    assert found.reviewed.count == 8 and found.model.count == 22
    assert found.reviewed.hotspot.count < found.model.hotspot.count
    assert found.reviewed.score.of("hotspot").score < found.model.score.of("hotspot").score
    assert len(found.marks) == 24


def test_a_count_that_cannot_change_its_score_any_more_is_settled(saved):
    few = recount(saved, [mark(saved, place, "look-alike") for place in CROWD])
    assert few.tally.undecided == 2 and few.settled  # 0 to 2 are all score 1
    assert not recount(saved, [mark(saved, CROWD[0], "mitosis")]).settled


def test_a_fixed_hotspot_stays_where_the_model_put_it(saved):
    rejected = [mark(saved, place, "look-alike") for place in CROWD]
    follow, fixed = recount(saved, rejected), recount(saved, rejected, hotspot="fixed")
    assert follow.hotspot_moved and not fixed.hotspot_moved
    inside = fixed.model.hotspot.holds(FAR).sum()
    assert fixed.reviewed.hotspot.count == inside <= follow.reviewed.hotspot.count
    with pytest.raises(UsageError, match="'follow' or 'fixed'"):
        recount(saved, [], hotspot="left")


def test_a_hotspot_that_shifts_with_the_same_cells_in_it_has_not_moved(saved):
    found = recount(saved, [mark(saved, place, "look-alike") for place in CROWD[:2]])
    before, after = found.model.hotspot, found.reviewed.hotspot
    assert (before.x_px, before.y_px) != (after.x_px, after.y_px)
    assert (before.holds(CROWD[2:]) == after.holds(CROWD[2:])).all()
    assert before.holds(FAR).tolist() == after.holds(FAR).tolist() == [False, True]
    assert not found.hotspot_moved


def test_screening_leaves_chance_alone(saved):
    marks = [mark(saved, place, "mitosis") for place in np.concatenate([CROWD, FAR])]
    screened = recount(saved, marks, screened=True).reviewed.score
    assert screened.of("hotspot").interval.model is None
    assert "all of the window" in screened.interval_note
    # The toy model states no validation counts.
    assert "nothing is known" in recount(saved, marks).reviewed.score.interval_note


def test_a_grade_needs_both_other_scores(saved):
    found = recount(saved, [], tubules=3, nuclei=2)
    score = found.reviewed.score.of("hotspot").score
    assert found.grade["hotspot"] == (3 if score + 5 >= 8 else 2)
    assert recount(saved, []).grade is None
    with pytest.raises(UsageError, match="both scores"):
        recount(saved, [], tubules=3)
    with pytest.raises(UsageError, match="tubule score 4"):
        recount(saved, [], tubules=4, nuclei=1)


def test_other_windows_are_counted_for_model_and_reader_alike(saved):
    found = recount(saved, [], CountSettings(hotspot_area_mm2=1.0, field_diameter_mm=0.44))
    assert found.model.hotspot.area_mm2 == found.reviewed.hotspot.area_mm2 == 1.0
    assert found.model.score.of("ten fields").three_from == 12


@pytest.mark.parametrize(
    ("marks", "words"),
    [
        ([("a", 10.0, 10.0, "tumor", None)], "'tumor' is not one of"),
        ([("a", 10.0, 9000.0, "mitosis", None)], "outside the image of 3200 x 3200 px"),
        ([("a", float("nan"), 1.0, "mitosis", None)], "outside the image"),
        ([("a", 10.0, 10.0, "mitosis", "b")], "which is no candidate"),
        ([("a", 1.0, 1.0, "mitosis", None), ("a", 2.0, 1.0, None, None)], "two marks"),
    ],
)
def test_marks_that_cannot_be_are_named(saved, marks, words):
    with pytest.raises(UsageError, match=words):
        recount(saved, [ReviewedMark(*values) for values in marks])


def test_a_damaged_or_incomplete_result_is_told(folder, tmp_path):
    with pytest.raises(InputError, match="no result of detect"):
        read_saved(tmp_path)
    copy = tmp_path / "copy"
    copy.mkdir()
    for path in folder.iterdir():
        if path.is_file():
            (copy / path.name).write_bytes(path.read_bytes())
    table = (copy / "candidates.csv").read_text()
    for bad in ("", "a,b\n", table + "x,1,2,3,4,5,6\n", table.replace(",1\n", ",2\n", 1)):
        (copy / "candidates.csv").write_text(bad)
        with pytest.raises(DataError, match="damaged"):
            read_saved(copy)
    (copy / "candidates.csv").unlink()
    with pytest.raises(InputError, match=r"lacks candidates\.csv"):
        read_saved(copy)
    (copy / "candidates.csv").write_text(table)
    (copy / "tissue.png").write_bytes(b"no picture")
    with pytest.raises(DataError, match=r"tissue\.png is damaged"):
        read_saved(copy)
    (copy / "summary.json").write_text('{"name": 3}')
    with pytest.raises(DataError, match=r"summary\.json is damaged"):
        read_saved(copy)


def test_ids_do_not_depend_on_what_else_was_found():
    detections = detections_at(FAR, MPP)
    alone, among = candidates_of(detections), candidates_of(detections, FAINT)
    assert set(alone.ids) < set(among.ids)

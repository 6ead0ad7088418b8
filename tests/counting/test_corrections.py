"""A file of marks as a reader left it: by id, by distance, rejected, added, moved, unsure."""

from __future__ import annotations

import json

import numpy as np
import pytest

from segmitos.counting.corrections import corrections, label_of, nearest_pairs, read_edited
from segmitos.counting.recount import recount
from segmitos.counting.saved import read_saved
from segmitos.errors import DataError
from tests.factories.results import detections_at, draw_slide, make_files, tissue_of

MPP = 1.25
PLACES = np.array([[1000.0 + 100 * i, 1500.0] for i in range(8)])
FAINT = np.array([[1200.0, 1800.0]])


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    folder = tmp_path_factory.mktemp("result")
    slide = draw_slide()
    files = make_files(folder, slide, detections_at(PLACES, MPP), tissue_of(slide), FAINT)
    for name, content in files.items():
        (folder / name).write_bytes(content)
    return read_saved(folder), json.loads(files["detections.geojson"])


def features(collection):
    copied = json.loads(json.dumps(collection["features"]))
    return [one for one in copied if one["geometry"]["type"] == "Point"]


def recounted(saved, tmp_path, edited):
    path = tmp_path / "corrected.geojson"
    path.write_text(json.dumps({"type": "FeatureCollection", "features": edited}))
    return recount(saved, corrections(saved, read_edited(path, saved)))


def point(x, y, kind="Mitotic figure"):
    classified = None if kind is None else {"name": kind}
    return {
        "type": "Feature",
        "geometry": {"type": "Point", "coordinates": [x, y]},
        "properties": {"objectType": "annotation", "classification": classified},
    }


def test_an_untouched_file_confirms_every_detection(saved, tmp_path):
    result, collection = saved
    path = tmp_path / "detections.geojson"
    about = {"mpp": MPP, "name": result.candidates.name}
    path.write_text(json.dumps(collection | {"segmitos": about}))
    found = recount(result, corrections(result, read_edited(path, result)))
    assert found.tally.confirmed == 8 and found.tally.rejected == found.tally.added == 0
    assert found.tally.undecided == found.tally.moved == 0 and found.settled


@pytest.mark.parametrize("keeps_ids", [True, False])
def test_deleted_reclassified_added_and_moved_marks_are_told_apart(saved, tmp_path, keeps_ids):
    result, collection = saved
    edited = features(collection)
    del edited[0]
    edited[0]["properties"]["classification"]["name"] = "Hard negative"
    edited[1]["properties"]["classification"] = None
    edited[2]["geometry"]["coordinates"][0] += 3.0  # 3.75 um
    edited[3]["properties"]["classification"]["name"] = "Atypical mitosis"
    edited[4]["properties"]["classification"]["name"] = "Unsure"
    if not keeps_ids:
        for one in edited:
            del one["id"]
    edited += [point(2000, 2000), point(1201, 1800), point(1000, 1900, "Non-mitotic figure")]
    found = recounted(result, tmp_path, edited)
    tally = found.tally
    assert (tally.confirmed, tally.rejected, tally.added) == (4, 3, 2)
    assert (tally.moved, tally.atypical, tally.unsure, tally.undecided) == (1, 1, 1, 0)
    assert found.reviewed.count == 6 and found.range == (6, 7)
    moved = next(mark for mark in found.marks if mark.x_px == 1303.0)
    assert moved.candidate in result.candidates.ids
    # A new mark on a candidate below the threshold stands for it.
    promoted = next(mark for mark in found.marks if (mark.x_px, mark.y_px) == (1201.0, 1800.0))
    assert promoted.candidate is not None
    assert next(m for m in found.marks if m.x_px == 2000.0).candidate is None


def test_a_mark_far_from_its_id_is_moved_and_one_without_id_is_added(saved, tmp_path):
    result, collection = saved
    edited = features(collection)
    edited[0]["geometry"]["coordinates"] = [1000.0, 1540.0]  # 50 um
    assert recounted(result, tmp_path, edited).tally.moved == 1
    del edited[0]["id"]
    tally = recounted(result, tmp_path, edited).tally
    assert (tally.rejected, tally.added, tally.confirmed) == (1, 1, 7)


def test_a_copy_of_a_mark_is_another_mitosis(saved, tmp_path):
    result, collection = saved
    edited = features(collection)
    copy = json.loads(json.dumps(edited[0]))
    copy["geometry"]["coordinates"] = [1000.0, 1700.0]
    tally = recounted(result, tmp_path, [*edited, copy]).tally
    assert (tally.confirmed, tally.added) == (8, 1)


@pytest.mark.parametrize("kind", [None, "Tumor budding"])
def test_an_added_mark_needs_a_class_that_is_known(saved, tmp_path, kind):
    result, collection = saved
    with pytest.raises(DataError, match=r"feature 9 was added and has"):
        recounted(result, tmp_path, [*features(collection), point(50, 60, kind)])


def test_positions_are_in_qupaths_frame(saved, tmp_path):
    import dataclasses

    result, _ = saved
    shifted = dataclasses.replace(
        result, summary=dataclasses.replace(result.summary, bounds_px=(300, 200, 2000, 2000))
    )
    x, y = PLACES[3] - [300, 200]
    found = recounted(shifted, tmp_path, [point(x, y)])
    assert found.tally.confirmed == 1 and found.tally.moved == 0 and found.tally.rejected == 7


@pytest.mark.parametrize(
    ("kind", "label"),
    [
        ("Mitotic figure", "mitosis"),
        ("mitoses", "mitosis"),
        ("Atypical mitotic figure", "atypical"),
        ("Mitosis: Atypical", "atypical"),
        ("Mitosis: Typical", "mitosis"),
        ("Non-mitotic figure", "look-alike"),
        ("Imposter", "look-alike"),
        ("unsure", "unsure"),
        ("Tumor", None),
        (None, None),
    ],
)
def test_class_names(kind, label):
    assert label_of(kind) == label


def test_pairs_are_one_to_one_and_the_nearest_come_first():
    first = np.array([[0.0, 0.0], [2.0, 0.0], [100.0, 0.0]])
    second = np.array([[1.5, 0.0], [-3.0, 0.0]])
    assert nearest_pairs(first, second, 5.0) == [(1, 0), (0, 1)]
    assert nearest_pairs(first, second[:0], 5.0) == []
    assert nearest_pairs(first[:1], np.array([[3.0, 4.0]]), 5.0) == [(0, 0)]
    assert nearest_pairs(first[:1], np.array([[3.0, 4.001]]), 5.0) == []


def test_a_file_of_another_image_is_refused(saved, tmp_path):
    result, collection = saved
    with pytest.raises(DataError, match="none of 2 marks lies at a detection"):
        recounted(result, tmp_path, [point(300, 300), point(400, 400)])
    path = tmp_path / "other.geojson"
    path.write_text(json.dumps(collection | {"segmitos": {"mpp": MPP, "name": "other.svs"}}))
    with pytest.raises(DataError, match=r"is of the image other\.svs"):
        read_edited(path, result)


def test_rounded_positions_are_not_moved(saved, tmp_path):
    result, collection = saved
    edited = features(collection)
    for one in edited:
        one["geometry"]["coordinates"] = [round(v + 0.2, 1) for v in one["geometry"]["coordinates"]]
    found = recounted(result, tmp_path, edited)
    assert found.tally.moved == 0 and found.reviewed.hotspot == found.model.hotspot


def test_a_cell_that_is_marked_twice_is_refused(saved, tmp_path):
    result, collection = saved
    again = point(1001.5, 1500.0)
    with pytest.raises(DataError, match=r"feature 9: a mitosis 1\.9 um from that of feature 1,"):
        recounted(result, tmp_path, [*features(collection), again])
    again["properties"]["classification"]["name"] = "Unsure"
    assert recounted(result, tmp_path, [*features(collection), again]).tally.confirmed == 8


def test_outlines_of_cells_are_refused_and_others_passed_over(saved, tmp_path):
    result, collection = saved
    ring = [[900, 900], [930, 900], [930, 930], [900, 900]]
    drawn = point(0, 0) | {"geometry": {"type": "Polygon", "coordinates": [ring]}}
    with pytest.raises(DataError, match="feature 9 is an outline of class 'Mitotic figure'"):
        recounted(result, tmp_path, [*features(collection), drawn])
    drawn["properties"]["classification"]["name"] = "Tumor"
    assert recounted(result, tmp_path, [*features(collection), drawn]).tally.confirmed == 8

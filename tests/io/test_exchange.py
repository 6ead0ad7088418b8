import json
import math

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from segmitos.errors import DataError, ScaleError, UsageError
from segmitos.io.points.detections import Detections
from segmitos.io.points.exchange import (
    read_coco,
    read_midog,
    to_coco,
    to_midog,
    write_coco,
    write_midog,
)

coordinate = st.floats(-50, 2e5, allow_nan=False)
rows = st.lists(
    st.tuples(coordinate, coordinate, st.floats(0, 99), st.floats(0, 1) | st.just(math.nan)),
    max_size=8,
)


def make(values, mpp=0.25, name="001.tiff"):
    x, y, area, score = np.array(values, dtype=float).reshape(-1, 4).T
    return Detections(x, y, area, score, mpp, name)


def without_area(found):
    unknown = np.full(len(found), math.nan)
    return Detections(found.x_px, found.y_px, unknown, found.score, found.mpp, found.name)


@settings(
    max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(values=rows, others=rows, mpp=st.floats(0.05, 10))
def test_round_trips_to_the_bit(tmp_path, values, others, mpp):
    found, rejected = make(values, mpp, 'Ä "1"'), make(others, mpp, 'Ä "1"')
    write_midog(tmp_path / "a.json", found, rejected)
    assert read_midog(tmp_path / "a.json", mpp) == without_area(found)
    assert read_midog(tmp_path / "a.json", mpp, rejected=True) == without_area(rejected)
    write_coco(tmp_path / "b.json", found)
    assert read_coco(tmp_path / "b.json") == found


def test_midog_is_millimetres_x_first(tmp_path):
    content = json.loads(to_midog(make([(1000, 4000, 9, 0.75)]), make([(8, 4, 9, 0.25)])))
    assert content == {
        "name": "001.tiff",
        "type": "Multiple points",
        "points": [
            {"name": "mitotic figure", "point": [0.25, 1.0, 0], "probability": 0.75},
            {"name": "non-mitotic figure", "point": [0.002, 0.001, 0], "probability": 0.25},
        ],
        "version": {"major": 1, "minor": 0},
    }
    assert json.loads(to_midog(make([])))["points"] == []


def test_midog_of_others(tmp_path):
    """Doubles as other programs write them, no names, no probabilities."""
    path = tmp_path / "a.json"
    points = [{"point": [123 * 0.00025, 7 * 0.00025, 0]}, {"point": [1, 2]}]
    path.write_text(json.dumps({"type": "Multiple points", "points": points}))
    found = read_midog(path, 0.25)
    assert found.xy == pytest.approx(np.array([[123, 7], [4000, 8000]]), abs=1e-9)
    assert np.isnan(found.score).all() and found.name == "a"


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"type": "Point"}, "not a Grand Challenge file"),
        ([], "not a Grand Challenge file"),
        ({"points": [3]}, "point 1 is not an object"),
        ({"points": [{"name": "cell", "point": [1, 2, 0]}]}, "point 1: name 'cell'"),
        ({"points": [{"point": [1]}]}, r"point 1: \[1\] is not \[x_mm"),
        ({"points": [{"point": ["1", 2, 0]}]}, "point 1: point '1' is not a number"),
        ({"points": [{"point": [math.nan, 2, 0]}]}, "not finite"),
        ({"points": [{"point": [1, 2], "probability": "x"}]}, "probability 'x'"),
    ],
)
def test_bad_midog(tmp_path, content, message):
    if isinstance(content, dict):
        content = {"type": "Multiple points"} | content
    (tmp_path / "bad.json").write_text(json.dumps(content))
    with pytest.raises(DataError, match=message):
        read_midog(tmp_path / "bad.json", 0.25)


def test_coco_boxes_are_corner_and_size_around_the_center():
    content = to_coco(make([(100, 400, 9, 0.75)]), size_px=(2000, 1000))
    item = content["annotations"][0]
    assert item["bbox"] == [75, 375, 50, 50] and item["area"] == 2500
    assert content["images"][0] == {
        "id": 1,
        "file_name": "001.tiff",
        "width": 2000,
        "height": 1000,
        "segmitos": {"mpp": 0.25},
    }
    with pytest.raises(UsageError, match="box of 0 px"):
        to_coco(make([]), box_px=0)


def test_coco_of_others(tmp_path):
    path = tmp_path / "a.json"
    content = {
        "images": [{"id": 7, "file_name": "a.tif"}, {"id": 8, "file_name": "b.tif"}],
        "categories": [
            {"id": 2, "name": "not mitotic figure"},
            {"id": 1, "name": "mitotic_figure"},
        ],
        "annotations": [
            {"id": 1, "image_id": 7, "category_id": 1, "bbox": [10, 20, 4, 6], "score": 0.5},
            {"id": 2, "image_id": 8, "category_id": 1, "bbox": [1, 2, 2, 2]},
            {"id": 3, "image_id": 7, "category_id": 2, "bbox": [5, 5, 5, 5]},
        ],
    }
    path.write_text(json.dumps(content))
    assert read_coco(path, 0.25, "a.tif").xy.tolist() == [[12, 23]]
    assert read_coco(path, 0.25, "b.tif").xy.tolist() == [[2, 3]]
    with pytest.raises(DataError, match="2 images: name one"):
        read_coco(path, 0.25)
    with pytest.raises(DataError, match=r"0 images named 'c\.tif'"):
        read_coco(path, 0.25, "c.tif")
    with pytest.raises(ScaleError, match="--mpp"):
        read_coco(path, image="a.tif")


def test_a_moved_box_has_the_last_word(tmp_path):
    content = to_coco(make([(100, 400, 9, 0.75)]))
    content["annotations"][0]["bbox"][0] += 3
    (tmp_path / "a.json").write_text(json.dumps(content))
    assert read_coco(tmp_path / "a.json").xy.tolist() == [[103, 400]]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"annotations": None}, "is not COCO"),
        ({"categories": [{"id": 1, "name": "cell"}]}, "no category is called 'mitotic figure'"),
        (
            {"annotations": [{"image_id": 1, "category_id": 1, "bbox": [1, 2, 3]}]},
            "annotation 1: bbox",
        ),
        (
            {"annotations": [{"image_id": 1, "category_id": 1, "bbox": [9, 9, -3, 1]}]},
            "negative size",
        ),
        (
            {"annotations": [{"image_id": 1, "category_id": 1, "bbox": [9, "9", 3, 1]}]},
            "bbox '9' is not a number",
        ),
    ],
)
def test_bad_coco(tmp_path, change, message):
    (tmp_path / "bad.json").write_text(json.dumps(to_coco(make([(1, 2, 3, 0.5)])) | change))
    with pytest.raises(DataError, match=message):
        read_coco(tmp_path / "bad.json", 0.25)

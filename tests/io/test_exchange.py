"""COCO, MIDOG's labels and Grand Challenge points, ours and others'."""

import json
import math

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from segmitos.errors import DataError, ScaleError
from segmitos.io.points.annotations import Annotations
from segmitos.io.points.classes import LABELS
from segmitos.io.points.coco import coco_content, midog_content
from segmitos.io.points.grand_challenge import grand_challenge_text
from segmitos.io.points.read import read_annotations
from segmitos.io.points.write import write_annotations

coordinate = st.floats(-50, 2e5, allow_nan=False)
rows = st.lists(
    st.tuples(
        coordinate,
        coordinate,
        st.floats(0, 1) | st.just(math.nan),
        st.floats(0, 99) | st.just(math.nan),
        st.floats(0, 1) | st.just(math.nan),
        st.sampled_from(LABELS),
    ),
    max_size=8,
)


def make(values, mpp=0.25, name="001.tiff"):
    return Annotations.from_rows(
        [value[:5] for value in values], [value[5] for value in values], mpp=mpp, name=name
    )


def one(x, y, label="mitosis", score=0.75, area=9):
    return (x, y, score, area, math.nan, label)


def same(first, second, *columns):
    assert first.labels == second.labels and (first.mpp, first.name) == (second.mpp, second.name)
    for column in ("xy", *columns):
        np.testing.assert_array_equal(getattr(first, column), getattr(second, column))


@settings(
    max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(values=rows, mpp=st.floats(0.05, 10))
def test_round_trips_to_the_bit(tmp_path, values, mpp):
    found = make(values, mpp, 'Ä "1"')
    path = tmp_path / "a.json"
    assert "confidence" not in write_annotations(path, found, "coco")
    same(read_annotations(path), found, "score", "area_um2", "confidence")
    write_annotations(path, found, "json")
    same(read_annotations(path), found, "score", "area_um2", "confidence")
    lost = write_annotations(path, found, "grand-challenge")
    assert lost.get("unsure", 0) == found.counts()["unsure"]
    order = [i for label in LABELS[:2] for i, own in enumerate(found.labels) if own == label]
    kept = make([values[i] for i in order], mpp, found.name)
    same(read_annotations(path, mpp=mpp), kept, "score")


def test_grand_challenge_is_millimeters_x_first():
    content = json.loads(
        grand_challenge_text(make([one(1000, 4000), one(8, 4, "non-mitosis", 0.25)]))
    )
    assert content == {
        "name": "001.tiff",
        "type": "Multiple points",
        "points": [
            {"name": "mitotic figure", "point": [0.25, 1.0, 0], "probability": 0.75},
            {"name": "non-mitotic figure", "point": [0.002, 0.001, 0], "probability": 0.25},
        ],
        "version": {"major": 1, "minor": 0},
    }
    assert json.loads(grand_challenge_text(make([])))["points"] == []


def save(tmp_path, content, name="a.json"):
    (tmp_path / name).write_text(json.dumps(content))
    return tmp_path / name


def test_grand_challenge_of_others(tmp_path):
    """Doubles as other programs write them, no names, no probabilities."""
    points = [{"point": [123 * 0.00025, 7 * 0.00025, 0]}, {"point": [1, 2]}]
    found = read_annotations(save(tmp_path, {"type": "Multiple points", "points": points}), 0.25)
    assert found.xy == pytest.approx(np.array([[123, 7], [4000, 8000]]), abs=1e-9)
    assert np.isnan(found.score).all() and found.name == "a"


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"points": [3]}, r"points\[0\]: Expected `object`, got `int`, found 3"),
        ({"points": [{"name": "cell", "point": [1, 2, 0]}]}, "point 1: name 'cell'"),
        ({"points": [{"point": [1]}]}, r"point 1: 1 numbers are not \[x_mm"),
        ({"points": [{"point": ["one", 2, 0]}]}, r"point\[0\].*found 'one'"),
        ({"points": [{"point": [math.nan, 2, 0]}]}, "nan is no position"),
        ({"points": [{"point": [1, 2], "probability": "x"}]}, "probability.*'x'"),
    ],
)
def test_bad_grand_challenge(tmp_path, content, message):
    with pytest.raises(DataError, match=message):
        read_annotations(save(tmp_path, {"type": "Multiple points"} | content), 0.25)


def test_coco_boxes_are_corner_and_size_around_the_center():
    content = coco_content(make([one(100, 400)]), size_px=(2000, 1000))
    item = content["annotations"][0]
    assert item["bbox"] == [75, 375, 50, 50] and item["area"] == 2500
    assert content["images"][0] == {
        "id": 1,
        "file_name": "001.tiff",
        "width": 2000,
        "height": 1000,
        "segmitos": {"mpp": 0.25},
    }


def coco_of_others(**changes):
    return {
        "images": [{"id": "i7", "file_name": "a.tif"}, {"id": 8, "file_name": "b.tif"}],
        "categories": [
            {"id": "no", "name": "not mitotic figure"},
            {"id": 1, "name": "mitotic_figure"},
            {"id": 2, "name": "Unsure"},
        ],
        "annotations": [
            {"id": 1, "image_id": "i7", "category_id": 1, "bbox": [10, 20, 4, 6], "score": 0.5},
            {"id": 2, "image_id": 8, "category_id": 1, "bbox": [1, 2, 2, 2]},
            {"id": 3, "image_id": "i7", "category_id": "no", "bbox": [5, 5, 5, 5]},
            {"id": 4, "image_id": "i7", "category_id": 2, "bbox": [0, 0, 2, 2]},
        ],
    } | changes


def test_coco_of_others_with_several_categories_and_ids_of_letters(tmp_path):
    path = save(tmp_path, coco_of_others())
    found = read_annotations(path, image="a.tif")
    assert found.xy.tolist() == [[12, 23], [7.5, 7.5], [1, 1]]
    assert found.labels == ("mitosis", "non-mitosis", "unsure") and found.mpp is None
    assert read_annotations(path, 0.25, image="b.tif").xy.tolist() == [[2, 3]]
    with pytest.raises(DataError, match="2 images: name one"):
        read_annotations(path, 0.25)
    with pytest.raises(DataError, match=r"0 images named 'c\.tif'"):
        read_annotations(path, 0.25, image="c.tif")


def test_a_moved_box_has_the_last_word(tmp_path):
    content = coco_content(make([one(100, 400)]))
    content["annotations"][0]["bbox"][0] += 3
    assert read_annotations(save(tmp_path, content)).xy.tolist() == [[103, 400]]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"annotations": None}, "annotations: Expected `array`, got `null`"),
        ({"categories": [{"id": 1, "name": "cell"}]}, "names category 'no', which is unknown"),
        (
            {"categories": [{"id": i, "name": "cell"} for i in ("no", 1, 2)]},
            "annotation 1: class 'cell' is neither mitosis",
        ),
        ({"annotations": [{"image_id": 8, "category_id": 1, "bbox": [1, 2, 3]}]}, "bbox"),
        ({"annotations": [{"image_id": 8, "category_id": 1, "bbox": [9, 9, -3, 1]}]}, "negative"),
        ({"annotations": [{"image_id": 8, "category_id": 1, "bbox": [9, "9", 3, 1]}]}, "'9'"),
        ({"annotations": [{"image_id": 9, "category_id": 1, "bbox": [9, 9, 3, 1]}]}, "image 9"),
        ({"images": [{"id": 8}, {"id": 8}]}, "two images have the id 8"),
    ],
)
def test_bad_coco(tmp_path, change, message):
    with pytest.raises(DataError, match=message):
        read_annotations(save(tmp_path, coco_of_others(**change)), image="a.tif")


def boxes(*places, size=(1000, 800), **more):
    return {
        "images": [{"id": 1, "file_name": "a.png", "width": size[0], "height": size[1]}],
        "categories": [{"id": 1, "name": "mitotic figure"}],
        "annotations": [{"image_id": 1, "category_id": 1, "bbox": list(b), **more} for b in places],
    }


@pytest.mark.parametrize(
    ("content", "centers"),
    [
        (boxes((700, 600, 750, 650)), [[725, 625]]),
        (boxes((10, 20, 60, 70)), [[35, 45]]),
        (boxes((100, 90, 150, 140), (20, 30, 70, 80)), [[125, 115], [45, 55]]),
        (boxes((700, 600, 50, 50)), [[725, 625]]),
        (boxes((10, 20, 30, 40), area=1200), [[25, 40]]),
        (boxes((10, 20, 30, 40), area=400), [[20, 30]]),
    ],
)
def test_what_boxes_are_is_told_from_their_numbers(tmp_path, content, centers):
    assert read_annotations(save(tmp_path, content)).xy.tolist() == centers


def test_boxes_that_may_be_either_are_refused_until_the_user_says(tmp_path):
    path = save(tmp_path, boxes((10, 20, 30, 40), (5, 5, 20, 30)))
    with pytest.raises(DataError, match="say which with --boxes"):
        read_annotations(path)
    assert read_annotations(path, boxes="sizes").xy.tolist() == [[25, 40], [15, 20]]
    assert read_annotations(path, boxes="corners").xy.tolist() == [[20, 30], [12.5, 17.5]]


def test_boxes_outside_their_image_are_refused(tmp_path):
    with pytest.raises(DataError, match="lie outside their images"):
        read_annotations(save(tmp_path, boxes((2000, 100, 50, 50))))


def test_midog_labels_are_corners_and_come_back(tmp_path):
    found = make([one(100, 90), one(300, 200, "non-mitosis"), one(5, 6, "unsure")])
    content = midog_content(found, (1000, 800))
    assert [item["bbox"] for item in content["annotations"]] == [
        [75, 65, 125, 115],
        [275, 175, 325, 225],
    ]
    back = read_annotations(save(tmp_path, content))
    assert back.xy.tolist() == [[100, 90], [300, 200]]
    assert back.labels == ("mitosis", "non-mitosis")


def test_formats_in_millimeters_need_a_scale(tmp_path):
    unknown = Annotations(np.array([[1.0, 2.0]]), ("mitosis",))
    with pytest.raises(ScaleError, match="--mpp"):
        write_annotations(tmp_path / "a.json", unknown, "midog")
    assert not (tmp_path / "a.json").exists()

"""A folder of images with QuPath's exports as a data set."""

from __future__ import annotations

import json

import numpy as np
import pytest
from PIL import Image

from segmitos.errors import DataError
from segmitos.io.datasets import FORMATS, guess_format, load_dataset
from segmitos.io.points.detections import Detections
from tests.factories.points import write_geojson


def feature(geometry, kind, **properties):
    about = {"objectType": "annotation", **properties}
    if kind is not None:
        about["classification"] = {"name": kind, "color": [200, 0, 80]}
    return {
        "type": "Feature",
        "id": "PathAnnotationObject",
        "geometry": geometry,
        "properties": about,
    }


def save(folder, image="s1_a.png", export="s1_a.geojson", features=()):
    folder.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.zeros((80, 100, 3), np.uint8)).save(folder / image)
    if export:
        (folder / export).parent.mkdir(exist_ok=True)
        content = {"type": "FeatureCollection", "features": list(features)}
        (folder / export).write_text(json.dumps(content))


def point(x, y):
    return {"type": "Point", "coordinates": [x, y]}


def test_what_was_drawn_in_qupath_becomes_points(tmp_path):
    square = [[10, 10], [20, 10], [20, 20], [10, 20], [10, 10]]
    save(
        tmp_path,
        features=[
            feature(point(12.5, 30), "Mitotic figure"),
            feature({"type": "MultiPoint", "coordinates": [[1, 2], [3, 4]]}, "Hard negative"),
            feature(
                {"type": "Polygon", "coordinates": [square]},
                "Mitotic figure",
                measurements={"Area px^2": 100.0},
            ),
            feature({"type": "Polygon", "coordinates": [square]}, "Region*"),
            feature(point(50, 50), "Ignore*"),
        ],
    )
    (case,) = load_dataset(f"qupath:{tmp_path}", mpp=0.25)
    assert case.mitoses_xy.tolist() == [[12.5, 30], [15, 15]]
    assert case.hard_negatives_xy.tolist() == [[1, 2], [3, 4]]
    assert (case.slide, case.name, case.size_px, case.mpp) == ("s1", "s1_a", (100, 80), 0.25)


@pytest.mark.parametrize("export", ["s1_a.png.geojson", "annotations/s1_a.geojson"])
def test_where_an_export_may_lie(tmp_path, export):
    save(tmp_path, export=export, features=[feature(point(1, 2), "Mitotic figure")])
    (case,) = FORMATS["qupath"].read(tmp_path)
    assert case.mitoses_xy.tolist() == [[1, 2]]
    assert guess_format(tmp_path) == "qupath"


@pytest.mark.parametrize("other", ["s1_a.png.geojson", "annotations/s1_a.geojson"])
def test_two_exports_of_one_image_are_refused(tmp_path, other):
    """One may be older than the other, and nobody can tell which was meant."""
    save(tmp_path, features=[feature(point(1, 2), "Mitotic figure")])
    save(tmp_path, export=other)
    with pytest.raises(DataError, match=r"s1_a\.png has two tables, .*s1_a.*geojson; keep one"):
        load_dataset(f"qupath:{tmp_path}", mpp=0.25)


@pytest.mark.parametrize(
    ("orphan", "image"),
    [
        ("s2_b.geojson", "s2_b.png or the like"),
        ("s2_b.svs.geojson", "s2_b.svs"),
        ("annotations/s2_b.geojson", "s2_b.png or the like"),
    ],
)
def test_an_export_without_its_image_is_named(tmp_path, orphan, image):
    save(tmp_path, features=[feature(point(1, 2), "Mitotic figure")])
    square = [[10, 10], [20, 10], [20, 20], [10, 20], [10, 10]]
    tissue = {"type": "FeatureCollection", "features": []}
    tissue["features"] = [feature({"type": "Polygon", "coordinates": [square]}, "Tissue")]
    (tmp_path / "s2_tissue.geojson").write_text(json.dumps(tissue))
    assert len(load_dataset(f"qupath:{tmp_path}", mpp=0.25)) == 1
    marks = {"type": "FeatureCollection", "features": [feature(point(1, 2), "Mitotic figure")]}
    (tmp_path / orphan).parent.mkdir(exist_ok=True)
    (tmp_path / orphan).write_text(json.dumps(marks))
    problems: list[str] = []
    (case,) = load_dataset(f"qupath:{tmp_path}", mpp=0.25, problems=problems)
    assert case.name == "s1_a"
    assert problems == [f"{tmp_path / orphan} is of no image: {image} is missing"]


def test_an_export_without_objects_says_there_is_none(tmp_path):
    save(tmp_path)
    (case,) = FORMATS["qupath"].read(tmp_path)
    assert case.mitoses_xy.shape == (0, 2) and case.hard_negatives_xy.shape == (0, 2)


def test_our_own_detections_come_back(tmp_path):
    save(tmp_path)
    found = Detections.from_points(np.array([[3.25, 4.5], [60, 70]]), 0.25, "s1_a")
    outline = np.array([[0, 0], [90, 0], [90, 70], [0, 70]])
    for kind in ("annotation", "detection"):
        write_geojson(tmp_path / "s1_a.geojson", found, kind, {"Hotspot": outline})
        (case,) = FORMATS["qupath"].read(tmp_path)
        assert case.mitoses_xy.tolist() == found.xy.tolist()


@pytest.mark.parametrize(
    ("features", "message"),
    [
        ([feature(point(1, 2), None)], "has no class"),
        ([feature(point(1, 2), "Apoptosis")], "'Apoptosis' is neither mitosis nor hard negative"),
        ([feature(point(1000, 2), "Mitosis")], "1000"),
    ],
)
def test_what_cannot_be_meant_is_refused(tmp_path, features, message):
    save(tmp_path, features=features)
    with pytest.raises(DataError, match=message) as error:
        FORMATS["qupath"].read(tmp_path)
    assert "s1_a" in str(error.value)


def test_images_without_exports(tmp_path):
    save(tmp_path, export=None)
    with pytest.raises(DataError, match="no QuPath export"):
        FORMATS["qupath"].read(tmp_path)
    save(tmp_path, "s2.png", "s2.geojson")
    with pytest.raises(DataError, match=r"s1_a\.png has no annotations"):
        FORMATS["qupath"].read(tmp_path)

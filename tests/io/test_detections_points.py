"""Points as people draw and save them, in QuPath above all."""

import json

import numpy as np
import pytest

from segmitos.errors import DataError, InputError, ScaleError
from segmitos.io.points.classes import Classes
from segmitos.io.points.detections import read_detections
from segmitos.io.points.read import read_annotations
from segmitos.io.points.read_regions import read_regions
from tests.factories.points import read_points


def feature(geometry, kind="Mitotic figure", **properties):
    if kind is not None:
        properties["classification"] = {"name": kind, "color": [200, 0, 0]}
    return {
        "type": "Feature",
        "id": "9b5c7fb1-7d7a-4f0c-9a0a-6f3a7f4b7f10",
        "geometry": geometry,
        "properties": {"objectType": "annotation", **properties},
    }


def point(x, y):
    return {"type": "Point", "coordinates": [x, y]}


def polygon(*corners):
    return {"type": "Polygon", "coordinates": [[*map(list, corners), list(corners[0])]]}


@pytest.fixture
def save(tmp_path):
    def write(content, name="a.geojson"):
        text = content if isinstance(content, str) else json.dumps(content)
        (tmp_path / name).write_text(text, encoding="utf-8")
        return tmp_path / name

    return write


def collection(*features):
    return {"type": "FeatureCollection", "features": list(features)}


def test_points_multipoints_and_classes(save):
    path = save(
        collection(
            feature(point(10.5, 20)),
            feature({"type": "MultiPoint", "coordinates": [[1, 2], [3, 4.5]]}, "Mitosis"),
            feature(point(7, 8), "Non-mitotic figure"),
            feature({"type": "MultiPoint", "coordinates": [[9, 1]]}, "hard_negatives"),
            feature(point(0, 0), "Ignore*"),
            feature(polygon((0, 0), (9, 0), (9, 9)), "Region*"),
        )
    )
    mitoses, negatives = read_points(path)
    assert mitoses.tolist() == [[10.5, 20], [1, 2], [3, 4.5]]
    assert negatives.tolist() == [[7, 8], [9, 1]]
    assert mitoses.dtype == negatives.dtype == np.float64


@pytest.mark.parametrize("wrap", [lambda item: item, lambda item: [item], collection])
def test_feature_array_or_collection(save, wrap):
    assert read_points(save(wrap(feature(point(3, 4)))))[0].tolist() == [[3, 4]]


@pytest.mark.parametrize(
    "classification",
    [
        "Mitosis",
        {"name": "MITOTIC FIGURES"},
        {"names": ["Mitosis", "atypical"], "color": [1, 2, 3]},
        {"name": "Mitosis: metaphase", "colorRGB": -3670016},
    ],
)
def test_forms_of_a_class(save, classification):
    item = feature(point(3, 4), None, classification=classification)
    assert len(read_points(save(item))[0]) == 1


@pytest.mark.parametrize(
    "measurements",
    [
        {"score": 0.75, "area_um2": 12.5, "Nucleus: Area": 3},
        [{"name": "score", "value": 0.75}, {"name": "area_um2", "value": 12.5}],
    ],
)
def test_measurements_as_object_or_list(save, measurements):
    found = read_detections(save(feature(point(3, 4), measurements=measurements)), 0.25)
    assert (found.score[0], found.area_um2[0]) == (0.75, 12.5)


def test_measurements_may_be_nan_or_missing(save):
    text = json.dumps(feature(point(3, 4), measurements={"score": float("nan")}))
    found = read_detections(save(text), 0.25)
    assert np.isnan(found.score[0]) and np.isnan(found.area_um2[0]) and found.name == "a"


def test_what_has_no_class_is_refused(save):
    path = save(collection(feature(point(3, 4), None), feature(point(5, 6))))
    with pytest.raises(DataError, match=r"feature 1 has no class: classify it"):
        read_points(path)


def test_unknown_class_is_refused_by_name_unless_named(save):
    path = save(collection(feature(point(3, 4)), feature(point(5, 6), "Apoptosis")))
    with pytest.raises(DataError, match="feature 2: class 'Apoptosis'"):
        read_points(path)
    taken = read_points(path, classes=Classes({"apoptosis": "non-mitosis"}))
    assert taken[1].tolist() == [[5, 6]]


def test_outlines_are_refused_or_stand_for_their_centroid(save):
    hole = [[2, 2], [2, 3], [3, 3], [3, 2], [2, 2]]
    with_hole = {
        "type": "Polygon",
        "coordinates": [[[0, 0], [4, 0], [4, 4], [0, 4], [0, 0]], hole],
    }
    path = save(
        collection(
            feature(polygon((1000, 0), (1004, 0), (1004, 2), (1000, 2))),
            feature(with_hole),
            feature({"type": "MultiPolygon", "coordinates": [with_hole["coordinates"][:1]]}),
            feature(polygon((5, 5), (5, 5), (5, 5))),
        )
    )
    with pytest.raises(
        DataError, match=r"feature 1 is a Polygon of class Mitotic figure.*centroid"
    ):
        read_points(path)
    mitoses, _ = read_points(path, polygons="centroid")
    middle = (16 * 2 - 2.5) / 15
    assert mitoses == pytest.approx(np.array([[1002, 1], [middle, middle], [2, 2], [5, 5]]))


def test_a_class_that_the_caller_names_is_no_outline_to_leave_out(save):
    cell = polygon((4, 4), (6, 4), (6, 6), (4, 6))
    path = save(collection(feature(cell, "Artifacts"), feature(cell, "Necrosis: old")))
    named = Classes({"artifacts": "non-mitosis"})
    found = read_annotations(path, polygons="centroid", classes=named)
    assert found.of("non-mitosis").tolist() == [[5, 5]]
    assert len(found.regions.excluded) == 1
    both = read_annotations(path, polygons="centroid")
    assert len(both.xy) == 0 and len(both.regions.excluded) == 2


def test_children_are_read_and_containers_passed_over(save):
    core = feature(polygon((0, 0), (9, 0), (9, 9)), None, childObjects=[feature(point(3, 4))])
    core["properties"]["objectType"] = "tmaCore"
    assert read_points(save(core))[0].tolist() == [[3, 4]]


def test_legacy_ids_do_not_matter(save):
    item = feature(point(3, 4)) | {"id": "PathAnnotationObject"}
    assert len(read_points(save(item))[0]) == 1


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"images": []}, "is not GeoJSON"),
        (collection({"type": "Point"}), "feature 1 is not a GeoJSON Feature"),
        (collection(feature(None)), "geometry missing cannot be a mitosis"),
        (collection(feature({"type": "LineString", "coordinates": [[0, 0]]})), "LineString"),
        (collection(feature(point("3", 4))), r"\['3', 4\] are not \[x, y\]"),
        (collection(feature({"type": "Point", "coordinates": []})), r"are not \[x, y\]"),
        (collection(feature(point(1, 2), None, classification=7)), "must be a name, not 7"),
        (collection(feature(point(1, 2), measurements="none")), "measurements must be"),
        ('{"type": "FeatureCollection", "features": [', "line 1: not JSON"),
        ("[" * 100_000, "nested too deeply"),
        ('[{"type":"Feature","geometry":{"type":"Point","coordinates":[NaN,1]}}]', "nan, 1"),
    ],
)
def test_bad_geojson_is_one_clear_line(save, content, message):
    path = save(content, "bad.geojson")
    with pytest.raises(DataError, match=message) as error:
        read_points(path)
    assert str(path) in str(error.value) and "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("text", "mitoses", "negatives"),
    [
        ("x_px,y_px\n1,2\n3.5,4\n", [[1, 2], [3.5, 4]], []),
        ("x,y\n1,2\n\n", [[1, 2]], []),
        ("row,column\n1,2\n", [[2, 1]], []),
        ("x_px;y_px;label\n1;2;mitosis\n3;4;Hard negative\n", [[1, 2]], [[3, 4]]),
        ("label,x,y\n1,5,6\n0,7,8\n", [[5, 6]], [[7, 8]]),
        ("Class\tCentroid X px\tCentroid Y px\nMitosis\t5\t6\n", [[5, 6]], []),
        ("\ufeffx_px,y_px\r\n1,2\r\n", [[1, 2]], []),
        ("x_px,y_px\n", [], []),
    ],
)
def test_tables(save, text, mitoses, negatives):
    found = read_points(save(text, "a.csv"))
    assert [part.tolist() for part in found] == [mitoses, negatives]
    assert all(part.shape[1:] == (2,) for part in found)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "first line must name the columns x_px,y_px"),
        ("1,2\n3,4\n", "not '1,2'"),
        ("x_px,y_px\n1,a\n", "line 2: y_px 'a' is not a number"),
        ("x_px,y_px\n1\n", "line 2: 1 values for 2 columns"),
        ("x_px,y_px,label\n1,2,cell\n", "line 2: label 'cell' is neither"),
    ],
)
def test_bad_tables(save, text, message):
    with pytest.raises(DataError, match=message):
        read_points(save(text, "bad.csv"))


def test_files_that_are_not_points(tmp_path, save):
    with pytest.raises(InputError, match="No such file"):
        read_points(tmp_path / "none.csv")
    with pytest.raises(DataError, match=r"\.csv, .*\.geojson and \.json"):
        read_points(save("x", "a.xml"))
    (tmp_path / "b.csv").write_bytes(b"\xff\x00\x01")
    with pytest.raises(DataError, match="not a text file"):
        read_points(tmp_path / "b.csv")


def test_grand_challenge_points_need_a_scale(save):
    points = [
        {"name": "mitotic figure", "point": [0.25, 0.5, 0]},
        {"name": "non-mitotic figure", "point": [1, 2, 0]},
    ]
    path = save({"type": "Multiple points", "points": points}, "a.json")
    with pytest.raises(ScaleError, match="millimeters"):
        read_points(path)
    mitoses, negatives = read_points(path, mpp=0.25)
    assert mitoses.tolist() == [[1000, 2000]] and negatives.tolist() == [[4000, 8000]]


@pytest.mark.parametrize("kind", [["Polygon"], {"a": 1}, 7, None])
def test_a_region_whose_type_is_no_word_is_refused(save, kind):
    with pytest.raises(DataError, match=r"is not GeoJSON|not a GeoJSON Feature"):
        read_regions(save([{"type": kind, "coordinates": []}]))

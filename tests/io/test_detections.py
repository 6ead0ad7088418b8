import json
import math
import uuid

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from segmitos.errors import DataError, InputError, ScaleError, UsageError
from segmitos.io.json_files import load_json
from segmitos.io.points.detections import Detections, read_detections
from segmitos.io.points.native_json import read_native_annotations
from tests.factories.points import read_points, write_geojson

coordinate = st.floats(-50, 2e5, allow_nan=False, width=64)
known = st.floats(0, 1e3) | st.just(math.nan)
rows = st.lists(st.tuples(coordinate, coordinate, known, known), max_size=8)
scales = st.floats(0.05, 10)


def make(values, mpp=0.2273, name="A03_00"):
    x, y, area, score = np.array(values, dtype=float).reshape(-1, 4).T
    return Detections(x, y, area, score, mpp, name)


# One figure, far from every diagonal, so that swapped or mirrored axes cannot pass.
FIGURE = make([(10.5, 200.25, 30.0, 0.9), (700.0, 3.0, 41.5, 0.75), (33.3, 0.1, 55.0, 0.6)])


@settings(
    max_examples=20, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(values=rows, mpp=scales)
def test_geojson_and_json_come_back_to_the_bit(tmp_path, values, mpp):
    found = make(values, mpp, 'Ä "x", 1')
    write_geojson(tmp_path / "a.geojson", found)
    assert read_detections(tmp_path / "a.geojson") == found
    (tmp_path / "b.geojson").write_text(json.dumps(found.to_geojson("detection")))
    assert read_detections(tmp_path / "b.geojson") == found
    (tmp_path / "a.json").write_text(json.dumps(found.to_json()))
    assert read_detections(tmp_path / "a.json") == found


@settings(
    max_examples=20, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(values=rows, mpp=scales)
def test_csv_comes_back_to_the_bit(tmp_path, values, mpp):
    found = make(values, mpp, "a")
    (tmp_path / "a.csv").write_text(found.to_csv())
    assert read_detections(tmp_path / "a.csv", mpp) == found


@pytest.mark.parametrize("mpp", [0.25, 0.2273, 0.5, 0.2265, 0.252, 1.0])
def test_csv_tells_its_scale(tmp_path, mpp):
    found = make([(10.1, 20.7, 1, 1), (1663.3, 4.9, 1, 1)], mpp, "a")
    (tmp_path / "a.csv").write_text(found.to_csv())
    assert read_detections(tmp_path / "a.csv") == found


def test_csv_layout():
    assert make([(1.5, 2, 3, 0.5), (4, 8, math.nan, math.nan)], 0.5).to_csv() == (
        "x_px,y_px,x_um,y_um,area_um2,score\n1.5,2.0,0.75,1.0,3.0,0.5\n4.0,8.0,2.0,4.0,,\n"
    )
    assert make([]).to_csv() == "x_px,y_px,x_um,y_um,area_um2,score\n"


def test_geojson_is_what_qupath_reads():
    content = FIGURE.to_geojson()
    assert content["type"] == "FeatureCollection"
    feature = content["features"][0]
    assert feature["type"] == "Feature"
    assert feature["geometry"] == {"type": "Point", "coordinates": [10.5, 200.25]}
    assert feature["properties"] == {
        "objectType": "annotation",
        "classification": {"name": "Mitotic figure", "color": [200, 0, 80]},
        "measurements": {"score": 0.9, "area_um2": 30.0},
    }
    ids = [item["id"] for item in content["features"]]
    assert len(set(ids)) == 3 and all(uuid.UUID(value).version == 5 for value in ids)
    assert FIGURE.to_geojson() == content
    lighter = FIGURE.to_geojson("detection")["features"]
    assert {item["properties"]["objectType"] for item in lighter} == {"detection"}
    with pytest.raises(UsageError, match="'cell'"):
        FIGURE.to_geojson("cell")


def test_equal_detections_keep_distinct_ids():
    twice = make([(1, 2, 3, 0.5), (1, 2, 3, 0.5)]).to_geojson()["features"]
    assert twice[0]["id"] != twice[1]["id"]


def test_geojson_schema():
    jsonschema = pytest.importorskip("jsonschema")
    position = {"type": "array", "items": {"type": "number"}, "minItems": 2, "maxItems": 3}
    ring = {"type": "array", "items": position, "minItems": 4}
    shapes = {
        "Point": position,
        "Polygon": {"type": "array", "items": ring, "minItems": 1},
    }
    geometry = {
        "oneOf": [
            {
                "type": "object",
                "required": ["type", "coordinates"],
                "properties": {"type": {"const": name}, "coordinates": shape},
            }
            for name, shape in shapes.items()
        ]
    }
    feature = {
        "type": "object",
        "required": ["type", "geometry", "properties"],
        "properties": {
            "type": {"const": "Feature"},
            "id": {"type": ["string", "number"]},
            "geometry": geometry,
            "properties": {"type": ["object", "null"]},
        },
        "not": {"anyOf": [{"required": ["coordinates"]}, {"required": ["features"]}]},
    }
    schema = {
        "type": "object",
        "required": ["type", "features"],
        "properties": {
            "type": {"const": "FeatureCollection"},
            "features": {"type": "array", "items": feature},
        },
        "not": {"anyOf": [{"required": ["geometry"]}, {"required": ["properties"]}]},
    }
    square = np.array([(0, 0), (10, 0), (10, 10), (0, 10)])
    jsonschema.validate(FIGURE.to_geojson(regions={"Hotspot": square}), schema)
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate({"type": "FeatureCollection", "features": [{"type": "Point"}]}, schema)


def test_hotspot_is_a_named_region_and_no_mitosis(tmp_path):
    square = np.array([(0, 0), (10, 0), (10, 20), (0, 20)])
    write_geojson(tmp_path / "a.geojson", FIGURE, regions={"Hotspot": square})
    region = json.loads((tmp_path / "a.geojson").read_text())["features"][0]
    assert (
        region["properties"]["name"] == region["properties"]["classification"]["name"] == "Hotspot"
    )
    ring = region["geometry"]["coordinates"][0]
    assert ring == [[0, 0], [10, 0], [10, 20], [0, 20], [0, 0]]
    assert read_detections(tmp_path / "a.geojson") == FIGURE
    mitoses, negatives = read_points(tmp_path / "a.geojson")
    assert np.array_equal(mitoses, FIGURE.xy) and negatives.shape == (0, 2)
    with pytest.raises(UsageError, match="three corners"):
        FIGURE.to_geojson(regions={"Hotspot": square[:2]})


def test_every_writer_keeps_axes_apart(tmp_path):
    """The figure, mirrored and transposed, stays mirrored and transposed through each format."""
    for change in (lambda xy: xy, lambda xy: xy[:, ::-1], lambda xy: [1000, 0] + xy * [-1, 1]):
        xy = np.asarray(change(FIGURE.xy))
        found = Detections(xy[:, 0], xy[:, 1], FIGURE.area_um2, FIGURE.score, 0.25)
        write_geojson(tmp_path / "a.geojson", found)
        (tmp_path / "a.csv").write_text(found.to_csv())
        (tmp_path / "a.json").write_text(json.dumps(found.to_json()))
        for name in ("a.geojson", "a.csv", "a.json"):
            assert np.array_equal(read_points(tmp_path / name)[0], xy), name
        first = (tmp_path / "a.csv").read_text().splitlines()[1].split(",")
        assert [float(value) for value in first[:2]] == xy[0].tolist()


def test_detections_are_a_value():
    x = np.array([1.0, 2.0])
    found = Detections(x, x, x, x, 0.25)
    x[0] = 99
    assert found.x_px[0] == 1 and len(found) == 2 and found.xy.shape == (2, 2)
    with pytest.raises(ValueError, match="read-only"):
        found.x_px[0] = 5
    assert found.select(np.array([False, True])).x_px.tolist() == [2.0]
    assert found.select(np.array([1, 0])).x_px.tolist() == [2.0, 1.0]
    assert found != Detections(x, x, x, x, 0.25) and found != "detections"
    unknown = Detections.from_points(found.xy, 0.25)
    assert np.isnan(unknown.score).all() and unknown == Detections.from_points(found.xy, 0.25)


def test_dataframe_has_the_columns_of_the_csv():
    pytest.importorskip("pandas")
    table = FIGURE.to_dataframe()
    assert ",".join(table.columns) == FIGURE.to_csv().splitlines()[0]
    assert table["x_um"].tolist() == (FIGURE.x_px * 0.2273).tolist() and len(table) == 3


def test_impossible_detections():
    one = np.ones(1)
    with pytest.raises(UsageError, match="one length"):
        Detections(one, np.ones(2), one, one, 0.25)
    with pytest.raises(UsageError, match="finite"):
        Detections(one * math.nan, one, one, one, 0.25)
    for mpp in (0, -1, 1e9, math.nan):
        with pytest.raises(ScaleError, match="slide 7"):
            Detections(one, one, one, one, mpp, "slide 7")


@pytest.mark.slow
def test_many_detections_stay_quick(tmp_path):
    values = np.random.default_rng(0).uniform(0, 1e5, (20_000, 4))
    found = make(values)
    write_geojson(tmp_path / "a.geojson", found, "detection")
    assert read_detections(tmp_path / "a.geojson") == found


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "first line must name the columns"),
        ("a,b\n1,2\n", "first line must name the columns"),
        ("x_px,y_px\n1,two\n", "line 2: y_px 'two' is not a number"),
        ("x_px,y_px\n1,2\n3,inf\n", "line 3: y_px 'inf' is not a number"),
        ("x_px,y_px\n1,2,3\n", "line 2: 3 values for 2 columns"),
        ("x_px,y_px,x_um,y_um\n10,10,1,1\n20,20,9,9\n", "one multiple"),
    ],
)
def test_bad_csv(tmp_path, text, message):
    (tmp_path / "bad.csv").write_text(text)
    with pytest.raises(InputError, match=message) as error:
        read_detections(tmp_path / "bad.csv")
    assert "bad.csv" in str(error.value) and "\n" not in str(error.value)


def test_missing_scale_and_missing_file(tmp_path):
    (tmp_path / "a.csv").write_text("x_px,y_px\n1,2\n")
    with pytest.raises(ScaleError, match="--mpp"):
        read_detections(tmp_path / "a.csv")
    assert len(read_detections(tmp_path / "a.csv", 0.25)) == 1
    bare = {"type": "FeatureCollection", "features": FIGURE.to_geojson()["features"]}
    (tmp_path / "a.geojson").write_text(json.dumps(bare))
    with pytest.raises(ScaleError, match="--mpp"):
        read_detections(tmp_path / "a.geojson")
    assert len(read_detections(tmp_path / "a.geojson", 0.25)) == 3
    for read in (read_detections, read_points):
        with pytest.raises((InputError, DataError), match=r"none\.json"):
            read(tmp_path / "none.json")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("[]", "not a SegMitos JSON"),
        ('{"format": "segmitos detections", "version": 3}', "version 3"),
        ('{"format": "segmitos detections", "version": 1, "detections": 3}', "array of objects"),
        (
            '{"format": "segmitos detections", "version": 1, "detections": [{"x_px": "1"}]}',
            "detection 1: x_px '1' is not a number",
        ),
        ("{", "line 1: not JSON"),
        ("  ", "is empty"),
    ],
)
def test_bad_json(tmp_path, content, message):
    path = tmp_path / "bad.json"
    path.write_text(content)
    with pytest.raises(DataError, match=message):
        read_native_annotations(path, load_json(path))

"""Tables and files whose points may be read in two ways: they are refused, not guessed at."""

from __future__ import annotations

import json

import pytest
from PIL import Image

from segmitos.cli import main
from segmitos.errors import DataError
from segmitos.io.datasets import load_dataset
from segmitos.io.datasets.table import headless_points
from segmitos.io.points.classes import CLASSES
from segmitos.io.points.read import read_annotations

HEADER = "Image\tName\tClass\tROI\tCentroid X px\tCentroid Y px\tNum points\n"


def read(tmp_path, text, suffix=".csv"):
    path = tmp_path / f"a{suffix}"
    path.write_text(text, encoding="utf-8")
    return read_annotations(path)


@pytest.mark.parametrize(
    "text",
    [
        'x_px\ty_px\n"1,506"\t304.5\n',
        "x_px;y_px\n1.506;304,5\n",
        "x_px;y_px;score\n1506;304;0.5\n1506,5;304;0\n",
    ],
)
def test_two_signs_for_decimals_are_refused(tmp_path, text):
    with pytest.raises(DataError, match="a decimal comma and a decimal point, or one for thous"):
        read(tmp_path, text)


def test_commas_that_may_all_stand_for_thousands_are_refused(tmp_path):
    with pytest.raises(DataError, match="line 2: '1,506': a decimal comma, or one for thousands"):
        read(tmp_path, "x_px\ty_px\n1,506\t304\n2,000\t17\n")
    assert read(tmp_path, "x_px\ty_px\n1,506\t304,5\n").xy.tolist() == [[1.506, 304.5]]


def test_one_sign_for_decimals_is_read(tmp_path):
    assert read(tmp_path, "x_px;y_px\n1506,25;304\n").xy.tolist() == [[1506.25, 304]]


def test_a_table_of_several_images_is_refused(tmp_path):
    with pytest.raises(DataError, match="the column image names 2 images"):
        read(tmp_path, "image,x,y\na.png,1,2\nb.png,3,4\n")
    assert len(read(tmp_path, "image,x,y\na.png,1,2\na.png,3,4\n,5,6\n")) == 3


@pytest.mark.parametrize("row", ["1506;304;1;2", "1506,304,mitosis,0.9", "1506,304,,"])
def test_further_cells_are_not_taken_for_decimal_commas(tmp_path, row):
    (tmp_path / "a.csv").write_text(f"{row}\n")
    assert headless_points(tmp_path / "a.csv", ("x", "y")).tolist() == [[1506, 304]]


def test_a_row_of_several_points_is_refused(tmp_path):
    row = "a.svs\t\tMitosis\tPoints\t12.5\t14.5\t"
    assert len(read(tmp_path, f"{HEADER}{row}1\n", ".tsv")) == 1
    with pytest.raises(DataError, match="line 2: one row for 5 points"):
        read(tmp_path, f"{HEADER}{row}5\n", ".tsv")


@pytest.mark.parametrize("column", ["class_id", "category_id"])
def test_numbers_of_classes_are_refused(tmp_path, column):
    with pytest.raises(DataError, match=f"line 2: {column} '1' is a number that may mean anyth"):
        read(tmp_path, f"x,y,{column}\n1,2,1\n3,4,0\n")


@pytest.mark.parametrize(
    ("name", "label"),
    [
        ("Mitosis: Negative", None),
        ("mitotic figure: look-alike", None),
        ("Mitosis: Ignore*", None),
        ("Mitosis: unsure", "unsure"),
        ("Mitosis: atypical", "mitosis"),
        ("Hard negative: imposter", "non-mitosis"),
        ("Mitosis: grade 2", "mitosis"),
    ],
)
def test_a_derived_class_that_is_denied_is_unknown(name, label):
    assert CLASSES.label(name) == label


def test_one_centroid_does_not_stand_for_two_cells(tmp_path):
    def square(x):
        return [[[x, 0], [x + 10, 0], [x + 10, 10], [x, 10], [x, 0]]]

    def read_parts(apart):
        geometry = {"type": "MultiPolygon", "coordinates": [square(0), square(apart)]}
        properties = {"classification": {"name": "Mitosis"}}
        feature = {"type": "Feature", "geometry": geometry, "properties": properties}
        (tmp_path / "a.geojson").write_text(json.dumps([feature]))
        return read_annotations(tmp_path / "a.geojson", polygons="centroid")

    assert read_parts(12).xy.tolist() == [[11, 5]]
    with pytest.raises(DataError, match="feature 1: 2 outlines far apart are one object"):
        read_parts(200)


@pytest.fixture
def folder(tmp_path):
    Image.new("RGB", (90, 80), "white").save(tmp_path / "a_1.png")
    (tmp_path / "a_1.csv").write_text("x,y\n10,20\n")
    (tmp_path / "notes.csv").write_text("who,when\nAnna,today\n")
    return tmp_path


def test_a_table_without_its_image_is_named(folder):
    assert len(load_dataset(f"points:{folder}")) == 1
    (folder / "b_1.csv").write_text("x,y\n1,2\n")
    with pytest.raises(DataError, match=r"b_1\.csv is of no image: b_1\.png or"):
        load_dataset(f"points:{folder}")


@pytest.mark.parametrize("name", ["b_1.geojson", "points/b_1.geojson", "points/b_1.csv"])
def test_points_of_any_kind_without_their_image_are_named(folder, name):
    file = folder / name
    file.parent.mkdir(exist_ok=True)
    mark = {"type": "Point", "coordinates": [1, 2]}
    name_of = {"classification": {"name": "Mitosis"}}
    marks = [{"type": "Feature", "geometry": mark, "properties": name_of}]
    file.write_text("x,y\n1,2\n" if file.suffix == ".csv" else json.dumps(marks))
    with pytest.raises(DataError, match=r"b_1\..* is of no image: b_1\.png or"):
        load_dataset(f"points:{folder}")


def test_a_second_table_that_is_named_after_the_whole_file_is_refused(folder):
    table = folder / "a_1.csv"
    other = table.rename(folder / "a_1.png.csv")
    assert len(load_dataset(f"points:{folder}", ["a_1"])[0].mitoses_xy) == 1
    table.write_bytes(other.read_bytes())
    with pytest.raises(DataError, match=r"a_1\.png has two tables, .*; keep one of them"):
        load_dataset(f"points:{folder}")


def test_two_tables_of_one_image_are_refused(folder):
    (folder / "a_1.geojson").write_text("[]")
    with pytest.raises(DataError, match=r"has two tables, a_1\.csv and .*a_1\.geojson"):
        load_dataset(f"points:{folder}")


def test_points_off_the_slide_are_not_converted(folder, capsys):
    table, slide = folder / "far.csv", str(folder / "a_1.png")
    table.write_text("x,y\n85,85\n")
    call = ["convert", str(table), str(folder / "out.json"), "--to", "coco", "--slide", slide]
    assert main(call) == 1 and not (folder / "out.json").exists()
    assert "point (85, 85) lies outside its image of 90 x 80 px" in capsys.readouterr().err

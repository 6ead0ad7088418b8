"""Files as other programs write them, whose positions or classes could be misread in silence."""

from __future__ import annotations

import json
import sqlite3
from contextlib import closing

import numpy as np
import pytest
from PIL import Image

from segmitos.cli import main
from segmitos.errors import DataError, ScaleError, UsageError
from segmitos.io.datasets import left_out, load_dataset
from segmitos.io.datasets.table import headless_points
from segmitos.io.points.annotations import Annotations
from segmitos.io.points.classes import CLASSES, Classes
from segmitos.io.points.geojson import is_excluded
from segmitos.io.points.read import read_annotations
from segmitos.io.points.read_regions import read_regions
from segmitos.io.points.write import write_annotations


def read(tmp_path, content, name="a.csv", **how):
    path = tmp_path / name
    path.write_text(content if isinstance(content, str) else json.dumps(content), "utf-8")
    return read_annotations(path, **how)


@pytest.mark.parametrize(
    "sides", ["width,height", "w,h", "Width_px,Height_px", "bbox_w,bbox_h", "x2,y2", "xmax,ymax"]
)
def test_the_corner_of_a_box_is_not_taken_for_its_middle(tmp_path, sides):
    with pytest.raises(DataError, match="are of boxes, of which x and y may be the corner"):
        read(tmp_path, f"x,y,{sides},label\n100,200,50,50,mitosis\n")


@pytest.mark.parametrize(
    "columns",
    [
        " ,Area,X,Y,BX,BY,Width,Height",
        "id,area,x,y,x1,y1,x2,y2",
        "id,area,x,y,xmin,ymin,width,height",
        "id,area,Centroid X px,Centroid Y px,left,right,Width,Height",
    ],
)
def test_a_middle_that_has_columns_of_its_own_is_read(tmp_path, columns):
    """As ImageJ, scikit-image and QuPath write them; the corner stands beside it."""
    found = read(tmp_path, f"{columns}\n1,9,100.5,200,90,180,20,40\n")
    assert found.xy.tolist() == [[100.5, 200]] and found.labels == ("mitosis",)


@pytest.mark.parametrize(
    "column",
    [
        *("case", "Case ID", "image_id", "slide_id", "img", "image_path", "FileName", "tile"),
        *("Slice", "image_file_name", "image_filename", "Slide No.", "Image #"),
    ],
)
def test_points_of_several_images_are_never_one_images(tmp_path, column):
    text = f"{column},x,y,label\n{{}},1,2,mitosis\n{{}},3,4,mitosis\n"
    assert len(read(tmp_path, text.format("1", "1"))) == 2
    with pytest.raises(DataError, match=f"the column {column.lower()} names 2 images"):
        read(tmp_path, text.format("1", "2"))


def test_positions_in_another_unit_are_refused(tmp_path):
    assert len(read(tmp_path, "x,y,unit,label\n1,2,px,mitosis\n")) == 1
    assert len(read(tmp_path, "x,y,units\n1,2,pixels\n")) == 1
    with pytest.raises(DataError, match="line 2: unit 'um': positions are read in level-0 pixels"):
        read(tmp_path, "x,y,unit,label\n1,2,um,mitosis\n")


@pytest.mark.parametrize("sign", [".", ","])
def test_thousands_between_semicolons_are_refused(tmp_path, sign):
    with pytest.raises(DataError, match=r"line 2: '1.506': a decimal (point|comma), or one for th"):
        read(tmp_path, f"x;y\n1{sign}506;918\n2{sign}000;17\n")
    # Three digits throughout, or one number with another count of them: decimals.
    found = read(tmp_path, f"x;y\n812{sign}554;304{sign}125\n")
    assert found.xy.tolist() == [[812.554, 304.125]]
    assert read(tmp_path, f"x;y\n812{sign}554;304{sign}5\n7;8\n").xy[0, 1] == 304.5
    found = read(tmp_path, f"x;y;score\n101{sign}375;250;0{sign}9\n")
    assert found.xy.tolist() == [[101.375, 250]]


def test_fractions_of_the_image_are_refused(tmp_path):
    with pytest.raises(DataError, match="all positions lie from 0 to 1"):
        read(tmp_path, "x,y\n0.25,0.75\n0.5,1\n")
    assert read(tmp_path, "x,y\n0,1\n").xy.tolist() == [[0, 1]]
    own = Annotations(np.array([[0.25, 0.5]]), ("mitosis",), name="a.png")
    for target, name in (("csv", "b.csv"), ("coco", "b.json"), ("geojson", "b.geojson")):
        write_annotations(tmp_path / name, own, target)
        assert read_annotations(tmp_path / name).xy.tolist() == [[0.25, 0.5]]


def test_candidates_below_the_thresholds_are_no_mitoses(tmp_path):
    text = "id,x_px,y_px,score,detection\na,1,2,0.9,1\nb,3,4,0.1,0\n"
    assert read(tmp_path, text).labels == ("mitosis", "non-mitosis")
    assert read(tmp_path, "x_px,y_px,label,detection\n1,2,mitosis,0\n").labels == ("mitosis",)
    assert read(tmp_path, "x_px,y_px,detection\n1,2,17\n").labels == ("mitosis",)


def test_what_a_reader_wrote_of_candidates_goes_before_what_the_model_makes_of_them(tmp_path):
    text = "id,x_px,y_px,detection,verdict\na,1,2,1,{}\nb,3,4,0,{}\n"
    found = read(tmp_path, text.format("non-mitosis", "mitosis"))
    assert found.labels == ("non-mitosis", "mitosis")
    with pytest.raises(DataError, match="the column 'verdict' with 'keep' is not understood"):
        read(tmp_path, text.format("keep", "drop"))


def test_numbers_that_are_not_read_are_counted(tmp_path, capsys):
    (tmp_path / "a.csv").write_text("x,y,probability\n1,2,0.9\n3,4,\n")
    assert main(["convert", str(tmp_path / "a.csv"), str(tmp_path / "b.json")]) == 0
    assert "left out of" in (told := capsys.readouterr().err) and "1 values of 'prob" in told
    feature = point([1, 2], "Mitosis", measurements={"Probability": 0.5, "score": 0.25})
    found = read(tmp_path, [feature], "a.geojson")
    assert found.score.tolist() == [0.25]
    assert found.left_out == {"kinds of measurements (Probability)": 1}


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("a.csv", "x,y,label\n1,2,debris\n3,4,mitosis\n"),
        (
            "a.json",
            {
                "type": "Multiple points",
                "points": [
                    {"name": "debris", "point": [0.1, 0.2, 0]},
                    {"name": "mitotic figure", "point": [0.1, 0.2, 0]},
                ],
            },
        ),
    ],
)
def test_a_class_that_is_to_be_ignored_is_left_out_of_every_format(tmp_path, name, content):
    found = read(tmp_path, content, name, mpp=0.25, classes=Classes({"debris": "ignore"}))
    assert found.labels == ("mitosis",) and found.left_out == {"debris": 1}


@pytest.mark.parametrize(
    ("name", "label"),
    [
        ("Mitosis: False positive", None),
        ("Mitosis: apoptotic", None),
        ("Mitotic figure: Artefact", None),
        ("Mitosis: maybe", "unsure"),
        ("Mitosis: ?", "unsure"),
        ("Mitosis: atypical", "mitosis"),
        ("Mitosis: metaphase", "mitosis"),
        ("maybe", None),
    ],
)
def test_what_follows_the_colon_of_a_class_is_heard(name, label):
    assert CLASSES.label(name) == label


def point(place, kind, **properties):
    return {
        "type": "Feature",
        "geometry": {"type": "Point", "coordinates": place},
        "properties": {"classification": {"name": kind}, **properties},
    }


def square(x, y, side):
    corners = [[x, y], [x + side, y], [x + side, y + side], [x, y + side], [x, y]]
    return {"type": "Polygon", "coordinates": [corners]}


LINE = {"type": "LineString", "coordinates": [[0, 0], [9, 9]]}


def collection(kind, *parts):
    geometry = {"type": "GeometryCollection", "geometries": list(parts)}
    return point(None, kind) | {"geometry": geometry}


def test_the_areas_of_a_geometry_collection_are_read(tmp_path):
    inner = {"type": "GeometryCollection", "geometries": [square(50, 50, 10)]}
    features = [
        collection("Region*", square(0, 0, 100), LINE),
        collection("Ignore*", square(0, 0, 20), inner),
        point([30, 30], "Mitosis"),
    ]
    regions = read(tmp_path, features, "a.geojson").regions
    inside = [[30, 30], [10, 10], [55, 55], [200, 200]]
    assert regions.contains(np.array(inside)).tolist() == [True, False, False, False]
    assert repr(read_regions(tmp_path / "a.geojson")) == repr(regions)


def test_a_geometry_collection_may_be_points_but_not_points_and_areas(tmp_path):
    places = [point([1, 2], "")["geometry"], point([3, 4], "")["geometry"]]
    found = read(tmp_path, [collection("Mitosis", *places)], "a.geojson")
    assert found.xy.tolist() == [[1, 2], [3, 4]]
    for parts, message in (
        ([*places, square(0, 0, 9)], "points and areas are one object"),
        ([*places, LINE], "geometry LineString cannot be a mitosis"),
        ([], "geometry missing"),
    ):
        with pytest.raises(DataError, match=message):
            read(tmp_path, [collection("Mitosis", *parts)], "a.geojson")


def test_every_bare_geometry_collection_is_a_region(tmp_path):
    items = [{"type": "GeometryCollection", "geometries": [square(n, 0, 10)]} for n in (0, 50)]
    (tmp_path / "roi.geojson").write_text(json.dumps([*items, square(90, 0, 5)]))
    assert len(read_regions(tmp_path / "roi.geojson").included) == 3


@pytest.mark.parametrize(
    "kind", ["Ignored", "Ignore this", "Excluded region", "Necrotic_area", "Artefact (fold)"]
)
def test_what_is_to_be_left_out_is_no_region_to_work_in(tmp_path, kind):
    outlines = [("Tumor", square(0, 0, 100)), (kind, square(0, 0, 20))]
    features = [point(None, name) | {"geometry": area} for name, area in outlines]
    (tmp_path / "roi.geojson").write_text(json.dumps(features))
    regions = read_regions(tmp_path / "roi.geojson")
    assert regions.contains(np.array([[50.0, 50], [10, 10]])).tolist() == [True, False]


@pytest.mark.parametrize("kind", ["Artifact-free", "Necrosis free tumor", "non-necrotic"])
def test_what_is_free_of_something_is_not_left_out(kind):
    assert not is_excluded(kind)


def coco(*annotations):
    return {
        "images": [{"id": 1, "file_name": "a.png", "width": 900, "height": 800}],
        "categories": [{"id": 1, "name": "mitosis"}, {"id": 2, "name": "imposter"}],
        "annotations": [{"image_id": 1, "category_id": 1, **one} for one in annotations],
    }


def test_a_crowd_is_not_one_cell(tmp_path):
    crowd = {"bbox": [10, 20, 200, 200], "area": 40000, "iscrowd": 1}
    with pytest.raises(DataError, match="annotation 1: a box around a crowd"):
        read(tmp_path, coco(crowd), "a.json")
    assert len(read(tmp_path, coco(crowd | {"iscrowd": 0}), "a.json")) == 1


def test_a_member_labels_without_categories_is_no_vote(tmp_path):
    box = {"bbox": [10, 20, 50, 40], "area": 2000}
    others = [["big"], "big", {"size": 3}, [1, None], [[1]], None]
    boxes = [box | {"labels": labels} for labels in ([1, 2], *others)]
    found = read(tmp_path, coco(*boxes), "a.json")
    assert found.confidence[0] == 0.5 and np.isnan(found.confidence[1:]).all()


@pytest.mark.parametrize("filled", [1.0, 0.7])
def test_boxes_of_stated_sizes_are_not_taken_for_corners(tmp_path, filled):
    """The area is that of the box, or of the outline in it."""
    boxes = [
        {"bbox": [10, 20, 30, 40], "area": 1200 * filled},
        {"bbox": [5, 9, 25, 20], "area": 500 * filled},
    ]
    assert read(tmp_path, coco(*boxes), "a.json").xy.tolist() == [[25, 40], [17.5, 19]]
    with pytest.raises(DataError, match=r"its boxes are COCO's \[x, y, width, height\]"):
        load_dataset(f"midog:{tmp_path / 'a.json'}")


def test_pixels_in_a_file_of_millimeters_are_refused(tmp_path):
    content = {"type": "Multiple points", "points": [{"point": [1506, 918, 0]}]}
    with pytest.raises(DataError, match=r"6024000 px of 0\.25 um, on no slide; .* millimeters"):
        read(tmp_path, content, "a.json", mpp=0.25)


def test_an_image_that_nobody_annotated_is_told(tmp_path, capsys):
    content = coco({"bbox": [10, 20, 50, 40], "area": 2000})
    content["images"].append({"id": 2, "file_name": "b.png"})
    (tmp_path / "a.json").write_text(json.dumps(content))
    call = ["convert", str(tmp_path / "a.json"), str(tmp_path / "b.csv"), "--image"]
    assert main([*call, "b.png"]) == 0
    assert "has no annotation of b.png" in capsys.readouterr().err
    assert main([*call, "a.png", "--overwrite"]) == 0
    assert "no annotation" not in capsys.readouterr().err


def test_a_sign_for_thousands_in_a_data_sets_own_table_is_refused(tmp_path):
    columns = "file,tissue,abnormality,severity,x_px,y_px,radius_px"
    (tmp_path / "lesions.csv").write_text(f'{columns}\na.png,G,CIRC,B,"1,012",425,40\n')
    with pytest.raises(DataError, match="line 2: x_px '1,012': a decimal comma, or one"):
        load_dataset(f"mini-mias:{tmp_path}")


@pytest.mark.parametrize("start", [0, 1])
def test_a_column_that_counts_the_lines_is_no_position(tmp_path, start):
    path = tmp_path / "a.csv"
    path.write_text("".join(f"{start + n},{100 * n},300\n" for n in range(3)))
    with pytest.raises(DataError, match="the first column counts the lines, where row should be"):
        headless_points(path, ("row", "column"))
    path.write_text("100,300,5\n101,300,6\n")
    assert headless_points(path, ("row", "column")).tolist() == [[100, 300], [101, 300]]


@pytest.fixture
def field(tmp_path):
    Image.new("RGB", (90, 80), "white").save(tmp_path / "s_1.png")
    (tmp_path / "mpp.txt").write_text("0.25")
    return tmp_path


def test_a_table_of_another_scale_than_its_image_is_refused(field):
    table = field / "s_1.csv"
    table.write_text("x_px,y_px,x_um,y_um\n10,20,5,10\n")
    with pytest.raises(ScaleError, match=r"says 0\.5 um/px, its image s_1\.png 0\.25"):
        load_dataset(f"points:{field}")
    table.write_text("x_px,y_px,x_um,y_um\n10,20,2.5,5\n")
    assert load_dataset(f"points:{field}")[0].mitoses_xy.tolist() == [[10, 20]]


def test_an_image_without_a_scale_has_that_of_its_table(field):
    (field / "mpp.txt").unlink()
    (field / "s_1.csv").write_text("x_px,y_px,x_um,y_um\n10,20,2.5,5\n")
    assert load_dataset(f"points:{field}")[0].mpp == 0.25
    with pytest.raises(UsageError, match=r"--mpp 0\.5: the data set says 0\.25 um/px"):
        load_dataset(f"points:{field}", mpp=0.5)


def test_confidence_that_is_known_of_some_mitoses_is_converted(field, capsys):
    (field / "s_1.csv").write_text("x,y,confidence\n10,20,0.5\n30,40,\n")
    out = field.parent / "out"
    assert main(["dataset", "convert", f"points:{field}", "-o", str(out)]) == 0
    found = read_annotations(out / "s" / "s_1.csv")
    assert found.confidence[0] == 0.5 and np.isnan(found.confidence[1])


@pytest.mark.parametrize("layout", ["tupac16", "mitos12"])
def test_undecided_annotations_of_a_database_are_told(tmp_path, layout):
    path = tmp_path / "a.sqlite"
    found = Annotations(np.array([[1.0, 2], [3, 4]]), ("mitosis",) * 2, name="A00_01.png")
    write_annotations(path, found, "sliderunner")
    assert left_out(f"{layout}:{path}") == []
    with closing(sqlite3.connect(path)) as database:
        database.execute("UPDATE Annotations SET agreedClass = 0 WHERE uid = 2")
        database.commit()
    assert left_out(f"{layout}:{path}") == [
        f"{path}: annotations of other classes are left out: 1 of no class"
    ]

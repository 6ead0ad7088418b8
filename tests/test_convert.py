"""`segmitos convert`: between the formats of other tools, and back without a change."""

from __future__ import annotations

import dataclasses
import itertools
import json
import os
import sqlite3
from contextlib import closing

import numpy as np
import pytest
import tifffile

from segmitos.cli import main
from segmitos.io.points.annotations import Annotations
from segmitos.io.points.detections import Detections
from segmitos.io.points.read import read_annotations
from segmitos.io.points.regions import Regions
from segmitos.io.points.write import FORMATS, write_annotations
from segmitos.options import POINT_FORMATS
from tests.factories.leica import save_scn
from tests.factories.points import rectangle, write_geojson

ENDINGS = {
    "geojson": "a.geojson",
    "csv": "a.csv",
    "json": "a.json",
    "midog": "m.json",
    "coco": "c.json",
    "grand-challenge": "g.json",
}
FOUND = Detections(
    np.array([10.1, 200.75]),
    np.array([1 / 3, 50.0]),
    np.array([33.3, 8.0]),
    np.array([0.9, 0.7]),
    0.2273,
    "A03",
)


@pytest.mark.parametrize(("first", "second"), list(itertools.permutations(ENDINGS, 2)))
def test_every_format_to_every_other_keeps_positions_and_scores(tmp_path, first, second, capsys):
    start = tmp_path / "start.geojson"
    write_geojson(start, FOUND)
    middle, end = tmp_path / ENDINGS[first], tmp_path / f"end-{ENDINGS[second]}"
    assert main(["convert", str(start), str(middle), "--to", first]) == 0
    assert main(["convert", str(middle), str(end), "--to", second, "--mpp", "0.2273"]) == 0
    assert capsys.readouterr().out.endswith(f"2 positions in {end} ({second})\n")
    back = Detections.from_annotations(read_annotations(end, mpp=0.2273))
    assert np.array_equal(back.xy, FOUND.xy) and np.array_equal(back.score, FOUND.score)
    assert back.mpp == FOUND.mpp


LABELED = Annotations(
    np.array([[100.0, 200.0], [300.5, 50.0], [400.0, 60.0]]),
    ("mitosis", "non-mitosis", "unsure"),
    confidence=np.array([1.0, 0.0, 0.5]),
    mpp=0.25,
    name="slide.png",
    regions=Regions((rectangle(0, 0, 900, 700),), (rectangle(5, 5, 20, 20),), ("Reviewed",)),
)
ALL_ENDINGS = ENDINGS | {"sliderunner": "s.sqlite", "midog-labels": "l.json"}
WITHOUT_UNSURE = ("midog", "grand-challenge", "midog-labels")


def test_the_command_line_names_every_format():
    assert tuple(POINT_FORMATS) == FORMATS == tuple(dict.fromkeys(FORMATS))
    assert set(ALL_ENDINGS) == set(FORMATS)


@pytest.mark.parametrize(("first", "second"), list(itertools.permutations(ALL_ENDINGS, 2)))
def test_classes_survive_every_format_that_can_hold_them(tmp_path, first, second, capsys):
    start = tmp_path / "start.json"
    write_annotations(start, LABELED, "json")
    middle, end = tmp_path / ALL_ENDINGS[first], tmp_path / f"end-{ALL_ENDINGS[second]}"
    assert main(["convert", str(start), str(middle), "--to", first, "--mpp", "0.25"]) == 0
    assert main(["convert", str(middle), str(end), "--to", second, "--mpp", "0.25"]) == 0
    said = capsys.readouterr()
    back = read_annotations(end, mpp=0.25)
    lost = first in WITHOUT_UNSURE or second in WITHOUT_UNSURE
    kept = 2 if lost else 3
    assert back.labels == LABELED.labels[:kept] and np.array_equal(back.xy, LABELED.xy[:kept])
    assert ("cannot hold it: 1 unsure" in said.err) == lost
    assert "1 mitosis, 1 non-mitosis" in said.out


def test_regions_and_confidence_go_to_qupath_and_back(tmp_path, capsys):
    first, second = tmp_path / "a.geojson", tmp_path / "b.geojson"
    write_annotations(first, LABELED, "geojson")
    assert main(["convert", str(first), str(second)]) == 0
    back = read_annotations(second)
    assert [len(back.regions.included), len(back.regions.excluded)] == [1, 1]
    np.testing.assert_array_equal(back.regions.included[0][0][:4], LABELED.regions.included[0][0])
    assert back.regions.names == ("Reviewed",)
    np.testing.assert_array_equal(back.confidence, LABELED.confidence)
    assert main(["convert", str(first), str(tmp_path / "c.csv")]) == 0
    assert "cannot hold it: 2 regions" in capsys.readouterr().err


def test_a_slide_gives_scale_and_qupaths_frame(tmp_path):
    field = np.full((300, 400, 3), 230, np.uint8)
    image = save_scn(tmp_path / "slide.scn", field, offset=(64, 32), canvas=(1000, 800))
    (tmp_path / "a.csv").write_text("x,y\n70,40\n")
    out, back = tmp_path / "a.geojson", tmp_path / "b.csv"
    assert main(["convert", str(tmp_path / "a.csv"), str(out), "--slide", str(image)]) == 0
    (feature,) = json.loads(out.read_text())["features"]
    assert feature["geometry"]["coordinates"] == [6, 8]
    assert main(["convert", str(out), str(back), "--slide", str(image)]) == 0
    assert read_annotations(back).xy.tolist() == [[70, 40]]
    # Our own GeoJSON keeps its frame: QuPath shows the copy where it shows the file.
    copy = tmp_path / "c.geojson"
    assert main(["convert", str(out), str(copy), "--polygons"]) == 0
    again = json.loads(copy.read_text())
    assert again["features"][0]["geometry"]["coordinates"] == [6, 8]
    assert again["segmitos"]["qupath_offset_px"] == [64, 32]
    assert read_annotations(copy).xy.tolist() == [[70, 40]]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("x,y,type\n1,2,Lymphocyte\n", "line 2: type 'Lymphocyte' is neither"),
        ("x,y,what\n1,2,mitosis\n3,4,cell\n", "line 3: what 'cell' is neither"),
        ("x;y;Class\n1;2;\n", "line 2: class '' is neither"),
        ("x,y,confidence\n1,2,80\n", "line 2: confidence '80' is not between 0 and 1"),
        ("x,y,confidence\n1,2,high\n", "line 2: confidence 'high' is not a number"),
        ("x,y,label,kind\n1,2,mitosis,imposter\n", "label says 'mitosis' and kind 'imposter'"),
        ('x,y\n1,"1,506"\n', "line 2: y '1,506': a decimal comma, or one for thous"),
        ("x,y\n1,2,3\n", "line 2: 3 values for 2 columns"),
        ("x,y,x\n1,2,3\n", "two columns are named 'x'"),
    ],
)
def test_a_column_that_is_not_understood_is_named(tmp_path, capsys, text, message):
    (tmp_path / "a.csv").write_text(text)
    assert main(["convert", str(tmp_path / "a.csv"), str(tmp_path / "b.json")]) == 1
    error = capsys.readouterr().err
    assert message in error and error.count("\n") == 1 and not (tmp_path / "b.json").exists()


@pytest.mark.parametrize(
    "content",
    [
        "x,y,type\n1.5,2,mitosis\n3,4,look-alike\n",
        "\ufeffx,y,Label\r\n1.5,2,mitosis\r\n3,4,0\r\n",
        'x;y;Klasse\n"1,5";2;Mitosis\n3;4;non-mitotic figure\n',
        "sep=;\nx;y;class\n1,5;2;MF\n3;4;imposter\n",
        "y\tx\tkind\n2\t1,5\t1\n4\t3\t0\n",
    ],
)
def test_tables_as_people_save_them(tmp_path, content):
    path = tmp_path / "a.csv"
    for encoding in ("utf-8", "utf-16"):
        path.write_text(content, encoding=encoding)
        found = read_annotations(path)
        assert found.xy.tolist() == [[1.5, 2], [3, 4]]
        assert found.labels == ("mitosis", "non-mitosis")


def test_a_class_may_be_named_on_the_command_line(tmp_path, capsys):
    (tmp_path / "a.csv").write_text("x,y,type\n1,2,M\n3,4,L\n5,6,mitosis\n")
    arguments = ["convert", str(tmp_path / "a.csv"), str(tmp_path / "b.csv")]
    assert main([*arguments, "--class", "M=mitosis", "--class", "L=non-mitosis"]) == 0
    found = read_annotations(tmp_path / "b.csv")
    assert found.labels == ("mitosis", "non-mitosis", "mitosis")
    assert main([*arguments, "--class", "M"]) == 2
    assert "write NAME=LABEL" in capsys.readouterr().err


def test_the_ending_tells_the_format(tmp_path):
    start = tmp_path / "start.geojson"
    write_geojson(start, FOUND)
    assert main(["convert", str(start), str(tmp_path / "x.csv")]) == 0
    assert (tmp_path / "x.csv").read_text().startswith("x_px,y_px,")
    assert main(["convert", str(start), str(tmp_path / "x.json")]) == 0
    assert json.loads((tmp_path / "x.json").read_text())["format"] == "segmitos detections"


@pytest.mark.parametrize("kind", ["annotation", "detection"])
def test_qupath_objects_are_of_the_type_asked_for(tmp_path, kind):
    start, end = tmp_path / "start.csv", tmp_path / "end.geojson"
    start.write_text(FOUND.to_csv())
    assert main(["convert", str(start), str(end), "--qupath", kind]) == 0
    features = json.loads(end.read_text())["features"]
    assert [item["properties"]["objectType"] for item in features] == [kind, kind]


def test_outlines_stand_for_their_centroids_on_request(tmp_path, capsys):
    start, end = tmp_path / "start.geojson", tmp_path / "end.csv"
    square = [[10, 10], [20, 10], [20, 20], [10, 20], [10, 10]]
    start.write_text(
        json.dumps(
            {
                "type": "Feature",
                "geometry": {"type": "Polygon", "coordinates": [square]},
                "properties": {"classification": {"name": "Mitosis"}},
            }
        )
    )
    arguments = ["convert", str(start), str(end), "--mpp", "0.5"]
    assert main(arguments) == 1
    assert "Polygon" in capsys.readouterr().err and not end.exists()
    assert main([*arguments, "--polygons"]) == 0
    assert end.read_text().splitlines()[1].startswith("15.0,15.0,7.5,7.5,")


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["a.geojson", "b.xml"], 2, "cannot be told"),
        (["a.geojson", "b.csv", "--to", "xml"], 2, "'xml' is not one of"),
        (["a.geojson", "b.csv", "--boxes", "corners"], 2, "has no boxes"),
        (["a.geojson", "b.geojson", "--qupath", "cell"], 2, "'cell'"),
        (["a.geojson", "a.geojson"], 2, "is the input itself"),
        (["a.geojson", "b.csv", "--image", "x"], 2, "is of one image"),
        (["a.geojson", "b.csv", "--mpp", "-1"], 1, "-1"),
        (["missing.csv", "b.json"], 1, "missing.csv"),
        (["a.txt", "b.json"], 1, "a.txt"),
        (["m.json", "b.csv"], 1, "--mpp 0.25"),
        (["null.json", "b.csv"], 1, "null.json is not GeoJSON"),
    ],
)
def test_what_makes_no_sense_is_one_line(tmp_path, monkeypatch, capsys, arguments, code, message):
    monkeypatch.chdir(tmp_path)
    write_geojson(tmp_path / "a.geojson", FOUND)
    (tmp_path / "null.json").write_text("null")
    (tmp_path / "m.json").write_text('{"type": "Multiple points", "points": []}')
    assert main(["convert", *arguments]) == code
    error = capsys.readouterr().err
    assert message in error and error.count("\n") == 1
    assert not (tmp_path / "b.csv").exists()


def test_a_column_of_words_nobody_knows_is_refused_where_there_are_no_classes(tmp_path, capsys):
    table = tmp_path / "a.csv"
    table.write_text("x_px,y_px,verdict\n10,20,yes\n30,40,no\n")
    assert main(["convert", str(table), str(tmp_path / "a.geojson"), "--mpp", "0.25"]) != 0
    said = capsys.readouterr().err
    assert "the column 'verdict' with 'yes' is not understood" in said and "line 2" in said
    assert not (tmp_path / "a.geojson").exists()
    table.write_text("x_px,y_px,annotator,cells\n10,20,Ann,3\n30,40,Ben,4\n")
    assert main(["convert", str(table), str(tmp_path / "a.geojson"), "--mpp", "0.25"]) == 0


@pytest.mark.parametrize("kind", ["geojson", "csv", "coco"])
def test_the_scale_that_a_file_of_points_states_holds(tmp_path, capsys, kind):
    found = Annotations.from_groups(np.array([[100.0, 40.0]]), np.zeros((0, 2)), np.zeros((0, 2)))
    source, image = tmp_path / f"a.{kind.replace('coco', 'json')}", tmp_path / "a.tif"
    write_annotations(source, dataclasses.replace(found, mpp=0.25, name="a.tif"), kind)
    coarse = (10_000 / 0.5, 10_000 / 0.5)
    pixels = np.full((200, 300, 3), 200, np.uint8)
    tifffile.imwrite(image, pixels, resolution=coarse, resolutionunit="CENTIMETER")
    for given in (["--slide", str(image)], ["--mpp", "0.5"], []):
        out = tmp_path / "out.json"
        assert main(["convert", str(source), str(out), "--to", "midog", "--overwrite", *given]) == 0
        (point,) = json.loads(out.read_text())["points"]
        assert point["point"][:2] == pytest.approx([0.025, 0.01])
        said = capsys.readouterr().err
        assert ("says 0.25 um/px, 0.5 was given" in said) == bool(given)
    # What the warnings advise.
    insist = ["--mpp", "0.5", "--override-mpp", "--to", "midog", "--overwrite"]
    for given in (["--slide", str(image)], []):
        assert main(["convert", str(source), str(out), *insist, *given]) == 0
        (point,) = json.loads(out.read_text())["points"]
        assert point["point"][:2] == pytest.approx([0.05, 0.02])
        assert not capsys.readouterr().err


def test_on_a_slide_whose_pixels_are_not_square_one_value_may_be_insisted_on(tmp_path, capsys):
    image, table, out = (tmp_path / name for name in ("a.tif", "a.csv", "out.json"))
    tall = (10_000 / 0.25, 10_000 / 0.5)
    pixels = np.full((200, 300, 3), 200, np.uint8)
    tifffile.imwrite(image, pixels, resolution=tall, resolutionunit="CENTIMETER")
    table.write_text("x_px,y_px\n100,40\n")
    call = ["convert", str(table), str(out), "--to", "midog", "--slide", str(image)]
    assert main(call) == 1
    assert "insist on one value with --mpp and --override-mpp" in capsys.readouterr().err
    assert main([*call, "--override-mpp"]) == 2
    assert main([*call, "--mpp", "0.25", "--override-mpp"]) == 0
    assert json.loads(out.read_text())["points"][0]["point"] == [0.025, 0.01, 0]


def test_rounded_micrometers_are_named_and_a_given_scale_takes_their_place(tmp_path, capsys):
    table, out = tmp_path / "a.csv", tmp_path / "out.json"
    table.write_text("x_px,y_px,x_um,y_um\n10,20,2.3,4.5\n1000,30,227.3,6.8\n")
    call = ["convert", str(table), str(out)]
    assert main(call) == 1
    said = capsys.readouterr().err
    assert "227.3 um are 1000 px, and 4.5 um are 20 px; give the scale with --mpp" in said
    assert main([*call, "--mpp", "0.2273"]) == 0
    assert read_annotations(out).mpp == 0.2273


@pytest.mark.parametrize("target", FORMATS)
def test_a_file_whose_name_is_no_utf8_goes_into_every_format(tmp_path, target):
    source = tmp_path / os.fsdecode(b"f\xff.csv")
    try:
        source.write_text("x_px,y_px,x_um,y_um\n10,20,2.5,5\n")
    except OSError:
        pytest.skip("the disk holds names in UTF-8 alone")
    out = tmp_path / "out.json"
    out = out.with_suffix({"geojson": ".geojson", "csv": ".csv"}.get(target, ".json"))
    assert main(["convert", str(source), str(out), "--to", target]) == 0
    found = read_annotations(out, 0.25)
    assert found.xy.tolist() == [[10.0, 20.0]]
    assert found.name == ("out" if target == "csv" else r"f\xff")


@pytest.mark.parametrize("target", ["midog", "grand-challenge"])
def test_a_score_that_is_no_probability_is_not_written_as_one(tmp_path, capsys, target):
    table, out = tmp_path / "a.csv", tmp_path / "out.json"
    table.write_text("x_px,y_px,score\n10,20,0.5\n30,40,87\n")
    call = ["convert", str(table), str(out), "--mpp", "0.25", "--to"]
    assert main([*call, target]) == 1
    assert "a: score 87 is no probability from 0 to 1" in capsys.readouterr().err
    assert not out.exists()
    assert main([*call, "coco"]) == 0


def test_changes_that_a_database_does_not_hold_yet_are_not_passed_over(tmp_path, capsys):
    source, out = tmp_path / "a.sqlite", tmp_path / "a.csv"
    found = Annotations(
        np.array([[10.0, 20.0], [30.0, 40.0]]), ("mitosis", "mitosis"), name="a.tif"
    )
    write_annotations(source, found, "sliderunner")
    with closing(sqlite3.connect(source)) as program:
        program.execute("PRAGMA journal_mode = WAL")
        program.execute("UPDATE Annotations SET deleted = 1 WHERE uid = 2")
        program.commit()
        assert main(["convert", str(source), str(out)]) == 1
        error = capsys.readouterr().err
        assert "a.sqlite-wal holds changes that are not in it yet" in error
        assert error.count("\n") == 1 and not out.exists()
    assert main(["convert", str(source), str(out)]) == 0
    assert read_annotations(out).xy.tolist() == [[10, 20]]


def test_points_of_an_image_without_a_name_come_back_from_a_database(tmp_path):
    source, out = tmp_path / "a.json", tmp_path / "b.sqlite"
    content = {
        "format": "segmitos detections",
        "version": 1,
        "detections": [{"x_px": 1, "y_px": 2}],
    }
    source.write_text(json.dumps(content))
    assert main(["convert", str(source), str(out)]) == 0
    found = read_annotations(out)
    assert (found.xy.tolist(), found.name) == ([[1, 2]], "b")

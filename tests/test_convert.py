"""`segmitos convert`: between the formats of other tools, and back without a change."""

from __future__ import annotations

import itertools
import json

import numpy as np
import pytest

from segmitos.cli import main
from segmitos.commands.convert import read_any
from segmitos.io.points.detections import Detections, write_geojson

ENDINGS = {
    "geojson": "a.geojson",
    "csv": "a.csv",
    "json": "a.json",
    "midog": "m.json",
    "coco": "c.json",
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
    back = read_any(end, mpp=0.2273)
    assert np.array_equal(back.xy, FOUND.xy) and np.array_equal(back.score, FOUND.score)
    assert back.mpp == FOUND.mpp


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
        (["a.geojson", "b.geojson", "--qupath", "cell"], 2, "'cell'"),
        (["a.geojson", "a.geojson"], 2, "is the input itself"),
        (["a.geojson", "b.csv", "--image", "x"], 2, "is of one image"),
        (["a.geojson", "b.csv", "--mpp", "-1"], 1, "-1"),
        (["missing.csv", "b.json"], 1, "missing.csv"),
        (["a.txt", "b.json"], 1, "a.txt"),
        (["m.json", "b.csv"], 1, "--mpp 0.25"),
    ],
)
def test_what_makes_no_sense_is_one_line(tmp_path, monkeypatch, capsys, arguments, code, message):
    monkeypatch.chdir(tmp_path)
    write_geojson(tmp_path / "a.geojson", FOUND)
    (tmp_path / "m.json").write_text('{"type": "Multiple points", "points": []}')
    assert main(["convert", *arguments]) == code
    error = capsys.readouterr().err
    assert message in error and error.count("\n") == 1
    assert not (tmp_path / "b.csv").exists()

"""QuPath's frame begins at a slide's bounds: detections, regions and data sets, both ways."""

from __future__ import annotations

import json
import shutil

import numpy as np
import pytest

from segmitos.cli import main
from segmitos.errors import DataError, InputError
from segmitos.io.datasets import load_dataset
from segmitos.io.points.read_regions import regions_for, regions_of_slide
from segmitos.io.slide import Slide
from tests.factories.leica import save_scn
from tests.factories.toy_models import write_toy

OFFSET = (640, 320)
CELLS = [(60, 50), (200, 60), (330, 250)]


@pytest.fixture(scope="module")
def work(tmp_path_factory):
    """A slide whose scanned area begins at OFFSET, with three dark cells, and a toy model."""
    folder = tmp_path_factory.mktemp("frames")
    field = np.full((320, 400, 3), (222, 178, 200), np.uint8)
    for x, y in CELLS:
        field[y - 9 : y + 10, x - 9 : x + 10] = (30, 20, 40)
    save_scn(folder / "slide.scn", field, OFFSET, canvas=(1400, 1000))
    return folder, write_toy(folder / "toy.segmitos")


def detect(work, tmp_path, *options):
    folder, model = work
    arguments = ["detect", str(folder / "slide.scn"), "-m", str(model), "-o", str(tmp_path / "out")]
    return main([*arguments, "--threads", "1", "--no-tissue-mask", *map(str, options)])


def points(path):
    features = json.loads(path.read_text())["features"]
    places = [f["geometry"]["coordinates"] for f in features if f["geometry"]["type"] == "Point"]
    # To the cell that each lies on, within two pixels.
    gaps = np.hypot(*(np.array(places)[:, None] - np.array(CELLS)).transpose(2, 0, 1))
    assert (gaps.min(axis=1) < 2).all(), places
    return sorted(CELLS[index] for index in gaps.argmin(axis=1))


def polygon(x, y, width, height, name=None):
    ring = [[x, y], [x + width, y], [x + width, y + height], [x, y + height], [x, y]]
    return {
        "type": "Feature",
        "geometry": {"type": "Polygon", "coordinates": [ring]},
        "properties": {
            "objectType": "annotation",
            "classification": None if name is None else {"name": name},
        },
    }


def save(path, *features):
    path.write_text(json.dumps({"type": "FeatureCollection", "features": list(features)}))
    return path


def test_detections_for_qupath_are_counted_from_the_bounds(work, tmp_path):
    assert detect(work, tmp_path) == 0
    assert points(tmp_path / "out" / "slide" / "detections.geojson") == sorted(CELLS)
    table = (tmp_path / "out" / "slide" / "detections.csv").read_text().splitlines()
    first = [float(cell) for cell in table[1].split(",")[:2]]
    assert first == pytest.approx([60 + OFFSET[0], 50 + OFFSET[1]], abs=2)


def test_regions_drawn_in_qupath_limit_the_work_where_they_were_drawn(work, tmp_path):
    roi = save(tmp_path / "roi.geojson", polygon(0, 0, 130, 320, "Tumor"))
    assert detect(work, tmp_path, "--roi", roi) == 0
    assert points(tmp_path / "out" / "slide" / "detections.geojson") == CELLS[:1]


@pytest.mark.parametrize(
    ("features", "left"),
    [
        ([polygon(0, 0, 400, 320, "Tumor"), polygon(150, 0, 250, 320, "Ignore*")], CELLS[:1]),
        ([polygon(150, 0, 250, 320, "Ignore*")], CELLS[:1]),
        ([polygon(150, 0, 250, 320, "Necrosis")], CELLS[:1]),
        ([polygon(150, 0, 250, 320, "Exclude")], CELLS[:1]),
        ([polygon(150, 0, 250, 320, "Artifacts")], CELLS[:1]),
        ([polygon(150, 0, 250, 320, "Necrosis*")], CELLS[:1]),
        ([polygon(0, 0, 400, 320), polygon(150, 0, 250, 320, "Ignore*: fold")], CELLS[:1]),
        ([polygon(0, 0, 400, 320, "Tumor"), polygon(150, 0, 250, 320, "artefact")], CELLS[:1]),
        ([polygon(0, 0, 400, 150), polygon(0, 0, 150, 320, "Ignore*")], CELLS[1:2]),
    ],
)
def test_what_is_to_be_ignored_is_cut_out(work, tmp_path, features, left):
    assert detect(work, tmp_path, "--roi", save(tmp_path / "roi.geojson", *features)) == 0
    assert points(tmp_path / "out" / "slide" / "detections.geojson") == left


def test_a_region_that_touches_nothing_is_an_error(work, tmp_path, capsys):
    roi = save(tmp_path / "roi.geojson", polygon(5000, 5000, 50, 50, "Tumor"))
    assert detect(work, tmp_path, "--roi", roi) == 1
    assert "no region touches the image slide.scn" in capsys.readouterr().err


def test_what_is_left_out_may_not_cover_every_region(work, tmp_path, capsys):
    features = [polygon(0, 0, 130, 320, "Tumor"), polygon(-9, -9, 150, 400, "Ignore*")]
    assert detect(work, tmp_path, "--roi", save(tmp_path / "roi.geojson", *features)) == 1
    message = "what is to be left out covers every region of the image slide.scn"
    assert message in capsys.readouterr().err


def test_regions_may_be_a_folder_with_one_file_a_slide(work, tmp_path, capsys):
    folder, _ = work
    rois = tmp_path / "rois"
    rois.mkdir()
    with pytest.raises(InputError, match=r"holds no regions of slide\.scn: slide\.geojson"):
        regions_for(rois, folder / "slide.scn")
    assert detect(work, tmp_path, "--roi", rois) == 1
    assert "slide.geojson is missing" in capsys.readouterr().err
    save(rois / "slide.scn.geojson", polygon(0, 0, 130, 320))
    assert detect(work, tmp_path, "--roi", rois) == 0
    assert points(tmp_path / "out" / "slide" / "detections.geojson") == CELLS[:1]
    save(rois / "other.geojson", polygon(0, 0, 9, 9))
    capsys.readouterr()
    assert detect(work, tmp_path, "--roi", rois) == 0
    assert "finished before" in capsys.readouterr().out, "other slides' regions do not concern it"


@pytest.mark.parametrize("object_type", ["cell", "detection"])
def test_cells_that_qupath_detected_are_no_regions(work, tmp_path, capsys, object_type):
    cell = polygon(180, 40, 40, 40, "Tumor")
    cell["properties"]["objectType"] = object_type
    roi = save(tmp_path / "roi.geojson", polygon(0, 0, 130, 320, "Tumor"), cell)
    assert detect(work, tmp_path, "--roi", roi) == 0
    assert points(tmp_path / "out" / "slide" / "detections.geojson") == CELLS[:1]
    assert detect(work, tmp_path, "--roi", save(tmp_path / "cells.geojson", cell)) == 1
    error = capsys.readouterr().err
    assert "holds no polygon to limit the work to; outlines that QuPath has detected: 1," in error


@pytest.mark.parametrize("kind", ["Tumor", "Ignore*"])
def test_one_region_of_several_that_touches_nothing_is_an_error(work, tmp_path, capsys, kind):
    features = [polygon(0, 0, 130, 320, "Tumor"), polygon(5000, 5000, 50, 50, kind)]
    assert detect(work, tmp_path, "--roi", save(tmp_path / "roi.geojson", *features)) == 1
    message = "1 of 2 regions, the first at (5000, 5000), touch nothing of the image slide.scn"
    assert message in capsys.readouterr().err


def test_json_beside_a_file_of_regions_may_hold_anything(work, tmp_path, capsys):
    (tmp_path / "rois").mkdir()
    save(tmp_path / "rois" / "slide.geojson", polygon(0, 0, 130, 320))
    (tmp_path / "rois" / "slide.json").write_text('{"scanner": "X"}')
    assert detect(work, tmp_path, "--roi", tmp_path / "rois") == 0
    assert points(tmp_path / "out" / "slide" / "detections.geojson") == CELLS[:1]
    (tmp_path / "rois" / "slide.geojson").rename(tmp_path / "rois" / "slide.json")
    assert detect(work, tmp_path, "--roi", tmp_path / "rois", "--overwrite") == 0
    assert points(tmp_path / "out" / "slide" / "detections.geojson") == CELLS[:1]


def test_two_files_of_regions_of_one_slide_are_refused(work, tmp_path, capsys):
    (tmp_path / "rois").mkdir()
    for name in ("slide.geojson", "slide.scn.geojson"):
        save(tmp_path / "rois" / name, polygon(0, 0, 130, 320))
    assert detect(work, tmp_path, "--roi", tmp_path / "rois") == 1
    assert "two files of regions of slide.scn, slide.geojson and" in capsys.readouterr().err


def test_a_file_of_regions_is_not_of_two_slides_of_one_name(work, tmp_path, capsys):
    first, second = work[0] / "slide.scn", tmp_path / "slide.scn"
    shutil.copy(first, second)
    (tmp_path / "rois").mkdir()
    save(tmp_path / "rois" / "slide.geojson", polygon(0, 0, 130, 320))
    assert detect(work, tmp_path, second, "--roi", tmp_path / "rois") == 1
    said = capsys.readouterr().err
    for path, other in ((first, second), (second, first)):
        assert (
            f"{path}: {tmp_path / 'rois' / 'slide.geojson'} would be the regions of {other}" in said
        )


def test_a_qupath_data_set_is_read_in_the_slides_pixels(work, tmp_path):
    folder, _ = work
    (tmp_path / "slide.scn").write_bytes((folder / "slide.scn").read_bytes())
    marks = [
        {
            "type": "Feature",
            "geometry": {"type": "Point", "coordinates": [x, y]},
            "properties": {"objectType": "annotation", "classification": {"name": "Mitosis"}},
        }
        for x, y in CELLS
    ]
    save(tmp_path / "slide.geojson", *marks, polygon(0, 0, 130, 320))
    (case,) = load_dataset(f"qupath:{tmp_path}")
    assert case.mitoses_xy.tolist() == [[x + 640, y + 320] for x, y in CELLS]
    assert case.is_reviewed(case.mitoses_xy).tolist() == [True, False, False]
    with Slide.open(tmp_path / "slide.scn") as slide:
        dark = [slide.read(x, y, 1, 1).mean() for x, y in case.mitoses_xy]
        assert max(dark) < 60, "the marks lie on the cells"
        with pytest.raises(DataError, match="touches the image"):
            regions_of_slide(save(tmp_path / "far.geojson", polygon(9e5, 0, 9, 9)), slide)
    save(tmp_path / "slide.geojson", *marks, polygon(0, 0, 130, 320), polygon(9e5, 0, 9, 9))
    with pytest.raises(DataError, match="1 of 2 regions"):
        load_dataset(f"qupath:{tmp_path}")
    save(tmp_path / "slide.geojson", *marks)
    save(tmp_path / "slide.regions.geojson", polygon(0, 0, 130, 320), polygon(9e5, 0, 9, 9))
    with pytest.raises(
        DataError, match=r"slide\.regions\.geojson: 1 of 2 regions, .* \(900000, 0\)"
    ):
        load_dataset(f"qupath:{tmp_path}")

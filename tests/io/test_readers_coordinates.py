"""Coordinate truth: one figure, shifted, mirrored and transposed, through every reader."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from segmitos.io.datasets import FORMATS, load_dataset
from segmitos.io.points.annotations import Annotations
from segmitos.io.points.read import read_annotations
from segmitos.io.points.regions import Regions
from segmitos.io.points.write import write_annotations
from tests.factories.dataset_layouts import (
    LAYOUTS,
    MITOSIS,
    OTHER,
    WITHOUT_OTHERS,
    Field,
    draw,
    save,
)
from tests.factories.points import rectangle

BASE = draw((96, 64), (70, 21), (30, 47))


@pytest.fixture(autouse=True)
def own_cache(tmp_path_factory, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))


def moved(dx: int, dy: int) -> Field:
    (x, y), (u, v) = BASE.mitosis, BASE.other
    return draw(BASE.size, (x + dx, y + dy), (u + dx, v + dy))


def mirrored(field: Field) -> Field:
    last = field.size[0] - 1
    places = [(last - x, y) for x, y in (field.mitosis, field.other)]
    return Field(field.pixels[:, ::-1], *places)


def transposed(field: Field) -> Field:
    places = [(y, x) for x, y in (field.mitosis, field.other)]
    return Field(field.pixels.T, *places)


WAYS = {
    "as drawn": BASE,
    "right and up": moved(9, -7),
    "left and down": moved(-13, 5),
    "mirrored": mirrored(BASE),
    "transposed": transposed(BASE),
    "upside down": transposed(mirrored(transposed(BASE))),
    "turned": mirrored(transposed(BASE)),
}


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("layout", LAYOUTS)
def test_the_figure_is_where_the_reader_says(tmp_path, layout, way):
    field = WAYS[way]
    (case,) = load_dataset(LAYOUTS[layout](tmp_path / "data", field))
    np.testing.assert_allclose(case.mitoses_xy, [field.mitosis], atol=1e-9)
    pixels = np.asarray(Image.open(case.image).convert("L"))
    (x, y) = np.rint(case.mitoses_xy[0]).astype(int)
    assert pixels[y, x] == MITOSIS
    if layout in WITHOUT_OTHERS:
        assert case.hard_negatives_xy.shape == (0, 2)
    else:
        np.testing.assert_allclose(case.hard_negatives_xy, [field.other], atol=1e-9)
        (u, v) = np.rint(case.hard_negatives_xy[0]).astype(int)
        assert pixels[v, u] == OTHER
    if case.size_px is not None:
        assert case.size_px == (pixels.shape[1], pixels.shape[0])
    if case.mask is not None:
        mask = np.asarray(Image.open(case.mask).convert("L"))
        np.testing.assert_array_equal(mask > 127, field.pixels == MITOSIS)


def test_every_format_is_among_them(tmp_path):
    specs = [layout(tmp_path / name, BASE) for name, layout in LAYOUTS.items()]
    assert {spec.partition(":")[0] for spec in specs} == set(FORMATS)


POINT_FORMATS = {
    "geojson": "a.geojson",
    "csv": "a.csv",
    "json": "a.json",
    "grand-challenge": "a.json",
    "coco": "a.json",
    "midog-labels": "a.json",
    "sliderunner": "a.sqlite",
}


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("target", POINT_FORMATS)
def test_every_writer_puts_points_where_every_reader_finds_them(tmp_path, target, way):
    field = WAYS[way]
    unsure = (field.mitosis[0] - 11, field.mitosis[1] + 12)
    places = np.array([field.mitosis, field.other, unsure], float)
    labels = ("mitosis", "non-mitosis", "unsure")
    found = Annotations(places, labels, mpp=0.25, name="field.png")
    path = tmp_path / POINT_FORMATS[target]
    lost = write_annotations(path, found, target, size_px=field.size)
    back = read_annotations(path, mpp=0.25, boxes="corners" if target == "midog-labels" else None)
    kept = 3 - lost.get("unsure", 0)
    np.testing.assert_allclose(back.xy, places[:kept], atol=1e-9)
    assert back.labels == labels[:kept]


@pytest.mark.parametrize("way", WAYS)
def test_regions_move_with_the_figure(tmp_path, way):
    """A region round the mitosis alone, through QuPath's frame and through a data set of points."""
    field = WAYS[way]
    (x, y) = field.mitosis
    regions = Regions((rectangle(x - 5, y - 4, 9, 8),), (rectangle(x + 2, y - 4, 2, 2),))
    points = Annotations(np.array([field.mitosis], float), ("mitosis",), mpp=0.25, regions=regions)
    write_annotations(tmp_path / "a.geojson", points, "geojson", qupath_offset_px=(100, 30))
    back = read_annotations(tmp_path / "a.geojson", qupath_offset_px=(100, 30))
    save(field.pixels, tmp_path / "set" / "s_1.png")
    write_annotations(tmp_path / "set" / "s_1.geojson", points, "geojson")
    (case,) = load_dataset(f"points:{tmp_path / 'set'}")
    for read in (back.regions, case.regions):
        places = np.array([field.mitosis, field.other, (x + 3, y - 3)], float)
        assert read.contains(places).tolist() == [True, False, False]
        rows, columns = np.nonzero(read.mask(1.0, field.pixels.shape))
        # A mask is drawn with its border, and so up to a pixel too wide.
        assert (abs(columns.min() - (x - 5)), abs(columns.max() - (x + 3))) <= (1, 1)
        assert (abs(rows.min() - (y - 4)), abs(rows.max() - (y + 3))) <= (1, 1)

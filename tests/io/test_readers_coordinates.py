"""Coordinate truth: one figure, shifted, mirrored and transposed, through every reader."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from factories.dataset_layouts import LAYOUTS, MITOSIS, OTHER, WITHOUT_OTHERS, Field, draw
from segmitos.io.datasets import FORMATS, load_dataset

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

"""Regions drawn into a mask: a pixel is inside where its center is."""

from __future__ import annotations

import numpy as np
import pytest
import shapely

from segmitos.io.points.regions import Regions


@pytest.mark.parametrize("seed", range(20))
def test_a_mask_holds_the_pixels_whose_centers_are_inside(seed):
    generator = np.random.default_rng(seed)
    ring = generator.uniform(-30, 130, (generator.integers(3, 12), 2))
    hole = generator.uniform(20, 80, (4, 2))
    mask = Regions(((ring, hole),)).mask(0.5, (50, 60))
    y, x = (np.mgrid[:50, :60] + 0.5) / 0.5
    inside, cut = (shapely.make_valid(shapely.Polygon(corners)) for corners in (ring, hole))
    expected = shapely.contains_xy(inside, x, y) & ~shapely.contains_xy(cut, x, y)
    assert np.array_equal(mask, expected)


def test_the_area_of_a_mask_is_that_of_its_region():
    generator, ratios = np.random.default_rng(0), []
    for x, y in generator.uniform(0, 1000, (300, 2)):
        ring = np.array([[x, y], [x + 800, y], [x + 800, y + 800], [x, y + 800]])
        ratios.append(Regions(((ring,),)).mask(1 / 32, (80, 80)).sum() * 32**2 / 800**2)
    assert np.mean(ratios) == pytest.approx(1, abs=0.005)


def test_polygons_beyond_the_mask_are_cut_at_its_border():
    huge = np.array([[-1e9, -1e9], [1e9, -1e9], [1e9, 1e9], [-1e9, 1e9]])
    assert Regions(((huge,),)).mask(1, (4, 5)).all()
    assert not Regions(((huge + 3e9,),)).mask(1, (4, 5)).any()

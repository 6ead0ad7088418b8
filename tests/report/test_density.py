"""The color scale of the map: the same for all slides, even, and told apart without color."""

from __future__ import annotations

import io
import math

import numpy as np
import pytest
from PIL import Image

from segmitos.report.density import SIGMA_UM, TICKS, color_of, density_per_mm2, density_png

# Machado, Oliveira and Fernandes 2009: how a person without red, green or blue cones sees.
BLINDNESS = {
    "protanopia": [[0.152, 1.053, -0.205], [0.115, 0.786, 0.099], [-0.004, -0.048, 1.052]],
    "deuteranopia": [[0.367, 0.861, -0.228], [0.280, 0.673, 0.047], [-0.012, 0.043, 0.969]],
    "tritanopia": [[1.256, -0.077, -0.179], [-0.078, 0.931, 0.148], [0.005, 0.691, 0.304]],
}


def linear(rgb):
    values = np.asarray(rgb, float) / 255
    return np.where(values <= 0.04045, values / 12.92, ((values + 0.055) / 1.055) ** 2.4)


def lightness(linear_rgb):
    """CIE L* of linear sRGB."""
    y = linear_rgb @ [0.2126, 0.7152, 0.0722]
    return np.where(y > 216 / 24389, 116 * np.cbrt(y) - 16, y * 24389 / 27)


def scale(number=61):
    return color_of(2.0 ** np.linspace(0, 6, number))[:, :3]


def test_equal_ratios_are_equal_steps_of_lightness():
    steps = np.diff(lightness(linear(scale())))
    assert (steps < 0).all()  # darker is more
    assert steps.std() < 0.25 * abs(steps.mean())
    ticks = lightness(linear(color_of(np.array(TICKS, float))[:, :3]))
    assert np.diff(ticks).min() == pytest.approx(np.diff(ticks).max(), rel=0.25)


@pytest.mark.parametrize("kind", BLINDNESS)
def test_readers_without_a_kind_of_cones_see_the_same_order(kind):
    seen = np.clip(linear(scale(13)) @ np.array(BLINDNESS[kind]).T, 0, 1)
    assert (np.diff(lightness(seen)) < -1).all()


def test_no_color_of_the_scale_is_that_of_a_stain():
    """Hematoxylin and eosin are pink to purple: red above green, and green the lowest."""
    for tick, (red, green, blue) in zip(
        TICKS, color_of(np.array(TICKS, float))[:, :3], strict=True
    ):
        assert not (int(red) > int(green) + 40 and int(blue) > int(green) + 40) or tick == 64, tick


def test_a_color_means_the_same_on_every_slide():
    few, many = np.full((2, 2), 4.0), np.array([[4.0, 60.0], [4.0, 200.0]])
    assert (color_of(few)[0, 0] == color_of(many)[0, 0]).all()
    assert (color_of(np.array([64.0, 500.0]))[0] == color_of(np.array([64.0, 500.0]))[1]).all()
    assert color_of(np.array([0.0, 0.5, 0.7]))[:, 3].tolist() == [0, 0, 0]


def test_density_is_per_mm2_and_of_about_2_mm2():
    one = density_per_mm2(np.array([[5000.0, 4000.0]]), 10_000, 8000, 1.0)
    assert one.shape == (280, 350)
    # All of the mitosis is somewhere, and at its place it counts as one in 2 mm2, twice as it is
    # the middle that counts most.
    assert one.sum() * (10 / 350) ** 2 == pytest.approx(1, rel=1e-3)
    assert one.max() == pytest.approx(2 / (4 * math.pi * (SIGMA_UM / 1000) ** 2), rel=1e-2)
    assert 4 * math.pi * (SIGMA_UM / 1000) ** 2 == pytest.approx(2.0, rel=0.01)
    rng = np.random.default_rng(0)
    even = rng.uniform(0, 1, (25_000, 2)) * [10_000, 8000]
    middle = density_per_mm2(even, 10_000, 8000, 1.0)[100:180, 120:230]
    assert middle.mean() == pytest.approx(25_000 / 80, rel=0.03)


def test_the_picture_is_clear_off_the_tissue():
    tissue = np.zeros((100, 100), bool)
    tissue[:, 50:] = True
    picture = density_png(np.full((40, 2), 5000.0), 10_000, 10_000, 1.0, tissue)
    alpha = np.asarray(Image.open(io.BytesIO(picture)))[:, :, 3]
    assert alpha[:, :170].max() == 0 and alpha[175, 180] > 150

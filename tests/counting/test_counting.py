import math
import time
from dataclasses import dataclass

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from segmitos.counting.count import count
from segmitos.counting.grading import Unavailable, field_area_mm2
from segmitos.counting.window_search import max_count_window
from segmitos.counting.window_shapes import Box, Disc
from segmitos.counting.windows import count_in_fields, hotspot
from segmitos.errors import ScaleError, UsageError


def most_in_any_box(points, width, height, bounds):
    """Every box with a point on its left edge and one on its top edge, or at a bound."""
    x0, y0, x1, y1 = bounds
    best = 0
    for cx in [*np.clip(points[:, 0] + width / 2, x0, x1), x0, x1]:
        in_x = points[np.abs(points[:, 0] - cx) <= width / 2 * (1 + 1e-9)]
        for cy in [*np.clip(in_x[:, 1] + height / 2, y0, y1), y0, y1]:
            best = max(best, int((np.abs(in_x[:, 1] - cy) <= height / 2 * (1 + 1e-9)).sum()))
    return best


def most_in_any_disc(points, radius, bounds):
    """Every disc with two points on its rim, and one centered on each point."""
    places = list(points)
    for i, a in enumerate(points):
        for b in points[:i]:
            apart = math.dist(a, b)
            if 0 < apart <= 2 * radius:
                rise = math.sqrt(radius**2 - apart**2 / 4) / apart
                across = np.array([a[1] - b[1], b[0] - a[0]]) * rise
                places += [(a + b) / 2 + across, (a + b) / 2 - across]
    inside = [
        p for p in places if bounds[0] <= p[0] <= bounds[2] and bounds[1] <= p[1] <= bounds[3]
    ]
    return max(int((np.hypot(*(points - p).T) <= radius * (1 + 1e-9)).sum()) for p in inside)


@settings(max_examples=60, deadline=None)
@given(
    seed=st.integers(0, 10_000),
    count=st.integers(1, 40),
    width=st.floats(3, 90),
    height=st.floats(3, 90),
    rounded=st.booleans(),
)
def test_box_equals_brute_force(seed, count, width, height, rounded):
    points = np.random.default_rng(seed).uniform(0, 100, (count, 2))
    if rounded:
        # Many points at exactly a window's side from one another: borders count.
        points, width, height = np.round(points / 10) * 10, 20.0, 30.0
    bounds = (width / 2, height / 2, 100 - width / 2, 100 - height / 2)
    held, center = max_count_window(points, Box(width, height), bounds)
    assert held == most_in_any_box(points, width, height, bounds)
    assert Box(width, height).holds(points, center).sum() == held
    rounding = 1e-9
    assert bounds[0] - rounding <= center[0] <= bounds[2] + rounding
    assert bounds[1] - rounding <= center[1] <= bounds[3] + rounding


@settings(max_examples=60, deadline=None)
@given(seed=st.integers(0, 10_000), count=st.integers(1, 30), radius=st.floats(2, 60))
def test_disc_equals_brute_force(seed, count, radius):
    points = np.random.default_rng(seed).uniform(0, 100, (count, 2))
    bounds = (0.0, 0.0, 100.0, 100.0)
    held, center = max_count_window(points, Disc(radius), bounds)
    assert held == most_in_any_disc(points, radius, bounds)
    assert Disc(radius).holds(points, center).sum() == held


@pytest.mark.slow
@pytest.mark.parametrize("window", [Box(700, 500), Disc(300)])
def test_crowds_equal_brute_force(window):
    """Enough points that cells are quartered and bounds prune."""
    generator = np.random.default_rng(5)
    points = np.concatenate(
        [generator.uniform(0, 3000, (150, 2)), generator.normal(1500, 250, (250, 2))]
    )
    half = window.half
    bounds = (half[0], half[1], 3000 - half[0], 3000 - half[1])
    held, _ = max_count_window(points, window, bounds)
    if isinstance(window, Box):
        assert held == most_in_any_box(points, 700, 500, bounds)
    else:
        assert held == most_in_any_disc(points, 300, bounds)


@pytest.mark.slow
@pytest.mark.parametrize("shape", ["square", "circle", "box"])
def test_a_hundred_thousand_points_in_a_second(shape):
    points = np.random.default_rng(0).uniform(0, 1, (100_000, 2)) * [100_000, 80_000]
    start = time.process_time()
    found = hotspot(points, 0.25, 100_000, 80_000, 2.0, shape)
    # One core's time; twice the second asked for, as tests share the machine.
    assert time.process_time() - start < 2
    assert found.count > 460


@pytest.mark.parametrize(
    ("shape", "width_mm", "height_mm"),
    [
        ("square", math.sqrt(2), math.sqrt(2)),
        ("circle", 2 * math.sqrt(2 / math.pi), 2 * math.sqrt(2 / math.pi)),
        ("box", math.sqrt(8 / 3), math.sqrt(3 / 2)),
    ],
)
def test_window_sizes(shape, width_mm, height_mm):
    found = hotspot(np.array([[10_000.0, 9000.0]]), 0.25, 40_000, 20_000, 2.0, shape)
    assert found.width_px * 0.25 / 1000 == pytest.approx(width_mm)
    assert found.height_px * 0.25 / 1000 == pytest.approx(height_mm)
    assert found.count == 1 and found.density_per_mm2 == 0.5
    # A lone mitosis is in the middle of its window.
    assert found.x_px + found.width_px / 2 == pytest.approx(10_000)
    assert found.y_px + found.height_px / 2 == pytest.approx(9000)
    outline = found.outline_xy()
    size = outline.max(axis=0) - outline.min(axis=0)
    assert size == pytest.approx([found.width_px, found.height_px], rel=1e-2)
    rolled = np.roll(outline, -1, axis=0)
    area = abs((outline[:, 0] * rolled[:, 1] - rolled[:, 0] * outline[:, 1]).sum()) / 2
    assert area * 0.25**2 / 1e6 == pytest.approx(2.0, rel=5e-3)


def test_window_stays_inside_the_image():
    corner = np.array([[-0.4, -0.4], [3.0, 2.0]])
    found = hotspot(corner, 0.25, 8000, 8000, 2.0)
    assert found.count == 2 and (found.x_px, found.y_px) == (-0.5, -0.5)
    side = math.sqrt(2e6) / 0.25
    exactly = hotspot(corner, 0.25, side, side, 2.0)
    assert exactly.count == 2 and exactly.x_px == pytest.approx(-0.5)


def test_transposed_points_transpose_the_hotspot():
    points = np.random.default_rng(1).uniform(0, 1, (60, 2)) * [20_000, 9000]
    plain = hotspot(points, 0.25, 20_000, 9000, 1.0)
    turned = hotspot(points[:, ::-1], 0.25, 9000, 20_000, 1.0)
    assert plain.count == turned.count
    window = Box(plain.width_px, plain.height_px)
    for found, xy in ((plain, points), (turned, points[:, ::-1])):
        center = (found.x_px + found.width_px / 2, found.y_px + found.height_px / 2)
        assert window.holds(xy, center).sum() == found.count


def test_order_of_points_does_not_matter():
    points = np.random.default_rng(2).uniform(0, 20_000, (500, 2))
    first = hotspot(points, 0.25, 20_000, 20_000)
    assert hotspot(points[::-1], 0.25, 20_000, 20_000) == first


@dataclass
class Tissue:
    mask: np.ndarray
    mpp: float


def test_window_must_hold_tissue():
    """Five specks of debris off the tissue, three mitoses on it."""
    mask = np.zeros((100, 200), dtype=bool)
    mask[:, :80] = True
    tissue = Tissue(mask, 25.0)
    debris = np.array([[18_000.0, 5000.0]] * 5)
    points = np.concatenate([debris, [[2000, 2000], [3000, 3000], [3500, 2500]]])
    anywhere = hotspot(points, 0.25, 20_000, 10_000, 1.0)
    assert anywhere.count == 5 and anywhere.tissue_fraction == 1
    found = hotspot(points, 0.25, 20_000, 10_000, 1.0, tissue=tissue)
    assert found.count == 3 and found.tissue_fraction == 1
    at_edge = hotspot(np.array([[9000.0, 5000.0]]), 0.25, 20_000, 10_000, 1.0, tissue=tissue)
    # The window is 4000 px wide and must begin at 6000 or before to hold half a window of tissue.
    assert at_edge.count == 1 and 0.5 <= at_edge.tissue_fraction < 1 and at_edge.x_px <= 6000
    strict = hotspot(points[:5], 0.25, 20_000, 10_000, 1.0, tissue=tissue, min_tissue_fraction=0.9)
    assert strict.count == 0


@pytest.mark.parametrize("shape", ["square", "circle"])
def test_share_of_tissue_is_the_masks(shape):
    mask = np.random.default_rng(3).random((120, 160)) < 0.6
    found = hotspot(
        np.array([[8123.0, 6001.0]]), 0.25, 16_000, 12_000, 2.0, shape, Tissue(mask, 25.0), 0.1
    )
    rows, columns = np.mgrid[:1200, :1600]
    xy = np.stack([columns, rows], -1).reshape(-1, 2) * 10 + 4.5
    circle = shape == "circle"
    window = Disc(found.width_px / 2) if circle else Box(found.width_px, found.height_px)
    center = (found.x_px + found.width_px / 2, found.y_px + found.height_px / 2)
    inside = window.holds(xy.astype(float), center)
    covered = np.repeat(np.repeat(mask, 10, 0), 10, 1).reshape(-1)
    assert found.tissue_fraction == pytest.approx(covered[inside].mean(), abs=5e-3)


def test_what_cannot_be_computed_says_why():
    one = np.array([[100.0, 100.0]])
    small = hotspot(one, 0.25, 1663, 1485)
    assert isinstance(small, Unavailable) and not small
    assert "0.416 x 0.371 mm" in small.reason and "1.41 x 1.41 mm window" in small.reason
    nothing = hotspot(np.zeros((0, 2)), 0.25, 50_000, 50_000)
    assert nothing == Unavailable("no mitoses were found")
    bare = Tissue(np.zeros((100, 100), dtype=bool), 100.0)
    assert "50% of tissue" in hotspot(one, 0.25, 40_000, 40_000, tissue=bare).reason


def test_ten_fields_are_a_box_of_their_area():
    points = np.random.default_rng(4).uniform(0, 20_000, (300, 2))
    found = count_in_fields(points, 0.25, 20_000, 20_000, 0.55)
    assert found.area_mm2 == pytest.approx(10 * math.pi * 0.275**2)
    assert found.width_px / found.height_px == pytest.approx(4 / 3)
    assert found == hotspot(points, 0.25, 20_000, 20_000, 10 * field_area_mm2(0.55), "box")
    assert count_in_fields(points, 0.25, 20_000, 20_000, 0.55, fields=1).count < found.count
    with pytest.raises(UsageError, match="0 fields"):
        count_in_fields(points, 0.25, 20_000, 20_000, 0.55, fields=0)


def test_bad_calls_are_named():
    one = np.array([[5.0, 5.0]])
    with pytest.raises(UsageError, match="'hexagon': choose one of square, circle, box"):
        hotspot(one, 0.25, 9000, 9000, shape="hexagon")
    with pytest.raises(UsageError, match="area 0 mm2"):
        hotspot(one, 0.25, 9000, 9000, area_mm2=0)
    with pytest.raises(UsageError, match=r"tissue 1\.5"):
        hotspot(one, 0.25, 9000, 9000, min_tissue_fraction=1.5)
    with pytest.raises(ScaleError):
        hotspot(one, 0, 9000, 9000)


@pytest.mark.parametrize(
    ("positions", "said"),
    [
        (np.array([[5.0, 5.0, 0.9], [6.0, 6.0, 0.8]]), r"\(n, 2\), not \(2, 3\)"),
        (np.array([5.0, 5.0]), r"not \(2,\)"),
        (np.array([[np.nan, 5.0]]), "finite"),
    ],
)
def test_what_is_no_list_of_positions_is_not_counted(positions, said):
    with pytest.raises(UsageError, match=said):
        hotspot(positions, 0.25, 9000, 9000)
    with pytest.raises(UsageError, match=said):
        count(positions, 0.25, 9000, 9000)


def test_positions_off_the_image_are_refused_where_mitoses_are_counted():
    xy = np.array([[11_000.0, 500.0], [200.0, 300.0]])
    assert count(xy, 0.25, 12_000, 9_000).count == 2
    with pytest.raises(UsageError, match=r"1 of 2 positions lie off .* \(500, 11000\); give x bef"):
        count(xy[:, ::-1], 0.25, 12_000, 9_000)
    # The middle of a cell that the edge cuts.
    assert count(np.array([[-2.0, 9_003.0]]), 0.25, 12_000, 9_000).count == 1

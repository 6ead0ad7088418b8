"""Whole equals the sum of its tiles; positions are true; every odd image is handled."""

from __future__ import annotations

import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage

import segmitos.detection.tissue as tissue_module
import segmitos.detection.view as view_module
from segmitos.detection.model import Model
from segmitos.detection.pipeline import DetectOptions, detect, detect_slide
from segmitos.detection.stain import Stain, apply_lookup, od_statistics, stain_lookup
from segmitos.detection.tiling import cut_tiles, shrink_to_tissue
from segmitos.detection.tissue import TissueMask, find_tissue, mark_tissue
from segmitos.detection.view import SlideView, stain_pixels
from segmitos.errors import DataError, ScaleError, UsageError
from segmitos.io.points.regions import Regions
from segmitos.io.slide import Slide
from tests.factories.points import rectangle
from tests.factories.synthetic_fields import draw_field
from tests.factories.toy_models import write_toy, write_toy_cascade


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return Model.load(write_toy(tmp_path_factory.mktemp("toy") / "toy.segmitos"), "cpu", 1)


@pytest.fixture(scope="module")
def field():
    return draw_field(np.random.default_rng(4), size=420, mitoses=14, others=6)


@settings(max_examples=60, deadline=None)
@given(
    st.integers(1, 300),
    st.integers(1, 300),
    st.integers(1, 200),
    st.integers(0, 100),
    st.sampled_from([1, 4, 8]),
)
def test_every_cell_is_written_once_and_read_with_its_context(w, h, side, context, stride):
    cells = np.zeros((-(-h // stride), -(-w // stride)), int)
    for tile in cut_tiles(w, h, side, context, stride):
        cells[tile.row : tile.row + tile.rows, tile.column : tile.column + tile.columns] += 1
        assert tile.width % 32 == tile.height % 32 == tile.x % 32 == tile.y % 32 == 0
        assert tile.x <= max(0, tile.column * stride - context)
        assert tile.y <= max(0, tile.row * stride - context)
        right = min((tile.column + tile.columns) * stride + context, w)
        assert tile.x + tile.width >= right
    assert (cells == 1).all()


@pytest.mark.parametrize("beyond", [0, 12])
def test_the_output_box_is_what_a_tile_writes_and_what_smoothing_reaches(beyond):
    for tile in cut_tiles(700, 500, 160, 64, 4):
        top, left, bottom, right = tile.output_box(4, beyond)
        assert (tile.y + top, tile.x + left) == (tile.row * 4 - beyond, tile.column * 4 - beyond)
        assert (bottom - top, right - left) == (
            tile.rows * 4 + 2 * beyond,
            tile.columns * 4 + 2 * beyond,
        )


@settings(max_examples=60, deadline=None)
@given(st.integers(1, 3000), st.integers(1, 3000), st.integers(32, 900), st.integers(0, 100))
def test_all_tiles_of_a_plane_are_read_at_one_size(w, h, side, context):
    tiles = list(cut_tiles(w, h, side, context, 4))
    assert len({(tile.width, tile.height) for tile in tiles}) == 1


@pytest.mark.parametrize("mpp", [0.25, 0.2273, 0.5])
@pytest.mark.parametrize("tile_px", [32, 96, 160])
def test_the_whole_is_the_sum_of_its_tiles(model, field, mpp, tile_px):
    slide = Slide.from_array(field[0], mpp)
    whole = detect_slide(slide, model, DetectOptions(tissue=False)).detections
    tiled = detect_slide(slide, model, DetectOptions(tissue=False, tile_px=tile_px)).detections
    assert len(whole) == len(tiled) > 0
    np.testing.assert_allclose(whole.xy, tiled.xy, atol=1e-3)
    np.testing.assert_allclose(whole.score, tiled.score, atol=1e-5)
    np.testing.assert_array_equal(whole.area_um2, tiled.area_um2)


def islands(size=1400):
    """Glass with islands of tissue that hold mitoses, some at the very edge of their island."""
    rng = np.random.default_rng(8)
    image = np.full((size, size, 3), 244, np.uint8)
    for x, y, side in ((90, 130, 300), (900, 60, 420), (300, 700, 260), (1010, 1000, 390)):
        image[y : y + side, x : x + side] = draw_field(rng, size=side, mitoses=6, others=2)[0]
    return image


@pytest.mark.parametrize("tile_px", [64, 256, 480])
@pytest.mark.parametrize("threshold", ["otsu", 0.4])
def test_what_tissue_limits_does_not_depend_on_the_tiles(model, tile_px, threshold):
    slide = Slide.from_array(islands(), 0.25)
    options = {"threshold": threshold, "min_score": 0.2}
    whole = detect_slide(slide, model, DetectOptions(**options))
    tiled = detect_slide(slide, model, DetectOptions(tile_px=tile_px, **options))
    np.testing.assert_array_equal(whole.accumulator.histogram, tiled.accumulator.histogram)
    assert whole.accumulator.pixels < 350 * 350 * 0.7
    assert whole.detections == tiled.detections and len(whole.detections) > 15


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 10**6), st.sampled_from([32, 160, 480]), st.sampled_from([1, 4, 32]))
def test_a_trimmed_tile_writes_all_that_is_marked_with_its_context(seed, side, stride):
    rng = np.random.default_rng(seed)
    width, height = (int(n) for n in rng.integers(1, 900, 2))
    context = int(rng.integers(0, 100))
    for tile in cut_tiles(width, height, side, context, stride):
        marked = np.zeros((tile.rows, tile.columns), bool)
        for _ in range(int(rng.integers(1, 4))):
            marked[rng.integers(tile.rows), rng.integers(tile.columns)] = True
        small = shrink_to_tissue(tile, marked, width, height, context, stride)
        assert small.width % 32 == small.height % 32 == small.x % 32 == small.y % 32 == 0
        assert small.width * small.height <= tile.width * tile.height
        top, left = small.row - tile.row, small.column - tile.column
        kept = marked[top : top + small.rows, left : left + small.columns]
        assert kept.shape == (small.rows, small.columns) and kept.sum() == marked.sum()
        for at, reach, first, size, end in (
            (small.column, small.columns, small.x, small.width, width),
            (small.row, small.rows, small.y, small.height, height),
        ):
            assert first <= max(0, at * stride - context)
            assert first + size >= min((at + reach) * stride + context, end)


@pytest.mark.slow
@pytest.mark.parametrize("screened", [False, True])
@pytest.mark.parametrize("tile_px", [32, 64, 160])
def test_the_whole_is_the_sum_of_its_tiles_behind_a_cascade(tmp_path, tile_px, screened):
    """Bit-identical, what smoothing takes from beyond a tile's border included."""
    model = Model.load(write_toy_cascade(tmp_path / "toy.segmitos", screened), "cpu", 1)
    slide = Slide.from_array(islands(), 0.25)
    whole = detect_slide(slide, model, DetectOptions())
    tiled = detect_slide(slide, model, DetectOptions(tile_px=tile_px))
    np.testing.assert_array_equal(whole.accumulator.histogram, tiled.accumulator.histogram)
    assert whole.detections == tiled.detections and len(whole.detections) > 8
    faint = whole.candidates.score < 0.5
    assert faint.any() and not whole.candidates.is_detection[faint].any()


def test_detections_are_where_the_mitoses_are(model, field):
    image, mitoses, _ = field
    found = detect(image, mpp=0.25, model=model, tissue=False)
    gaps = np.hypot(*(mitoses[:, None] - found.xy[None]).transpose(2, 0, 1)).min(axis=1)
    assert np.median(gaps) < 0.7


@pytest.mark.parametrize("change", ["flip x", "flip y", "transpose", "shift"])
def test_detections_move_with_the_image(model, field, change):
    image = field[0][:384, :384]
    before = detect(image, mpp=0.25, model=model, tissue=False).xy
    side = image.shape[0]
    if change == "flip x":
        moved, expected = image[:, ::-1], np.stack([side - 1 - before[:, 0], before[:, 1]], 1)
    elif change == "flip y":
        moved, expected = image[::-1], np.stack([before[:, 0], side - 1 - before[:, 1]], 1)
    elif change == "transpose":
        moved, expected = image.transpose(1, 0, 2), before[:, ::-1]
    else:
        moved = np.pad(image, ((8, 0), (16, 0), (0, 0)), constant_values=230)
        expected = before + np.array([16, 8])
    after = detect(np.ascontiguousarray(moved), mpp=0.25, model=model, tissue=False).xy
    order = np.lexsort((expected[:, 0], expected[:, 1]))
    inner = (expected[order] > 20).all(axis=1) & (expected[order] < side - 20).all(axis=1)
    for point in expected[order][inner]:
        assert np.hypot(*(after - point).T).min() < 0.05


def test_order_and_result_are_the_same_each_time(model, field):
    first = detect(field[0], mpp=0.25, model=model)
    again = detect(field[0], mpp=0.25, model=model)
    np.testing.assert_array_equal(first.xy, again.xy)
    assert list(first.y_px) == sorted(first.y_px)


def test_twice_the_pixels_at_half_the_scale_give_the_same_places(model, field):
    fine = np.kron(field[0], np.ones((2, 2, 1), np.uint8))
    coarse = detect(field[0], mpp=0.25, model=model, tissue=False)
    found = detect(fine, mpp=0.125, model=model, tissue=False)
    assert len(found) == len(coarse)
    gaps = np.abs((found.xy + 0.5) / 2 - 0.5 - coarse.xy)
    assert np.median(gaps) < 0.05 and gaps.max() < 0.6


@pytest.mark.parametrize("shape", [(1, 1), (3, 500), (31, 33), (64, 1)])
def test_small_and_thin_images(model, shape):
    image = np.full((*shape, 3), 240, np.uint8)
    assert len(detect(image, mpp=0.25, model=model)) == 0


def test_an_unknown_scale_is_refused_with_the_remedy(model):
    with pytest.raises(ScaleError, match=r"--mpp 0\.25"):
        detect(np.full((64, 64, 3), 200, np.uint8), model=model)


def test_a_wrong_option_is_refused(model):
    with pytest.raises(UsageError, match="min_score 4"):
        detect(np.full((64, 64, 3), 200, np.uint8), mpp=0.25, model=model, min_score=4)
    with pytest.raises(UsageError, match="threshold 'high'"):
        detect(np.full((64, 64, 3), 200, np.uint8), mpp=0.25, model=model, threshold="high")


def test_color_matching_does_not_depend_on_the_tiling(tmp_path, field):
    target = Stain((0.5, 0.7, 0.4), (0.2, 0.25, 0.15))
    model = Model.load(write_toy(tmp_path / "m.segmitos", stain=target), "cpu", 1)
    slide = Slide.from_array(field[0], 0.25)
    whole = detect_slide(slide, model, DetectOptions()).detections
    tiled = detect_slide(slide, model, DetectOptions(tile_px=64)).detections
    assert len(whole) == len(tiled) > 0
    np.testing.assert_allclose(whole.score, tiled.score, atol=1e-5)


def test_a_slide_is_matched_to_the_stain_that_the_model_states(tmp_path, field):
    """What is detected is what a model without a stain detects on the matched image."""
    target = Stain((0.5, 0.7, 0.4), (0.2, 0.25, 0.15))
    matching = Model.load(write_toy(tmp_path / "m.segmitos", stain=target), "cpu", 1)
    plain = Model.load(write_toy(tmp_path / "p.segmitos"), "cpu", 1)
    image = field[0]
    own = od_statistics(image[::4, ::4].reshape(-1, 3))
    by_hand = apply_lookup(image, stain_lookup(own, target))
    maps = []
    for pixels, model in ((image, matching), (by_hand, plain), (image, plain)):
        slide = Slide.from_array(pixels, 0.25)
        maps.append(detect_slide(slide, model, DetectOptions(tissue=False)).accumulator.histogram)
    np.testing.assert_array_equal(maps[0], maps[1])
    assert (maps[0] != maps[2]).any()


@pytest.mark.parametrize("level", [0, 8, 20, 35, 50, 70, 128, 160, 255])
@pytest.mark.parametrize("kept", [True, False])
def test_a_border_changes_neither_stain_nor_tissue(field, level, kept, monkeypatch):
    """Of any gray: a scanner's fill, a shadow; not wholly even, and off the mask's grid."""
    if not kept:
        monkeypatch.setattr(view_module, "MAX_KEPT_PX", 0)
    target = Stain((0.5, 0.7, 0.4), (0.2, 0.25, 0.15))
    noise = np.random.default_rng(0).normal(0, 1.5, (720, 420, 1))
    bordered = np.clip(level + np.repeat(noise, 3, 2), 0, 255).astype(np.uint8)
    bordered[300:] = field[0]
    views, areas = [], []
    for image in (field[0], bordered):
        view = SlideView(Slide.from_array(np.ascontiguousarray(image), 0.25), 0.25)
        tissue = find_tissue(view.overview())
        views.append(view.stain_matched(target, tissue))
        areas.append(tissue.area_mm2)
    alone, beside = views[0].read(0, 0, 420, 420), views[1].read(0, 300, 420, 420)
    assert np.abs(alone.astype(int) - beside).mean() < 4
    assert areas[1] == pytest.approx(areas[0], rel=0.1)


def test_the_stain_of_bluish_nuclei_is_measured(field):
    """Large ones of a camera are as blue as ink: they are what the staining is matched by."""
    bluish = field[0].copy()
    bluish[:96, :96] = (70, 75, 150)
    assert len(stain_pixels(bluish, 0.25)) == bluish.shape[0] * bluish.shape[1]


def test_a_gray_copy_of_a_section_is_still_tissue(field):
    gray = np.repeat(field[0].mean(axis=2, keepdims=True) * 0.6, 3, axis=2).astype(np.uint8)
    assert mark_tissue(gray, 8.0).mean() > 0.9


def test_a_view_is_not_changed_by_matching_it(field):
    view = SlideView(Slide.from_array(field[0], 0.25), 0.25)
    before = view.read(0, 0, 64, 64)
    tissue = find_tissue(view.overview())
    matched = view.stain_matched(Stain((0.5, 0.7, 0.4), (0.2, 0.25, 0.15)), tissue)
    assert (matched.read(0, 0, 64, 64) != before).any()
    np.testing.assert_array_equal(view.read(0, 0, 64, 64), before)


def test_work_goes_on_32_um_around_tissue():
    mask = np.zeros((40, 40), bool)
    mask[20, 20] = True
    on_map = TissueMask(mask, 8.0, 0.0).on_map(0, 0, 320, 320, 1.0)
    rows, columns = np.nonzero(on_map)
    assert (rows.min(), rows.max() + 1) == (20 * 8 - 32, 21 * 8 + 32)
    assert (columns.min(), columns.max() + 1) == (20 * 8 - 32, 21 * 8 + 32)


@pytest.mark.parametrize(
    ("mpp", "warned"), [(0.25, False), (0.32, False), (0.33, True), (0.62, True)]
)
def test_an_image_coarser_than_the_model_is_warned_of(model, field, mpp, warned):
    result = detect_slide(Slide.from_array(field[0], mpp), model, DetectOptions())
    assert bool(result.warnings) == warned
    assert not warned or f"{mpp} um per pixel" in result.warnings[0]


def test_an_image_far_coarser_than_the_model_is_refused(model, field):
    with pytest.raises(ScaleError, match=r"0\.63 um per pixel is too coarse.*--mpp"):
        detect(field[0], 0.63, model)


def test_regions_limit_the_work(model, field, tmp_path):
    image, _, _ = field
    path = tmp_path / "roi.geojson"
    ring = [[0, 0], [210, 0], [210, 419], [0, 419], [0, 0]]
    path.write_text(json.dumps({"type": "Polygon", "coordinates": [ring]}))
    every = detect(image, mpp=0.25, model=model, tissue=False)
    inside = detect(image, mpp=0.25, model=model, tissue=False, roi=path)
    left = every.xy[every.xy[:, 0] < 200]
    assert 0 < len(inside) < len(every)
    assert all(np.hypot(*(inside.xy - point).T).min() < 1e-6 for point in left)
    assert (inside.x_px < 240).all()


def test_a_region_file_without_polygons_is_refused(model, tmp_path):
    path = tmp_path / "roi.geojson"
    path.write_text(json.dumps({"type": "Point", "coordinates": [1, 2]}))
    with pytest.raises(DataError, match="no polygon"):
        detect(np.full((64, 64, 3), 200, np.uint8), mpp=0.25, model=model, roi=path)


def test_tissue_is_found_and_glass_pen_and_black_are_not():
    picture = np.full((300, 400, 3), 244, np.uint8)
    rng = np.random.default_rng(0)
    picture[50:150, 50:200] = np.clip(rng.normal((205, 150, 195), 12, (100, 150, 3)), 0, 255)
    picture[200:280, 40:120] = (20, 90, 60)
    picture[200:280, 150:230] = (30, 40, 160)
    picture[:, 380:] = 5
    mask = mark_tissue(picture, 8.0)
    assert mask[60:140, 60:190].mean() > 0.99
    assert mask[200:280, 40:120].mean() < 0.02 and mask[200:280, 150:230].mean() < 0.02
    assert mask[:, 385:].mean() == 0 and mask[160:190].mean() == 0


def test_specks_go_the_same_way_on_large_masks(monkeypatch):
    rng = np.random.default_rng(0)
    mask = ndimage.uniform_filter(rng.random((300, 200)), 5) > 0.52
    few = tissue_module._without_specks(mask, 40)
    monkeypatch.setattr(tissue_module, "_LARGE_MASK_PX", 0)
    np.testing.assert_array_equal(tissue_module._without_specks(mask, 40), few)
    assert 0 < few.sum() < mask.sum() and not (few & ~mask).any()


def test_the_area_of_tissue_is_right():
    image = np.full((2000, 2000, 3), 245, np.uint8)
    rng = np.random.default_rng(1)
    image[500:1500, 500:1500] = np.clip(rng.normal((200, 140, 190), 10, (1000, 1000, 3)), 0, 255)
    overview = SlideView(Slide.from_array(image, 1.0), 0.5).overview()
    mask = find_tissue(overview)
    assert mask.area_mm2 == pytest.approx(1.0, rel=0.05)
    everything = find_tissue(overview, everywhere=True)
    assert everything.area_mm2 == pytest.approx(4.0, rel=0.01)


@pytest.mark.parametrize("hole", [False, True])
def test_the_area_of_a_region_is_that_of_its_outline(hole):
    # The last of 48 x 43 pixels of the mask stick out of the field by 0.75 and 0.81.
    field = np.full((1485, 1663, 3), (200, 140, 190), np.uint8)
    overview = SlideView(Slide.from_array(field, 0.2273), 0.25).overview()
    (outer,), (inner,) = rectangle(100, 100, 1400, 1200), rectangle(400, 400, 400, 400)
    regions = Regions(((outer, inner) if hole else (outer,),))
    wanted = (1400 * 1200 - hole * 400 * 400) * 0.2273**2 / 1e6
    found = find_tissue(overview, regions, everywhere=True)
    assert found.area_mm2 == pytest.approx(wanted, rel=1e-9)
    left = Regions((rectangle(0, 0, 800, 1485),), (rectangle(0, 0, 400, 1485),))
    assert find_tissue(overview, left).area_mm2 == pytest.approx(
        400 * 1485 * 0.2273**2 / 1e6, rel=1e-9
    )
    # A fourth of the field is tissue, by the mask alone: 12 x 42.19 of its pixels.
    field[:, 422:] = 245
    part = find_tissue(SlideView(Slide.from_array(field, 0.2273), 0.25).overview())
    assert part.area_mm2 == pytest.approx(422 * 1485 * 0.2273**2 / 1e6, rel=0.005)


@pytest.mark.slow
def test_real_field_tiled_and_whole(data_dir):
    path = data_dir / "mitos-atypia-14" / "H03" / "frames" / "x40" / "H03_01Cb.jpg"
    model = Model.load("lite", threads=2)
    whole = detect(path, mpp=0.2273, model=model)
    tiled = detect(path, mpp=0.2273, model=model, tile_px=512)
    assert len(whole) == len(tiled) > 3
    np.testing.assert_allclose(whole.xy, tiled.xy, atol=0.01)
    np.testing.assert_allclose(whole.score, tiled.score, atol=1e-4)

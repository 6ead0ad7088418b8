"""From map to mitoses: thresholds, blobs, parts in any order."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage

from segmitos.detection.connected import label_pixels
from segmitos.detection.postprocess import (
    BINS,
    FLOOR,
    MapAccumulator,
    Thresholds,
    otsu_threshold,
    smooth,
    smoothing_radius,
)
from segmitos.errors import InputError, ModelError, UsageError


def random_map(seed: int, shape=(60, 80), blobs: int = 8) -> np.ndarray:
    rng = np.random.default_rng(seed)
    result = rng.uniform(0, 0.05, shape)
    rows, columns = np.mgrid[: shape[0], : shape[1]]
    for _ in range(blobs):
        y, x = rng.uniform(0, shape[0]), rng.uniform(0, shape[1])
        near = np.hypot(rows - y, columns - x)
        result = np.maximum(result, rng.uniform(0.5, 1) * np.exp(-((near / 3) ** 2)))
    return result.astype(np.float32)


def whole(map_: np.ndarray) -> MapAccumulator:
    accumulator = MapAccumulator(1.0, 4)
    accumulator.add(map_, 0, 0)
    return accumulator


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 1000), st.integers(7, 40), st.integers(7, 40), st.randoms())
def test_parts_in_any_order_give_the_blobs_of_the_whole(seed, high, wide, random):
    map_ = random_map(seed)
    parts = [
        (map_[row : row + high, column : column + wide], column, row)
        for row in range(0, map_.shape[0], high)
        for column in range(0, map_.shape[1], wide)
    ]
    random.shuffle(parts)
    pieces = MapAccumulator(1.0, 4)
    for part in parts:
        pieces.add(*part)
    for threshold in (0.3, "otsu"):
        a, b = whole(map_).blobs(threshold), pieces.blobs(threshold)
        assert a.threshold == b.threshold
        for name in ("x_px", "y_px", "area_um2", "score"):
            np.testing.assert_array_equal(getattr(a, name), getattr(b, name))


@pytest.mark.parametrize("seed", range(8))
def test_blobs_are_those_of_an_independent_labelling(seed):
    map_ = random_map(seed)
    blobs = whole(map_).blobs(0.3)
    labels, count = ndimage.label(map_ > 0.3, np.ones((3, 3)))
    index = np.arange(1, count + 1)
    centers = np.array(ndimage.center_of_mass(map_, labels, index)).reshape(-1, 2)
    expected = sorted(
        zip(
            centers[:, 0] * 4 + 1.5,
            centers[:, 1] * 4 + 1.5,
            ndimage.sum(np.ones_like(map_), labels, index),
            ndimage.mean(map_.astype(float), labels, index),
            strict=True,
        )
    )
    got = list(zip(blobs.y_px, blobs.x_px, blobs.area_um2, blobs.score, strict=True))
    np.testing.assert_allclose(got, expected, rtol=1e-5)


def test_diagonal_neighbors_are_one_blob_and_row_ends_are_not():
    map_ = np.zeros((6, 6), np.float32)
    map_[1, 1] = map_[2, 2] = 0.9
    map_[3, 5] = map_[4, 0] = 0.9
    blobs = whole(map_).blobs(0.5)
    assert sorted(blobs.area_um2) == [1, 1, 2]


def test_position_is_the_center_of_the_cells_in_pixels():
    map_ = np.zeros((10, 10), np.float32)
    map_[4:6, 2:4] = 0.8
    blobs = whole(map_).blobs(0.5)
    # Cells 2 and 3 cover pixels 8 to 15: their center is 11.5; rows 16 to 23: 19.5.
    assert (blobs.x_px[0], blobs.y_px[0]) == pytest.approx((11.5, 19.5))
    assert blobs.score[0] == pytest.approx(0.8, abs=1e-6) and blobs.area_um2[0] == 4


def test_otsu_is_the_brute_force_optimum():
    rng = np.random.default_rng(3)
    counts = rng.integers(0, 50, 32)
    centers = (np.arange(32) + 0.5) / 32
    best, value = None, -1.0
    for cut in range(1, 32):
        low, high = counts[:cut], counts[cut:]
        if low.sum() and high.sum():
            between = (
                low.sum()
                * high.sum()
                * ((low @ centers[:cut]) / low.sum() - (high @ centers[cut:]) / high.sum()) ** 2
            )
            if between > value + 1e-9:
                best, value = cut / 32, between
    assert otsu_threshold(counts) == pytest.approx(best)


def test_otsu_without_two_classes_finds_nothing():
    assert otsu_threshold(np.array([0, 7, 0, 0])) == 1.0
    empty = whole(np.zeros((20, 20), np.float32))
    assert len(empty.blobs("otsu")) == 0 and len(empty.blobs(0.5)) == 0


def test_otsu_is_holistic_and_never_below_the_floor():
    noise = np.random.default_rng(0).uniform(0, 0.08, (50, 50)).astype(np.float32)
    assert whole(noise).blobs("otsu").threshold == FLOOR
    assert len(whole(noise).blobs("otsu")) == 0
    assert whole(noise).histogram.sum() == 2500 and len(whole(noise).histogram) == BINS


def test_the_filters_are_by_area_and_mean_score():
    map_ = np.zeros((40, 40), np.float32)
    map_[2:6, 2:6] = 0.9
    map_[20:22, 2:4] = 0.95
    map_[20:26, 20:26] = 0.55
    blobs = whole(map_).blobs(0.5)
    keep = blobs.keep(Thresholds(0.5, 10.0, 0.7))
    assert keep.sum() == 1 and blobs.area_um2[keep][0] == 16


def test_smoothing_keeps_mass_and_spreads_by_sigma():
    map_ = np.zeros((41, 41), np.float32)
    map_[20, 20] = 1
    result = smooth(map_, 2.0, 1.0)
    assert result.sum() == pytest.approx(1, abs=1e-5)
    rows = np.arange(41) - 20
    assert np.sqrt((result.sum(axis=1) * rows**2).sum()) == pytest.approx(2.0, rel=0.05)
    assert smooth(map_, 0.0, 1.0) is map_


def test_a_map_full_of_mitoses_is_refused_in_whatever_order_it_comes():
    full, empty = np.full((500, 1000), 0.9, np.float32), np.zeros((500, 1000), np.float32)
    dense, sparse = MapAccumulator(1.0, 4), MapAccumulator(1.0, 4)
    for row in range(4):
        dense.add(full if row < 2 else empty, 0, row * 500)
    with pytest.raises(InputError, match=r"more than 20%.*check --mpp"):
        dense.blobs(0.5)
    # Dense parts that come first are no reason: it is the whole map that counts.
    for row in range(12):
        sparse.add(full if row < 2 else empty, 0, row * 500)
    assert len(sparse.blobs(0.5)) == 1


def test_a_map_that_would_fill_the_memory_is_refused_at_once():
    accumulator = MapAccumulator(1.0, 4)
    with pytest.raises(InputError, match="8,000,000 pixels"):
        for row in range(0, 9000, 500):
            accumulator.add(np.full((500, 1000), 0.9, np.float32), 0, row)


@pytest.mark.parametrize("value", [np.nan, -0.5, 1.5, np.inf])
def test_values_that_are_no_probabilities_are_refused(value):
    map_ = np.zeros((10, 10), np.float32)
    map_[3, 3] = value
    with pytest.raises(ModelError, match="no probabilities"):
        MapAccumulator(1.0, 4).add(map_, 0, 0)


def test_map_pixels_outside_the_mask_do_not_exist():
    map_ = random_map(2)
    mask = np.zeros(map_.shape, bool)
    mask[10:40, 20:60] = True
    masked, cut = MapAccumulator(1.0, 4), MapAccumulator(1.0, 4)
    masked.add(map_, 0, 0, mask)
    cut.add(map_[10:40, 20:60], 20, 10)
    np.testing.assert_array_equal(masked.histogram, cut.histogram)
    np.testing.assert_array_equal(masked.blobs("otsu").x_px, cut.blobs("otsu").x_px)
    assert len(masked.blobs(0.3)) and masked.pixels == 30 * 40


def test_smoothing_is_a_gaussian_cut_at_three_sigma():
    map_ = random_map(1)
    expected = ndimage.gaussian_filter(map_, 1.7, mode="nearest", radius=5)
    assert smoothing_radius(1.7, 1.0) == 5
    np.testing.assert_allclose(smooth(map_, 1.7, 1.0), expected, atol=1e-6)


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 10**6), st.integers(1, 40), st.integers(1, 40), st.floats(0.05, 0.95))
def test_labels_are_those_of_scipy(seed, height, width, share):
    mask = np.random.default_rng(seed).random((height, width)) < share
    expected, number = ndimage.label(mask, np.ones((3, 3)))
    labels, count = label_pixels(*np.nonzero(mask))
    assert count == number
    first = {int(a): int(b) for a, b in zip(labels[::-1], expected[mask][::-1], strict=True)}
    assert [first[int(label)] for label in labels] == expected[mask].tolist()
    assert list(dict.fromkeys(labels.tolist())) == list(range(count))


def test_a_spiral_is_one_region():
    mask = np.zeros((99, 99), bool)
    for ring in range(0, 48, 4):
        mask[ring, ring : 99 - ring] = mask[98 - ring, ring : 99 - ring] = True
        mask[ring : 99 - ring, 98 - ring] = mask[ring + 2 : 99 - ring, ring] = True
        mask[ring + 2, ring : ring + 5] = mask[ring + 2 : ring + 5, ring + 4] = True
    assert label_pixels(*np.nonzero(mask))[1] == ndimage.label(mask, np.ones((3, 3)))[1]


@pytest.mark.parametrize(
    "wrong", [(0.05, 1.0, 0.5), (1.0, 1.0, 0.5), ("half", 1.0, 0.5), (0.5, -1.0, 0.5), (0.5, 1, 2)]
)
def test_impossible_thresholds_are_refused(wrong):
    with pytest.raises(UsageError):
        Thresholds(*wrong)


def test_a_threshold_below_the_floor_is_refused():
    accumulator = MapAccumulator(1.0, 4)
    accumulator.add(np.full((40, 40), 0.5, np.float32), 0, 0)
    with pytest.raises(ValueError, match=r"0\.05 lies below the floor of 0\.1"):
        accumulator.blobs(0.05)


def test_what_equals_a_threshold_is_kept_and_a_map_pixel_at_it_is_not_above():
    """Scores from tables lie on steps, and so do thresholds."""
    map_ = np.zeros((12, 30), np.float32)
    map_[4:6, 4:6] = 0.75
    map_[4:6, 14:16] = 0.5
    accumulator = MapAccumulator(1.0, 4)
    accumulator.add(map_, 0, 0)
    blobs = accumulator.blobs(0.5)
    assert blobs.score.tolist() == [0.75] and blobs.peak.tolist() == [0.75]
    assert blobs.keep(Thresholds(0.5, 4.0, 0.75)).tolist() == [True]
    assert blobs.keep(Thresholds(0.5, 4.01, 0.75)).tolist() == [False]
    assert blobs.keep(Thresholds(0.5, 4.0, 0.76)).tolist() == [False]

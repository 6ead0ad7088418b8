"""Image and points move together; color keeps the image's shape and glass; seeds fix all."""

from __future__ import annotations

import msgspec
import numpy as np
import pytest
from PIL import Image

from segmitos.detection.stain import Stain, apply_lookup, od_statistics, stain_lookup
from segmitos.errors import DataError, UsageError
from segmitos.training.augment import (
    NONE,
    Augmentation,
    augment_scanner,
    augment_stain,
    draw_transform,
    warp,
)
from segmitos.training.recipe import Recipe
from segmitos.training.sampling import common_stain, load_training_images
from tests.factories.synthetic_fields import write_cases


def spot_image(x: int, y: int, size: int = 200) -> np.ndarray:
    image = np.full((size, size, 3), 230, np.uint8)
    image[y - 2 : y + 3, x - 2 : x + 3] = 10
    return image


@pytest.mark.parametrize("seed", range(12))
def test_the_dark_spot_is_where_its_point_says(seed):
    rng = np.random.default_rng(seed)
    x, y = 90 + seed, 105 - seed
    matrix = draw_transform(Augmentation(scale=0.15), rng)
    crop, points, valid = warp(
        spot_image(x, y), np.array([[x, y]], float), (100.0, 98.5), matrix, 64
    )
    weight = 230.0 - crop[:, :, 0]
    rows, columns = np.mgrid[:64, :64]
    found = (weight * columns).sum() / weight.sum(), (weight * rows).sum() / weight.sum()
    assert np.allclose(found, points[0], atol=0.15)
    assert valid.all()


def test_no_augmentation_is_a_plain_cut():
    rng = np.random.default_rng(0)
    image = rng.integers(0, 256, (80, 80, 3), dtype=np.uint8)
    matrix = draw_transform(NONE, rng)
    crop, points, _ = warp(image, np.array([[40.0, 30.0]]), (39.5, 31.5), matrix, 32)
    np.testing.assert_array_equal(crop, image[16:48, 24:56])
    np.testing.assert_allclose(points, [[16.0, 14.0]])
    np.testing.assert_array_equal(augment_stain(crop, None, [], None, NONE, rng), crop)


def test_rotation_rotates_and_does_not_only_flip():
    angles = set()
    for seed in range(40):
        matrix = draw_transform(Augmentation(mirror=False, scale=0), np.random.default_rng(seed))
        angles.add(round(float(np.degrees(np.arctan2(matrix[1, 0], matrix[0, 0]))) / 10))
    assert len(angles) > 15


def test_sixteen_rotations_are_sixteen():
    recipe = Augmentation(rotations=16, mirror=False, scale=0)
    found = {
        tuple(np.round(draw_transform(recipe, np.random.default_rng(s))[0], 6)) for s in range(400)
    }
    assert len(found) == 16


def test_beyond_the_image_is_reflected_and_marked():
    image = spot_image(5, 100)
    _, _, valid = warp(image, np.zeros((0, 2)), (0.0, 100.0), np.eye(2), 32)
    assert not valid[:, :15].any() and valid[:, 17:].all()


def test_a_stain_moved_to_another_has_its_statistics():
    rng = np.random.default_rng(1)
    image = rng.integers(60, 200, (120, 120, 3), dtype=np.uint8)
    stain = od_statistics(image)
    target = Stain((0.8, 0.9, 0.6), (0.3, 0.3, 0.25))
    moved = od_statistics(apply_lookup(image, stain_lookup(stain, target)))
    np.testing.assert_allclose(moved.mean, target.mean, atol=0.03)
    np.testing.assert_allclose(moved.std, target.std, atol=0.03)


def test_glass_stays_glass_and_has_no_stain():
    glass = np.full((64, 64, 3), 255, np.uint8)
    assert od_statistics(glass) is None
    table = stain_lookup(Stain((0.5,) * 3, (0.2,) * 3), Stain((1.0,) * 3, (0.3,) * 3))
    assert (apply_lookup(glass, table) == 255).all()


def test_the_same_seed_gives_the_same_colors_and_another_seed_others():
    image = np.random.default_rng(2).integers(40, 220, (64, 64, 3), dtype=np.uint8)
    stain = od_statistics(image)
    pool = [Stain((0.6,) * 3, (0.25,) * 3)]

    def result(seed: int) -> np.ndarray:
        return augment_stain(image, stain, pool, None, Augmentation(), np.random.default_rng(seed))

    np.testing.assert_array_equal(result(5), result(5))
    assert not np.array_equal(result(5), result(6))


def test_probabilities_out_of_range_are_refused():
    for table, message in (
        ({"blur": 1.5}, r"augmentation\.blur = 1\.5: expected a number <= 1\.0"),
        ({"sharpen": -0.1}, r"augmentation\.sharpen = -0\.1: expected a number >= 0\.0"),
    ):
        with pytest.raises(DataError, match=message):
            Recipe.from_dict({"augmentation": table})
    with pytest.raises(UsageError, match="exclude each other"):
        Augmentation(blur=0.6, sharpen=0.6)


def test_sharpening_and_blur_move_the_contrast_of_fine_detail_and_nothing_else():
    rng = np.random.default_rng(3)
    image = np.clip(rng.normal(140, 12, (64, 64, 3)), 0, 255).astype(np.uint8)

    def spreads(**chances: float) -> tuple[float, float]:
        drawn = [
            augment_scanner(image, msgspec.structs.replace(NONE, **chances), rng) for _ in range(20)
        ]
        return float(np.mean([one.std() for one in drawn])), float(np.mean(drawn))

    plain, level = image.std(), image.mean()
    sharp, sharp_level = spreads(sharpen=1.0)
    soft, soft_level = spreads(blur=1.0)
    assert soft < 0.8 * plain < plain < 1.2 * plain < sharp
    assert abs(sharp_level - level) < 2 and abs(soft_level - level) < 2


def test_matching_brings_a_slide_to_the_common_stain_as_detection_does():
    rng = np.random.default_rng(0)
    image = rng.integers(90, 220, (64, 64, 3)).astype(np.uint8)
    own, common = od_statistics(image), Stain((0.5, 0.7, 0.4), (0.2, 0.25, 0.15))
    assert own is not None
    recipe = msgspec.structs.replace(NONE, stain_match=1.0, stain_transfer=1.0)
    matched = augment_stain(image, own, [Stain((0.9,) * 3, (0.3,) * 3)], common, recipe, rng)
    detected = apply_lookup(image, stain_lookup(own, common))
    assert np.abs(matched.astype(int) - detected.astype(int)).max() <= 1
    assert np.abs(matched.astype(int) - image.astype(int)).max() > 20


def test_a_border_that_is_not_quite_black_is_not_measured_as_stain_in_training(tmp_path):
    (case,) = write_cases(tmp_path, slides=1, fields=1, size=320)
    (alone,) = load_training_images([case], 0.25)
    bordered = np.full((600, 320, 3), 20, np.uint8)
    bordered[:320] = alone.image
    Image.fromarray(bordered).save(case.image)
    (beside,) = load_training_images([case], 0.25)
    for one in (beside.stain, common_stain([beside])):
        assert one.mean == pytest.approx(alone.stain.mean, abs=0.02)
        assert one.std == pytest.approx(alone.stain.std, abs=0.05)

"""Samples of four parts: real pixels alone, labels that go with them, mitoses anywhere in them."""

from __future__ import annotations

import msgspec
import numpy as np
import pytest

from segmitos.errors import DataError, UsageError
from segmitos.training.augment import NONE, Augmentation
from segmitos.training.concentric import IGNORED
from segmitos.training.recipe import Recipe, Sampling
from segmitos.training.sampling import CropSampler, TrainingImage

NOTHING = np.zeros((0, 2))
# Dark enough for a mitosis, and bright enough not to be taken for padding where resampling
# overshoots.
BLACK = 60


def source(shade: int, centered: bool, side: int) -> TrainingImage:
    """One shade throughout, a black mitosis of 16 px in the middle."""
    image = np.full((side, side, 3), shade, np.uint8)
    middle = side // 2
    image[middle - 8 : middle + 8, middle - 8 : middle + 8] = BLACK
    at = np.array([[middle - 0.5, middle - 0.5]])
    return TrainingImage(f"s{shade}", f"s{shade}", image, at, NOTHING, centered)


def three() -> list[TrainingImage]:
    return [source(100, True, 128), source(150, True, 128), source(220, False, 400)]


def sampler(
    mosaic: float,
    augmentation: Augmentation = NONE,
    sources: list[TrainingImage] | None = None,
    **shares: float,
) -> CropSampler:
    none = dict.fromkeys(msgspec.to_builtins(Sampling()), 0.0)
    sampling = Sampling(**{**none, **shares, "mosaic": mosaic, "shift_px": 36})
    recipe = Recipe(crop_px=128, augmentation=augmentation, sampling=sampling)
    return CropSampler(sources or three(), recipe, 4)


def test_parts_meet_near_the_middle_and_hold_no_pixels_that_were_made_up():
    drawn = [
        sampler(1.0, centered=0.5, mitosis=0.3, background=0.2).sample(0, i) for i in range(40)
    ]
    cuts = set()
    for one in drawn:
        assert one[0].shape == (128, 128, 3) and one[1].shape == (32, 32)
        shade = one[0][:, :, 0].astype(int)
        # All but the blended rims of the mitoses.
        assert np.isin(shade, (BLACK, 100, 150, 220)).mean() > 0.93
        for axis in (0, 1):
            edges = np.flatnonzero((np.diff(shade, axis=axis) != 0).mean(axis=1 - axis) > 0.4)
            cuts |= {int(edge) + 1 for edge in edges}
    assert cuts == {48, 64, 80}


def test_mitoses_lie_anywhere_in_their_parts_and_out_of_them():
    drawn = [sampler(1.0, centered=1.0).sample(0, index) for index in range(60)]
    corner = np.stack([one[1][:12, :12] == 1 for one in drawn])
    assert corner.any(axis=0).all() and not corner.any(axis=(1, 2)).all()
    for one in drawn:
        dark = (one[0][2::4, 2::4, 0] == BLACK) & (one[1] != 1)
        assert (one[1][dark] == IGNORED).all()


def test_without_a_mosaic_only_fields_are_shown_whole():
    drawn = [sampler(0.3, centered=0.5, mitosis=0.5).sample(0, index) for index in range(60)]
    whole = [one for one in drawn if not {100, 150} & set(np.unique(one[0]))]
    assert 10 <= len(whole) <= 50


@pytest.mark.parametrize(("mosaic", "made_up"), [(1.0, False), (0.0, True)])
def test_turned_and_zoomed_parts_are_of_real_pixels_alone(mosaic, made_up):
    turning = msgspec.structs.replace(NONE, rotations=0, mirror=True, scale=0.15)
    sources = three()
    for one, place in zip(sources, ((20.0, 20.0), (110.0, 64.0), (5.0, 390.0)), strict=True):
        one.mined_xy = np.array([place])
    drawer = sampler(mosaic, turning, sources, mined=1.0)
    for one in sources:
        one.mitoses_xy = NOTHING
    labels = np.stack([drawer.sample(0, index)[1] for index in range(40)])
    # What lies beyond a source's border is ignored, and nothing else here.
    assert (labels == IGNORED).any() == made_up and not (labels == 1).any()


def test_background_of_crops_comes_into_mosaics():
    drawer = sampler(1.0, external_background=1.0)
    shades = np.concatenate([np.unique(drawer.sample(0, index)[0]) for index in range(10)])
    assert {100, 150} <= set(shades) and 220 not in shades


@pytest.mark.parametrize("wrong", [-0.1, 1.5])
def test_a_fraction_that_is_no_probability_is_refused(wrong):
    with pytest.raises(DataError, match=f"sampling.mosaic = {wrong}"):
        Recipe.from_dict({"sampling": {"mosaic": wrong}})


def test_background_of_crops_shown_whole_is_refused():
    with pytest.raises(UsageError, match=r"external_background = 0\.1 needs mosaic"):
        Sampling(external_background=0.1)

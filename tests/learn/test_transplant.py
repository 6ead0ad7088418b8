"""Cells moved between crops of one slide: the picture and the label go together."""

from __future__ import annotations

import dataclasses

import numpy as np

from segmitos.learn.augment import NONE
from segmitos.learn.recipe import Recipe, Sampling
from segmitos.learn.sampling import CropSampler, Source

GREY, MITOSIS, OTHER = 200, 40, 120


def crop(name: str, slide: str) -> Source:
    """Grey, a dark square at the centre, a mitosis; a lighter one beside it, mined."""
    image = np.full((128, 128, 3), GREY, np.uint8)
    image[56:72, 56:72] = MITOSIS
    image[90:106, 90:106] = OTHER
    centre, beside = np.array([[64.0, 64.0]]), np.array([[98.0, 98.0]])
    return Source(name, slide, image, centre, np.zeros((0, 2)), True, mined_xy=beside)


def sampler(sources: list[Source]) -> CropSampler:
    shares = dataclasses.asdict(Sampling())
    only = Sampling(**{**dict.fromkeys(shares, 0.0), "transplant": 1.0, "shift_px": 0})
    recipe = Recipe(crop_px=96, augmentation=NONE, sampling=only)
    return CropSampler(sources, recipe, 4)


def test_half_of_the_centres_become_background_and_half_stay_mitoses():
    drawn = [sampler([crop("a", "s"), crop("b", "s")]).sample(0, index) for index in range(40)]
    centres = [(int(one.image[48, 48, 0]), int(one.label[12, 12])) for one in drawn]
    assert {pair for pair in centres} == {(MITOSIS, 1), (OTHER, 0)}
    assert 10 <= sum(label for _, label in centres) <= 30


def test_what_may_be_left_of_a_replaced_mitosis_is_ignored():
    drawn = [sampler([crop("a", "s"), crop("b", "s")]).sample(0, index) for index in range(40)]
    labels = [one.label for one in drawn if one.label[12, 12] == 0]
    for label in labels:
        # 4 um and 10 um are 4 and 10 cells of 1 um.
        assert (label[12, 9:16] == 0).all()
        assert label[12, 12 + 7] == 255 and label[12, 12 + 11] == 0
        assert not (label == 1).any()


def test_cells_do_not_leave_their_slide():
    lonely = crop("b", "t")
    lonely.mined_xy = np.zeros((0, 2))
    lonely.image[:] = 90
    drawn = [sampler([crop("a", "s"), lonely]).sample(0, index) for index in range(20)]
    assert all(one.image[0, 0, 0] == GREY for one in drawn)

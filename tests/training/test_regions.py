"""Training looks only where every mitosis is marked, and learns nothing of unsure cells."""

from __future__ import annotations

import dataclasses

import msgspec
import numpy as np
import pytest
from PIL import Image

from segmitos.errors import DataError, UsageError
from segmitos.io.datasets import Case
from segmitos.io.points.regions import Regions
from segmitos.training.augment import NONE
from segmitos.training.concentric import IGNORED, LabelRecipe
from segmitos.training.recipe import Recipe, Sampling
from segmitos.training.sampling import CropSampler, load_training_images
from tests.factories.points import rectangle


@pytest.fixture
def case(tmp_path):
    noise = np.random.default_rng(0).integers(100, 220, (400, 400, 3), dtype=np.uint8)
    Image.fromarray(noise).save(tmp_path / "field.png")
    return Case(
        name="field",
        image=tmp_path / "field.png",
        mitoses_xy=np.array([[100.0, 100.0], [300.0, 300.0]]),
        hard_negatives_xy=np.array([[120.0, 60.0], [350.0, 300.0]]),
        mpp=0.25,
        slide="S",
    )


CIRCLE = LabelRecipe(kind="circle", radius_um=2.0)


def sampler(case, labels=CIRCLE, **fractions):
    none = dict.fromkeys(msgspec.to_builtins(Sampling()), 0.0)
    sampling = Sampling(**{**none, **fractions, "shift_px": 0})
    recipe = Recipe(crop_px=64, augmentation=NONE, sampling=sampling, labels=labels)
    return CropSampler(load_training_images([case], 0.25), recipe, 4)


def test_places_are_drawn_inside_the_regions_alone(case):
    inside = dataclasses.replace(case, regions=Regions((rectangle(50, 20, 100, 130),)))
    assert len(sampler(case, mitosis=1.0).places["mitosis"]) == 2
    places = sampler(inside, mitosis=1.0).places
    assert (len(places["mitosis"]), len(places["hard_negative"])) == (1, 1)


def test_a_mitosis_outside_the_regions_gives_no_loss(case):
    """The whole label is ignored wherever the crop shows what nobody reviewed."""
    outside = dataclasses.replace(case, regions=Regions((rectangle(0, 0, 20, 20),)))
    drawer = sampler(outside, background=1.0)
    sample = drawer._draw(
        np.random.default_rng(0), (64, 64), "mitosis", drawer.sources[0], (300.0, 300.0)
    )
    assert (sample[1] == IGNORED).all()


def test_background_comes_from_the_regions(case):
    regions = Regions((rectangle(200, 200, 60, 60),))
    drawer = sampler(dataclasses.replace(case, regions=regions), background=1.0)
    for step in range(10):
        label = drawer.sample(step, 0)[1]
        assert (label != IGNORED).any(), "the middle of a crop of background lies in a region"


def test_an_unsure_cell_is_neither_mitosis_nor_background(case):
    unsure = dataclasses.replace(
        case, mitoses_xy=np.array([[100.0, 100.0]]), unsure_xy=np.array([[100.0, 120.0]])
    )
    drawer = sampler(unsure, mitosis=1.0)
    label = drawer.sample(0, 0)[1]
    plain = sampler(dataclasses.replace(unsure, unsure_xy=np.zeros((0, 2))), mitosis=1.0)
    before = plain.sample(0, 0)[1]
    np.testing.assert_array_equal(label == 1, before == 1)
    assert (label == IGNORED).sum() > (before == IGNORED).sum() + 20


def test_an_unsure_cell_is_ignored_beside_a_pixel_mask_too(case, tmp_path):
    mask = np.zeros((400, 400), np.uint8)
    mask[92:109, 92:109] = 255
    Image.fromarray(mask).save(tmp_path / "mask.png")
    unsure = dataclasses.replace(
        case,
        mitoses_xy=np.array([[100.0, 100.0]]),
        unsure_xy=np.array([[100.0, 120.0]]),
        mask=tmp_path / "mask.png",
    )
    masks = LabelRecipe(kind="mask")
    label = sampler(unsure, masks, mitosis=1.0).sample(0, 0)[1]
    without = dataclasses.replace(unsure, unsure_xy=np.zeros((0, 2)))
    before = sampler(without, masks, mitosis=1.0).sample(0, 0)[1]
    np.testing.assert_array_equal(label == 1, before == 1)
    assert (label == 1).any() and not (before == IGNORED).any()
    # The cell lies 20 px, or 5 map pixels, below the middle of the crop.
    assert label[13, 8] == IGNORED


def test_labels_that_the_cases_cannot_have_are_refused(case):
    with pytest.raises(DataError, match="field has no pixel mask, as labels kind = 'mask' needs"):
        sampler(case, LabelRecipe(kind="mask"), mitosis=1.0)
    of_masses = LabelRecipe(inner_fraction=0.7, outer_fraction=1.0)
    with pytest.raises(DataError, match=r"field has points without radii.*inner_fraction = 0\.7"):
        sampler(case, of_masses, mitosis=1.0)
    sampler(dataclasses.replace(case, radii_px=np.array([9.0, 9.0])), of_masses, mitosis=1.0)
    with pytest.raises(UsageError, match=r"outer_fraction = 1\.0 means nothing without"):
        LabelRecipe(outer_fraction=1.0)

"""The benchmark on masses: Dice, circles as labels, splits by patient, thresholds."""

from __future__ import annotations

from collections import defaultdict
from pathlib import Path

import msgspec
import numpy as np
import pytest
from PIL import Image

from experiments import mass_segmentation as masses
from segmitos.detection.model import Model
from segmitos.detection.pipeline import DetectOptions, detect_slide
from segmitos.detection.spec import ModelSpec
from segmitos.errors import ScaleError
from segmitos.io.datasets import load_dataset
from segmitos.io.slide import Slide
from segmitos.training.augment import NONE
from segmitos.training.finish import finish
from segmitos.training.recipe import Recipe, load_recipe
from segmitos.training.sampling import CropSampler, load_training_images
from segmitos.training.train import train

ROOT = Path(__file__).parents[2]


@pytest.fixture
def films(tmp_path):
    lines = ["file,tissue,abnormality,severity,x_px,y_px,radius_px"]
    for number in range(1, 13):
        name = f"mdb{number:03d}"
        Image.new("L", (1024, 1024), 60).save(tmp_path / f"{name}.png")
        lines.append(f"{name}.png,G,CIRC,M,500,600,120")
    (tmp_path / "lesions.csv").write_text("\n".join(lines) + "\n")
    return load_dataset(f"mini-mias:{tmp_path}")


def test_dice_by_hand():
    a, b = np.zeros((4, 4), bool), np.zeros((4, 4), bool)
    assert masses.dice(a, b) == 1
    a[0, :3] = True
    assert masses.dice(a, b) == 0
    b[0, 2:] = True
    b[1, 0] = True
    assert masses.dice(a, b) == pytest.approx(2 * 1 / (3 + 3))
    assert masses.dice(b, b) == 1


def test_both_breasts_of_a_woman_are_in_one_fold(films):
    by_patient = defaultdict(set)
    folds = masses.folds_of(films, 3)
    for case, fold in zip(films, folds, strict=True):
        by_patient[case.patient].add(fold)
    assert len(by_patient) == 6 and all(len(found) == 1 for found in by_patient.values())
    assert sorted(folds) == [0] * 4 + [1] * 4 + [2] * 4


def test_labels_are_shares_of_the_circle(films):
    """Truth, disc and ring in the recipe's pixels: a radius of 120 px at 200 is 30 px at 800."""
    areas = {}
    for label in masses.LABELS:
        recipe = load_recipe(
            masses.RECIPES / f"mini-mias-{label}.toml", augmentation=msgspec.to_builtins(NONE)
        )
        sources = load_training_images(films[:1], recipe.mpp)
        sampler = CropSampler(sources, recipe, 1)
        size = sampler.recipe.crop_size_px
        _, drawn = sampler._cut(sources[0], (125.0, 150.0), NONE, np.random.default_rng(0), size)
        areas[label] = ((drawn == 1).sum(), (drawn == 255).sum())
    circle = np.pi * 30**2
    assert masses.truth_mask(sources[0]).sum() == pytest.approx(circle, rel=0.02)
    assert areas["disc"] == (pytest.approx(circle, rel=0.02), 0)
    assert areas["concentric"][0] == pytest.approx(0.49 * circle, rel=0.03)
    assert areas["concentric"][1] == pytest.approx(0.51 * circle, rel=0.03)


def test_a_fold_takes_the_threshold_of_the_others():
    dices = np.array([[0.9, 0.1], [0.9, 0.1], [0.2, 0.5], [0.2, 0.5]])
    folds = np.array([0, 0, 1, 1])
    assert masses.chosen_thresholds(dices, folds).tolist() == [1, 1, 0, 0]


def test_the_interval_resamples_patients_not_films():
    values = np.array([0.0, 0.0, 0.0, 0.0, 1.0, 1.0, 1.0, 1.0])
    alone = masses.interval(values, list("abcdefgh"))
    paired = masses.interval(values, list("aabbccdd"))
    assert paired[1] - paired[0] > alone[1] - alone[0] > 0


def test_nothing_is_marked_outside_of_the_breast(films):
    recipe = load_recipe(masses.RECIPES / "mini-mias-disc.toml")
    source = load_training_images(films[:1], recipe.mpp)[0]
    source.image[:, :100] = 0
    shown = masses.film_map(source, np.ones((64, 64), np.float32), recipe)
    assert shown.shape == (256, 256)
    assert shown[:, :100].max() == 0 and shown[:, 100:].min() == pytest.approx(1, abs=1e-5)


def test_a_film_is_read_coarser_than_a_slide_may_be(films):
    with Slide.open(films[0].image, mpp=200.0) as film:
        assert film.read(0, 0, 128, 128, mpp=1600.0).shape == (128, 128, 3)
        with pytest.raises(ScaleError, match="and 2000"):
            film.read(0, 0, 10, 10, mpp=2001.0)
    with pytest.raises(ScaleError, match="and 200,"):
        Slide.open(films[0].image, mpp=250.0)


def test_a_training_on_films_ends_in_a_model_file_that_detects(films, tmp_path):
    """Scale and smoothing are those of films, far above those of slides."""
    light = {"network": "proposal", "pretrained": False, "epochs": 1, "steps_per_epoch": 1}
    recipe = load_recipe(masses.RECIPES / "mini-mias-disc.toml").to_dict()
    run = tmp_path / "run"
    train(films[:1], run, Recipe.from_dict({**recipe, **light, "batch": 1}), accelerator="cpu")
    model = Model.load(finish(run, []).model, "cpu")
    assert (model.spec.mpp, model.spec.smoothing_sigma_um) == (800.0, 1600.0)
    with Slide.open(films[0].image, mpp=200.0) as film:
        found = detect_slide(film, model, DetectOptions(tissue=False))
    assert found.accumulator.pixels == 32 * 32


@pytest.mark.parametrize(("mpp", "sigma_um"), [(2000.0, 10_000.0), (0.01, 0.0)])
def test_a_model_file_holds_every_scale_that_a_recipe_may_have(mpp, sigma_um):
    values = {"mpp": mpp, "smoothing_sigma_um": sigma_um}
    recipe = Recipe.from_dict(values)
    whole = {"name": "film", "stride": 8, "context_px": 8, "stain": None, **values}
    thresholds = {"threshold": 0.5, "min_area_um2": 8.0, "min_score": 0.7}
    spec = msgspec.convert({**whole, "thresholds": thresholds}, ModelSpec)
    assert (spec.mpp, spec.smoothing_sigma_um) == (recipe.mpp, recipe.smoothing_sigma_um)

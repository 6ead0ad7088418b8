"""The domain check: what is warned of, what is not, and that a warning stays with the result."""

from __future__ import annotations

import os
from pathlib import Path

import msgspec
import numpy as np
import pytest
from PIL import Image, ImageFilter

from segmitos.detection.domain import (
    DomainReference,
    Neighbors,
    ScaleRegression,
    measure_domain,
)
from segmitos.detection.model import Model
from segmitos.detection.pipeline import DetectOptions, detect_slide
from segmitos.detection.tissue import TissueMask
from segmitos.detection.view import SlideView
from segmitos.io.slide import Slide

DATA = Path(os.environ.get("SEGMITOS_DATA", Path(__file__).parents[3] / "shared" / "data"))


def tissue(seed: int = 0, size: int = 192) -> np.ndarray:
    """Draw tissue (size, size, 3): pink ground, purple nuclei."""
    rng = np.random.default_rng(seed)
    rows, columns = np.mgrid[:size, :size]
    image = np.full((size, size, 3), (225, 170, 205), float)
    for x, y in rng.uniform(0, size, (size * size // 900, 2)):
        inside = np.hypot(columns - x, rows - y) < rng.uniform(8, 13)
        image[inside] = (120, 70, 150)
    image = image + rng.normal(0, 6, image.shape)
    blurred = Image.fromarray(image.clip(0, 255).astype(np.uint8)).filter(
        ImageFilter.GaussianBlur(1)
    )
    return np.asarray(blurred)


def reference(limit: float = 1e-3) -> DomainReference:
    features = measure_domain([tissue()])
    assert features is not None
    ones = tuple(float(value) for value in np.ones(len(features.scale)))
    return DomainReference(
        ("here",),
        Neighbors((1.0,) * 5, (tuple(features.stain.tolist()),), limit),
        Neighbors((1.0,) * 2, (tuple(features.focus.tolist()),), limit),
        ScaleRegression(tuple(features.scale.tolist()), ones, (0.0,) * (2 * len(ones) + 1), limit),
    )


def test_what_the_reference_was_made_of_gets_no_warning():
    features = measure_domain([tissue()])
    assert reference().warnings(features, 0.25) == ()


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda image: np.repeat(image.mean(axis=2, keepdims=True), 3, axis=2), "stain unlike"),
        (lambda image: image[..., ::-1], "stain unlike"),
        (
            lambda image: np.asarray(Image.fromarray(image).filter(ImageFilter.GaussianBlur(4))),
            "sharpness unlike",
        ),
    ],
)
def test_a_changed_image_is_warned_of_by_the_measure_that_changed(change, words):
    changed = np.ascontiguousarray(change(tissue()).astype(np.uint8))
    warnings = reference(0.1).warnings(measure_domain([changed]), 0.25)
    assert any(words in warning for warning in warnings), warnings


def test_a_warning_names_value_and_limit():
    features = measure_domain([tissue()])
    gray = measure_domain([np.repeat(tissue().mean(axis=2, keepdims=True), 3, 2).astype(np.uint8)])
    distance = float(np.linalg.norm(gray.stain - features.stain))
    (warning,) = [w for w in reference(0.1).warnings(gray, 0.25) if w.startswith("stain")]
    assert f"distance {distance:.1f}, limit 0.1" in warning


@pytest.mark.parametrize(
    ("octaves", "words"),
    [
        (1.0, "about 0.12 um per pixel where it is read as 0.25: 2.0 times as fine"),
        (-1.5, "about 0.71 um per pixel where it is read as 0.25: 2.8 times as coarse"),
        (9.2, "less than 0.031 um per pixel where it is read as 0.25: more than 8.0 times as fine"),
        (-2e3, "more than 2 um per pixel where it is read as 0.25: more than 8.0 times as coarse"),
    ],
)
def test_octaves_become_the_scale_that_the_texture_looks_like(octaves, words):
    features = measure_domain([tissue()])
    count = len(features.scale)
    weights = (0.0,) * (2 * count) + (octaves,)
    changed = ScaleRegression((0.0,) * count, (1.0,) * count, weights, 0.5)
    found = msgspec.structs.replace(reference(1e3), scale=changed).warnings(features, 0.25)
    assert found == (f"texture looks like {words}, limit 1.4 times; is the scale right?",)


def test_too_little_tissue_says_nothing():
    assert measure_domain([]) is None
    assert measure_domain([np.full((192, 192, 3), 255, np.uint8)]) is None
    assert measure_domain([tissue(size=40)]) is None


def test_squares_lie_on_the_input_and_on_tissue():
    mask = np.zeros((30, 40), bool)
    mask[20:, 30:] = True
    image = np.where(np.kron(mask, np.ones((32, 32), bool))[..., None], 100, 200)
    image = np.repeat(image.astype(np.uint8), 3, axis=2)
    with Slide.from_array(image, 0.25) as slide:
        view = SlideView(slide, 0.25)
        squares = view.squares_of_tissue(TissueMask(mask, 8.0, 1.0), 8, 192)
        assert len(squares) > 3
        for square in squares:
            assert square.shape == (192, 192, 3)
            assert square[96, 96, 0] == 100
        none = TissueMask(np.zeros((30, 40), bool), 8.0, 0.0)
        assert view.squares_of_tissue(none, 8, 192) == []


@pytest.mark.slow
def test_the_built_in_model_warns_of_gray_tissue_and_keeps_the_warning_with_the_result():
    gray = np.repeat(tissue(size=512).mean(axis=2, keepdims=True), 3, 2).astype(np.uint8)
    with Slide.from_array(gray, 0.25) as slide:
        result = detect_slide(slide, Model.load("lite"), DetectOptions())
    assert any("stain unlike" in warning for warning in result.warnings)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("pattern", "mpp"),
    [("mitos12/A0*/*_01.jpg", 0.2456), ("midesec/*0.jpg", 0.25), ("background/tnbc/*0.jpg", 0.25)],
)
def test_the_built_in_model_does_not_warn_of_fields_of_its_laboratories(pattern, mpp):
    paths = sorted(DATA.glob(pattern))[:3]
    if not paths:
        pytest.skip("no real data at SEGMITOS_DATA")
    for path in paths:
        with Slide.open(path, mpp=mpp) as slide:
            assert detect_slide(slide, Model.load("lite"), DetectOptions()).warnings == ()

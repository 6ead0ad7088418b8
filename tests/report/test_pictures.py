"""Crops of a report: read by two threads, they are those that one reads."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from segmitos.errors import InputError
from segmitos.io.slide import Slide
from segmitos.report.crops import crop_jpeg, read_crop
from segmitos.report.pictures import CROP_PX, CROP_UM, crops_at
from tests.factories import slides

SAVE = {
    "whole.png": slides.save_png,
    "strips.tif": slides.save_tiff,
    "tiles.tif": lambda path, image: slides.save_tiff(path, image, tile=(64, 64)),
    "slide.svs": slides.save_svs,
}
PLACES = {f"{x}-{y}": (float(x), float(y)) for x in range(280, 0, -70) for y in (5, 99, 180)}


def opened(path: Path) -> Slide:
    return Slide.open(path, mpp=0.25, override_mpp=True)


@pytest.mark.parametrize("name", SAVE)
def test_crops_of_two_threads_are_those_of_one_in_the_order_of_the_places(tmp_path, name):
    SAVE[name](tmp_path / name, slides.picture())
    with opened(tmp_path / name) as slide:
        found = crops_at(PLACES, {"70-5": b"held", "elsewhere": b""}, slide)
    with opened(tmp_path / name) as slide:
        expected = {
            identity: crop_jpeg(read_crop(slide, x, y, CROP_UM, CROP_PX), CROP_UM)
            for identity, (x, y) in PLACES.items()
        }
    assert list(found.items()) == list((expected | {"70-5": b"held"}).items())
    assert len(set(found.values())) == len(PLACES)
    assert crops_at(PLACES, {"70-5": b"held", "elsewhere": b""}) == {"70-5": b"held"}


def test_a_crop_that_cannot_be_read_is_one_error(tmp_path):
    path = tmp_path / "tiles.tif"
    image = np.ascontiguousarray(slides.picture())
    slides.save_tiff(path, image, tile=(64, 64), compression="jpeg")
    slides.corrupt_tile(path, 6)
    with opened(path) as slide, pytest.raises(InputError, match=r"tiles\.tif: damaged tile at"):
        crops_at(PLACES, {}, slide)

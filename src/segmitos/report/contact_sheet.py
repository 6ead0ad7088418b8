"""How a data set looks: a contact sheet of labelled crops."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from segmitos.errors import DataError, InputError
from segmitos.io.datasets import Case
from segmitos.io.files import image_bytes
from segmitos.io.slide import Slide
from segmitos.report.crops import SheetCrop, crop_sheet, read_crop

_COLUMNS, _MOST = 10, 80
_CROP_PX = 96
_CROP_UM = 24.0
# A mass is shown with as much again around it.
_MASS_REACH = 2.0
_MITOSIS, _HARD_NEGATIVE = "#00a040", "#d02020"


@dataclass(frozen=True)
class _Place:
    case: Case
    xy: NDArray[np.float64]
    radius_px: float | None
    color: str


def contact_sheet(cases: Sequence[Case]) -> bytes:
    """Return a PNG of labelled crops: mitoses in green, hard negatives in red, masses circled.

    Crops are 24 um wide (96 px where the scale is unknown), masses as wide as they need. Taken
    evenly over the data set, mitoses and hard negatives by half where there are both, so that
    every slide has its chance to be seen. Below each the image's name; a crop whose image cannot
    be read is grey.

    Raises:
        DataError: where there is no labelled point with an image.
    """
    places = _places(cases)
    if not places:
        raise DataError("there is no labelled point with an image to show")
    sheet = crop_sheet([_sheet_crop(place) for place in places], _CROP_PX, _COLUMNS)
    return image_bytes(sheet, drawn=True)


def _places(cases: Sequence[Case]) -> list[_Place]:
    mitoses: list[_Place] = []
    others: list[_Place] = []
    for case in cases:
        if not case.image.exists():
            continue
        for index, xy in enumerate(case.mitoses_xy):
            radius = None if case.radii_px is None else float(case.radii_px[index])
            mitoses.append(_Place(case, xy, radius, _MITOSIS))
        others += [_Place(case, xy, None, _HARD_NEGATIVE) for xy in case.hard_negatives_xy]
    # Half each, and what one kind does not need is the other's.
    shown = min(len(mitoses), max(_MOST // 2, _MOST - len(others)))
    return _evenly(mitoses, shown) + _evenly(others, _MOST - shown)


def _evenly(places: list[_Place], most: int) -> list[_Place]:
    if not places:
        return []
    chosen = np.unique(np.linspace(0, len(places) - 1, most).round().astype(int))
    return [places[int(index)] for index in chosen]


def _sheet_crop(place: _Place) -> SheetCrop:
    side_px = 2 * _reach_px(place)
    try:
        # The crop is given in pixels, so with 1 um/px its scale is the pixels of one of its own.
        with Slide.open(place.case.image, mpp=1.0, override_mpp=True) as slide:
            pixels = read_crop(slide, float(place.xy[0]), float(place.xy[1]), side_px, _CROP_PX)
    except InputError:
        pixels = None
    radius = None if place.radius_px is None else place.radius_px / side_px * _CROP_PX
    name = place.case.name.removesuffix(place.case.image.suffix)
    return SheetCrop(pixels, name, place.color, cross=radius is None, radius_px=radius)


def _reach_px(place: _Place) -> float:
    """Half of a crop's side in level-0 pixels."""
    if place.radius_px is not None:
        return _MASS_REACH * place.radius_px
    if place.case.mpp is None:
        return _CROP_PX / 2
    return _CROP_UM / 2 / place.case.mpp

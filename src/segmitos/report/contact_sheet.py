"""How a data set looks: a contact sheet of labelled crops."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from segmitos.errors import DataError, InputError
from segmitos.io.datasets import Case
from segmitos.io.files import image_bytes
from segmitos.io.slide import Slide

if TYPE_CHECKING:
    from PIL.Image import Image as Picture

_COLUMNS, _MOST = 10, 80
_CROP_PX, _CAPTION_PX = 96, 12
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
    from PIL import Image

    places = _places(cases)
    if not places:
        raise DataError("there is no labelled point with an image to show")
    rows = -(-len(places) // _COLUMNS)
    cell = (_CROP_PX, _CROP_PX + _CAPTION_PX)
    sheet = Image.new("RGB", (min(len(places), _COLUMNS) * cell[0], rows * cell[1]), "white")
    for number, place in enumerate(places):
        row, column = divmod(number, _COLUMNS)
        sheet.paste(_drawn(place), (column * cell[0], row * cell[1]))
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


def _drawn(place: _Place) -> Picture:
    from PIL import Image, ImageDraw

    picture = Image.new("RGB", (_CROP_PX, _CROP_PX + _CAPTION_PX), "white")
    draw = ImageDraw.Draw(picture)
    reach_px = _reach_px(place)
    try:
        picture.paste(Image.fromarray(_crop(place, reach_px)), (0, 0))
    except InputError:
        draw.rectangle((0, 0, _CROP_PX - 1, _CROP_PX - 1), fill="#c0c0c0")
    draw.rectangle((0, 0, _CROP_PX - 1, _CROP_PX - 1), outline=place.color, width=2)
    middle = (_CROP_PX - 1) / 2
    if place.radius_px is None:
        for start, end in ((-24, -16), (16, 24)):
            draw.line([(middle + start, middle), (middle + end, middle)], fill=place.color)
            draw.line([(middle, middle + start), (middle, middle + end)], fill=place.color)
    else:
        radius = place.radius_px / (2 * reach_px) * _CROP_PX
        draw.circle((middle, middle), radius, outline=place.color)
    name = place.case.name.removesuffix(place.case.image.suffix)
    draw.text((2, _CROP_PX), name[-15:], fill="black")
    return picture


def _reach_px(place: _Place) -> float:
    """Half of a crop's side in level-0 pixels."""
    if place.radius_px is not None:
        return _MASS_REACH * place.radius_px
    if place.case.mpp is None:
        return _CROP_PX / 2
    return _CROP_UM / 2 / place.case.mpp


def _crop(place: _Place, reach_px: float) -> NDArray[np.uint8]:
    # The crop is given in pixels, so with 1 um/px its scale is the pixels of one of its own.
    with Slide.open(place.case.image, mpp=1.0, override_mpp=True) as slide:
        x, y = (float(value) + 0.5 - reach_px for value in place.xy)
        return slide.read(x, y, _CROP_PX, _CROP_PX, mpp=2 * reach_px / _CROP_PX)

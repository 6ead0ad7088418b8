"""Crops of cells, and sheets of them: for reports, galleries of an evaluation, contact sheets."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from segmitos.io.files import image_bytes
from segmitos.io.geometry import from_corner
from segmitos.io.slide import Slide

if TYPE_CHECKING:
    from PIL.Image import Image as Picture
    from PIL.ImageDraw import ImageDraw as Drawing

Pixels = NDArray[np.uint8]
BAR_UM = 10.0
_UNREADABLE = "#c0c0c0"
_CAPTION_PX = 14


@dataclass(frozen=True)
class SheetCrop:
    """One crop of a sheet.

    Attributes:
        pixels: (h, h, 3) uint8; None is drawn gray: the image could not be read.
        caption: below it.
        frame: color of a frame around it and of what is drawn in it; None has no frame.
        cross: whether to point at the middle from four sides.
        radius_px: of a circle around the middle.
        bar_px: length of a scale bar at its lower left; 0 has none.
    """

    pixels: Pixels | None
    caption: str
    frame: str | None = None
    cross: bool = False
    radius_px: float | None = None
    bar_px: float = 0.0


def read_crop(slide: Slide, x_px: float, y_px: float, side_um: float, side_px: int) -> Pixels:
    """Return a square crop (side_px, side_px, 3) whose middle is a level-0 position.

    Raises:
        ScaleError: where the slide's scale is unknown; InputError: where it is damaged.
    """
    half = side_um / slide.require_mpp() / 2
    left, top = from_corner(x_px) - half, from_corner(y_px) - half
    return slide.read(left, top, side_px, side_px, mpp=side_um / side_px)


def crop_jpeg(pixels: Pixels, side_um: float) -> bytes:
    """Return a crop as JPEG with a bar of 10 um at its lower left."""
    from PIL import Image, ImageDraw

    picture = Image.fromarray(pixels)
    _draw_bar(ImageDraw.Draw(picture), 0, 0, pixels.shape[0], BAR_UM / side_um * pixels.shape[1])
    return image_bytes(picture, "jpg", 78, drawn=True)


def crop_sheet(crops: Sequence[SheetCrop], side_px: int, columns: int, gap_px: int = 0) -> Picture:
    """Draw crops of `side_px` in rows, each with its caption below and `gap_px` around it."""
    from PIL import Image, ImageDraw, ImageFont

    columns = min(columns, len(crops))
    rows = math.ceil(len(crops) / columns)
    step_x, step_y = side_px + gap_px, side_px + _CAPTION_PX + gap_px
    sheet = Image.new("RGB", (columns * step_x + gap_px, rows * step_y + gap_px), "white")
    draw = ImageDraw.Draw(sheet)
    font = ImageFont.load_default(10)
    for index, crop in enumerate(crops):
        left, top = gap_px + index % columns * step_x, gap_px + index // columns * step_y
        if crop.pixels is None:
            draw.rectangle((left, top, left + side_px - 1, top + side_px - 1), fill=_UNREADABLE)
        else:
            sheet.paste(Image.fromarray(crop.pixels), (left, top))
        _draw_marks(draw, crop, left, top, side_px)
        fitting = crop.caption
        while font.getlength(fitting) > side_px - 4:
            fitting = fitting[1:]
        draw.text((left + 2, top + side_px), fitting, fill="black", font=font)
    return sheet


def _draw_marks(draw: Drawing, crop: SheetCrop, left: int, top: int, side_px: int) -> None:
    color = crop.frame or "black"
    if crop.frame is not None:
        box = (left, top, left + side_px - 1, top + side_px - 1)
        draw.rectangle(box, outline=crop.frame, width=2)
    x, y = left + (side_px - 1) / 2, top + (side_px - 1) / 2
    if crop.cross:
        for start, end in ((-24, -16), (16, 24)):
            draw.line([(x + start, y), (x + end, y)], fill=color)
            draw.line([(x, y + start), (x, y + end)], fill=color)
    if crop.radius_px is not None:
        draw.circle((x, y), crop.radius_px, outline=color)
    if crop.bar_px:
        _draw_bar(draw, left, top, side_px, crop.bar_px)


def _draw_bar(draw: Drawing, left: float, top: float, side_px: int, length_px: float) -> None:
    """Draw a black bar with a white rim, seen on any stain."""
    x, y = left + 6, top + side_px - 8
    draw.line([(x, y), (x + length_px, y)], fill="white", width=5)
    draw.line([(x + 1, y), (x + length_px - 1, y)], fill="black", width=3)

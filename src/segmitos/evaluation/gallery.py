"""Galleries of hits, false positives and misses, cut from the images."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from segmitos.errors import InputError, UsageError
from segmitos.evaluation.scoring import AnnotatedCase, Evaluation
from segmitos.io.files import image_bytes
from segmitos.io.points.detections import Detections

_CROP_UM, _CROP_PX, _COLUMNS, _MOST_CROPS = 32.0, 128, 6, 24
_BAR_UM = 10.0


class PicturedCase(AnnotatedCase, Protocol):
    """A case with its image."""

    @property
    def image(self) -> Path:
        """The image file."""


@dataclass(frozen=True)
class Crop:
    """One place to show: a detection with its score, or a missed mitosis (nan)."""

    case: str
    x_px: float
    y_px: float
    score: float


def choose_crops(
    cases: Sequence[AnnotatedCase],
    detections: Mapping[str, Detections],
    evaluation: Evaluation,
    most: int = _MOST_CROPS,
) -> dict[str, list[Crop]]:
    """Choose what the galleries show.

    Returns:
        `True positives` of the lowest scores and `False positives` of the highest, where a
        threshold would act, and `Misses` spread evenly over the cases.
    """
    hits: list[Crop] = []
    errors: list[Crop] = []
    misses: list[Crop] = []
    for case, result in zip(cases, evaluation.cases, strict=True):
        found = detections[case.name]
        hit = {i for i, _ in result.match.pairs}
        seen = {j for _, j in result.match.pairs}
        for i in range(len(found)):
            place = (float(found.x_px[i]), float(found.y_px[i]), float(found.score[i]))
            (hits if i in hit else errors).append(Crop(case.name, *place))
        for j, (x, y) in enumerate(case.mitoses_xy.tolist()):
            if j not in seen:
                misses.append(Crop(case.name, x, y, math.nan))
    hits.sort(key=lambda crop: _score_or_least(crop.score))
    errors.sort(key=lambda crop: -_score_or_least(crop.score))
    spread = np.unique(np.linspace(0, len(misses) - 1, min(most, len(misses))).round().astype(int))
    return {
        "True positives": hits[:most],
        "False positives": errors[:most],
        "Misses": [misses[index] for index in spread],
    }


def gallery_picture(cases: Sequence[PicturedCase], crops: Sequence[Crop]) -> bytes:
    """Draw crops of 32 um at 0.25 um per pixel, each with its case, its score and a 10 um bar.

    Raises:
        InputError: if an image cannot be read.
        UsageError: if there are no crops or a case is not among `cases`.
    """
    from PIL import Image, ImageDraw, ImageFont

    if not crops:
        raise UsageError("a gallery needs at least one crop")
    pixels = _read_crops(cases, crops)
    columns = min(_COLUMNS, len(crops))
    rows = math.ceil(len(crops) / columns)
    step_x, step_y = _CROP_PX + 8, _CROP_PX + 26
    sheet = Image.new("RGB", (columns * step_x + 8, rows * step_y + 8), "white")
    draw = ImageDraw.Draw(sheet)
    font = ImageFont.load_default(10)
    bar = round(_BAR_UM / _CROP_UM * _CROP_PX)
    for index, (crop, image) in enumerate(zip(crops, pixels, strict=True)):
        x, y = 8 + index % columns * step_x, 8 + index // columns * step_y
        sheet.paste(Image.fromarray(image), (x, y))
        base = y + _CROP_PX - 6
        draw.line([(x + 5, base), (x + 5 + bar, base)], fill="white", width=4)
        draw.line([(x + 6, base), (x + 4 + bar, base)], fill="black", width=2)
        score = "" if math.isnan(crop.score) else f"  {crop.score:.3f}"
        draw.text((x, y + _CROP_PX + 3), f"{crop.case[-18:]}{score}", fill="black", font=font)
    return image_bytes(sheet, drawn=True)


def _read_crops(cases: Sequence[PicturedCase], crops: Sequence[Crop]) -> list[NDArray[np.uint8]]:
    """Read the crops in one visit to each image."""
    from segmitos.io.slide import Slide

    by_name = {case.name: case for case in cases}
    unknown = next((crop.case for crop in crops if crop.case not in by_name), None)
    if unknown is not None:
        raise UsageError(f"case {unknown!r} of a crop is not among the cases")
    pixels: dict[int, NDArray[np.uint8]] = {}
    for name in dict.fromkeys(crop.case for crop in crops):
        case = by_name[name]
        if not case.image.exists():
            raise InputError(f"cannot read {case.image}: the gallery needs the images")
        with Slide.open(case.image, mpp=case.mpp) as slide:
            scale = _CROP_UM / _CROP_PX
            half = _CROP_UM / slide.require_mpp() / 2
            for index, crop in enumerate(crops):
                if crop.case == name:
                    # The corner of the crop; pixel centers are at integers.
                    left, top = crop.x_px + 0.5 - half, crop.y_px + 0.5 - half
                    pixels[index] = slide.read(left, top, _CROP_PX, _CROP_PX, scale)
    return [pixels[index] for index in range(len(crops))]


def _score_or_least(value: float) -> float:
    return -1.0 if math.isnan(value) else value

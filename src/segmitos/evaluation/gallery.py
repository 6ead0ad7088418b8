"""Galleries of true positives, false positives and false negatives, cut from the images."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from segmitos.errors import InputError, UsageError
from segmitos.evaluation.scoring import Evaluation
from segmitos.io.datasets import Case
from segmitos.io.files import image_bytes
from segmitos.io.points.detections import Detections
from segmitos.report.crops import BAR_UM, SheetCrop, crop_sheet, read_crop

_CROP_UM, _CROP_PX, _COLUMNS, MAX_CROPS = 32.0, 128, 6, 24
_CROPS_ARE = f"Crops are {_CROP_UM:g} um wide, the bar is {BAR_UM:g} um."
CAPTIONS = {
    "True positives": f"At most {MAX_CROPS}, those with the lowest scores. {_CROPS_ARE}",
    "False positives": f"At most {MAX_CROPS}, those with the highest scores. {_CROPS_ARE}",
    "False negatives": f"At most {MAX_CROPS}, spread over the cases. {_CROPS_ARE}",
}
"""What the galleries show, by title."""


@dataclass(frozen=True)
class Crop:
    """One place to show: a detection with its score, or a missed mitosis (nan)."""

    case: str
    x_px: float
    y_px: float
    score: float


def choose_crops(
    cases: Sequence[Case],
    detections: Mapping[str, Detections],
    evaluation: Evaluation,
) -> dict[str, list[Crop]]:
    """Choose what the galleries show.

    Returns:
        `True positives` of the lowest scores and `False positives` of the highest, where a
        threshold would act, and `False negatives` spread evenly over the cases.
    """
    true_positives: list[Crop] = []
    false_positives: list[Crop] = []
    false_negatives: list[Crop] = []
    for case, result in zip(cases, evaluation.cases, strict=True):
        found = detections[case.name]
        matched = {i for i, _ in result.match.pairs}
        found_truth = {j for _, j in result.match.pairs} | set(result.match.ignored_truth)
        neither = {*result.match.ignored, *result.match.forgiven}
        for i in sorted(set(range(len(found))) - neither):
            place = (float(found.x_px[i]), float(found.y_px[i]), float(found.score[i]))
            (true_positives if i in matched else false_positives).append(Crop(case.name, *place))
        for j, (x, y) in enumerate(case.mitoses_xy.tolist()):
            if j not in found_truth:
                false_negatives.append(Crop(case.name, x, y, math.nan))
    true_positives.sort(key=lambda crop: _score_or_least(crop.score))
    false_positives.sort(key=lambda crop: -_score_or_least(crop.score))
    spread = np.unique(
        np.linspace(0, len(false_negatives) - 1, min(MAX_CROPS, len(false_negatives)))
        .round()
        .astype(int)
    )
    return {
        "True positives": true_positives[:MAX_CROPS],
        "False positives": false_positives[:MAX_CROPS],
        "False negatives": [false_negatives[index] for index in spread],
    }


def gallery_picture(cases: Sequence[Case], crops: Sequence[Crop]) -> bytes:
    """Draw crops of 32 um at 0.25 um per pixel, each with its case, its score and a 10 um bar.

    Raises:
        InputError: if an image cannot be read.
        UsageError: if there are no crops or a case is not among `cases`.
    """
    if not crops:
        raise UsageError("a gallery needs at least one crop")
    bar_px = BAR_UM / _CROP_UM * _CROP_PX
    pixels = _read_crops(cases, crops)
    shown = [
        SheetCrop(image, _caption(crop), bar_px=bar_px)
        for crop, image in zip(crops, pixels, strict=True)
    ]
    return image_bytes(crop_sheet(shown, _CROP_PX, _COLUMNS, gap_px=8), drawn=True)


def _caption(crop: Crop) -> str:
    return crop.case if math.isnan(crop.score) else f"{crop.case}  {crop.score:.3f}"


def _read_crops(cases: Sequence[Case], crops: Sequence[Crop]) -> list[NDArray[np.uint8]]:
    """Read the crops in one visit to each image."""
    by_name = {case.name: case for case in cases}
    unknown = next((crop.case for crop in crops if crop.case not in by_name), None)
    if unknown is not None:
        raise UsageError(f"case {unknown!r} of a crop is not among the cases")
    pixels: dict[int, NDArray[np.uint8]] = {}
    for name in dict.fromkeys(crop.case for crop in crops):
        case = by_name[name]
        if not case.image.exists():
            raise InputError(f"cannot read {case.image}: the gallery needs the images")
        with case.open_image() as slide:
            for index, crop in enumerate(crops):
                if crop.case == name:
                    pixels[index] = read_crop(slide, crop.x_px, crop.y_px, _CROP_UM, _CROP_PX)
    return [pixels[index] for index in range(len(crops))]


def _score_or_least(value: float) -> float:
    return -1.0 if math.isnan(value) else value

"""What is missed and invented, as sheets by laboratory, and a reliability diagram."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from experiments.laboratories.candidates import Scored
from experiments.laboratories.data import BACKGROUND, MPP, LabImage
from experiments.laboratories.protocol import (
    DISTANCE_PX,
    LEFT_OUT,
    Counts,
    Found,
    Rule,
    is_mitosis,
    is_unsure,
)
from segmitos.report.crops import SheetCrop, crop_sheet
from segmitos.training.patches import read_patch

_CELL_PX = 128
_COLUMNS = 12
_MOST = 96
_MITOSIS, _UNSURE, _WRONG = "#00a040", "#e0a000", "#d02020"


def write_pictures(
    out: Path, images: Sequence[LabImage], found: Found, rule: Rule, threshold: float
) -> None:
    """Write `missed-LABORATORY.png`, `false-LABORATORY.png` and `reliability.png`.

    The surest first, at most 96 of each, 32 um wide; orange frames are unsure cells, and the
    number below is the joined score (of a missed mitosis that of its candidate, if it has one).
    """
    for laboratory in (*LEFT_OUT, *BACKGROUND):
        own = [(images[i], of) for i, of in found.items() if images[i].laboratory == laboratory]
        for kind, crops_of in (("false", _false_crops), ("missed", _missed_crops)):
            crops = [
                crop
                for image, candidates in own
                for crop in crops_of(image, candidates, rule.score(candidates), threshold)
            ]
            if crops:
                chosen = sorted(crops, key=lambda pair: -pair[0])[:_MOST]
                sheet = crop_sheet([crop for _, crop in chosen], _CELL_PX, _COLUMNS, 4)
                sheet.save(out / f"{kind}-{laboratory}.png")
    _reliability(out / "reliability.png", Counts(images, found, rule))


Crops = list[tuple[float, SheetCrop]]
"""With their joined scores."""


def _false_crops(
    image: LabImage, candidates: Scored, score: NDArray[np.float64], threshold: float
) -> Crops:
    """Return the detections of an image that are no mitoses."""
    hit, unsure = is_mitosis(image, candidates.xy), is_unsure(image, candidates.xy)
    crops = []
    for at in np.flatnonzero(~hit & (score >= threshold)):
        frame = _UNSURE if unsure[at] else _WRONG
        crop = _crop(image, candidates.xy[at], f"{score[at]:.2f}", frame)
        crops.append((float(score[at]), crop))
    return crops


def _missed_crops(
    image: LabImage, candidates: Scored, score: NDArray[np.float64], threshold: float
) -> Crops:
    """Return the mitoses of an image that have no detection near."""
    crops = []
    for place in image.source.mitoses_xy:
        near = np.hypot(*(candidates.xy - place).T) <= DISTANCE_PX
        best = float(score[near].max()) if near.any() else 0.0
        if best < threshold:
            caption = f"{best:.2f}" if near.any() else "no candidate"
            crops.append((best, _crop(image, place, caption, _MITOSIS)))
    return crops


def _crop(image: LabImage, xy: NDArray[np.float64], caption: str, frame: str) -> SheetCrop:
    pixels = read_patch(image.matched(), float(xy[0]), float(xy[1]), _CELL_PX)[0]
    return SheetCrop(pixels, caption, frame, bar_px=10.0 / MPP)


def _reliability(path: Path, counts: Counts) -> None:
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(figsize=(4.5, 4.5), layout="constrained")
    axes.plot([0, 1], [0, 1], color="#808080", linewidth=1)
    for laboratory in LEFT_OUT:
        error, bins = counts.calibration(laboratory)
        score, share, number = np.array(bins).T
        axes.plot(score, share, marker="o", label=f"{laboratory}, error {error:.2f}")
        for x, y, n in zip(score, share, number, strict=True):
            axes.annotate(f"{n:.0f}", (x, y), textcoords="offset points", xytext=(4, -10), size=7)
    axes.set(xlabel="joined score", ylabel="share that are mitoses", xlim=(0, 1), ylim=(0, 1))
    axes.set_title("Candidates of laboratories left out")
    axes.legend()
    figure.savefig(path, dpi=150)
    plt.close(figure)

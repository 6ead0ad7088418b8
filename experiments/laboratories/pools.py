"""The points that verifiers learn from, by laboratory."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from experiments.laboratories.data import BACKGROUND, FIELDS, MPP, LabImage
from segmitos.detection.stain import Stain
from segmitos.io.pairs import is_near
from segmitos.training.nuclei import find_dark_nuclei
from segmitos.training.train_verifier import Pool, point_rows

# The networks of the map were trained on the first laboratory, so leaving it out says nothing.
FOLDS = tuple(range(1, len(FIELDS)))
SIZES = (64, 128)
"""Sides that the small and the large verifier see a patch at."""
_NEAR_MITOSIS_PX, _NEAR_UNSURE_PX = 30.0, 26.0
# Of a batch: crops of other laboratories have most slides, MITOS-ATYPIA-14 most look-alikes.
POSITIVE_SHARES = {"crops": 11, "mitos14": 6, "mitos12": 5, "midesec": 3}
NEGATIVE_SHARES = {"mitos14": 12, "mitos12": 10, "midesec": 5, "background": 7, "crops": 5}


def learns(image: LabImage, fold: int | None) -> bool:
    """Tell whether a fold's networks, or those of no fold, learn from an image."""
    return not image.test and image.fold != fold


def fold_name(fold: int) -> str:
    """Return what files of a fold's networks are named by."""
    return f"without-{FIELDS[fold]}"


def verifier_file(fold: int, input_px: int, seed: int | str) -> str:
    """Return the name of a verifier's weights."""
    return f"verifier-{fold_name(fold)}-{input_px}px-seed{seed}.safetensors"


def stains_of(images: Sequence[LabImage], fold: int) -> list[Stain]:
    """Return the stains to move patches towards: of a fold's fields, and of half the crops."""
    used = [image for image in images if learns(image, fold)]
    fields = {image.name: image.source.stain for image in used if not image.source.centered}
    slides = {image.source.slide: image.source.stain for image in used if image.source.centered}
    return [s for s in (*fields.values(), *list(slides.values())[::2]) if s is not None]


def make_pools(images: Sequence[LabImage], fold: int | None = None) -> dict[str, Pool]:
    """Collect mitoses, rejected cells and dark nuclei of all that a fold learns from.

    None stands for all images but those of the test slide.
    """
    positives: dict[str, list[NDArray[np.float64]]] = {}
    negatives: dict[str, list[NDArray[np.float64]]] = {}
    for index, image in enumerate(images):
        if not learns(image, fold):
            continue
        name = "background" if image.laboratory in BACKGROUND else image.laboratory
        mitoses = image.source.mitoses_xy
        if image.laboratory in (*FIELDS, "crops"):
            positives.setdefault(name, []).append(point_rows(index, mitoses))
        nuclei = find_dark_nuclei(image.matched(), MPP)
        others = np.concatenate([nuclei, image.source.hard_negatives_xy])
        near = is_near(others, mitoses, _NEAR_MITOSIS_PX)
        near |= is_near(others, image.unsure_xy, _NEAR_UNSURE_PX)
        negatives.setdefault(name, []).append(point_rows(index, others[~near]))
    none = [np.zeros((0, 3))]
    return {
        name: Pool(
            np.concatenate(positives.get(name, none)),
            np.concatenate(rows),
            POSITIVE_SHARES.get(name, 0.0),
            NEGATIVE_SHARES[name],
        )
        for name, rows in negatives.items()
    }

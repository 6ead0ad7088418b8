"""A result of detection read back from its folder: what is needed to count again."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from segmitos.counting.count import Count, CountSettings, count, known_validation
from segmitos.counting.intervals import ValidationCounts
from segmitos.counting.summary import Summary, read_summary
from segmitos.detection.tissue import TissueMask
from segmitos.errors import DataError, InputError, UsageError
from segmitos.io.arguments import path_of
from segmitos.io.files import image_bytes
from segmitos.io.outputs import SUMMARY
from segmitos.io.points.candidates import CANDIDATES, Candidates, read_candidates

TISSUE = "tissue.png"
COUNT_SETTINGS = (
    "min_score",
    "min_area_um2",
    "hotspot_area_mm2",
    "hotspot_shape",
    "field_diameter_mm",
    "qupath",
)
"""Settings of a result that are answered from its saved files, without the networks."""


@dataclass(frozen=True)
class SavedResult:
    """What `segmitos detect` left of one image."""

    summary: Summary
    candidates: Candidates
    tissue: TissueMask

    @property
    def settings(self) -> CountSettings:
        """How it was counted."""
        return _count_settings(self.summary.settings)

    @property
    def validation(self) -> ValidationCounts | None:
        """How often the model errs, where it says so."""
        return known_validation(self.summary.model_card.get("validation"))


def read_saved(folder: Path | str) -> SavedResult:
    """Read a result's folder.

    Raises:
        InputError: for a folder that holds no result, or one that lacks a file.
        DataError: for a damaged one.
    """
    folder = path_of(folder, "folder")
    summary = read_summary(folder)
    for name in (CANDIDATES, TISSUE):
        if not (folder / name).is_file():
            raise InputError(f"{folder} lacks {name}; run detect again with --overwrite")
    name = str(summary.input.get("name", summary.name))
    candidates = read_candidates(folder / CANDIDATES, summary.mpp, name)
    tissue = _read_tissue(folder / TISSUE, summary)
    missing = [key for key in COUNT_SETTINGS if key not in summary.settings]
    if missing:
        raise DataError(f"{folder / SUMMARY} is damaged: no setting {missing[0]}")
    return SavedResult(summary, candidates, tissue)


def change_settings(saved: SavedResult, changes: dict[str, Any]) -> SavedResult:
    """Count a saved result again with other settings, as detection would have counted it.

    Args:
        saved: as read.
        changes: values of `COUNT_SETTINGS`; None for a threshold stands for the model's own.

    Returns:
        The result with its candidates, windows, scores and settings renewed.

    Raises:
        UsageError: for a setting that takes the networks, or a value that cannot be.
    """
    unknown = [key for key in changes if key not in COUNT_SETTINGS]
    if unknown:
        raise UsageError(f"{unknown[0]} cannot be changed without running the networks again")
    settings = {**saved.summary.settings, **changes}
    used = saved.summary.thresholds
    own = saved.summary.model_card.get("thresholds") or {}
    values = {}
    for key, most in (("min_score", 1.0), ("min_area_um2", 1e6)):
        value = settings[key]
        if value is None:
            value = own.get(key, getattr(used, key))
        if not 0 <= value <= most:
            raise UsageError(f"{key} {value} must be from 0 to {most:g}")
        values[key] = float(value)
    thresholds = replace(used, **values)
    candidates = saved.candidates.filtered(
        thresholds.threshold_value, thresholds.min_area_um2, thresholds.min_score
    )
    summary = replace(saved.summary, settings=settings, thresholds=thresholds)
    return count_saved(SavedResult(summary, candidates, saved.tissue))


def count_saved(saved: SavedResult) -> SavedResult:
    """Return a result with its counts renewed from its candidates, tissue and settings."""
    own = {key: getattr(saved.summary, key) for key in Summary.__dataclass_fields__}
    about = {key: value for key, value in own.items() if key not in Count.__dataclass_fields__}
    return new_result(saved.candidates, saved.tissue, about)


def new_result(candidates: Candidates, tissue: TissueMask, about: Mapping[str, Any]) -> SavedResult:
    """Count what was found on one image.

    Args:
        candidates: of the image.
        tissue: mask of the image.
        about: the attributes of `Summary` that a count lacks.
    """
    counted = count(
        candidates.detections().xy,
        about["mpp"],
        about["width_px"],
        about["height_px"],
        tissue,
        _count_settings(about["settings"]),
        known_validation(about["model_card"].get("validation")),
    )
    fields = {key: getattr(counted, key) for key in Count.__dataclass_fields__}
    return SavedResult(Summary(**fields, **about), candidates, tissue)


def _count_settings(given: Mapping[str, Any]) -> CountSettings:
    return CountSettings(**{key: given[key] for key in CountSettings.__dataclass_fields__})


def encode_tissue(tissue: TissueMask) -> bytes:
    """Return the mask as PNG, a bit a pixel, white on tissue."""
    return image_bytes(tissue.mask, drawn=True)


def _read_tissue(path: Path, summary: Summary) -> TissueMask:
    from PIL import Image

    try:
        with Image.open(path) as picture:
            mask = np.asarray(picture.convert("1"), dtype=bool)
    except (OSError, ValueError, SyntaxError) as error:
        raise DataError(f"{path} is damaged: not a picture ({error})") from error
    if mask.shape != (summary.tissue.height, summary.tissue.width):
        raise DataError(f"{path} is damaged: not of the size that summary.json says")
    return TissueMask(mask, summary.tissue.mpp, summary.tissue_area_mm2)

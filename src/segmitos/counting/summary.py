"""What is said of one input as a whole: count, density, hotspot, scores, and how sure they are."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, Protocol

from segmitos.counting.counting import (
    NO_MITOSES,
    Hotspot,
    Tissue,
    Unavailable,
    ValidationCounts,
    count_in_fields,
    count_interval,
    density_per_mm2,
    hotspot,
    nottingham_score,
    score_is_uncertain,
    who_2019_score,
)
from segmitos.counting.grading import MitoticScore
from segmitos.io.points.detections import Detections

DEFAULT_FIELD_MM = 0.55
_INTERVAL = (
    "95 % interval of the expected count in such a window, from the model's precision and recall "
    "on validation cases and from chance (how mitoses fall into a window); it does not cover "
    "slides unlike the validation cases."
)
_CHANCE_ONLY = (
    "95 % interval of the expected count in such a window, from chance alone: the model file "
    "states no validation counts."
)


class MeasuredTissue(Tissue, Protocol):
    """A tissue mask that knows its area: mask pixels at the border may stick out of the image."""

    @property
    def area_mm2(self) -> float:
        """Area of tissue."""


def summarize(
    detections: Detections,
    tissue: MeasuredTissue,
    size_px: tuple[int, int],
    area_mm2: float = 2.0,
    shape: str = "square",
    field_diameter_mm: float = DEFAULT_FIELD_MM,
    validation: Mapping[str, Any] | None = None,
) -> tuple[dict[str, Any], Hotspot | None]:
    """Count, find the hotspot and score it.

    Args:
        detections: of one image.
        tissue: mask with its area.
        size_px: (width, height) of the image, level 0.
        area_mm2: of the hotspot window.
        shape: `square`, `circle` or `box`.
        field_diameter_mm: of the ten fields behind the Nottingham score.
        validation: `tp`, `fp`, `fn` of the model on validation cases, where known.

    Returns:
        A JSON-able dict with count, tissue_area_mm2, density_per_mm2, hotspot, hotspot_reason,
        score, score_reason and notes; and the hotspot, or None.
    """
    count = len(detections)
    area = tissue.area_mm2
    density = density_per_mm2(count, area)
    place = (detections.xy, detections.mpp, *size_px)
    found = hotspot(*place, area_mm2, shape, tissue)
    fields = count_in_fields(*place, field_diameter_mm, tissue=tissue)
    known = (
        ValidationCounts(**{key: int(validation[key]) for key in ("tp", "fp", "fn")})
        if (validation and all(key in validation for key in ("tp", "fp", "fn")))
        else None
    )
    systems = []
    in_window, in_fields = _counted(found), _counted(fields)
    if in_window is not None:
        systems.append(_scored("hotspot", who_2019_score(in_window, area_mm2), known))
    if in_fields is not None:
        score = nottingham_score(in_fields, field_diameter_mm)
        systems.append(_scored("ten fields", score, known))
    notes = []
    if area == 0:
        notes.append("No tissue was found, so there is no density.")
    elif isinstance(found, Unavailable):
        notes.append(f"No hotspot: {found.reason}.")
    if area > 0 and in_fields is None and in_window is not None and isinstance(fields, Unavailable):
        notes.append(f"No score from ten fields: {fields.reason}.")
    content = {
        "count": count,
        "tissue_area_mm2": area,
        "density_per_mm2": None if math.isnan(density) else density,
        "hotspot": found.to_dict() if isinstance(found, Hotspot) else None,
        "hotspot_reason": found.reason if isinstance(found, Unavailable) else None,
        "score": None
        if not systems
        else {
            "systems": systems,
            "uncertain": any(entry["uncertain"] for entry in systems),
            "interval_note": _INTERVAL if known else _CHANCE_ONLY,
        },
        "score_reason": None if systems or not isinstance(found, Unavailable) else found.reason,
        "notes": notes,
    }
    return content, found if isinstance(found, Hotspot) else None


def _counted(found: Hotspot | Unavailable) -> int | None:
    """Count in a window; none found where a window fits is a count too."""
    if isinstance(found, Hotspot):
        return found.count
    return 0 if found is NO_MITOSES else None


def _scored(where: str, score: MitoticScore, known: ValidationCounts | None) -> dict[str, Any]:
    interval = count_interval(score.count, known)
    low, high = interval.combined
    scores = sorted({score.of(round(low)), score.score, score.of(round(high))})
    spread = " to ".join(map(str, dict.fromkeys((scores[0], scores[-1]))))
    return {
        **score.to_dict(),
        "name": f"{score.system}, {where}: {score.basis}",
        "where": where,
        "interval": interval.to_dict(),
        "uncertain": score_is_uncertain(score, interval),
        "cutoffs": f"up to {score.one_up_to} / {score.one_up_to + 1} to "
        f"{score.three_from - 1} / {score.three_from} and more",
        "within": f"{spread} (count {low:.1f} to {high:.1f})",
    }

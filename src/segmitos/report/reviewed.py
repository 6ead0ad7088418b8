"""The files of a review: the corrected count, its marks and its report, beside the model's."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from segmitos.counting.recount import Review
from segmitos.counting.reviewed_marks import Label
from segmitos.counting.saved import SavedResult
from segmitos.errors import DataError, OutputError
from segmitos.io.files import json_text
from segmitos.io.geometry import to_qupath
from segmitos.io.outputs import PROGRAM
from segmitos.io.points.geojson_features import REVIEWED_CLASS, collection_text, region_feature
from segmitos.io.slide import Slide
from segmitos.io.tables import table_text, text_cell
from segmitos.report.html import render_report
from segmitos.report.marks import ShownMark, shown_marks
from segmitos.report.pictures import MAX_CROPS, crops_at
from segmitos.report.signed import REVIEWED_HTML, REVIEWED_JSON

REVIEWED_CSV, REVIEWED_GEOJSON = "reviewed.csv", "reviewed.geojson"
_NO_COUNT = ("qupath", "probability_map")
"""Settings of a result that say which files it has, and change no count."""
REVIEWED = (REVIEWED_GEOJSON, REVIEWED_CSV, REVIEWED_JSON, REVIEWED_HTML)
_COLUMNS = (
    "id",
    "candidate",
    "x_px",
    "y_px",
    "x_um",
    "y_um",
    "label",
    "detection",
    "in_hotspot",
    "score",
    "area_um2",
)
_CLASSES: dict[Label | None, tuple[str, tuple[int, int, int]]] = {
    "mitosis": ("Mitotic figure", (200, 0, 80)),
    "atypical": ("Atypical mitotic figure", (150, 0, 150)),
    "look-alike": ("Hard negative", (0, 120, 200)),
    "unsure": ("Unsure", (230, 160, 0)),
    None: ("Undecided", (130, 130, 130)),
}
_REGION_COLOR = (40, 120, 60)


def reviewed_files(
    saved: SavedResult,
    review: Review,
    picture: bytes,
    crops: Mapping[str, bytes],
    slide: Slide | None = None,
) -> dict[str, bytes]:
    """Return the files of a review, by name, the counts last; the same for the same verdicts.

    Args:
        saved: the model's result.
        review: the counts and who answers for them.
        picture: overview of the image, JPEG.
        crops: by id, those that there are.
        slide: to read the other crops from; without it they are left out.
    """
    shown = _shown_crops(saved, review, crops, slide)
    return {
        REVIEWED_GEOJSON: _geojson(saved, review).encode("utf-8"),
        REVIEWED_CSV: _table(saved, review).encode("utf-8"),
        REVIEWED_HTML: render_report(saved, picture, shown, review).encode("utf-8"),
        REVIEWED_JSON: json_text(review_content(saved, review)).encode("utf-8"),
    }


def review_content(saved: SavedResult, review: Review) -> dict[str, Any]:
    """Return the content of reviewed.json; see docs/summary.md."""
    summary = saved.summary
    return {
        "program": PROGRAM,
        "format": "segmitos review",
        "version": 1,
        "name": summary.name,
        "input": summary.input,
        "model_file": summary.model,
        "reader": review.reader,
        "source": review.source,
        "note": review.note,
        "area_reviewed_mm2": review.area_reviewed_mm2,
        "settings": summary.settings,
        **review.recount.to_dict(),
        **review.reading,
    }


def read_review(folder: Path) -> dict[str, Any] | None:
    """Return the content of a result's reviewed.json, None where it has none.

    Raises:
        DataError: where it is damaged.
    """
    path = folder / REVIEWED_JSON
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None
    except (OSError, ValueError, RecursionError) as error:
        raise DataError(f"{path} is damaged: {error}") from error
    if not isinstance(content, dict) or content.get("format") != "segmitos review":
        raise DataError(f"{path} is not a review of SegMitos")
    return content


def is_counted_alike(settings: object, others: Mapping[str, Any]) -> bool:
    """Tell whether two settings of a result give the same counts."""
    if not isinstance(settings, Mapping):
        return False
    first, second = (
        {key: value for key, value in one.items() if key not in _NO_COUNT}
        for one in (settings, others)
    )
    return first == second


def check_reader(folder: Path, reader: str) -> None:
    """Refuse to replace the review of another reader. Raises OutputError, DataError."""
    earlier = read_review(folder)
    if earlier is not None and earlier.get("reader", "") != reader:
        name = earlier.get("reader") or "a reader without a name"
        raise OutputError(
            f"{folder} holds the review of {name}; choose another folder with -o, or replace it "
            "with --overwrite"
        )


def _shown_crops(
    saved: SavedResult, review: Review, crops: Mapping[str, bytes], slide: Slide | None
) -> dict[str, bytes]:
    """Return crops of mitoses and open marks, then of what was rejected, the hotspot's first."""
    marks = shown_marks(saved, review.recount.reviewed.hotspot, review.recount)

    def rank(mark: ShownMark) -> tuple[bool, bool, float, str]:
        score = 1.0 if mark.score is None else mark.score
        return not mark.in_hotspot, mark.state == "rejected", -score, mark.id

    chosen = sorted(marks, key=rank)[:MAX_CROPS]
    return crops_at({mark.id: (mark.x_px, mark.y_px) for mark in chosen}, crops, slide)


def _table(saved: SavedResult, review: Review) -> str:
    candidates, comments = saved.candidates, review.comments
    hotspot = review.recount.reviewed.hotspot
    mpp = saved.summary.mpp
    rows = []
    for mark in review.recount.marks:
        place = candidates.index.get(mark.candidate or "")
        inside = hotspot is not None and bool(hotspot.holds(np.array([[mark.x_px, mark.y_px]]))[0])
        known: tuple[float | str, float | str] = ("", "")
        if place is not None:
            known = (float(candidates.score[place]), float(candidates.area_um2[place]))
        rows.append(
            [
                mark.id,
                mark.candidate or "",
                mark.x_px,
                mark.y_px,
                mark.x_px * mpp,
                mark.y_px * mpp,
                mark.label or "undecided",
                int(candidates.has_detection(mark.candidate)),
                int(inside),
                *known,
                *(() if comments is None else (text_cell(comments.get(mark.id, "")),)),
            ]
        )
    return table_text(_COLUMNS if comments is None else (*_COLUMNS, "comment"), rows)


def _geojson(saved: SavedResult, review: Review) -> str:
    """Return marks and windows for QuPath, in its frame; ids are kept, so that it reads back."""
    summary, reviewed = saved.summary, review.recount.reviewed
    salt = str(summary.input.get("name", summary.name))
    windows = {"Hotspot": reviewed.hotspot, "Ten fields": reviewed.fields}
    features = [
        _reviewed_region(number, to_qupath(np.asarray(outline), summary.bounds_px))
        for number, outline in enumerate(review.regions, start=1)
    ]
    features += [
        region_feature(name, to_qupath(window.outline_xy(), summary.bounds_px), salt)
        for name, window in windows.items()
        if window is not None
    ]
    for mark in review.recount.marks:
        name, color = _CLASSES[mark.label]
        at = to_qupath(np.array([[mark.x_px, mark.y_px]]), summary.bounds_px)[0]
        features.append(
            {
                "type": "Feature",
                "id": mark.candidate or mark.id,
                "geometry": {"type": "Point", "coordinates": at.tolist()},
                "properties": {
                    "objectType": "annotation",
                    "classification": {"name": name, "color": list(color)},
                },
            }
        )
    about: dict[str, Any] = {"mpp": summary.mpp, "name": salt}
    if any(summary.bounds_px[:2]):
        about["qupath_offset_px"] = [float(value) for value in summary.bounds_px[:2]]
    return collection_text({"segmitos": about, "features": features})


def _reviewed_region(number: int, outline: NDArray[np.float64]) -> dict[str, Any]:
    corners = outline.tolist()
    return {
        "type": "Feature",
        "geometry": {"type": "Polygon", "coordinates": [[*corners, corners[0]]]},
        "properties": {
            "objectType": "annotation",
            "name": f"Reviewed {number}",
            "classification": {"name": REVIEWED_CLASS, "color": list(_REGION_COLOR)},
            "isLocked": True,
        },
    }

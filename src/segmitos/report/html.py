"""The HTML report of one input and of a cohort: self-contained, for the screen, paper and phone.

`prepare_pictures` needs the slide; everything after it works from the saved files of an output
folder, so that a report can be made again years later without slide or model.
"""

from __future__ import annotations

import base64
import csv
import io
import json
import math
from collections.abc import Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np

from segmitos.errors import InputError
from segmitos.io.files import write_text
from segmitos.io.points.detections import Detections
from segmitos.io.slide import Slide
from segmitos.report.pictures import (
    COLUMNS,
    MOST_RINGS,
    Mask,
    gallery,
    gallery_order,
    histogram_svg,
    overview,
    small,
)

OVERVIEW, GALLERY, ORDER = "overview.jpg", "gallery.jpg", "gallery.json"
_NEEDED = ("summary.json", "detections.csv", OVERVIEW, ORDER)


def get_ready() -> None:
    """Read the template of a result's report now, while there is something else to wait for."""
    _template("report.html")


def prepare_pictures(
    slide: Slide,
    detections: Detections,
    tissue: Mask | None,
    hotspot_xy: np.ndarray[Any, Any] | None,
) -> dict[str, bytes]:
    """Return the pictures of a result as files: overview, gallery, and the gallery's order."""
    order = gallery_order(detections)
    files = {OVERVIEW: overview(slide, detections, tissue, hotspot_xy)}
    sheet = gallery(slide, detections, order)
    if sheet is not None:
        files[GALLERY] = sheet
    files[ORDER] = (json.dumps([int(index) for index in order]) + "\n").encode()
    return files


def render_report(files: Mapping[str, bytes]) -> str:
    """Return the HTML of one result from its files."""
    summary = json.loads(files["summary.json"])
    rows = list(csv.DictReader(io.StringIO(files["detections.csv"].decode("utf-8"))))
    order = json.loads(files[ORDER])
    scores = np.array([float(row["score"]) for row in rows])
    sheet_rows = math.ceil(len(order) / COLUMNS)
    crops = [
        {
            "number": place + 1,
            # In per cent of the sheet, so that crops can grow and shrink with the page.
            "left": place % COLUMNS / (COLUMNS - 1) * 100,
            "top": place // COLUMNS / max(1, sheet_rows - 1) * 100,
            "x": float(rows[index]["x_px"]),
            "y": float(rows[index]["y_px"]),
            "score": float(rows[index]["score"]),
            "area": float(rows[index]["area_um2"]),
        }
        for place, index in enumerate(order)
    ]
    threshold = summary["thresholds"]["min_score"]
    return _render(
        "report.html",
        summary=summary,
        overview=_data_uri(files[OVERVIEW]),
        gallery=_data_uri(files[GALLERY]) if GALLERY in files else None,
        crops=crops,
        hidden=len(rows) - len(crops),
        histogram=histogram_svg(
            scores, threshold, {"threshold": "threshold", "title": "Histogram of scores"}
        ),
        most_rings=MOST_RINGS,
        sheet_width=COLUMNS * 100,
        sheet_height=sheet_rows * 100,
    )


def rebuild(folder: Path) -> list[Path]:
    """Make the reports of an output folder again, and the cohort's if it has one.

    Args:
        folder: of one result, or of a whole run of detect.

    Returns:
        The reports written.

    Raises:
        InputError: for a folder that holds no result, or one that lacks a file.
    """
    if (folder / "summary.json").is_file():
        return [_rebuild_one(folder)]
    results = sorted(entry.parent for entry in folder.glob("*/summary.json"))
    if not results:
        raise InputError(f"{folder} holds no result of detect (no summary.json)")
    written = [_rebuild_one(result) for result in results]
    if (folder / "cohort.csv").is_file():
        written.append(write_cohort_report(folder))
    return written


def _rebuild_one(folder: Path) -> Path:
    missing = [name for name in _NEEDED if not (folder / name).is_file()]
    if missing:
        raise InputError(f"{folder} lacks {missing[0]}; run detect again with --overwrite")
    files = {
        name: (folder / name).read_bytes()
        for name in (*_NEEDED, GALLERY)
        if (folder / name).is_file()
    }
    path = folder / "report.html"
    try:
        html = render_report(files)
    except (LookupError, ValueError, TypeError) as error:
        raise InputError(f"{folder}: its saved result is damaged ({error!r})") from error
    write_text(path, html)
    return path


def write_cohort_report(folder: Path) -> Path:
    """Write `cohort.html`, a sortable table of all results of a run with thumbnails."""
    with (folder / "cohort.csv").open(encoding="utf-8", newline="") as stream:
        rows: list[dict[str, Any]] = list(csv.DictReader(stream))
    for row in rows:
        picture = folder / row["name"] / OVERVIEW
        row["thumbnail"] = None
        if len(rows) <= 500 and picture.is_file():
            row["thumbnail"] = _data_uri(small(picture.read_bytes(), 120))
    path = folder / "cohort.html"
    write_text(path, _render("cohort.html", rows=rows, numbers=_totals(rows)))
    return path


def _totals(rows: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    done = [row for row in rows if row["status"] == "done"]
    return {
        "done": len(done),
        "failed": len(rows) - len(done),
        "mitoses": sum(int(row["count"] or 0) for row in done),
        "area": sum(float(row["tissue_area_mm2"] or 0) for row in done),
    }


def render_evaluation(evaluation: Mapping[str, Any], pictures: Mapping[str, bytes]) -> str:
    """Return the HTML of an evaluation: its tables and its pictures (PNG bytes by title)."""
    shown = {
        title: "data:image/png;base64," + base64.b64encode(content).decode("ascii")
        for title, content in pictures.items()
    }
    return _render("evaluation.html", evaluation=evaluation, pictures=shown)


def _data_uri(picture: bytes) -> str:
    return "data:image/jpeg;base64," + base64.b64encode(picture).decode("ascii")


def _render(template: str, **content: Any) -> str:
    html: str = _template(template).render(**content)
    return html


@lru_cache
def _template(name: str) -> Any:
    import jinja2

    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent / "templates"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    return environment.get_template(name)

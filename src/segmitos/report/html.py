"""HTML pages, for screen, paper and phone: the report of a result, of a cohort, of an evaluation.

A page holds all it shows and fetches nothing. The report of a result works from saved files alone,
so that it can be made again years later without slide or model.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import suppress
from functools import lru_cache
from pathlib import Path
from typing import Any

from segmitos.counting.recount import Review
from segmitos.counting.saved import SavedResult
from segmitos.errors import DataError
from segmitos.io.files import write_text
from segmitos.io.outputs import COHORT_REPORT, REPORT
from segmitos.report.density import TICKS, legend_gradient
from segmitos.report.map import has_density, map_svg, scale_bar
from segmitos.report.marks import candidate_marks, shown_marks
from segmitos.report.pictures import OVERVIEW, data_uri, histogram_svg, shrink, size_of
from segmitos.report.signed import REVIEWED_HTML, shown_review

MAX_THUMBNAILS = 500
# Of cohort.csv: name, title, format.
_COHORT_COLUMNS = (
    ("count", "Count", "%d"),
    ("tissue_area_mm2", "Tissue mm²", "%.2f"),
    ("density_per_mm2", "Per mm²", "%.1f"),
    ("hotspot_count", "Hotspot", "%d"),
    ("hotspot_density_per_mm2", "Hotspot per mm²", "%.1f"),
    ("who_score", "WHO score", "%d"),
    ("nottingham_score", "Nottingham score", "%d"),
    ("reviewed_count", "Reviewed count", "%d"),
    ("reviewed_hotspot_count", "Reviewed hotspot", "%d"),
    ("reviewed_who_score", "Reviewed WHO", "%d"),
    ("reviewed_nottingham_score", "Reviewed Nottingham", "%d"),
)
_ALWAYS_SHOWN = ("count", "tissue_area_mm2", "hotspot_count", "who_score", "nottingham_score")


def render_report(
    saved: SavedResult,
    picture: bytes,
    crops: Mapping[str, bytes],
    review: Review | None = None,
) -> str:
    """Return the HTML of one result, or of its review.

    Args:
        saved: the result.
        picture: its overview, JPEG.
        crops: JPEG by the id of the mark, in the order to show.
        review: the result as a reader corrected it.
    """
    counted = saved.summary if review is None else review.recount.reviewed
    marks = shown_marks(saved, counted.hotspot, None if review is None else review.recount)
    if review is None and not marks:
        marks = candidate_marks(saved, crops)
    by_id = {mark.id: mark for mark in marks}
    shown = [by_id[identity] for identity in crops]
    numbers = {mark.id: number for number, mark in enumerate(shown, start=1)}
    width, height = size_of(picture)
    detections = saved.candidates.detections()
    return render(
        REPORT,
        summary=saved.summary,
        counted=counted,
        review=review,
        warnings=_warnings(saved, review),
        map=map_svg(saved, picture, marks, numbers, counted.hotspot, counted.fields),
        ratio=width / height,
        scale_bar=scale_bar(saved.summary.width_px * saved.summary.mpp),
        density=has_density(saved, counted.count),
        states=sorted({mark.state for mark in marks}),
        legend=legend_gradient(),
        ticks=TICKS,
        crops=[
            {"number": numbers[mark.id], "mark": mark, "picture": data_uri(crops[mark.id])}
            for mark in shown
        ],
        hidden=len(marks) - len(shown),
        histogram=histogram_svg(detections.score, saved.summary.thresholds.min_score),
    )


def _warnings(saved: SavedResult, review: Review | None) -> list[str]:
    """Return what a reader must know first."""
    counted = saved.summary if review is None else review.recount.reviewed
    found = [*saved.summary.warnings, *counted.notes]
    if review is not None:
        open_marks = review.recount.tally.undecided + review.recount.tally.unsure
        if open_marks and not review.recount.settled:
            marks = "1 mark is" if open_marks == 1 else f"{open_marks} marks are"
            found.append(f"{marks} undecided or unsure, and the score may still change.")
    elif counted.score is not None and counted.score.uncertain:
        found.append(
            "The score would change within the interval of the count: check the borderline "
            "detections below."
        )
    return found


def write_cohort_report(folder: Path, rows: Sequence[dict[str, Any]]) -> Path:
    """Write `cohort.html`, a sortable table of all results of a folder with thumbnails.

    Args:
        folder: of the results.
        rows: the columns of cohort.csv as text, empty for what there is not.
    """
    shown = []
    for row in rows:
        picture = folder / row["name"] / OVERVIEW
        thumbnail = None
        if len(rows) <= MAX_THUMBNAILS and picture.is_file() and row["status"] != "failed":
            # A damaged picture is missing from the table, the result is not.
            with suppress(OSError, DataError):
                thumbnail = data_uri(shrink(picture.read_bytes(), 120))
        review = None
        if row.get("reviewed_count"):
            place, _ = shown_review(folder, row["name"])
            review = None if place is None else (place / REVIEWED_HTML).relative_to(folder)
        page = None if review is None else review.as_posix()
        shown.append({**row, "thumbnail": thumbnail, "review": page})
    path = folder / COHORT_REPORT
    there = [
        column
        for column in _COHORT_COLUMNS
        if any(row.get(column[0]) for row in rows) or column[0] in _ALWAYS_SHOWN
    ]
    write_text(path, render(COHORT_REPORT, rows=shown, numbers=_totals(rows), columns=there))
    return path


def _totals(rows: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    done = [row for row in rows if row["status"] != "failed"]
    return {
        "done": len(done),
        "failed": len(rows) - len(done),
        "mitoses": sum(int(row["count"] or 0) for row in done),
        "area": sum(float(row["tissue_area_mm2"] or 0) for row in done),
    }


def render_evaluation(
    evaluation: Mapping[str, Any], pictures: Mapping[str, bytes], captions: Mapping[str, str]
) -> str:
    """Return the HTML of an evaluation.

    Args:
        evaluation: its tables and warnings.
        pictures: PNG bytes by title.
        captions: what stands below a picture, by its title.
    """
    shown = {title: data_uri(content, "png") for title, content in pictures.items()}
    return render("evaluation.html", evaluation=evaluation, pictures=shown, captions=captions)


def render(template: str, **content: Any) -> str:
    """Return the HTML of a template of this package; all of them extend `base.html`."""
    html: str = _environment().get_template(template).render(**content)
    return html


@lru_cache
def _environment() -> Any:
    import jinja2

    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent / "templates"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["units"] = lambda text: (
        str(text).replace("mm2", "mm²").replace("um2", "µm²")
    )
    return environment

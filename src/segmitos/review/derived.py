"""The files of a review: marks for QuPath, a table, the counts, and a page to print and sign.

They are those of `segmitos recount`, and say besides how the marks were read.
"""

from __future__ import annotations

from segmitos.counting.recount import Recount, Review, recount
from segmitos.counting.reviewed_marks import ReviewedMark
from segmitos.counting.windows import Hotspot
from segmitos.errors import InputError
from segmitos.io.files import json_text
from segmitos.io.tables import table_text
from segmitos.io.text import reason_of
from segmitos.report.pictures import OVERVIEW
from segmitos.report.reviewed import REVIEWED, reviewed_files
from segmitos.review.assess import fixed_windows
from segmitos.review.images import Images
from segmitos.review.results import Result
from segmitos.review.screening import area_mm2, covers
from segmitos.review.state import OWN, ReviewState

EXPORTS = tuple(f".{name.partition('.')[2]}" for name in REVIEWED)


def derived_files(result: Result, state: ReviewState, who: str, images: Images) -> dict[str, bytes]:
    """Return reviewed.geojson, .csv, .json and .html; the same state gives the same bytes.

    Raises:
        InputError: where the saved result is missing or damaged.
    """
    regions = list(state.regions.values())
    review = Review(
        recount_review(result, state),
        reader=who,
        source="segmitos review" if not state.blind else "segmitos review, blind",
        note=state.comments.get("", ""),
        area_reviewed_mm2=round(area_mm2(regions, result.mpp), 6) if regions else None,
        regions=regions,
        comments={mark.removeprefix(OWN): text for mark, text in state.comments.items()},
        reading={
            # Slides reviewed with the model's marks in sight flatter that model.
            "assisted": not state.blind,
            "finished_at": state.finished_at,
            "fields_seen": len(state.fields),
            "regions": regions,
            "fixed_hotspot": state.fixed_hotspot,
        },
    )
    picture = result.folder / OVERVIEW
    try:
        overview = picture.read_bytes()
    except OSError as error:
        raise InputError(f"cannot read {picture}: {reason_of(error)}") from error
    try:
        with images.borrow(result) as slide:
            return reviewed_files(result.saved, review, overview, {}, slide)
    except InputError:
        # The slide has been moved or is damaged; counts and marks stand without its pictures.
        return reviewed_files(result.saved, review, overview, {})


def blind_file(state: ReviewState, who: str, kind: str) -> bytes | None:
    """Return what a blind reader may take away: own decisions, nothing of the model."""
    rows = [
        {"id": mark, "x_px": place[0], "y_px": place[1], "label": state.labels[mark]}
        for mark, place in state.places.items()
        if mark in state.labels
    ]
    if kind == ".json":
        content = {"reader": who, "note": state.comments.get("", ""), "marks": rows}
        return json_text(content).encode("utf-8")
    if kind == ".csv":
        columns = ("id", "x_px", "y_px", "label")
        return table_text(columns, [row.values() for row in rows]).encode("utf-8")
    return None


def recount_review(result: Result, state: ReviewState) -> Recount:
    """Count a slide again as a reader decided."""
    candidates = result.candidates
    marks = [
        ReviewedMark(mark, *_place(result, state, mark), state.labels.get(mark), mark)
        for mark in dict.fromkeys([*state.labels, *state.moved])
        if mark in candidates.index and (mark in state.labels or candidates.has_detection(mark))
    ]
    marks += [
        ReviewedMark(mark.removeprefix(OWN), x, y, state.labels.get(mark))
        for mark, (x, y) in state.added.items()
    ]
    regions = list(state.regions.values())

    def is_screened(window: Hotspot) -> bool:
        return covers(regions, [(x, y) for x, y in window.outline_xy().tolist()])

    fixed = state.fixed_hotspot
    return recount(
        result.saved,
        marks,
        hotspot="follow" if fixed is None else fixed_windows(result, fixed, result.saved.tissue),
        screened=is_screened,
        only_decided=state.blind,
    )


def _place(result: Result, state: ReviewState, mark: str) -> tuple[float, float]:
    x, y = state.moved.get(mark) or result.candidates.xy[result.candidates.index[mark]].tolist()
    return x, y

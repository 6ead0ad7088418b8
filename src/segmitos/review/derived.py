"""The files of a review: marks for QuPath, a table, the counts, and a page to print and sign.

They are those of `segmitos recount`, and say besides how the marks were read.
"""

from __future__ import annotations

import csv
import io
import json
from typing import Any

import numpy as np

from segmitos.counting.recount import Recount, Review, Windows, recount
from segmitos.counting.reviewed_marks import ReviewedMark
from segmitos.counting.windows import Hotspot
from segmitos.errors import InputError
from segmitos.io.files import json_text
from segmitos.io.geometry import to_qupath
from segmitos.report.pictures import OVERVIEW
from segmitos.report.reviewed import REVIEWED, reviewed_files
from segmitos.review.assess import count_windows, reviewed_marks
from segmitos.review.images import Images
from segmitos.review.results import Result
from segmitos.review.screening import area_mm2, covers
from segmitos.review.state import OWN, ReviewState

EXPORTS = tuple(f".{name.partition('.')[2]}" for name in REVIEWED)
_REGION_COLOR = (40, 120, 60)


def derived_files(result: Result, state: ReviewState, who: str, images: Images) -> dict[str, bytes]:
    """Return reviewed.geojson, .csv, .json and .html; the same state gives the same bytes.

    Raises:
        InputError: where the saved result is missing or damaged.
    """
    regions = list(state.regions.values())
    area = round(area_mm2(regions, result.mpp), 6) if regions else None
    source = "segmitos review" if not state.blind else "segmitos review, blind"
    review = Review(recount_review(result, state), who, source, state.comments.get("", ""), area)
    picture = result.folder / OVERVIEW
    try:
        overview = picture.read_bytes()
    except OSError as error:
        raise InputError(f"cannot read {picture}: {error.strerror or error}") from error
    try:
        with images.borrow(result) as slide:
            files = reviewed_files(result.saved, review, overview, {}, slide)
    except InputError:
        # The slide has been moved or is damaged; counts and marks stand without its pictures.
        files = reviewed_files(result.saved, review, overview, {}, None)
    geojson, table, content, _ = REVIEWED
    files[content] = _with_reading(files[content], state)
    files[geojson] = _with_regions(files[geojson], result, state)
    files[table] = _with_comments(files[table], state)
    return files


def blind_file(result: Result, state: ReviewState, who: str, kind: str) -> bytes | None:
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
        stream = io.StringIO()
        table = csv.DictWriter(stream, ["id", "x_px", "y_px", "label"], lineterminator="\n")
        table.writeheader()
        table.writerows(rows)
        return stream.getvalue().encode("utf-8")
    return None


def recount_review(result: Result, state: ReviewState) -> Recount:
    """Count a slide again as a reader decided."""
    candidates = result.candidates
    marks = [
        ReviewedMark(mark, *_place(result, state, mark), state.labels.get(mark), mark)
        for mark in dict.fromkeys([*state.labels, *state.moved])
        if mark in candidates.index
        and (mark in state.labels or candidates.is_detection[candidates.index[mark]])
    ]
    marks += [
        ReviewedMark(mark.removeprefix(OWN), x, y, state.labels.get(mark))
        for mark, (x, y) in state.added.items()
    ]
    regions = list(state.regions.values())

    def is_screened(window: Hotspot) -> bool:
        return covers(regions, [(x, y) for x, y in window.outline_xy().tolist()])

    if state.fixed_hotspot is None:
        return recount(result.saved, marks, screened=is_screened)
    return recount(result.saved, marks, hotspot=_fixed(result, state), screened=is_screened)


def _fixed(result: Result, state: ReviewState) -> Windows:
    """Return the windows where the reader fixed them."""
    found = count_windows(result, reviewed_marks(result, state), state.fixed_hotspot)
    return found[0].window, found[1].window


def _place(result: Result, state: ReviewState, mark: str) -> tuple[float, float]:
    x, y = state.moved.get(mark) or result.candidates.xy[result.candidates.index[mark]].tolist()
    return x, y


def _with_reading(content: bytes, state: ReviewState) -> bytes:
    """Add to reviewed.json how the slide was read."""
    return json_text(
        {
            **json.loads(content),
            # Slides reviewed with the model's marks in sight flatter that model.
            "assisted": not state.blind,
            "finished_at": state.finished_at,
            "fields_seen": len(state.fields),
            "regions": [[list(corner) for corner in one] for one in state.regions.values()],
            "fixed_hotspot": state.fixed_hotspot,
        }
    ).encode("utf-8")


def _with_regions(content: bytes, result: Result, state: ReviewState) -> bytes:
    """Add the reviewed regions to reviewed.geojson, in QuPath's frame, one a line."""
    lines = []
    for number, outline in enumerate(state.regions.values(), start=1):
        corners = to_qupath(np.asarray(outline), result.summary.bounds_px).tolist()
        feature: dict[str, Any] = {
            "type": "Feature",
            "geometry": {"type": "Polygon", "coordinates": [[*corners, corners[0]]]},
            "properties": {
                "objectType": "annotation",
                "name": f"Reviewed {number}",
                "classification": {"name": "Region*", "color": list(_REGION_COLOR)},
                "isLocked": True,
            },
        }
        lines.append(json.dumps(feature))
    text = content.decode("utf-8")
    opening = '"features": ['
    if not lines or opening not in text:
        return content
    before, after = text.split(opening, 1)
    comma = "" if after.strip().startswith("]") else ","
    return f"{before}{opening}\n{(',' + chr(10)).join(lines)}{comma}{after}".encode()


def _with_comments(content: bytes, state: ReviewState) -> bytes:
    """Add a column of comments to reviewed.csv."""
    rows = list(csv.reader(io.StringIO(content.decode("utf-8"))))
    stream = io.StringIO()
    table = csv.writer(stream, lineterminator="\n")
    table.writerow([*rows[0], "comment"])
    for row in rows[1:]:
        text = state.comments.get(row[0]) or state.comments.get(f"{OWN}{row[0]}", "")
        table.writerow([*row, _plain(text)])
    return stream.getvalue().encode("utf-8")


def _plain(text: str) -> str:
    """Return text that no spreadsheet takes for a formula."""
    return f"'{text}" if text[:1] in ("=", "+", "-", "@", "\t") else text

"""The marks that a report shows: the model's detections, or what a reader left of them."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from segmitos.counting.recount import Recount
from segmitos.counting.reviewed_marks import ReviewedMark
from segmitos.counting.saved import SavedResult
from segmitos.counting.windows import Hotspot
from segmitos.io.geometry import xy_of
from segmitos.io.points.candidates import Candidates

State = Literal["mitosis", "added", "rejected", "unsure", "undecided", "candidate"]


@dataclass(frozen=True)
class ShownMark:
    """A mark of a report.

    Attributes:
        id: of its candidate, or its own.
        x_px: level-0 pixels.
        y_px: the same.
        state: `mitosis` is a detection that the model, or the reader, calls one; `candidate` lies
            below the threshold and is not counted.
        score: of the candidate, None where there is none.
        area_um2: the same.
        in_hotspot: whether it lies in the hotspot.
    """

    id: str
    x_px: float
    y_px: float
    state: State
    score: float | None
    area_um2: float | None
    in_hotspot: bool


def shown_marks(
    saved: SavedResult, hotspot: Hotspot | None, recount: Recount | None = None
) -> list[ShownMark]:
    """Return the detections of a result, or the marks of its review, ordered by y, then x.

    Candidates below the threshold are shown where a reader called them mitoses or is unsure.
    """
    candidates = saved.candidates
    if recount is None:
        places = np.flatnonzero(candidates.is_detection).tolist()
        marks = [_mark_of(candidates, place) for place in places]
        return _shown(candidates, hotspot, [(mark, "mitosis") for mark in marks])
    chosen = []
    for mark in recount.marks:
        detected = candidates.has_detection(mark.candidate)
        if detected or mark.label not in (None, "look-alike"):
            chosen.append((mark, _state_of(mark, detected)))
    return _shown(candidates, hotspot, chosen)


def candidate_marks(saved: SavedResult, ids: Collection[str]) -> list[ShownMark]:
    """Return these candidates below the threshold: for a result without detections."""
    candidates = saved.candidates
    places = [place for place, identity in enumerate(candidates.ids) if identity in ids]
    marks = [_mark_of(candidates, place) for place in places]
    return _shown(candidates, saved.summary.hotspot, [(mark, "candidate") for mark in marks])


def _mark_of(candidates: Candidates, place: int) -> ReviewedMark:
    x, y = candidates.xy[place].tolist()
    return ReviewedMark(candidates.ids[place], x, y, None, candidates.ids[place])


def _shown(
    candidates: Candidates, hotspot: Hotspot | None, marks: Sequence[tuple[ReviewedMark, State]]
) -> list[ShownMark]:
    points = xy_of(mark for mark, _ in marks)
    inside = np.zeros(len(marks), bool) if hotspot is None else hotspot.holds(points)
    shown = []
    for (mark, state), held in zip(marks, inside.tolist(), strict=True):
        place = candidates.index.get(mark.candidate or "")
        shown.append(
            ShownMark(
                id=mark.candidate or mark.id,
                x_px=mark.x_px,
                y_px=mark.y_px,
                state=state,
                score=None if place is None else float(candidates.score[place]),
                area_um2=None if place is None else float(candidates.area_um2[place]),
                in_hotspot=held,
            )
        )
    return shown


def _state_of(mark: ReviewedMark, detected: bool) -> State:
    if mark.is_mitosis:
        return "mitosis" if detected else "added"
    if mark.label is None:
        return "undecided"
    return "unsure" if mark.label == "unsure" else "rejected"

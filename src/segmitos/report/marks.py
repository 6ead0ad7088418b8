"""The marks that a report shows: the model's detections, or what a reader left of them."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from typing import Literal

import numpy as np

from segmitos.counting.recount import Recount
from segmitos.counting.reviewed_marks import ReviewedMark
from segmitos.counting.saved import SavedResult
from segmitos.counting.windows import Hotspot

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
    place = {identity: index for index, identity in enumerate(candidates.ids)}
    if recount is None:
        xy = candidates.xy.tolist()
        marks = [
            ReviewedMark(identity, xy[index][0], xy[index][1], "mitosis", identity)
            for index, identity in enumerate(candidates.ids)
            if candidates.is_detection[index]
        ]
    else:
        marks = list(recount.marks)
    points = np.array([(mark.x_px, mark.y_px) for mark in marks]).reshape(-1, 2)
    inside = np.zeros(len(marks), bool) if hotspot is None else hotspot.holds(points)
    shown = []
    for mark, held in zip(marks, inside.tolist(), strict=True):
        index = place.get(mark.candidate or "")
        detected = index is not None and bool(candidates.is_detection[index])
        if not detected and mark.label in (None, "look-alike"):
            continue
        shown.append(
            ShownMark(
                id=mark.candidate or mark.id,
                x_px=mark.x_px,
                y_px=mark.y_px,
                state=_state_of(mark, detected),
                score=float(candidates.score[index]) if index is not None else None,
                area_um2=float(candidates.area_um2[index]) if index is not None else None,
                in_hotspot=held,
            )
        )
    return shown


def candidate_marks(saved: SavedResult, ids: Collection[str]) -> list[ShownMark]:
    """Return these candidates below the threshold: for a result without detections."""
    found, hotspot = saved.candidates, saved.summary.hotspot
    inside = np.zeros(len(found), bool) if hotspot is None else hotspot.holds(found.xy)
    return [
        ShownMark(
            id=identity,
            x_px=float(found.x_px[index]),
            y_px=float(found.y_px[index]),
            state="candidate",
            score=float(found.score[index]),
            area_um2=float(found.area_um2[index]),
            in_hotspot=bool(inside[index]),
        )
        for index, identity in enumerate(found.ids)
        if identity in ids
    ]


def _state_of(mark: ReviewedMark, detected: bool) -> State:
    if mark.is_mitosis:
        return "mitosis" if detected else "added"
    if mark.label is None:
        return "undecided"
    return "unsure" if mark.label == "unsure" else "rejected"

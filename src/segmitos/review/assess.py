"""What a review makes of a slide's count: hotspot, ten fields, scores, and what is still open.

A detection that the reader has not decided on counts as the model has it; an unsure one does not
count. Both make a range: from what is decided to be a mitosis, to all that could be one.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from segmitos.counting.count import Windows, count_in, find_windows, score_in
from segmitos.counting.grading import FIELDS, MitoticScore, Unavailable, field_area_mm2
from segmitos.counting.reviewed_marks import LABELS, MITOSES
from segmitos.counting.windows import NO_MITOSES, Hotspot, window_at
from segmitos.detection.tissue import TissueMask
from segmitos.review.results import Result
from segmitos.review.state import ReviewState

Mask = NDArray[np.bool_]
Points = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class ReviewedMarks:
    """All marks of a slide as one reader has them: the model's candidates, then own ones.

    Attributes:
        ids: of each (n).
        xy: positions (n, 2), level-0 pixels; moved ones where they were moved to.
        codes: label of each by its place in `LABELS`, from 1; 0 where there is none (n).
        detected: whether the model counts it (n,).
        score: the model's, nan for own marks (n,).
        own: whether the reader added it (n,).
    """

    ids: list[str]
    xy: Points
    codes: NDArray[np.int8]
    detected: Mask
    score: NDArray[np.float64]
    own: Mask

    @property
    def mitosis(self) -> Mask:
        """Decided to be a mitosis."""
        found: Mask = np.isin(self.codes, [_CODES[label] for label in MITOSES])
        return found

    @property
    def unsure(self) -> Mask:
        """Decided to be neither."""
        found: Mask = self.codes == _CODES["unsure"]
        return found

    @property
    def undecided(self) -> Mask:
        """Detections that wait for a decision."""
        found: Mask = self.detected & (self.codes == 0)
        return found


_CODES = {label: code for code, label in enumerate(LABELS, start=1)}


def reviewed_marks(result: Result, state: ReviewState) -> ReviewedMarks:
    """Put the model's candidates and a reader's state together."""
    candidates = result.candidates
    xy = candidates.xy
    if state.moved:
        xy = xy.copy()
        for mark, place in state.moved.items():
            if mark in candidates.index:
                xy[candidates.index[mark]] = place
    added = list(state.added)
    own = np.array([state.added[mark] for mark in added], float).reshape(-1, 2)
    ids = [*candidates.ids, *added]
    codes = np.zeros(len(ids), np.int8)
    for number, mark in enumerate(added, start=len(candidates.ids)):
        codes[number] = _CODES[state.labels[mark]]
    for mark, label in state.labels.items():
        if mark in candidates.index:
            codes[candidates.index[mark]] = _CODES[label]
    none = np.zeros(len(added), bool)
    return ReviewedMarks(
        ids=ids,
        xy=np.concatenate([xy, own]),
        codes=codes,
        detected=np.concatenate([candidates.is_detection, none]),
        score=np.concatenate([candidates.score, np.full(len(added), np.nan)]),
        own=np.concatenate([np.zeros(len(candidates.ids), bool), ~none]),
    )


@dataclass(frozen=True)
class Counted:
    """The count in one kind of window, with the range that what is open leaves.

    Attributes:
        where: `hotspot` or `ten fields`.
        score: of the count; None where no window fits, then `reason` says why.
        reason: why there is no count, else "".
        window: where the count was made; None where there is nothing to count.
        low: least count, where all that is open turns out to be none.
        high: largest, where all of it is mitosis.
        open: marks in the window that are undecided or unsure.
    """

    where: str
    score: MitoticScore | None
    reason: str
    window: Hotspot | None
    low: int = 0
    high: int = 0
    open: int = 0

    @property
    def scores(self) -> list[int]:
        """Scores that are still possible, in order."""
        if self.score is None:
            return []
        return list(range(self.score.of(self.low), self.score.of(self.high) + 1))

    @property
    def settled(self) -> bool:
        """Whether nothing that is open can change the score."""
        return len(self.scores) == 1

    def to_dict(self) -> dict[str, Any]:
        """Return JSON-able values."""
        return {
            "where": self.where,
            "reason": self.reason,
            "window": self.window
            and {**asdict(self.window), "outline": self.window.outline_xy().tolist()},
            "score": None if self.score is None else asdict(self.score),
            "low": self.low,
            "high": self.high,
            "open": self.open,
            "scores": self.scores,
            "settled": self.settled,
        }


def count_windows(
    result: Result,
    marks: ReviewedMarks,
    fixed: tuple[float, float] | None = None,
    tissue: TissueMask | None = None,
    only_decided: bool = False,
) -> list[Counted]:
    """Count in the hotspot and in ten fields.

    Args:
        result: whose settings say area and shape.
        marks: to count.
        fixed: center of both windows; None searches where most are, exactly.
        tissue: mask that the windows must lie on.
        only_decided: leave undecided detections out, as a blind reader must.
    """
    settings, place = result.saved.settings, (result.mpp, *result.size_px)
    at = (None, None) if fixed is None else fixed_windows(result, fixed, tissue)

    def search(chosen: Mask) -> dict[str, Hotspot | Unavailable]:
        return find_windows(marks.xy[chosen], *place, settings, tissue, at)

    mitosis = marks.mitosis
    counted = mitosis if only_decided else mitosis | marks.undecided
    possible = counted | marks.unsure
    open_xy = marks.xy[possible & ~mitosis]
    windows = search(counted)
    least, most = (search(mitosis), search(possible)) if len(open_xy) else (windows, windows)
    return [
        Counted(
            where=where,
            score=None if (count := count_in(window)) is None else score_in(where, count, settings),
            reason=window.reason if count is None and isinstance(window, Unavailable) else "",
            window=window or None,
            low=count_in(least[where]) or 0,
            high=count_in(most[where]) or 0,
            open=int(window.holds(open_xy).sum()) if window else 0,
        )
        for where, window in windows.items()
    ]


def fixed_windows(
    result: Result, center: tuple[float, float], tissue: TissueMask | None = None
) -> Windows:
    """Return hotspot and ten fields around a place; None of one that fits nowhere."""
    settings, place = result.saved.settings, (result.mpp, *result.size_px)
    empty = find_windows(np.zeros((0, 2)), *place, settings, tissue)
    fields_mm2 = field_area_mm2(settings.field_diameter_mm) * FIELDS
    hotspot = window_at(center, *place, settings.hotspot_area_mm2, settings.hotspot_shape)
    fields = window_at(center, *place, fields_mm2, "box")
    return (
        hotspot if empty["hotspot"] is NO_MITOSES else None,
        fields if empty["ten fields"] is NO_MITOSES else None,
    )


def headline(
    found: Sequence[Counted], model_count: int | None, in_all: tuple[int | None, int, int]
) -> str:
    """Say in one line where the count stands, and what could still change the score.

    Args:
        found: the count in each window.
        model_count: the model's in its hotspot; None where it is not told.
        in_all: of all of the image the model's count (None where it is not told), the count and
            how many marks are undecided or unsure; said where no window fits.
    """
    parts = []
    for counted in found:
        if counted.score is None:
            continue
        count = counted.score.count
        before = model_count if counted.where == "hotspot" else None
        text = f"{counted.where.capitalize()} {_standing(before, count, counted.open)}"
        text += f"; {counted.score.system} score {counted.score.score}, {_changes(counted)}"
        parts.append(text)
    if not parts:
        parts = [f"In all {_standing(*in_all)}"]
        parts += [f"No score: {one.reason}" for one in found[:1] if one.reason]
    return ". ".join(parts)


def _standing(before: int | None, count: int, open_: int) -> str:
    """Say a count, that of the model before it, and how many marks are to decide."""
    text = str(count) if before is None else f"{before} → {count}"
    return f"{text}, {open_} to decide" if open_ else text


def _changes(counted: Counted) -> str:
    """Say at which counts the score would be another, of those still possible."""
    score = counted.score
    if score is None or counted.settled:
        return "cannot change any more"
    places = []
    if counted.low <= score.one_up_to < score.count:
        places.append(f"below {score.one_up_to + 1}")
    if counted.low < score.three_from <= score.count:
        places = [f"below {score.three_from}"]
    if score.count <= score.one_up_to < counted.high:
        places.append(f"at {score.one_up_to + 1}")
    elif score.count < score.three_from <= counted.high:
        places.append(f"at {score.three_from}")
    return "changes " + " or ".join(places)

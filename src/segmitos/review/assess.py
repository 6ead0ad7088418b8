"""What a review makes of a slide's count: hotspot, ten fields, scores, and what is still open.

A detection that the reader has not decided on counts as the model has it; an unsure one does not
count. Both make a range: from what is decided to be a mitosis, to all that could be one.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from segmitos.counting.grading import (
    FIELDS,
    MitoticScore,
    Unavailable,
    field_area_mm2,
    nottingham_score,
    who_2019_score,
)
from segmitos.counting.windows import NO_MITOSES, Hotspot, Tissue, hotspot
from segmitos.review.events import LABELS, MITOSES
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
            "window": None if self.window is None else window_dict(self.window),
            "score": None if self.score is None else asdict(self.score),
            "low": self.low,
            "high": self.high,
            "open": self.open,
            "scores": self.scores,
            "settled": self.settled,
        }


def window_dict(window: Hotspot) -> dict[str, Any]:
    """Return a window with its outline, JSON-able."""
    return {**asdict(window), "outline": window.outline_xy().tolist()}


def count_windows(
    result: Result,
    marks: ReviewedMarks,
    fixed: tuple[float, float] | None = None,
    tissue: Tissue | None = None,
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
    area, shape = result.settings.hotspot_area_mm2, result.settings.hotspot_shape
    diameter = result.settings.field_diameter_mm
    mitosis = marks.mitosis
    undecided = np.zeros_like(mitosis) if only_decided else marks.undecided
    counted, possible = mitosis | undecided, mitosis | undecided | marks.unsure
    found = []
    for where, size, form in (
        ("hotspot", area, shape),
        ("ten fields", field_area_mm2(diameter) * FIELDS, "box"),
    ):
        search = WindowSearch(result, size, form, fixed, tissue)
        window = search(marks.xy[counted])
        if isinstance(window, Unavailable) and window is not NO_MITOSES:
            found.append(Counted(where, None, window.reason, None))
            continue
        count = window.count if isinstance(window, Hotspot) else 0
        score = (
            who_2019_score(count, size) if where == "hotspot" else nottingham_score(count, diameter)
        )
        open_ones = marks.xy[possible & ~mitosis]
        low, high = count, count
        if len(open_ones):
            low, high = search.count(marks.xy[mitosis]), search.count(marks.xy[possible])
        kept = window if isinstance(window, Hotspot) else None
        inside = 0 if kept is None else int(kept.holds(open_ones).sum())
        found.append(Counted(where, score, "", kept, low, high, inside))
    return found


class WindowSearch:
    """Counts points in one kind of window: where most are, or at a fixed place."""

    def __init__(
        self,
        result: Result,
        area_mm2: float,
        shape: str,
        fixed: tuple[float, float] | None,
        tissue: Tissue | None,
    ) -> None:
        self._mpp, self._size_px = result.mpp, result.size_px
        self._area_mm2, self._shape, self._fixed = area_mm2, shape, fixed
        self._tissue = tissue

    def __call__(self, xy: Points) -> Hotspot | Unavailable:
        """Return the window, or why there is none."""
        free = hotspot(
            xy if self._fixed is None else xy[:0],
            self._mpp,
            *self._size_px,
            self._area_mm2,
            self._shape,
            self._tissue,
        )
        if self._fixed is None or free is not NO_MITOSES:
            return free
        window = self._at(self._fixed)
        return replace(window, count=int(window.holds(xy).sum()))

    def count(self, xy: Points) -> int:
        """Return the count in the window, 0 without one."""
        window = self(xy)
        return window.count if isinstance(window, Hotspot) else 0

    def _at(self, center: tuple[float, float]) -> Hotspot:
        """Return the window with its center as near as the image allows."""
        side = float(np.sqrt(self._area_mm2 * 1e6)) / self._mpp
        stretch = {"square": 1.0, "box": np.sqrt(4 / 3), "circle": 2 / np.sqrt(np.pi)}[self._shape]
        width = float(side * stretch)
        height = width if self._shape == "circle" else float(side / stretch)
        x = min(max(center[0] - width / 2, -0.5), self._size_px[0] - width - 0.5)
        y = min(max(center[1] - height / 2, -0.5), self._size_px[1] - height - 0.5)
        return Hotspot(self._shape, self._area_mm2, x, y, width, height, 0)


def headline(found: Sequence[Counted], model_count: int | None) -> str:
    """Say in one line where the count stands, and what could still change the score."""
    parts = []
    for counted in found:
        if counted.score is None:
            continue
        count = counted.score.count
        before = (
            f"{model_count} → " if counted.where == "hotspot" and model_count is not None else ""
        )
        text = f"{counted.where.capitalize()} {before}{count}"
        if counted.open:
            text += f", {counted.open} to decide"
        text += f"; {counted.score.system} score {counted.score.score}, {_changes(counted)}"
        parts.append(text)
    if not parts:
        return found[0].reason.capitalize() if found else ""
    return ". ".join(parts)


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

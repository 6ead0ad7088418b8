"""The count as a reader corrected it, beside the model's.

Detections without a verdict keep counting; these, and unsure marks, widen the range.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from segmitos.counting.count import Count, CountSettings, Windows, count
from segmitos.counting.grading import nottingham_grade
from segmitos.counting.intervals import CountInterval, reviewed_interval
from segmitos.counting.reviewed_marks import (
    ReviewedMark,
    Tally,
    is_open,
    tally_of,
    with_undecided,
)
from segmitos.counting.saved import SavedResult
from segmitos.counting.summary import to_dict
from segmitos.counting.windows import Hotspot
from segmitos.errors import UsageError
from segmitos.io.geometry import xy_of

_SCREENED = (
    "95 % interval of the expected count in such a window, from chance alone: the reader has "
    "looked at all of the window."
)
_MARKS_ONLY = (
    "95 % interval of the expected count in such a window, from chance and from the mitoses that "
    "the model misses (its recall on validation cases): the reader has looked at the marks, not at "
    "all of the window."
)
_UNKNOWN_RECALL = (
    "95 % interval of the expected count in such a window, from chance alone: the model file "
    "states no validation counts, so nothing is known of the mitoses it misses."
)


@dataclass(frozen=True)
class Recount:
    """A reviewed count beside the model's.

    Attributes:
        model: the model's count.
        reviewed: the count as corrected; undecided detections are in it.
        tally: of all marks.
        tally_in_hotspot: of the marks in the reviewed hotspot; None without one.
        range: least and largest count in all, as the undecided and unsure marks fall.
        range_in_hotspot: the same in the reviewed hotspot.
        settled: whether no undecided or unsure mark can change a score any more.
        hotspot_moved: whether other cells are counted in the hotspot than in the model's.
        screened: whether the reader looked at all of the windows.
        grade: Nottingham grade by each system's mitotic score, where the other scores are given.
        marks: as given, with every detection of the model among them unless they are left out,
            ordered by y, then x.
    """

    model: Count
    reviewed: Count
    tally: Tally
    tally_in_hotspot: Tally | None
    range: tuple[int, int]
    range_in_hotspot: tuple[int, int] | None
    settled: bool
    hotspot_moved: bool
    screened: bool
    grade: dict[str, int] | None
    marks: tuple[ReviewedMark, ...]

    def to_dict(self) -> dict[str, Any]:
        """Return JSON-able values, without the marks."""
        names = ("range", "range_in_hotspot", "settled", "hotspot_moved", "screened", "grade")
        return {
            "model": to_dict(self.model),
            "reviewed": to_dict(self.reviewed),
            "tally": asdict(self.tally),
            "tally_in_hotspot": self.tally_in_hotspot and asdict(self.tally_in_hotspot),
            **{name: getattr(self, name) for name in names},
        }


@dataclass(frozen=True)
class Review:
    """A recount, and who answers for it.

    Attributes:
        recount: the counts.
        reader: name of the reader, "" where none was given.
        source: what the verdicts are from: the name of a file, or the review app.
        note: free text of the reader.
        area_reviewed_mm2: area the reader has looked at, None where nobody said.
        regions: outlines of what the reader has looked at whole, level-0 pixels.
        comments: by the id of the mark; None where there could be none.
        reading: how the marks were read, further members of reviewed.json.
    """

    recount: Recount
    reader: str = ""
    source: str = ""
    note: str = ""
    area_reviewed_mm2: float | None = None
    regions: Sequence[Sequence[tuple[float, float]]] = ()
    comments: Mapping[str, str] | None = None
    reading: Mapping[str, Any] = field(default_factory=dict)


def recount(
    saved: SavedResult,
    marks: Sequence[ReviewedMark],
    settings: CountSettings | None = None,
    hotspot: Literal["follow", "fixed"] | Windows = "follow",
    screened: bool | Callable[[Hotspot], bool] = False,
    tubules: int | None = None,
    nuclei: int | None = None,
    only_decided: bool = False,
) -> Recount:
    """Count again as a reader decided.

    Args:
        saved: a result of detection.
        marks: verdicts. Detections that no mark stands for are undecided; other candidates that
            no mark stands for are nothing.
        settings: of the windows; None takes the result's own.
        hotspot: `follow` searches the windows again, `fixed` counts in the model's; or the hotspot
            and the ten fields to count in, None for one that is searched.
        screened: whether the reader looked at all of the windows, not at the marks alone; or what
            tells it of a window.
        tubules: score 1 to 3 for tubule formation, for a grade.
        nuclei: score 1 to 3 for nuclear pleomorphism.
        only_decided: leave undecided detections out, for a reader who is not told what the model
            detected.

    Raises:
        UsageError: for a mark of an unknown candidate, two marks of one candidate, an unknown
            label, a position off the image, or one component of the grade without the other, or
            not from 1 to 3.
    """
    if (tubules is None) != (nuclei is None):
        raise UsageError("a grade needs both scores: of tubules and of nuclei")
    if isinstance(hotspot, str) and hotspot not in ("follow", "fixed"):
        raise UsageError(f"hotspot {hotspot!r}: choose 'follow' or 'fixed'")
    if tubules is not None and nuclei is not None:
        # Refused here, too, where no window has a score and no grade follows.
        nottingham_grade(tubules, nuclei, 1)
    summary, settings = saved.summary, settings or saved.settings
    everything = with_undecided(saved, list(marks))
    if only_decided:
        everything = tuple(mark for mark in everything if not is_open(mark, saved.candidates))
    count_at = partial(
        count,
        mpp=summary.mpp,
        width_px=summary.width_px,
        height_px=summary.height_px,
        tissue=saved.tissue,
        settings=settings,
    )
    model = count_at(saved.candidates.detections().xy, validation=saved.validation)
    xy = xy_of(everything)
    mitoses = np.array([mark.is_mitosis for mark in everything], dtype=bool)
    undecided = np.array([is_open(mark, saved.candidates) for mark in everything], dtype=bool)
    unsure = np.array([mark.label == "unsure" for mark in everything], dtype=bool)

    def interval_of(number: int, window: Hotspot | None) -> CountInterval:
        inside = _in_window(window, xy)
        tally = tally_of(everything, inside, saved.candidates)
        # A confirmed candidate below the threshold is one that the model missed.
        return reviewed_interval(
            tally.confirmed,
            tally.added,
            tally.undecided,
            saved.validation,
            _is_whole(screened, window),
            tally.unsure,
        )

    fixed: Windows = (None, None) if isinstance(hotspot, str) else hotspot
    if hotspot == "fixed":
        fixed = (model.hotspot, model.fields)
    count_reviewed = partial(count_at, fixed=fixed)
    reviewed = count_reviewed(xy[mitoses | undecided], interval_of=interval_of)
    windows = [window for window in (reviewed.hotspot, reviewed.fields) if window is not None]
    whole = [_is_whole(screened, window) for window in windows]
    reviewed = _with_note(reviewed, whole, saved.validation is not None)
    tally = tally_of(everything, np.ones(len(everything), bool), saved.candidates)
    inside = _in_window(reviewed.hotspot, xy)
    in_hotspot = tally_of(everything, inside, saved.candidates) if reviewed.hotspot else None
    return Recount(
        model=model,
        reviewed=reviewed,
        tally=tally,
        tally_in_hotspot=in_hotspot,
        range=tally.range,
        range_in_hotspot=None if in_hotspot is None else in_hotspot.range,
        settled=_is_settled(reviewed, xy, mitoses, undecided | unsure, count_reviewed),
        hotspot_moved=_holds_others(model.hotspot, reviewed.hotspot, xy[mitoses | undecided]),
        screened=screened if isinstance(screened, bool) else bool(whole) and all(whole),
        grade=_grades(reviewed, tubules, nuclei),
        marks=everything,
    )


def _is_whole(screened: bool | Callable[[Hotspot], bool], window: Hotspot | None) -> bool:
    if isinstance(screened, bool):
        return screened
    return window is not None and screened(window)


def _with_note(reviewed: Count, whole: Sequence[bool], is_recall_known: bool) -> Count:
    """Say what the intervals cover."""
    if reviewed.score is None:
        return reviewed
    note = _MARKS_ONLY if is_recall_known else _UNKNOWN_RECALL
    if whole and all(whole):
        note = _SCREENED
    elif any(whole):
        note += " A window that the reader has screened whole has the interval of chance alone."
    return replace(reviewed, score=replace(reviewed.score, interval_note=note))


def _in_window(window: Hotspot | None, xy: NDArray[np.float64]) -> NDArray[np.bool_]:
    return np.zeros(len(xy), bool) if window is None else window.holds(xy)


def _holds_others(first: Hotspot | None, second: Hotspot | None, xy: NDArray[np.float64]) -> bool:
    """Tell whether two windows hold other cells; a shift that changes no cell is none."""
    if first is None or second is None:
        return first is not second
    return bool((first.holds(xy) != second.holds(xy)).any())


def _is_settled(
    reviewed: Count,
    xy: NDArray[np.float64],
    mitoses: NDArray[np.bool_],
    open_: NDArray[np.bool_],
    count_at: Callable[[NDArray[np.float64]], Count],
) -> bool:
    """Tell whether the scores stand, whichever way the open marks fall."""
    if not open_.any() or _is_highest(reviewed, xy[mitoses]):
        return True
    # The largest count in any window only grows with the marks, so the two ends tell.
    ends = [count_at(xy[chosen]) for chosen in (mitoses, mitoses | open_)]
    return all(_scores(end) == _scores(reviewed) for end in ends)


def _is_highest(reviewed: Count, mitoses_xy: NDArray[np.float64]) -> bool:
    """Tell whether what is decided already makes every score the highest."""
    if reviewed.score is None or reviewed.hotspot is None or reviewed.fields is None:
        return False
    windows = {"hotspot": reviewed.hotspot, "ten fields": reviewed.fields}
    return all(
        int(windows[entry.where].holds(mitoses_xy).sum()) >= entry.three_from
        for entry in reviewed.score.systems
    )


def _scores(counted: Count) -> list[tuple[str, int]]:
    entries = () if counted.score is None else counted.score.systems
    return [(entry.where, entry.score) for entry in entries]


def _grades(counted: Count, tubules: int | None, nuclei: int | None) -> dict[str, int] | None:
    if tubules is None or nuclei is None or counted.score is None:
        return None
    return {
        entry.where: nottingham_grade(tubules, nuclei, entry.score)
        for entry in counted.score.systems
    }

"""The count as a reader corrected it, beside the model's.

A reader's verdict on a mark is one of `LABELS`; a detection without a verdict is undecided and
keeps counting as a mitosis until someone decides. An atypical mitosis is a mitosis. An unsure mark
counts neither way, and widens the range.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from segmitos.counting.count import Count, CountSettings, count
from segmitos.counting.grading import nottingham_grade
from segmitos.counting.intervals import CountInterval, ReviewedCounts, reviewed_interval
from segmitos.counting.saved import SavedResult
from segmitos.counting.summary import to_dict
from segmitos.counting.windows import Hotspot
from segmitos.errors import UsageError
from segmitos.io.points.candidates import Candidates

Label = Literal["mitosis", "atypical", "look-alike", "unsure"]
LABELS: tuple[Label, ...] = ("mitosis", "atypical", "look-alike", "unsure")
_MITOSES = ("mitosis", "atypical")
Windows = tuple[Hotspot | None, Hotspot | None]
"""Hotspot and ten fields."""

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
class ReviewedMark:
    """One mark as a reader left it.

    Attributes:
        id: of the candidate, or the reader's own for an added mark.
        x_px: where it is now, level-0 pixels.
        y_px: the same.
        label: the verdict, None where there is none yet.
        candidate: id of the candidate it stands for; None for one that the reader added.
    """

    id: str
    x_px: float
    y_px: float
    label: Label | None
    candidate: str | None = None

    @property
    def is_mitosis(self) -> bool:
        """Whether the reader calls it a mitosis."""
        return self.label in _MITOSES


@dataclass(frozen=True)
class Tally:
    """How many marks a reader left in which state; the sums of a review."""

    confirmed: int
    """Detections of the model called mitoses."""
    rejected: int
    """Detections called look-alikes."""
    added: int
    """Mitoses that the model did not detect."""
    moved: int
    """Detections called mitoses whose position was changed."""
    unsure: int
    undecided: int
    """Detections without a verdict."""
    atypical: int
    """Of the mitoses, those called atypical."""


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
        hotspot_moved: whether the hotspot is another than the model's.
        screened: whether the reader looked at all of the windows.
        grade: Nottingham grade by each system's mitotic score, where the other scores are given.
        marks: as given, with every detection of the model among them, ordered by y, then x.
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
    """

    recount: Recount
    reader: str = ""
    source: str = ""
    note: str = ""
    area_reviewed_mm2: float | None = None


def recount(
    saved: SavedResult,
    marks: Sequence[ReviewedMark],
    settings: CountSettings | None = None,
    hotspot: Literal["follow", "fixed"] | Windows = "follow",
    screened: bool | Callable[[Hotspot], bool] = False,
    tubules: int | None = None,
    nuclei: int | None = None,
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

    Raises:
        UsageError: for a mark of an unknown candidate, two marks of one candidate, an unknown
            label, a position off the image, or one component of the grade without the other.
    """
    if (tubules is None) != (nuclei is None):
        raise UsageError("a grade needs both scores: of tubules and of nuclei")
    if isinstance(hotspot, str) and hotspot not in ("follow", "fixed"):
        raise UsageError(f"hotspot {hotspot!r}: choose 'follow' or 'fixed'")
    summary, settings = saved.summary, settings or saved.settings
    everything = _with_undecided(saved, marks)
    count_at = partial(
        count,
        mpp=summary.mpp,
        width_px=summary.width_px,
        height_px=summary.height_px,
        tissue=saved.tissue,
        settings=settings,
    )
    model = count_at(saved.candidates.detections().xy, validation=saved.validation)
    is_detection = _is_detection(saved.candidates)
    xy = np.array([(mark.x_px, mark.y_px) for mark in everything]).reshape(-1, 2)
    counted = np.array([_counts(mark, is_detection) for mark in everything], dtype=bool)

    def interval_of(number: int, window: Hotspot | None) -> CountInterval:
        inside = _in_window(window, xy)
        tally = _tally(everything, inside, saved.candidates)
        # A confirmed candidate below the threshold is one that the model missed.
        counts = ReviewedCounts(tally.confirmed, tally.added, tally.undecided + tally.unsure)
        interval = reviewed_interval(counts, saved.validation, _is_whole(screened, window))
        return replace(interval, count=number)

    fixed: Windows | None = None if isinstance(hotspot, str) else hotspot
    if hotspot == "fixed":
        fixed = (model.hotspot, model.fields)
    count_reviewed = partial(count_at, fixed=fixed)
    reviewed = count_reviewed(xy[counted], interval_of=interval_of)
    windows = [window for window in (reviewed.hotspot, reviewed.fields) if window is not None]
    whole = [_is_whole(screened, window) for window in windows]
    reviewed = _with_note(reviewed, whole, saved.validation is not None)
    tally = _tally(everything, np.ones(len(everything), bool), saved.candidates)
    inside = _in_window(reviewed.hotspot, xy)
    in_hotspot = _tally(everything, inside, saved.candidates) if reviewed.hotspot else None
    return Recount(
        model=model,
        reviewed=reviewed,
        tally=tally,
        tally_in_hotspot=in_hotspot,
        range=_range(tally),
        range_in_hotspot=None if in_hotspot is None else _range(in_hotspot),
        settled=_is_settled(reviewed, everything, xy, is_detection, count_reviewed),
        hotspot_moved=_place_of(model.hotspot) != _place_of(reviewed.hotspot),
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


def _with_undecided(saved: SavedResult, marks: Sequence[ReviewedMark]) -> tuple[ReviewedMark, ...]:
    """Check marks, and add an undecided one for each detection that has none."""
    known = dict(zip(saved.candidates.ids, saved.candidates.xy.tolist(), strict=True))
    width, height = saved.summary.width_px, saved.summary.height_px
    seen: set[str] = set()
    for mark in marks:
        if mark.label is not None and mark.label not in LABELS:
            raise UsageError(f"mark {mark.id}: {mark.label!r} is not one of {', '.join(LABELS)}")
        if not (-0.5 <= mark.x_px <= width - 0.5 and -0.5 <= mark.y_px <= height - 0.5):
            raise UsageError(
                f"mark {mark.id} at ({mark.x_px:g}, {mark.y_px:g}) px lies outside the image of "
                f"{width} x {height} px"
            )
        if mark.candidate is not None and mark.candidate not in known:
            raise UsageError(f"mark {mark.id} stands for {mark.candidate}, which is no candidate")
        for identity in {mark.id, mark.candidate or mark.id}:
            if identity in seen:
                raise UsageError(f"two marks are given for {identity}")
            seen.add(identity)
    kept = saved.candidates.is_detection
    undecided = [
        ReviewedMark(identity, x, y, None, identity)
        for (identity, (x, y)), detected in zip(known.items(), kept.tolist(), strict=True)
        if detected and identity not in seen
    ]
    return tuple(sorted([*marks, *undecided], key=lambda mark: (mark.y_px, mark.x_px, mark.id)))


def _is_detection(candidates: Candidates) -> set[str]:
    kept = candidates.is_detection.tolist()
    return {identity for identity, is_kept in zip(candidates.ids, kept, strict=True) if is_kept}


def _counts(mark: ReviewedMark, detections: set[str]) -> bool:
    """Tell whether a mark counts as a mitosis as things stand."""
    return mark.is_mitosis or (mark.label is None and mark.candidate in detections)


def _tally(
    marks: Sequence[ReviewedMark], chosen: NDArray[np.bool_], candidates: Candidates
) -> Tally:
    place = dict(zip(candidates.ids, candidates.xy.tolist(), strict=True))
    detections = _is_detection(candidates)
    picked = [mark for mark, wanted in zip(marks, chosen.tolist(), strict=True) if wanted]
    mitoses = [mark for mark in picked if mark.is_mitosis]
    confirmed = [mark for mark in mitoses if mark.candidate in detections]
    detected = [mark for mark in picked if mark.candidate in detections]
    return Tally(
        confirmed=len(confirmed),
        rejected=sum(mark.label == "look-alike" for mark in detected),
        added=len(mitoses) - len(confirmed),
        moved=sum([mark.x_px, mark.y_px] != place[str(mark.candidate)] for mark in confirmed),
        unsure=sum(mark.label == "unsure" for mark in picked),
        undecided=sum(mark.label is None for mark in detected),
        atypical=sum(mark.label == "atypical" for mark in mitoses),
    )


def _range(tally: Tally) -> tuple[int, int]:
    least = tally.confirmed + tally.added
    return least, least + tally.undecided + tally.unsure


def _in_window(window: Hotspot | None, xy: NDArray[np.float64]) -> NDArray[np.bool_]:
    return np.zeros(len(xy), bool) if window is None else window.holds(xy)


def _place_of(window: Hotspot | None) -> tuple[float, ...] | None:
    if window is None:
        return None
    return window.x_px, window.y_px, window.width_px, window.height_px


def _is_settled(
    reviewed: Count,
    marks: Sequence[ReviewedMark],
    xy: NDArray[np.float64],
    detections: set[str],
    count_at: Callable[[NDArray[np.float64]], Count],
) -> bool:
    """Tell whether the scores stand, whichever way the open marks fall."""
    open_ = np.array(
        [
            mark.label == "unsure" or (mark.label is None and mark.candidate in detections)
            for mark in marks
        ],
        dtype=bool,
    )
    if not open_.any():
        return True
    mitoses = np.array([mark.is_mitosis for mark in marks], dtype=bool)
    if _is_highest(reviewed, xy[mitoses]):
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

"""Marks as a reader left them: what they may be, and how many are in which state.

A reader's verdict on a mark is one of `LABELS`; a detection without a verdict is undecided and
keeps counting as a mitosis until someone decides. An atypical mitosis is a mitosis. An unsure mark
counts neither way.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from segmitos.counting.saved import SavedResult
from segmitos.errors import UsageError
from segmitos.io.geometry import xy_of
from segmitos.io.pairs import pairs_within
from segmitos.io.points.candidates import Candidates

Label = Literal["mitosis", "atypical", "look-alike", "unsure"]
LABELS: tuple[Label, ...] = ("mitosis", "atypical", "look-alike", "unsure")
MITOSES: tuple[Label, ...] = ("mitosis", "atypical")
# Nearer than this two mitoses are one: the plates of an anaphase are further apart.
ONE_CELL_UM = 3.0


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
        return self.label in MITOSES


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

    @property
    def range(self) -> tuple[int, int]:
        """Least and largest count, as the undecided and unsure marks fall."""
        least = self.confirmed + self.added
        return least, least + self.undecided + self.unsure


def with_undecided(saved: SavedResult, marks: Sequence[ReviewedMark]) -> tuple[ReviewedMark, ...]:
    """Check marks, and add an undecided one for each detection that has none."""
    candidates = saved.candidates
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
        if mark.candidate is not None and mark.candidate not in candidates.index:
            raise UsageError(f"mark {mark.id} stands for {mark.candidate}, which is no candidate")
        for identity in {mark.id, mark.candidate or mark.id}:
            if identity in seen:
                raise UsageError(f"two marks are given for {identity}")
            seen.add(identity)
    undecided = [
        ReviewedMark(identity, x, y, None, identity)
        for identity, (x, y) in zip(candidates.ids, candidates.xy.tolist(), strict=True)
        if candidates.has_detection(identity) and identity not in seen
    ]
    return tuple(sorted([*marks, *undecided], key=lambda mark: (mark.y_px, mark.x_px, mark.id)))


def is_open(mark: ReviewedMark, candidates: Candidates) -> bool:
    """Tell whether a mark is a detection without a verdict, which counts as the model has it."""
    return mark.label is None and candidates.has_detection(mark.candidate)


def doubled_marks(
    marks: Sequence[ReviewedMark], candidates: Candidates, mpp: float
) -> tuple[ReviewedMark, ReviewedMark, float] | None:
    """Return two marks that count and are of one cell, and how far apart they are in um.

    One of them was added, say on top of the model's; None where there are no such marks.
    """
    counted = [mark for mark in marks if mark.is_mitosis or is_open(mark, candidates)]
    xy = xy_of(counted)
    near = pairs_within(xy, xy, ONE_CELL_UM / mpp)
    for one, other, apart in zip(near.first, near.second, near.distance, strict=True):
        first, second = counted[one], counted[other]
        if one < other and (first.candidate is None or second.candidate is None):
            return first, second, float(apart) * mpp
    return None


def tally_of(
    marks: Sequence[ReviewedMark], chosen: NDArray[np.bool_], candidates: Candidates
) -> Tally:
    """Count the chosen marks (n,) by their states."""
    picked = [mark for mark, wanted in zip(marks, chosen.tolist(), strict=True) if wanted]
    mitoses = [mark for mark in picked if mark.is_mitosis]
    confirmed = [mark for mark in mitoses if candidates.has_detection(mark.candidate)]
    own_xy = [candidates.xy[candidates.index[str(mark.candidate)]].tolist() for mark in confirmed]
    detected = [mark for mark in picked if candidates.has_detection(mark.candidate)]
    return Tally(
        confirmed=len(confirmed),
        rejected=sum(mark.label == "look-alike" for mark in detected),
        added=len(mitoses) - len(confirmed),
        moved=sum([m.x_px, m.y_px] != xy for m, xy in zip(confirmed, own_xy, strict=True)),
        unsure=sum(mark.label == "unsure" for mark in picked),
        undecided=sum(mark.label is None for mark in detected),
        atypical=sum(mark.label == "atypical" for mark in mitoses),
    )

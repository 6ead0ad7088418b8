"""What several readers said of one slide, on the union of all their marks."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from segmitos.counting.reviewed_marks import MITOSES, Label
from segmitos.evaluation.matching import match_points
from segmitos.io.geometry import xy_of
from segmitos.io.pairs import MATCH_UM
from segmitos.io.points.candidates import Candidates
from segmitos.review.access import MODEL
from segmitos.review.assess import Counted, count_windows, reviewed_marks
from segmitos.review.results import Result
from segmitos.review.screening import polygon
from segmitos.review.state import ReviewState


@dataclass
class Unit:
    """One place that somebody marked.

    Attributes:
        x_px: level-0 pixels.
        y_px: the same.
        candidate: id of the model's mark there, None where there is none.
        labels: by reader; a reader who finished and has no mark there is not in it.
    """

    x_px: float
    y_px: float
    candidate: str | None
    labels: dict[str, Label] = field(default_factory=dict)


@dataclass(frozen=True, eq=False)
class SlideReadings:
    """All finished readings of one slide.

    Attributes:
        name: of the slide.
        mpp: micrometers per level-0 pixel.
        readers: who finished it; the model last where it is one.
        units: places that anybody marked.
        votes: (readers, units): 1 mitosis, 0 none, nan where undecided or unsure.
        counts: mitoses in each reader's own hotspot, nan where no window fits (readers,).
        scores: mitotic score of that, nan likewise (readers,).
    """

    name: str
    mpp: float
    readers: tuple[str, ...]
    units: tuple[Unit, ...]
    votes: NDArray[np.float64]
    counts: NDArray[np.float64]
    scores: NDArray[np.float64]

    def mitoses_xy(self, reader: int) -> NDArray[np.float64]:
        """Return the positions of a reader's mitoses (n, 2)."""
        chosen = [u for u, vote in zip(self.units, self.votes[reader], strict=True) if vote == 1]
        return xy_of(chosen)


def read_slide(
    result: Result, states: Mapping[str, ReviewState], with_model: bool = True
) -> SlideReadings:
    """Put the readings of a slide together.

    Args:
        result: the slide's.
        states: of the readers to compare, by name.
        with_model: whether the model is one more reader.
    """
    units = union_of_marks(result, states)
    readers = [*states, *([MODEL] if with_model else [])]
    votes = np.array([[_vote(unit, who, result.candidates) for unit in units] for who in readers])
    found = [_counted(result, states.get(who)) for who in readers]
    return SlideReadings(
        name=result.name,
        mpp=result.mpp,
        readers=tuple(readers),
        units=tuple(units),
        votes=votes.reshape(len(readers), len(units)),
        counts=np.array([math.nan if one.score is None else one.score.count for one in found]),
        scores=np.array([math.nan if one.score is None else one.score.score for one in found]),
    )


def union_of_marks(result: Result, states: Mapping[str, ReviewState]) -> list[Unit]:
    """Return every detection and every place that a reader marked, where readers moved it to.

    Marks that readers added are one where they lie within 7.5 um, one to one; so are an added mark
    and a candidate that its reader has not decided on.
    """
    units = _marked_candidates(result.candidates, states)
    for who, state in states.items():
        _add_own_marks(units, who, state, MATCH_UM / result.mpp)
    return units


def _marked_candidates(candidates: Candidates, states: Mapping[str, ReviewState]) -> list[Unit]:
    """Return the detections, and the other candidates that a reader decided on, with their labels.

    One that readers moved lies in the middle of where they moved it to.
    """
    wanted = set(np.flatnonzero(candidates.is_detection).tolist())
    for state in states.values():
        wanted |= {candidates.index[mark] for mark in state.labels if mark in candidates.index}
    units = []
    for place in sorted(wanted):
        mark, (x, y) = candidates.ids[place], candidates.xy[place].tolist()
        decided = {who: state for who, state in states.items() if mark in state.labels}
        moved = [state.moved[mark] for state in decided.values() if mark in state.moved]
        if moved:
            x, y = np.mean(moved, axis=0).tolist()
        labels = {who: state.labels[mark] for who, state in decided.items()}
        units.append(Unit(x, y, mark, labels))
    return units


def _add_own_marks(units: list[Unit], who: str, state: ReviewState, distance_px: float) -> None:
    """Put the marks that a reader added among the units: one that is there, or another."""
    own = [(mark, place) for mark, place in state.added.items() if mark in state.labels]
    own_xy = np.array([place for _, place in own]).reshape(-1, 2)
    free = [unit for unit in units if who not in unit.labels]
    matched = dict(match_points(own_xy, xy_of(free), distance_px).pairs)
    for number, (mark, (x, y)) in enumerate(own):
        label = state.labels[mark]
        if number in matched:
            free[matched[number]].labels[who] = label
        else:
            units.append(Unit(x, y, None, {who: label}))


def _vote(unit: Unit, reader: str, candidates: Candidates) -> float:
    is_detection = candidates.has_detection(unit.candidate)
    if reader == MODEL:
        return float(is_detection)
    label = unit.labels.get(reader)
    if label is None:
        # A reader may finish without deciding on a detection, which says nothing; no mark at
        # another place says that there is no mitosis.
        return math.nan if is_detection else 0.0
    return math.nan if label == "unsure" else float(label in MITOSES)


def labels_with_silence(
    unit: Unit, states: Mapping[str, ReviewState], candidates: Candidates
) -> dict[str, Label]:
    """Return the labels of a place, with what it says that a reader has no mark there.

    Where the model shows nothing, who signed the slide, or looked at all of an area around it, has
    seen no mitosis there. Silence on a detection says nothing.
    """
    labels = dict(unit.labels)
    if candidates.has_detection(unit.candidate):
        return labels
    for who, state in states.items():
        if who not in labels and (state.finished or _looked_at(state, unit)):
            labels[who] = "look-alike"
    return labels


def _looked_at(state: ReviewState, unit: Unit) -> bool:
    if not state.regions:
        return False
    import shapely

    place = shapely.Point(unit.x_px, unit.y_px)
    return any(polygon(outline).contains(place) for outline in state.regions.values())


def _counted(result: Result, state: ReviewState | None) -> Counted:
    """Count in a reader's own hotspot; the model's for None."""
    state = state or ReviewState()
    marks = reviewed_marks(result, state)
    tissue = result.saved.tissue
    return count_windows(result, marks, state.fixed_hotspot, tissue, only_decided=state.blind)[0]


def consensus_label(labels: Sequence[Label], rule: str) -> tuple[Label | None, float]:
    """Return the label that votes come to, and the fraction of votes for a mitosis.

    Args:
        labels: of those who decided.
        rule: `majority`: more than half say mitosis, or more than half say look-alike; `all`: all
            of them do. Whatever lies between is unsure.

    Returns:
        The label, None where nobody decided; and the fraction.
    """
    if not labels:
        return None, math.nan
    mitoses = sum(label in MITOSES for label in labels)
    others = sum(label == "look-alike" for label in labels)
    fraction = mitoses / len(labels)
    least = len(labels) if rule == "all" else len(labels) / 2 + 0.25
    if mitoses >= least:
        atypical = sum(label == "atypical" for label in labels)
        return ("atypical" if atypical * 2 > mitoses else "mitosis"), fraction
    return ("look-alike" if others >= least else "unsure"), fraction

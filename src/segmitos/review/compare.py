"""Where readers differ on a slide, who may see it, and what an adjudicator makes of it."""

from __future__ import annotations

import uuid
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from segmitos.counting.reviewed_marks import MITOSES
from segmitos.errors import DataError
from segmitos.evaluation.matching import match_points
from segmitos.io.pairs import MATCH_UM
from segmitos.report.signed import CONSENSUS
from segmitos.review.access import Reader
from segmitos.review.agreement import agreement
from segmitos.review.readings import (
    SlideReadings,
    Unit,
    consensus_label,
    labels_with_silence,
    read_slide,
    union_of_marks,
)
from segmitos.review.results import Result
from segmitos.review.service import ForbiddenError, Service
from segmitos.review.state import OWN, ReviewState

_PAGE_DRAWS = 200
_NAMESPACE = uuid.UUID("a5d3b0f4-6f55-5b60-8f0b-0b7b2b3f9a10")


def finished_states(
    service: Service, result: Result, readers: Sequence[str] | None = None
) -> dict[str, ReviewState]:
    """Return the states of those who finished a slide, by name; not the consensus."""
    return {
        who: state
        for who, state in service.states(result).items()
        if state.finished and who != CONSENSUS and (readers is None or who in readers)
    }


def comparison(service: Service, name: str, reader: Reader) -> dict[str, Any]:
    """Return where those who finished a slide differ, and the consensus so far.

    Raises:
        ForbiddenError: for blind readers, and for one who has not finished, unless an adjudicator.
    """
    result = service.result(name)
    states = finished_states(service, result)
    if service.blind:
        raise ForbiddenError("blind readers do not see each other's marks")
    if reader.name not in states and not reader.adjudicates:
        raise ForbiddenError("finish your own review of this slide first, then compare")
    consensus = service.state(result, CONSENSUS)
    units = [unit for unit in union_of_marks(result, states) if unit.labels]
    marks = _marks(result, units, consensus)
    shown = [_shown(result, *one, states) for one in zip(units, marks, strict=True)]
    return {
        "model": result.key.model_hash,
        "readers": list(states),
        "adjudicates": reader.adjudicates,
        "agreed": [one for one in shown if not one["differs"]],
        "differing": [one for one in shown if one["differs"]],
        "consensus": consensus.to_dict(),
    }


def _marks(result: Result, units: Sequence[Unit], consensus: ReviewState) -> list[str]:
    """Return the id of each place's mark in the consensus: of the candidate, or of an own mark.

    An own mark that is there already keeps its id: the place moves a little as others sign.
    """
    own = list(consensus.added)
    free = [number for number, unit in enumerate(units) if unit.candidate is None]
    pairs = match_points(
        np.array([consensus.added[mark] for mark in own]).reshape(-1, 2),
        np.array([(units[number].x_px, units[number].y_px) for number in free]).reshape(-1, 2),
        MATCH_UM / result.mpp,
    ).pairs
    there = {free[place]: own[number] for number, place in pairs}

    def made(unit: Unit) -> str:
        content = f"{result.key.slide_hash}|{unit.x_px!r}|{unit.y_px!r}"
        return f"{OWN}{uuid.uuid5(_NAMESPACE, content)}"

    return [unit.candidate or there.get(number) or made(unit) for number, unit in enumerate(units)]


def _shown(
    result: Result, unit: Unit, mark: str, states: Mapping[str, ReviewState]
) -> dict[str, Any]:
    """Return a place that readers marked, with its mark in the consensus."""
    labels = labels_with_silence(unit, states, result.candidates)
    # An atypical mitosis is a mitosis: that is no difference to settle.
    kinds = {"mitosis" if label in MITOSES else label for label in labels.values()}
    label, _ = consensus_label(list(labels.values()), "majority")
    return {
        "mark": mark,
        "x_px": unit.x_px,
        "y_px": unit.y_px,
        "labels": unit.labels,
        "label": label,
        "differs": len(kinds) > 1,
    }


def all_readings(
    service: Service, readers: Sequence[str] | None = None, with_model: bool = True
) -> list[SlideReadings]:
    """Return the readings of every slide that at least one reader finished."""
    found = []
    for result in service.worklist.all().values():
        states = finished_states(service, result, readers)
        if states:
            found.append(read_slide(result, states, with_model))
    return found


def agreement_table(service: Service) -> dict[str, Any]:
    """Return the agreement of all readers, for the page. Raises ForbiddenError for blind ones."""
    if service.blind:
        raise ForbiddenError("blind readers do not see each other's marks")
    return agreement(all_readings(service), draws=_PAGE_DRAWS)


def check_readers(service: Service, readers: Sequence[str]) -> None:
    """Refuse a reader who has no events. Raises DataError."""
    known = {who for one in service.store.all_events().values() for who in one}
    for who in readers:
        if who not in known:
            names = ", ".join(sorted(known)) or "nobody"
            raise DataError(f"there is no reader {who!r}; {names} reviewed these results")

"""Over all slides: the worklist, a row a slide, and the marks that teach most."""

from __future__ import annotations

import random
from collections.abc import Mapping
from typing import Any

import numpy as np

from segmitos.review.assess import reviewed_marks
from segmitos.review.events import Event
from segmitos.review.former import events_of, on_its_marks
from segmitos.review.images import levels
from segmitos.review.results import Result, score_distance
from segmitos.review.service import Service, state_word
from segmitos.review.state import ReviewState, fold
from segmitos.review.store import ReviewKey

_QUEUE = 200


def worklist_rows(service: Service, who: str) -> list[dict[str, Any]]:
    """Return a row a slide; uncertain scores first, or shuffled for blind readers."""
    events = service.store.all_events()
    rows = [
        _row(service, name, result, _readings(service, result, events), who)
        for name, result in service.worklist.all().items()
    ]
    if service.blind:
        random.Random(who).shuffle(rows)
    else:
        rows.sort(key=lambda row: (not row["model"]["uncertain"], row["name"]))
    return rows


def _readings(
    service: Service, result: Result, events: Mapping[ReviewKey, dict[str, list[Event]]]
) -> dict[str, list[Event]]:
    """Return the events on a result's marks, by reader; from the database only where they must."""
    if result.former_key != result.key and result.former_key in events:
        return events_of(service.store, result)
    found = events.get(result.key, {})
    return {reader: on_its_marks(given, result) for reader, given in found.items()}


def _row(
    service: Service, name: str, result: Result, readers: dict[str, list[Event]], who: str
) -> dict[str, Any]:
    state = fold(readers.get(who, []))
    asked = _asked(service, result, who)
    row: dict[str, Any] = {
        "name": name,
        "title": result.title,
        "levels": levels(*result.size_px),
        "image": result.image is not None and result.image.exists(),
        "state": state_word(state),
        "decided": sum(mark in state.labels for mark in asked),
        "total": len(asked),
        "note": state.comments.get("", ""),
        "reviewed": _reviewed(service, result, state) if state.begun else None,
        "readers": [],
    }
    if not service.blind:
        row["model"] = _model(result)
        row["readers"] = [
            {"name": reader, "state": state_word(fold(given))}
            for reader, given in sorted(readers.items())
        ]
    return row


def _asked(service: Service, result: Result, who: str) -> list[str]:
    """Return the ids of the marks that a reader is asked about: the detections, blind all shown."""
    candidates = result.candidates
    if service.blind:
        return [candidates.ids[place] for place in service.visible(result, who)]
    return [candidates.ids[place] for place in np.flatnonzero(candidates.is_detection)]


def _model(result: Result) -> dict[str, Any]:
    summary = result.summary
    systems = () if summary.score is None else summary.score.systems
    return {
        "count": summary.count,
        "hotspot": None if summary.hotspot is None else summary.hotspot.count,
        "scores": [{"system": one.system, "score": one.score} for one in systems],
        "uncertain": summary.score is not None and summary.score.uncertain,
    }


def _reviewed(service: Service, result: Result, state: ReviewState) -> dict[str, Any]:
    marks = reviewed_marks(result, state)
    counted = service.count(result, state, marks)
    mitoses = marks.mitosis if service.blind else marks.mitosis | marks.undecided
    hotspot, score = counted[0].window, counted[0].score
    # A window that fits and holds nothing counts 0; one that does not fit has no count.
    none = None if score is None else 0
    return {
        "count": int(mitoses.sum()),
        "hotspot": none if hotspot is None else hotspot.count,
        "scores": [
            {"system": one.score.system, "score": one.score.score, "settled": one.settled}
            for one in counted
            if one.score is not None
        ],
    }


def training_queue(service: Service, who: str) -> dict[str, Any]:
    """Return the marks that teach most: undecided, nearest the threshold; shuffled if blind."""
    found = []
    for name, result in service.worklist.all().items():
        labels = service.state(result, who).labels
        distance, ids = score_distance(result), result.candidates.ids
        found += [
            (float(distance[place]), name, place, result)
            for place in service.visible(result, who)
            if ids[place] not in labels
        ]
    if service.blind:
        random.Random(who).shuffle(found)
    else:
        found.sort(key=lambda one: one[:3])
    marks = []
    for _, name, place, result in found[:_QUEUE]:
        x, y = result.candidates.xy[place].round(1).tolist()
        identity, model = result.candidates.ids[place], result.key.model_hash
        marks.append({"slide": name, "id": identity, "x_px": x, "y_px": y, "model": model})
    return {"undecided": len(found), "marks": marks}

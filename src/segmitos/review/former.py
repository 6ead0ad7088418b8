"""Which events were made on the marks of a result, under whatever name and key they are kept.

An earlier version kept reviews under a slide and a model alone, whatever the settings were that a
result was detected with. They go on as they are, signatures and all, where they were made on the
very marks that the result has. So do those of a slide that has another file name since, which the
ids of its marks depend on.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

import msgspec

from segmitos.review.events import Event
from segmitos.review.results import Result
from segmitos.review.state import OWN
from segmitos.review.store import Store

_ON_MARKS = ("decide", "move", "comment")


def events_of(store: Store, result: Result, who: str | None = None) -> dict[str, list[Event]]:
    """Return the events on a result's marks in their order, by reader."""
    found = former_events(store, result, who)
    for reader, events in store.events(result.key, who).items():
        found[reader] = [*found.get(reader, ()), *on_its_marks(events, result)]
    return found


def on_its_marks(events: list[Event], result: Result) -> list[Event]:
    """Return events with the ids that a result's marks have by now, known by their places."""
    candidates = result.candidates
    decided = [
        event
        for event in events
        if event.kind == "decide" and event.mark and not event.mark.startswith(OWN)
    ]
    strange = [event for event in decided if event.mark not in candidates.index]
    if not strange:
        return events
    places = zip(candidates.xy.tolist(), candidates.ids, strict=True)
    there = {(x, y): mark for (x, y), mark in places}
    names = {event.mark: there.get((event.x_px, event.y_px), event.mark) for event in strange}
    return [
        event if event.mark not in names else msgspec.structs.replace(event, mark=names[event.mark])
        for event in events
    ]


def former_events(store: Store, result: Result, who: str | None = None) -> dict[str, list[Event]]:
    """Return the events of an earlier version that were made on a result's marks, by reader."""
    if result.former_key == result.key:
        return {}
    kept = store.events(result.former_key, who, result.name)
    found = {reader: on_its_marks(events, result) for reader, events in kept.items()}
    return {reader: events for reader, events in found.items() if _fit(events, result)}


def _fit(events: Sequence[Event], result: Result) -> bool:
    """Tell whether events were made on a result's marks.

    Only events since the result was detected do: one with other settings may have had its name.
    """
    try:
        last = datetime.fromisoformat(events[-1].at)
    except ValueError:
        # No such day or hour.
        return False
    if result.started is None or last < result.started:
        return False
    marks = {event.mark for event in events if event.kind in _ON_MARKS and event.mark}
    return all(mark.startswith(OWN) or mark in result.candidates.index for mark in marks)

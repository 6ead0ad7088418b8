"""Reviews made with an earlier version, which kept them under a slide and a model alone.

Whatever the settings were that a result was detected with. They go on as they are, signatures and
all, where they were made on the very marks that the result has.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

from segmitos.review.events import Event
from segmitos.review.results import Result
from segmitos.review.state import OWN
from segmitos.review.store import Store

_ON_MARKS = ("decide", "move", "comment")


def events_of(store: Store, result: Result, who: str | None = None) -> dict[str, list[Event]]:
    """Return the events on a result's marks in their order, by reader."""
    found = former_events(store, result, who)
    for reader, events in store.events(result.key, who).items():
        found[reader] = [*found.get(reader, ()), *events]
    return found


def former_events(store: Store, result: Result, who: str | None = None) -> dict[str, list[Event]]:
    """Return the events of an earlier version that were made on a result's marks, by reader."""
    if result.former_key == result.key:
        return {}
    kept = store.events(result.former_key, who, result.name)
    return {reader: events for reader, events in kept.items() if _fit(events, result)}


def _fit(events: Sequence[Event], result: Result) -> bool:
    """Tell whether events were made on a result's marks.

    Since it was detected, then: under this name there may have been one with other settings before.
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

"""The state of one reader's review of one slide, computed from its events alone.

The fold is tolerant: an event that no longer applies (a decision on a mark whose addition was
undone) has no effect, and has it again once the addition is redone. `check` is strict, and is asked
before an event is stored.
"""

from __future__ import annotations

from collections.abc import Container, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

from segmitos.counting.reviewed_marks import Label
from segmitos.errors import DataError
from segmitos.review.events import Event

XY = tuple[float, float]


@dataclass
class ReviewState:
    """What a reader has decided so far.

    Attributes:
        labels: of marks, by id; of candidates and of the reader's own.
        added: positions of the reader's own marks, level-0 pixels.
        moved: positions of the model's marks that the reader moved.
        regions: outlines of reviewed regions, by id.
        fields: outlines of the fields seen while screening, by id.
        comments: by mark id; that of the whole slide under "".
        fixed_hotspot: center of the window where the reader fixed it; None where it follows.
        finished: id of the event that finished the review, None while it is open.
        finished_at: when that was.
        places: where each decided mark was when it was decided, level-0 pixels.
        undo: id of the event that the next undo takes back; None where there is none.
        redo: id of the undo event that the next redo takes back.
        blind: whether every event was made without sight of the model.
        last_at: time of the last event.
    """

    labels: dict[str, Label] = field(default_factory=dict)
    added: dict[str, XY] = field(default_factory=dict)
    moved: dict[str, XY] = field(default_factory=dict)
    regions: dict[str, list[XY]] = field(default_factory=dict)
    fields: dict[str, list[XY]] = field(default_factory=dict)
    comments: dict[str, str] = field(default_factory=dict)
    fixed_hotspot: XY | None = None
    finished: str | None = None
    finished_at: str | None = None
    places: dict[str, XY] = field(default_factory=dict)
    undo: str | None = None
    redo: str | None = None
    blind: bool = False
    last_at: str | None = None

    @property
    def begun(self) -> bool:
        """Whether anything is decided, drawn or written."""
        return bool(self.labels or self.regions or self.fields or self.comments or self.finished)

    def to_dict(self) -> dict[str, Any]:
        """Return JSON-able values, without places, which follow from the marks."""
        names = [name for name in self.__dataclass_fields__ if name != "places"]
        return {name: getattr(self, name) for name in names}


def fold(events: Iterable[Event]) -> ReviewState:
    """Return the state after one reader's events, in the order of the server."""
    events = list(events)
    effective, undo, redo = _without_undone(events)
    state = ReviewState(undo=undo, redo=redo)
    for event in effective:
        _apply(state, event)
    state.blind = bool(events) and all(event.blind for event in events)
    state.last_at = events[-1].at if events else None
    return state


def _without_undone(events: Sequence[Event]) -> tuple[list[Event], str | None, str | None]:
    """Return the events that stand, in order, and what undo and redo would take back next."""
    order = {event.id: number for number, event in enumerate(events)}
    done: dict[str, Event] = {}
    undone: dict[str, Event] = {}  # by the id of the undo event
    for event in events:
        if event.kind != "undo":
            done[event.id] = event
            undone.clear()
        elif event.mark in done:
            undone[event.id] = done.pop(event.mark)
        elif event.mark in undone:
            again = undone.pop(event.mark)
            done[again.id] = again
    standing = sorted(done.values(), key=lambda event: order[event.id])
    return standing, next(reversed(done), None), next(reversed(undone), None)


def _apply(state: ReviewState, event: Event) -> None:
    mark, place = event.mark or "", (event.x_px or 0.0, event.y_px or 0.0)
    if event.kind == "decide" and event.label is not None:
        # Own marks are of this review; a decision on one that is gone has nothing to decide.
        if not _is_own(mark) or mark in state.added:
            state.labels[mark] = event.label
            if event.x_px is not None and mark not in state.moved:
                state.places.setdefault(mark, place)
    elif event.kind == "add" and event.label is not None:
        state.added[mark] = state.places[mark] = place
        state.labels[mark] = event.label
    elif event.kind == "move":
        if mark in state.added:
            state.added[mark] = state.places[mark] = place
        elif not _is_own(mark):
            state.moved[mark] = state.places[mark] = place
    elif event.kind == "remove":
        state.regions.pop(mark, None)
        if state.added.pop(mark, None) is not None:
            state.labels.pop(mark, None)
            state.places.pop(mark, None)
            state.comments.pop(mark, None)
    elif event.kind == "comment":
        if event.text:
            state.comments[mark] = event.text
        else:
            state.comments.pop(mark, None)
    elif event.kind == "hotspot":
        state.fixed_hotspot = place if event.mode == "fixed" else None
    elif event.kind == "finish":
        state.finished, state.finished_at = event.id, event.at
        if event.text:
            state.comments[""] = event.text
    elif event.outline is not None:
        (state.regions if event.kind == "region" else state.fields)[mark] = event.outline


OWN = "own-"
"""How the id of a reader's own mark begins; what follows is a UUID of the client."""


def _is_own(mark: str) -> bool:
    return mark.startswith(OWN)


def check(
    event: Event,
    state: ReviewState,
    candidates: Container[str],
    known: set[str],
    size_px: tuple[int, int],
) -> None:
    """Refuse an event that cannot be done in a state.

    Args:
        event: to be stored.
        state: before it.
        candidates: ids of the model's marks that the reader may decide on.
        known: ids of this reader's events so far.
        size_px: width and height of the image, level 0.

    Raises:
        DataError: in one line.
    """
    mark = event.mark or ""
    own = mark in state.added
    on_mark = event.kind in ("decide", "move") or (event.kind == "comment" and mark)
    if on_mark and not own and mark not in candidates:
        raise DataError(f"there is no mark {mark!r}")
    if event.kind == "add" and not _is_own(mark):
        raise DataError(f"the id of an added mark must begin with {OWN!r}, not {mark!r}")
    if event.kind == "add" and own:
        raise DataError(f"there is a mark {mark!r} already")
    if event.kind == "remove" and not own and mark not in state.regions:
        raise DataError(
            f"only marks and regions of one's own can be removed, not {mark!r}; reject it instead"
        )
    # Outlines are rounded, and fields of a screening may stick out.
    places, slack = list(event.outline or ()) if event.kind == "region" else [], 1.0
    if event.x_px is not None and event.y_px is not None and event.kind in ("add", "move"):
        places, slack = [(event.x_px, event.y_px)], 0.0
    low, right, bottom = -0.5 - slack, size_px[0] - 0.5 + slack, size_px[1] - 0.5 + slack
    for x, y in places:
        if not (low <= x <= right and low <= y <= bottom):
            raise DataError(
                f"({x:g}, {y:g}) of {mark!r} lies outside the image of {size_px[0]} x "
                f"{size_px[1]} px"
            )
    if event.kind == "undo" and mark not in known:
        raise DataError(f"there is no event {mark!r} of this reader to undo")

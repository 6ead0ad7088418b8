"""Events of a review: what a reader did, one line each, never changed afterwards.

A review's state is a fold over its events (`state.py`). A client makes the ids (UUIDs), so sending
an event twice changes nothing.
"""

from __future__ import annotations

from typing import Annotated, Literal

import msgspec

from segmitos.counting.reviewed_marks import Label
from segmitos.errors import DataError

Kind = Literal[
    "decide",
    "add",
    "move",
    "remove",
    "region",
    "field",
    "hotspot",
    "comment",
    "undo",
    "finish",
]
MAX_EVENTS_AT_ONCE = 500
UUID_PATTERN = r"^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}\Z"
_TIME_PATTERN = r"^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d{1,6})?(Z|[+-]\d\d:\d\d)\Z"
# Text without control characters (a tab and a new line may be), which PostgreSQL cannot hold.
_TEXT_PATTERN = r"^[^\x00-\x08\x0b-\x1f\x7f\ud800-\udfff]*\Z"

Id = Annotated[str, msgspec.Meta(pattern=UUID_PATTERN)]
MarkId = Annotated[str, msgspec.Meta(min_length=1, max_length=64, pattern=r"^[\w:.\-]+\Z")]
Position = Annotated[float, msgspec.Meta(ge=-1e7, le=1e7)]
Time = Annotated[str, msgspec.Meta(pattern=_TIME_PATTERN, max_length=40)]
Text = Annotated[str, msgspec.Meta(max_length=4000, pattern=_TEXT_PATTERN)]
Outline = Annotated[list[tuple[Position, Position]], msgspec.Meta(min_length=3, max_length=2000)]


class Event(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """One thing that a reader did.

    Attributes:
        id: UUID that the client made.
        at: time of the client's clock, ISO 8601 with its zone. The order is the server's.
        kind: what was done.
        mark: id of the mark, region or field it was done to; of the event, for `undo`.
        x_px: level-0 pixels, pixel centers at integers.
        y_px: likewise.
        label: of the mark.
        outline: corners of a region or field, level-0 pixels.
        text: of a comment, or the name of a region.
        mode: of the hotspot, `follow` or `fixed` (then centered at x_px, y_px).
        seen_ms: how long the mark was in view before the decision.
        view_um_per_px: how far the view was zoomed in.
        reader: who did it; the server writes it, whatever a client says.
        blind: whether the reader saw nothing of the model; the server writes it.
    """

    id: Id
    at: Time
    kind: Kind
    mark: MarkId | None = None
    x_px: Position | None = None
    y_px: Position | None = None
    label: Label | None = None
    outline: Outline | None = None
    text: Text | None = None
    mode: Literal["follow", "fixed"] | None = None
    seen_ms: Annotated[int, msgspec.Meta(ge=0, le=10**9)] | None = None
    view_um_per_px: Annotated[float, msgspec.Meta(ge=0, le=1e5)] | None = None
    reader: str = ""
    blind: bool = False


class Batch(msgspec.Struct, forbid_unknown_fields=True):
    """What a client posts: events, and the model whose marks it was shown."""

    model: Annotated[str, msgspec.Meta(max_length=128)]
    events: Annotated[list[Event], msgspec.Meta(min_length=1, max_length=MAX_EVENTS_AT_ONCE)]


_NEEDED: dict[str, tuple[str, ...]] = {
    "decide": ("mark", "label"),
    "add": ("mark", "x_px", "y_px", "label"),
    "move": ("mark", "x_px", "y_px"),
    "remove": ("mark",),
    "region": ("mark", "outline"),
    "field": ("mark", "outline"),
    "hotspot": ("mode",),
    "comment": ("text",),
    "undo": ("mark",),
    "finish": (),
}


def read_batch(content: bytes) -> Batch:
    """Parse what a client posted.

    Raises:
        DataError: in one line, for what is not a batch of whole events.
    """
    try:
        batch = msgspec.json.decode(content, type=Batch)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise DataError(f"not a batch of events: {error}") from error
    for number, event in enumerate(batch.events):
        needed = _NEEDED[event.kind]
        if event.kind == "hotspot" and event.mode == "fixed":
            needed = ("x_px", "y_px")
        missing = [name for name in needed if getattr(event, name) is None]
        if missing:
            raise DataError(f"event {number}: kind {event.kind} needs {missing[0]}")
    return batch


def event_json(event: Event) -> str:
    """Return an event as one line of JSON."""
    return msgspec.json.encode(event, order="sorted").decode("utf-8")


def read_event(text: str | bytes) -> Event:
    """Read an event as it was stored.

    Raises:
        DataError: for what is not one.
    """
    try:
        return msgspec.json.decode(text, type=Event)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise DataError(f"a stored event is damaged: {error}") from error

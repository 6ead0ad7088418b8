"""A review's state is a fold over its events: pure, tolerant, and undone without limit."""

from __future__ import annotations

import uuid
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from segmitos.errors import DataError
from segmitos.review.events import Event, event_json, read_batch, read_event
from segmitos.review.state import ReviewState, check, fold

AT = "2026-01-02T03:04:05Z"
OUTLINE = [(0.0, 0.0), (10.0, 0.0), (10.0, 10.0)]


def make(kind: Any, mark: str | None = None, **more) -> Event:
    return Event(id=str(uuid.uuid4()), at=AT, kind=kind, mark=mark, **more)


def test_the_last_decision_on_a_mark_stands():
    state = fold([make("decide", "a", label="mitosis"), make("decide", "a", label="look-alike")])
    assert state.labels == {"a": "look-alike"}


def test_undo_brings_the_decision_before_back_and_redo_the_later_one():
    first = make("decide", "a", label="mitosis")
    second = make("decide", "a", label="look-alike")
    undo = make("undo", second.id)
    assert fold([first, second, undo]).labels == {"a": "mitosis"}
    assert fold([first, second, undo]).undo == first.id
    assert fold([first, second, undo]).redo == undo.id
    again = make("undo", undo.id)
    assert fold([first, second, undo, again]).labels == {"a": "look-alike"}


def test_a_new_decision_ends_what_can_be_redone():
    first = make("decide", "a", label="mitosis")
    events = [first, make("undo", first.id), make("decide", "b", label="unsure")]
    assert fold(events).redo is None


def test_what_was_done_to_an_added_mark_goes_with_it_and_comes_back_with_it():
    add = make("add", "own-1", x_px=3.0, y_px=4.0, label="mitosis")
    change = make("decide", "own-1", label="atypical")
    undo = make("undo", add.id)
    assert fold([add, change]).labels == {"own-1": "atypical"}
    assert fold([add, change, undo]).labels == {}
    assert fold([add, change, undo, make("undo", undo.id)]).labels == {"own-1": "atypical"}


def test_a_models_mark_can_be_moved_and_not_removed():
    events = [make("move", "a", x_px=1.0, y_px=2.0), make("remove", "a")]
    assert fold(events).moved == {"a": (1.0, 2.0)}
    with pytest.raises(DataError, match="reject it instead"):
        check(events[1], ReviewState(), {"a"}, set(), (100, 100))


def test_regions_fields_comments_and_the_hotspot_are_kept():
    state = fold(
        [
            make("region", "r", outline=OUTLINE),
            make("field", "f", outline=OUTLINE),
            make("comment", text="the slide"),
            make("comment", "a", text="a mark"),
            make("hotspot", mode="fixed", x_px=5.0, y_px=6.0),
        ]
    )
    assert list(state.regions) == ["r"] and list(state.fields) == ["f"]
    assert state.comments == {"": "the slide", "a": "a mark"}
    assert state.fixed_hotspot == (5.0, 6.0)
    assert fold([make("comment", "a", text="x"), make("comment", "a", text="")]).comments == {}


def test_a_review_is_blind_only_if_all_of_it_was():
    blind = Event(id=str(uuid.uuid4()), at=AT, kind="decide", mark="a", label="unsure", blind=True)
    assert fold([blind]).blind
    assert not fold([blind, make("decide", "b", label="unsure")]).blind
    assert not fold([]).blind


@settings(max_examples=200, deadline=None)
@given(st.data())
def test_undoing_everything_gives_an_empty_state_and_redoing_it_the_same_again(data):
    marks = st.sampled_from(["a", "b", "c"])
    labels = st.sampled_from(["mitosis", "atypical", "look-alike", "unsure"])
    events = []
    for number in range(data.draw(st.integers(1, 12))):
        kind = data.draw(st.sampled_from(["decide", "add", "move", "region", "comment"]))
        place = {"x_px": float(number), "y_px": 1.0}
        if kind == "decide":
            events.append(make(kind, data.draw(marks), label=data.draw(labels)))
        elif kind == "add":
            events.append(make(kind, f"own-{number}", label=data.draw(labels), **place))
        elif kind == "move":
            events.append(make(kind, data.draw(marks), **place))
        elif kind == "region":
            events.append(make(kind, f"r{number}", outline=OUTLINE))
        else:
            events.append(make(kind, data.draw(marks), text="x"))
    before = fold(events)
    while fold(events).undo:
        events.append(make("undo", fold(events).undo))
    assert not fold(events).begun and not fold(events).moved
    while fold(events).redo:
        events.append(make("undo", fold(events).redo))
    after = fold(events)
    for name in ("labels", "added", "moved", "regions", "comments"):
        assert getattr(after, name) == getattr(before, name), name


def test_an_event_comes_back_from_its_line_of_json():
    for one in (
        make("decide", "a", label="atypical", seen_ms=12, view_um_per_px=0.25),
        make("region", "r", outline=OUTLINE, text="hotspot"),
    ):
        assert read_event(event_json(one)) == one


@pytest.mark.parametrize(
    ("event", "what"),
    [
        ({"kind": "decide", "mark": "a"}, "needs label"),
        ({"kind": "decide", "mark": "a", "label": "tumor"}, "label"),
        ({"kind": "explode"}, "kind"),
        ({"kind": "add", "mark": "own-1", "label": "mitosis", "x_px": 1}, "needs y_px"),
        ({"kind": "add", "mark": "own-1", "label": "mitosis", "x_px": 1e300, "y_px": 1}, "x_px"),
        ({"kind": "decide", "mark": "../x", "label": "unsure"}, "mark"),
        ({"kind": "comment", "text": "a\u0000b"}, "text"),
        ({"kind": "comment", "text": "x" * 5000}, "text"),
        ({"kind": "region", "mark": "r", "outline": [[0, 0], [1, 1]]}, "outline"),
        ({"kind": "hotspot", "mode": "fixed"}, "needs x_px"),
        ({"kind": "undo", "mark": "a", "more": 1}, "more"),
    ],
)
def test_what_is_no_event_is_refused_in_one_line(event, what):
    import json

    content = {"model": "m", "events": [{"id": str(uuid.uuid4()), "at": AT, **event}]}
    with pytest.raises(DataError, match=what) as error:
        read_batch(json.dumps(content).encode())
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    "content", [b"", b"[]", b"{", b"\xff", b"null", b'{"model":"m","events":[]}', b"[" * 100_000]
)
def test_what_is_no_batch_is_refused(content):
    with pytest.raises(DataError):
        read_batch(content)

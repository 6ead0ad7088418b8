"""What the server does, without HTTP: slides, marks, states and counts for one reader at a time."""

from __future__ import annotations

import random
import threading
import weakref
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import msgspec
import numpy as np

from segmitos.errors import DataError, SegMitosError
from segmitos.report.reviewed import is_counted_alike, read_review
from segmitos.report.signed import CONSENSUS, SIGNED
from segmitos.review.access import Reader
from segmitos.review.assess import (
    Counted,
    ReviewedMarks,
    count_windows,
    headline,
    reviewed_marks,
)
from segmitos.review.events import Batch, Event
from segmitos.review.former import events_of, former_events
from segmitos.review.images import TILE_PX, levels
from segmitos.review.results import Result, Worklist, outlines, score_distance
from segmitos.review.screening import area_mm2
from segmitos.review.state import ReviewState, check, fold
from segmitos.review.store import Store

Mode = Literal["report", "training"]
_MIN_BLIND = 10
_SIGNED_OTHERWISE = (
    "Signed with other settings than the result has now: take the signature back and sign again."
)
# Counts kept in memory for a result: of several readers, and of what they may undo.
_MAX_COUNTED = 50


class ConflictError(SegMitosError):
    """What was asked for fits an earlier state, not the present one."""

    status = 409


class NotFoundError(SegMitosError):
    """A slide or mark that is not in the worklist."""

    status = 404


class ForbiddenError(SegMitosError):
    """Something that this reader may not see or do."""

    status = 403


@dataclass
class Service:
    """Reviews of a worklist.

    Attributes:
        worklist: results that are reviewed.
        store: of events.
        mode: `report` or `training`; it orders, and changes nothing else.
        blind: whether readers see nothing of the model and of each other.
    """

    worklist: Worklist
    store: Store
    mode: Mode = "report"
    blind: bool = False
    _locks: dict[tuple[str, str], threading.Lock] = field(
        default_factory=lambda: defaultdict(threading.Lock)
    )
    # By the result as it was read: one that was counted again with other settings is another.
    _counted: weakref.WeakKeyDictionary[Result, dict[object, list[Counted]]] = field(
        default_factory=weakref.WeakKeyDictionary
    )

    def result(self, name: str) -> Result:
        """Return a result by name. Raises NotFoundError."""
        found = self.worklist.all().get(name)
        if found is None:
            raise NotFoundError(f"there is no slide {name!r}")
        return found

    def acting(self, reader: Reader, consensus: bool) -> str:
        """Return the name that a reader's decisions go under. Raises ForbiddenError."""
        if not consensus:
            return reader.name
        if not reader.adjudicates or self.blind:
            raise ForbiddenError(f"{reader.name} may not adjudicate here")
        return CONSENSUS

    def state(self, result: Result, who: str) -> ReviewState:
        """Return the state of a reader's review."""
        return fold(events_of(self.store, result, who).get(who, []))

    def states(self, result: Result) -> dict[str, ReviewState]:
        """Return the states of all who reviewed a slide, by name in order."""
        found = events_of(self.store, result)
        return {who: fold(events) for who, events in sorted(found.items())}

    def visible(self, result: Result, who: str) -> list[int]:
        """Return the places of the candidates that a reader sees, in order.

        Blind readers get the detections among as many candidates below the threshold, shuffled, so
        that neither a mark's presence nor its place tells what the model thinks of it.
        """
        candidates = result.candidates
        if not self.blind:
            return list(range(len(candidates.ids)))
        detected = np.flatnonzero(candidates.is_detection)
        others = np.flatnonzero(~candidates.is_detection)
        nearest = others[np.argsort(score_distance(result)[others], kind="stable")]
        wanted = max(len(detected), _MIN_BLIND)
        places = [*detected.tolist(), *nearest[:wanted].tolist()]
        places.sort(key=lambda place: candidates.ids[place])
        random.Random(f"{result.key.slide_hash}|{who}").shuffle(places)
        return places

    # What the server answers.

    def slide(self, name: str, who: str) -> dict[str, Any]:
        """Return what the viewer needs to know of a slide, and the reader's state."""
        result = self.result(name)
        width, height = result.size_px
        about: dict[str, Any] = {
            "name": name,
            "title": result.title,
            "width_px": width,
            "height_px": height,
            "mpp": result.mpp,
            "tile_px": TILE_PX,
            "levels": levels(width, height),
            "model": result.key.model_hash,
            "image": result.image is not None and result.image.exists(),
            "candidates": len(self.visible(result, who)),
            "earlier_marks": len(self.earlier(result, who).labels),
        }
        if not self.blind:
            about["threshold"] = result.threshold
        state = self.state(result, who)
        return {
            **about,
            "state": state.to_dict(),
            "summary": self.summary_of(result, state, who),
        }

    def earlier(self, result: Result, who: str) -> ReviewState:
        """Return the state of the reader's fullest review of this slide with other marks.

        Of another model, or of this one with other settings. A blind review stays one: it takes
        over nothing that was decided in sight of a model.
        """
        own = former_events(self.store, result, who)
        except_for = (result.former_key, result.name) if own else None
        others = self.store.other_models(result.key, who, except_for)
        states = [fold(events) for events in others.values()]
        states = [state for state in states if state.blind or not self.blind]
        return max(states, key=lambda state: len(state.labels), default=ReviewState())

    def marks(self, name: str, who: str, floor: float | None = None) -> dict[str, Any]:
        """Return the model's marks as columns; blind ones without score and state.

        Args:
            name: of the slide.
            who: reads it.
            floor: least score of candidates that are no detections; None gives detections alone,
                and what the reader has decided.
        """
        result = self.result(name)
        candidates = result.candidates
        if self.blind:
            places = np.array(self.visible(result, who), dtype=int)
        else:
            keep = candidates.is_detection.copy()
            if floor is not None:
                keep |= ~(candidates.score < floor)
            else:
                index, decided = candidates.index, self.state(result, who).labels
                keep[[index[mark] for mark in decided if mark in index]] = True
            places = np.flatnonzero(keep)
        xy = candidates.xy[places].round(1)
        columns = {
            "id": [candidates.ids[place] for place in places],
            "x_px": xy[:, 0].tolist(),
            "y_px": xy[:, 1].tolist(),
        }
        if not self.blind:
            columns["score"] = candidates.score[places].round(4).tolist()
            columns["detected"] = candidates.is_detection[places].astype(int).tolist()
        return columns

    def position(self, name: str, who: str, mark: str) -> tuple[Result, float, float]:
        """Return where a mark is. Raises NotFoundError."""
        result = self.result(name)
        state = self.state(result, who)
        place = result.candidates.index.get(mark)
        if mark in state.added:
            return (result, *state.added[mark])
        if place is None or (self.blind and place not in self.visible(result, who)):
            raise NotFoundError(f"there is no mark {mark!r}")
        x, y = state.moved.get(mark) or result.candidates.xy[place].tolist()
        return result, x, y

    def summary_of(self, result: Result, state: ReviewState, who: str) -> dict[str, Any]:
        """Return where the count stands."""
        marks = reviewed_marks(result, state)
        counted = self.count(result, state, marks)
        if self.blind:
            seen = {result.candidates.ids[place] for place in self.visible(result, who)}
            waiting = len(seen - set(state.labels))
        else:
            waiting = int(marks.undecided.sum())
        sure = int(marks.mitosis.sum())
        model = result.summary.hotspot
        model_count = None if self.blind else 0 if model is None else model.count
        unsure = int(marks.unsure.sum())
        count = sure if self.blind else sure + waiting
        model_in_all = None if self.blind else result.summary.count
        line = headline(counted, model_count, (model_in_all, count, waiting + unsure))
        if state.finished:
            other = self._is_signed_otherwise(result, who)
            line = f"{_SIGNED_OTHERWISE if other else 'Signed.'} {line}"
        answer = {
            "decided": len(state.labels),
            "undecided": waiting,
            "unsure": unsure,
            "count": count,
            "low": sure,
            "high": sure + waiting + unsure,
            "windows": [one.to_dict() for one in counted],
            "headline": line,
            "reviewed_mm2": round(area_mm2(list(state.regions.values()), result.mpp), 4),
            "state": state_word(state),
        }
        if not self.blind:
            answer["model"] = {"count": result.summary.count, "hotspot": model_count}
        return answer

    def signed_folder(self, result: Result, who: str) -> Path:
        """Return where the files of a signed review are; not in the result's own folder."""
        return self.worklist.home / SIGNED / result.name / who

    def _is_signed_otherwise(self, result: Result, who: str) -> bool:
        """Tell whether a result was counted with other settings since a reader signed it."""
        try:
            signed = read_review(self.signed_folder(result, who))
        except DataError:
            return False
        settings = result.summary.settings
        return signed is not None and not is_counted_alike(signed.get("settings"), settings)

    def count(
        self, result: Result, state: ReviewState, marks: ReviewedMarks | None = None
    ) -> list[Counted]:
        """Return the counts in the windows, from memory where nothing that matters changed."""
        counted = self._counted.setdefault(result, {})
        place = (
            self.blind,
            state.fixed_hotspot,
            tuple(sorted(state.labels.items())),
            tuple(state.moved.items()),
            tuple(state.added.items()),
        )
        found = counted.get(place)
        if found is None:
            marks = marks or reviewed_marks(result, state)
            found = count_windows(
                result, marks, state.fixed_hotspot, result.saved.tissue, only_decided=self.blind
            )
            while len(counted) > _MAX_COUNTED:
                counted.pop(next(iter(counted)), None)
            counted[place] = found
        return found

    def area(
        self, result: Result, who: str, area: str
    ) -> tuple[list[list[tuple[float, float]]], ReviewState]:
        """Return the outlines of an area to screen, and the reader's state.

        `hotspot`, `ten fields` and `tissue`, or the id of a region that the reader drew.

        Raises:
            NotFoundError: where there is no such area.
        """
        state = self.state(result, who)
        if area in state.regions:
            return [state.regions[area]], state
        if area == "tissue":
            return outlines(result), state
        for counted in self.count(result, state):
            if counted.where == area:
                if counted.window is None:
                    raise NotFoundError(
                        f"there is no {area}: {counted.reason or 'nothing is counted'}"
                    )
                return [[(x, y) for x, y in counted.window.outline_xy().tolist()]], state
        raise NotFoundError(f"there is no area {area!r}")

    # What changes something.

    def post(self, name: str, who: str, batch: Batch, by: str | None = None) -> dict[str, Any]:
        """Store a reader's events; `by` is the person, where that is another name.

        Returns:
            The new summary and state, and how many events were new.

        Raises:
            ConflictError: for another model than the result's, or a review that is finished.
            DataError: for an event that cannot be; then none of them is stored.
        """
        if any(event.kind == "finish" for event in batch.events):
            raise DataError("a review is finished by POST .../finish")
        result = self.result(name)
        stored = self.store_events(result, who, batch.model, batch.events, by)
        return self.answer(result, who, stored)

    def answer(self, result: Result, who: str, stored: int) -> dict[str, Any]:
        """Return the summary and state of a reader's review after events were stored."""
        state = self.state(result, who)
        summary = self.summary_of(result, state, who)
        return {"stored": stored, "summary": summary, "state": state.to_dict()}

    def store_events(
        self,
        result: Result,
        who: str,
        model: str,
        given: Sequence[Event],
        by: str | None = None,
    ) -> int:
        """Check and store events; those that are there already change nothing. See `post`."""
        if model != result.key.model_hash:
            raise ConflictError(
                f"{result.name} is now the result of another model or of other settings; reload "
                "the page"
            )
        with self._locks[result.key.slide_hash, who]:
            events = events_of(self.store, result, who).get(who, [])
            state = fold(events)
            known = {event.id for event in events}
            if not known.issuperset(self.store.owners([event.id for event in given])):
                raise DataError("the id of an event is taken by another review")
            ids = {result.candidates.ids[place] for place in self.visible(result, who)}
            added = []
            for event in given:
                if event.id in known:
                    continue
                if state.finished and not (event.kind == "undo" and event.mark == state.finished):
                    raise ConflictError("this review is finished; take the signature back first")
                check(event, state, ids, known, result.size_px)
                added.append(self._complete(event, result, by or who))
                known.add(event.id)
                if event.kind in ("add", "remove", "region", "undo", "finish"):
                    state = fold([*events, *added])
            return self.store.append(result.key, result.name, who, added) if added else 0

    def _complete(self, event: Event, result: Result, who: str) -> Event:
        """Return an event with what the server knows better."""
        place = result.candidates.index.get(event.mark or "")
        if event.kind == "decide" and place is not None:
            # Where the mark was then, so that a later model's can be found beside it.
            x, y = result.candidates.xy[place].tolist()
            event = msgspec.structs.replace(event, x_px=x, y_px=y)
        return msgspec.structs.replace(event, reader=who, blind=self.blind)


def state_word(state: ReviewState) -> str:
    """Return `new`, `open` or `finished`."""
    return "finished" if state.finished else "open" if state.begun else "new"

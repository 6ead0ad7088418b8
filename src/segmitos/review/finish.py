"""Signing a review, taking the signature back, taking over a review under an earlier model."""

from __future__ import annotations

import shutil
import uuid
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from segmitos.counting.reviewed_marks import MITOSES, doubled_marks
from segmitos.errors import DataError, SegMitosError
from segmitos.evaluation.matching import match_points
from segmitos.io.files import remove_file, write_files
from segmitos.io.pairs import MATCH_UM
from segmitos.report.reviewed import read_review
from segmitos.report.signed import REVIEWED_JSON
from segmitos.review.derived import EXPORTS, blind_file, derived_files, recount_review
from segmitos.review.events import Batch, Event
from segmitos.review.images import Images
from segmitos.review.results import Result
from segmitos.review.service import ConflictError, NotFoundError, Service
from segmitos.review.state import OWN, ReviewState

_NAMESPACE = uuid.UUID("1f0c7c5e-4d0e-5a54-9d0c-2f6a4a1b7e11")


def finish(service: Service, images: Images, name: str, who: str, batch: Batch) -> dict[str, Any]:
    """Sign a review and write its files.

    Raises:
        ConflictError: for another model, or a review that is signed already.
        DataError: for anything but one event of kind finish, or a cell that counts twice.
        OutputError: where the files cannot be written; the signature stands, sent again it is
            tried again.
    """
    result = service.result(name)
    if [event.kind for event in batch.events] != ["finish"]:
        raise DataError("to finish, send one event of kind finish")
    state = service.state(result, who)
    if not state.finished:
        # The signature is an event as well: blind with all the others, or not.
        _refuse_doubled(result, replace(state, blind=state.blind and service.blind))
    stored = service.store_events(result, who, batch.model, batch.events)
    write_review(service, images, result, who)
    return service.answer(result, who, stored)


def _refuse_doubled(result: Result, state: ReviewState) -> None:
    found = doubled_marks(recount_review(result, state).marks, result.candidates, result.mpp)
    if found is not None:
        first, second, apart_um = found
        raise DataError(
            f"two marks {apart_um:.1f} um apart, at ({first.x_px:.0f}, {first.y_px:.0f}) and "
            f"({second.x_px:.0f}, {second.y_px:.0f}): one cell would count twice; reject or delete "
            "one of them, then sign"
        )


def reopen(service: Service, name: str, who: str, batch: Batch) -> dict[str, Any]:
    """Take a signature back, and the signed files away.

    Raises:
        ConflictError: for another model, or a review that was signed again.
        DataError: for anything but one event of kind undo.
        OutputError: where the files cannot be removed; the signature stands then.
    """
    result = service.result(name)
    finished = service.state(result, who).finished
    if [event.kind for event in batch.events] != ["undo"]:
        raise DataError("to reopen, send one event of kind undo")
    if finished is not None and batch.events[0].mark != finished:
        raise ConflictError("this review was signed again elsewhere; reload the page")
    if finished is not None:
        # First the files: a signature without files gets them again (`write_missing`), but files
        # without a signature would stay.
        _remove_files(service.signed_folder(result, who))
    stored = service.store_events(result, who, batch.model, batch.events)
    return service.answer(result, who, stored)


def write_review(service: Service, images: Images, result: Result, who: str) -> Path:
    """Write the files of a signed review, all of them or none.

    Raises:
        OutputError: where they cannot be written.
    """
    folder = service.signed_folder(result, who)
    files = derived_files(result, service.state(result, who), who, images)
    write_files(folder, files)
    return folder


def write_missing(service: Service, images: Images) -> tuple[list[Path], list[str]]:
    """Write the files of signed reviews that a kill kept from being written.

    Returns:
        Folders that were written, and what kept others from it: the rest can be reviewed all the
        same.
    """
    written: list[Path] = []
    problems: list[str] = []
    for result in service.worklist.all().values():
        for who, state in service.states(result).items():
            folder = service.signed_folder(result, who)
            if state.finished and not _is_written(folder, state):
                try:
                    written.append(write_review(service, images, result, who))
                except SegMitosError as error:
                    problems.append(f"the files of {who}'s review of {result.name}: {error}")
    return written, problems


def _remove_files(folder: Path) -> None:
    remove_file(folder / REVIEWED_JSON)
    # Without the counts there is no review.
    shutil.rmtree(folder, ignore_errors=True)


def _is_written(folder: Path, state: ReviewState) -> bool:
    """Tell whether the files of a signed review are there, and those of this signature."""
    try:
        signed = read_review(folder)
    except DataError:
        return False
    return signed is not None and signed.get("finished_at") == state.finished_at


def derived_file(service: Service, images: Images, name: str, who: str, kind: str) -> bytes:
    """Return a reviewed file as it would be written now. Raises NotFoundError."""
    if kind not in EXPORTS:
        raise NotFoundError(f"there is no export {kind!r}; choose {', '.join(EXPORTS)}")
    result = service.result(name)
    state = service.state(result, who)
    if not service.blind:
        return derived_files(result, state, who, images)[f"reviewed{kind}"]
    content = blind_file(state, who, kind)
    if content is None:
        raise NotFoundError(f"a blind reader is given .csv and .json, not {kind}")
    return content


def link_earlier(service: Service, name: str, who: str) -> dict[str, Any]:
    """Take over a reader's decisions under an earlier model, or under earlier settings.

    Marks are linked one to one within 7.5 um. A decided mark that no candidate of this model stands
    for stays as an added mark; where it was no mitosis, it is left. Comments go with their marks.

    Returns:
        The new summary and state, and how many marks were linked and added.
    """
    result = service.result(name)
    earlier = service.earlier(result, who)
    if not earlier.labels:
        raise NotFoundError(
            "there is no earlier review of this slide under another model or other settings"
        )
    old = [mark for mark in earlier.labels if mark in earlier.places]
    old_xy = np.array([earlier.places[mark] for mark in old]).reshape(-1, 2)
    visible = service.visible(result, who)
    matched = match_points(old_xy, result.candidates.xy[visible], MATCH_UM / result.mpp).pairs
    linked = {old[first]: result.candidates.ids[visible[second]] for first, second in matched}
    events = _events_again(earlier, linked, f"{result.key}|{who}")
    service.store_events(result, who, result.key.model_hash, events)
    answer = service.answer(result, who, len(events))
    added = sum(event.kind == "add" for event in events)
    left = len(old) - len(linked) - added
    return {**answer, "linked": len(linked), "added": added, "left": left}


def _events_again(earlier: ReviewState, linked: Mapping[str, str], whose: str) -> list[Event]:
    """Return events that say of this model's marks what a reader said under an earlier one.

    Args:
        earlier: what the reader said.
        linked: the candidate of this model that each old mark is, by the old mark's id.
        whose: result and reader; the same review gives events of the same ids.
    """
    at = earlier.last_at or "1970-01-01T00:00:00Z"

    def new_id(what: str) -> str:
        return str(uuid.uuid5(_NAMESPACE, f"{whose}|{what}"))

    events = []
    if "" in earlier.comments:
        events.append(Event(new_id("comment"), at, "comment", text=earlier.comments[""]))
    for old, label in earlier.labels.items():
        identity, new = new_id(old), linked.get(old)
        if new is not None:
            events.append(Event(identity, at, "decide", new, label=label))
        elif label in MITOSES and old in earlier.places:
            new, (x, y) = f"{OWN}{identity}", earlier.places[old]
            events.append(Event(identity, at, "add", new, x_px=x, y_px=y, label=label))
        else:
            continue
        if old in earlier.comments:
            text = earlier.comments[old]
            events.append(Event(new_id(f"comment {old}"), at, "comment", new, text=text))
    for key, outline in earlier.regions.items():
        identity = new_id(key)
        events.append(Event(identity, at, "region", f"region-{identity}", outline=outline))
    return events

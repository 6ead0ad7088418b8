"""What a reader changed in a file of marks, say in QuPath: confirmed, rejected, added, moved.

A file holds the marks as the reader left them. What of the model's detections is no longer in it,
or has another class, was rejected; a mark that stands for no detection was added.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from segmitos.counting.reviewed_marks import Label, ReviewedMark, doubled_marks
from segmitos.counting.saved import SavedResult
from segmitos.errors import DataError
from segmitos.io.geometry import from_qupath, xy_of
from segmitos.io.json_files import load_json
from segmitos.io.pairs import MATCH_UM, pairs_within
from segmitos.io.points.candidates import Candidates
from segmitos.io.points.classes import CLASSES, plain_name
from segmitos.io.points.geojson import Annotation, own_member, read_features
from segmitos.io.points.geojson_features import point_ids

# Programs round positions when they write them; nearer than this a mark has not been moved.
SAME_PLACE_UM = 0.5
# Of fewer detections, a reader may have rejected all and added others.
_MIN_TO_TELL_IMAGE = 3
_ATYPICAL, _UNDECIDED = "atypical", "undecided"


def read_edited(path: Path, saved: SavedResult) -> list[Annotation]:
    """Read the points of a GeoJSON that QuPath, or this program, wrote for a result's image.

    Raises:
        InputError: if the file cannot be read.
        DataError: if it is not GeoJSON of points, or of another image.
    """
    content = load_json(path)
    _, name, _ = own_member(content)
    if name and name != saved.candidates.name:
        raise DataError(f"{path} is of the image {name}, the result of {saved.candidates.name}")
    marks, outlines = read_features(path, content)
    for outline in outlines:
        if outline.kind is not None and CLASSES.label(outline.kind) is not None:
            raise DataError(
                f"{outline.where} is an outline of class {outline.kind!r}: marks are points; put a "
                "point there, or delete it"
            )
    places = from_qupath(xy_of(marks), saved.summary.bounds_px).tolist()
    return [replace(mark, x_px=x, y_px=y) for mark, (x, y) in zip(marks, places, strict=True)]


def corrections(saved: SavedResult, edited: Sequence[Annotation]) -> list[ReviewedMark]:
    """Return a verdict on every detection of a result from a reader's file of marks.

    Marks are matched to candidates one to one: by id where the file kept it, the others nearest
    first within 7.5 um, detections before other candidates.

    Raises:
        DataError: for an added mark without a class, or of a class that is not understood; where
            there are marks and several detections, and none stands for any.
    """
    candidates = saved.candidates
    labels = [label_of(mark.kind) for mark in edited]
    matched = _match(saved, edited)
    if edited and not matched and candidates.is_detection.sum() >= _MIN_TO_TELL_IMAGE:
        raise DataError(
            f"{edited[0].where}: none of {len(edited)} marks lies at a detection of "
            f"{saved.summary.name}; the file seems to be of another image"
        )
    added_ids = _own_ids(edited, candidates)
    xy, same_px = candidates.xy, SAME_PLACE_UM / saved.summary.mpp
    marks: list[ReviewedMark] = []
    sources: list[Annotation] = []
    for index, (mark, label) in enumerate(zip(edited, labels, strict=True)):
        place = matched.get(index)
        if place is not None:
            identity = candidates.ids[place]
            # Another class, or none, takes a detection back.
            verdict: Label | None = label or "look-alike"
            if mark.kind is not None and plain_name(mark.kind) == _UNDECIDED:
                verdict = None
            x, y = _unless_moved(mark, xy[place], same_px)
            marks.append(ReviewedMark(identity, x, y, verdict, identity))
            sources.append(mark)
        elif mark.kind is not None and CLASSES.is_ignored(mark.kind):
            continue
        elif label is None:
            kind = "no class" if mark.kind is None else f"the class {mark.kind!r}"
            raise DataError(
                f"{mark.where} was added and has {kind}: classify it as 'Mitotic figure', "
                "'Hard negative' or 'Unsure', or delete it"
            )
        else:
            marks.append(ReviewedMark(added_ids[index], mark.x_px, mark.y_px, label))
            sources.append(mark)
    _refuse_doubled(sources, marks, saved)
    taken = set(matched.values())
    marks += [
        ReviewedMark(candidates.ids[place], x, y, "look-alike", candidates.ids[place])
        for place, (x, y) in enumerate(xy.tolist())
        if candidates.is_detection[place] and place not in taken
    ]
    return marks


def _refuse_doubled(
    sources: Sequence[Annotation], marks: Sequence[ReviewedMark], saved: SavedResult
) -> None:
    """Refuse a cell that counts twice, say the model's mark and one clicked on top of it."""
    found = doubled_marks(marks, saved.candidates, saved.summary.mpp)
    if found is not None:
        first, second = (sources[marks.index(mark)] for mark in found[:2])
        raise DataError(
            f"{second.where}: a mitosis {found[2]:.1f} um from that of "
            f"{first.where.rpartition(', ')[2]}, which is there too: one cell would count "
            "twice; delete one of the marks"
        )


def _unless_moved(
    mark: Annotation, own_xy: NDArray[np.float64], same_px: float
) -> tuple[float, float]:
    """Return where a mark is: at its candidate, unless the reader has moved it."""
    x, y = own_xy.tolist()
    moved = math.hypot(mark.x_px - x, mark.y_px - y) > same_px
    return (mark.x_px, mark.y_px) if moved else (x, y)


def label_of(kind: str | None) -> Label | None:
    """Return the verdict that a class name stands for, None for any other class and for none."""
    if kind is None:
        return None
    label = CLASSES.label(kind)
    if label == "mitosis":
        parts = (plain_name(part) for part in kind.split(":"))
        return "atypical" if any(part.startswith(_ATYPICAL) for part in parts) else "mitosis"
    return "look-alike" if label == "non-mitosis" else label


def _own_ids(edited: Sequence[Annotation], candidates: Candidates) -> list[str]:
    """Return an id for each mark that no other has: its own where it can, else by its place."""
    seen = set(candidates.ids)
    ids = []
    made_ids = point_ids(xy_of(edited), f"{candidates.name}|added")
    for mark, made in zip(edited, made_ids, strict=True):
        own = made if mark.id is None or mark.id in seen else mark.id
        seen.add(own)
        ids.append(own)
    return ids


def _match(saved: SavedResult, edited: Sequence[Annotation]) -> dict[int, int]:
    """Return the candidate of each mark that stands for one."""
    candidates = saved.candidates
    matched: dict[int, int] = {}
    taken: set[int] = set()
    for index, mark in enumerate(edited):
        place = None if mark.id is None else candidates.index.get(mark.id)
        if place is not None and place not in taken:
            matched[index] = place
            taken.add(place)
    reach_px = MATCH_UM / saved.summary.mpp
    for wanted in (candidates.is_detection, ~candidates.is_detection):
        left = [index for index in range(len(edited)) if index not in matched]
        free = [int(place) for place in np.flatnonzero(wanted) if int(place) not in taken]
        mine = np.array([(edited[index].x_px, edited[index].y_px) for index in left])
        pairs = nearest_pairs(mine.reshape(-1, 2), candidates.xy[free], reach_px)
        for own, other in pairs:
            matched[left[own]] = free[other]
            taken.add(free[other])
    return matched


def nearest_pairs(
    first_xy: NDArray[np.float64], second_xy: NDArray[np.float64], reach_px: float
) -> list[tuple[int, int]]:
    """Match points one to one, the nearest pairs first; none is further apart than `reach_px`."""
    near = pairs_within(first_xy, second_xy, reach_px)
    found = zip(near.distance.tolist(), near.first.tolist(), near.second.tolist(), strict=True)
    pairs: list[tuple[int, int]] = []
    seen_first: set[int] = set()
    seen_second: set[int] = set()
    for _, own, other in sorted(found):
        if own not in seen_first and other not in seen_second:
            seen_first.add(own)
            seen_second.add(other)
            pairs.append((own, other))
    return pairs

"""What was decided, as a data set to train on, or as it happened: events as JSON lines."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from segmitos.cohort.identity import files_of
from segmitos.counting.reviewed_marks import Label
from segmitos.errors import InputError, OutputError
from segmitos.io.files import json_text, new_folder, write_bytes, write_text
from segmitos.io.geometry import to_qupath
from segmitos.io.points.geojson_features import REVIEWED_CLASS
from segmitos.io.slide import Slide
from segmitos.io.slide.backend import with_companions
from segmitos.io.tables import table_text
from segmitos.io.text import reason_of
from segmitos.report.signed import CONSENSUS
from segmitos.review.assisted import NOTE
from segmitos.review.events import event_json
from segmitos.review.readings import consensus_label, labels_with_silence, union_of_marks
from segmitos.review.results import Result
from segmitos.review.service import Service
from segmitos.review.state import ReviewState

_COUNTED = ("mitoses", "look_alikes", "unsure")

RULES = ("majority", "all", "adjudicated")
_CLASSES: dict[Label, str] = {
    "mitosis": "mitosis",
    "atypical": "mitosis",
    "look-alike": "non-mitosis",
    "unsure": "unsure",
}
# Side of the square around a decided mark that counts as reviewed where no area was screened.
_AROUND_UM = 32.0

Outline = list[tuple[float, float]]
Cell = tuple[float, float, str, float | None]
"""Position in level-0 pixels, label, and the fraction of readers who called it a mitosis."""


def export_points(
    service: Service, out: Path, readers: Sequence[str] | None = None, rule: str = "majority"
) -> dict[str, Any]:
    """Write decided marks as a `points` data set: a folder a slide, with reviewed regions.

    Args:
        service: whose reviews are exported.
        out: folder that is not there yet, or empty.
        readers: whose decisions count; None takes all but the consensus.
        rule: `majority`, `all`, or `adjudicated`: the consensus where it decided, else majority.

    Returns:
        JSON-able: slides, and how many mitoses, look-alikes and unsure cells.

    Raises:
        InputError: where nothing was decided, or a slide is not there.
        OutputError: where the folder holds something, or cannot be written.
    """
    with new_folder(out) as folder:
        slides = {}
        for name, result in service.worklist.all().items():
            states = _states(service, result, readers, rule)
            if not any(state.labels for state in states.values()):
                continue
            cells, regions = labeled_cells(result, states, rule), reviewed_regions(result, states)
            slides[name] = _write_slide(folder / name, result, states, cells, regions)
        if not slides:
            raise InputError(
                f"{service.worklist.folder}: nothing was decided yet, by these readers"
            )
        total = {key: sum(one[key] for one in slides.values()) for key in _COUNTED}
        content = {"format": "segmitos review export", "rule": rule, "slides": slides, **total}
        write_text(folder / NOTE, json_text(content))
    return content


def _states(
    service: Service, result: Result, readers: Sequence[str] | None, rule: str
) -> dict[str, ReviewState]:
    return {
        who: state
        for who, state in service.states(result).items()
        if (who == CONSENSUS and rule == "adjudicated")
        or (who != CONSENSUS and (readers is None or who in readers))
    }


def labeled_cells(
    result: Result, states: Mapping[str, ReviewState], rule: str = "majority"
) -> list[Cell]:
    """Return what readers made of each place; undecided detections are unsure.

    A cell that the rule leaves open is unsure too: neither positive nor negative.
    """
    cells = []
    people = {who: state for who, state in states.items() if who != CONSENSUS}
    for unit in union_of_marks(result, states):
        said = labels_with_silence(unit, people, result.candidates)
        votes = [label for who, label in said.items() if who in people]
        label, fraction = consensus_label(votes, rule)
        if CONSENSUS in unit.labels:
            label = unit.labels[CONSENSUS]
        kind = "unsure" if label is None else _CLASSES[label]
        confidence = None if np.isnan(fraction) else float(fraction)
        cells.append((unit.x_px, unit.y_px, kind, confidence))
    return cells


def reviewed_regions(result: Result, states: Mapping[str, ReviewState]) -> list[Outline]:
    """Return where every mitosis is marked.

    These are the regions that readers looked at whole. Where nobody did, what was in view around
    each decided mark.
    """
    drawn = [outline for state in states.values() for outline in state.regions.values()]
    if drawn:
        return drawn
    half = _AROUND_UM / 2 / result.mpp
    width, height = result.size_px
    squares = []
    for state in states.values():
        for mark in state.labels:
            if mark not in state.places:
                continue
            x, y = state.places[mark]
            x0, x1 = max(-0.5, x - half), min(width - 0.5, x + half)
            y0, y1 = max(-0.5, y - half), min(height - 0.5, y + half)
            squares.append([(x0, y0), (x1, y0), (x1, y1), (x0, y1)])
    return squares


def _write_slide(
    folder: Path,
    result: Result,
    states: Mapping[str, ReviewState],
    cells: Sequence[Cell],
    regions: Sequence[Outline],
) -> dict[str, Any]:
    image = result.image
    if image is None or not image.exists():
        raise InputError(f"{result.title}: the slide is not at {image}; say where with --slides")
    result.check_image(image)
    if result.page is not None and not _is_largest(image, result):
        raise InputError(
            f"{result.title}: page {result.page} was reviewed (detect --page), and a data set "
            "takes a file's largest image; save the page as an image of its own and review that"
        )
    _link(image, folder)
    write_text(folder / "mpp.txt", f"{result.mpp!r}\n")
    table = table_text(("x_px", "y_px", "label", "confidence"), cells)
    write_text(folder / f"{image.stem}.csv", table)
    write_text(folder / f"{image.stem}.regions.geojson", _regions_text(result, regions))
    kinds = [kind for _, _, kind, _ in cells]
    return {
        "mitoses": kinds.count("mitosis"),
        "look_alikes": kinds.count("non-mitosis"),
        "unsure": kinds.count("unsure"),
        "readers": list(states),
        # A review with the model's marks in sight flatters that model when it is scored on it.
        "assisted": not all(state.blind for state in states.values() if state.labels),
        "model": result.summary.model,
        "screened": any(state.regions for state in states.values()),
    }


def _is_largest(image: Path, result: Result) -> bool:
    """Tell whether the page that was reviewed is what a reader of the file takes by itself."""
    try:
        with Slide.open(image, result.mpp, True) as slide:
            return (slide.width, slide.height) == result.size_px
    except InputError:
        # Several are of like size: none of them is taken.
        return False


def _regions_text(result: Result, regions: Sequence[Outline]) -> str:
    features = []
    for number, outline in enumerate(regions, start=1):
        corners = to_qupath(np.asarray(outline), result.summary.bounds_px).tolist()
        features.append(
            {
                "type": "Feature",
                "geometry": {"type": "Polygon", "coordinates": [[*corners, corners[0]]]},
                "properties": {
                    "objectType": "annotation",
                    "name": f"Reviewed {number}",
                    "classification": {"name": REVIEWED_CLASS},
                },
            }
        )
    return json.dumps({"type": "FeatureCollection", "features": features}) + "\n"


def _link(slide: Path, folder: Path) -> None:
    """Put a slide into the data set: by links where the system allows them, else as a copy."""
    target = folder / slide.name
    try:
        folder.mkdir(parents=True, exist_ok=True)
        # Some slides are several files, which find each other by name.
        if slide.suffix.lower() == ".mrxs":
            own = with_companions(slide)
            parts = {slide.name: own}
            if own.with_suffix("").is_dir():
                parts[slide.stem] = own.with_suffix("")
        else:
            parts = {part.name: part for part in files_of(slide)}
        for name, part in parts.items():
            target = folder / name
            try:
                os.symlink(part.absolute(), target, target_is_directory=part.is_dir())
            except (OSError, NotImplementedError):
                (shutil.copytree if part.is_dir() else shutil.copy2)(part, target)
    except OSError as error:
        raise OutputError(f"cannot write {target}: {reason_of(error)}") from error


def export_events(service: Service, out: Path, readers: Sequence[str] | None = None) -> int:
    """Write all events, or those of some readers, as JSON lines in their order.

    Returns:
        How many there are.

    Raises:
        OutputError: where the file cannot be written.
    """
    results = service.worklist.all()
    names = {result.former_key: name for name, result in results.items()}
    names |= {result.key: name for name, result in results.items()}
    lines = []
    for key, by_reader in service.store.all_events().items():
        for who, events in by_reader.items():
            for event in events if readers is None or who in readers else ():
                about = {"slide": names.get(key), **key._asdict()}
                lines.append(json.dumps({**about, **json.loads(event_json(event))}))
    write_bytes(out, "".join(f"{line}\n" for line in lines).encode("utf-8"))
    return len(lines)

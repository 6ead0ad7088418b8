"""`segmitos dataset audit`: labels that look wrong, by networks of other slides."""

from __future__ import annotations

import csv
import dataclasses
import io
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from segmitos.errors import OutputError, ScaleError, UsageError
from segmitos.io.datasets import Case

if TYPE_CHECKING:
    from segmitos.training.audit import Suspect

_COLUMNS = ("case", "x_px", "y_px", "kind", "score", "spread", "label")
_SHEET = 96


def run_audit(
    data: Sequence[str],
    out: Path,
    cases: Sequence[str] | None,
    exclude: Sequence[str] | None,
    mpp: float | None,
    override_mpp: bool,
    folds: int,
    seeds: int,
    steps: int,
    missed_above: float,
    doubtful_below: float,
    threads: int | None,
) -> int:
    """Train verifiers across folds of slides, and write what they suspect."""
    from segmitos.io.datasets import load_dataset
    from segmitos.io.files import write_json, write_text
    from segmitos.report.dataset_conversion import convert_dataset
    from segmitos.training.audit import MPP, AuditOptions, audit_labels
    from segmitos.training.sampling import load_training_images

    if out.exists() and any(out.iterdir()):
        raise OutputError(f"{out} is not empty; name a new folder for the audit")
    if not doubtful_below < missed_above:
        raise UsageError(
            f"--doubtful-below {doubtful_below:g} must be below --missed-above {missed_above:g}"
        )
    chosen = load_dataset(data, cases or (), exclude or (), mpp, override_mpp)
    for case in chosen:
        if case.mpp is None:
            raise ScaleError(f"{case.name}: um per pixel unknown; give --mpp")
    options = AuditOptions(
        folds=folds,
        seeds=seeds,
        steps=steps,
        missed_above=missed_above,
        doubtful_below=doubtful_below,
    )
    sources = load_training_images(chosen, MPP)
    suspects = audit_labels(sources, options, lambda text: print(text, flush=True), threads)
    placed = [_at_level_0(chosen[suspect.source], suspect) for suspect in suspects]
    write_text(out / "audit.csv", _table(chosen, placed))
    _write_sheets(chosen, placed, out)
    doubted = [_with_unsure(case, index, placed) for index, case in enumerate(chosen)]
    written = convert_dataset(doubted, out / "points")
    write_json(
        out / "audit.json",
        {
            "data": list(data),
            "options": dataclasses.asdict(options),
            "mpp": MPP,
            "cases": len(chosen),
            "slides": len({case.slide for case in chosen}),
            "suspects": {kind: sum(s.kind == kind for s in placed) for kind in _kinds(placed)},
        },
    )
    for kind in _kinds(placed):
        print(f"{kind:<17} {sum(s.kind == kind for s in placed)}")
    print(f"{len(placed)} suspects in {out / 'audit.csv'}; look at {out / 'audit-*.png'}")
    print(f"{written} images with these labels as unsure in {out / 'points'}")
    return 0


def _kinds(suspects: Sequence[Suspect]) -> list[str]:
    return sorted({suspect.kind for suspect in suspects})


def _at_level_0(case: Case, suspect: Suspect) -> Suspect:
    """Move a suspect from 0.25 um/px to the pixels of its image; labels to where they are."""
    from segmitos.training.audit import MPP

    assert case.mpp is not None
    ratio = MPP / case.mpp
    x, y = ((value + 0.5) * ratio - 0.5 for value in (suspect.x, suspect.y))
    return dataclasses.replace(suspect, x=x, y=y)


def _table(cases: Sequence[Case], suspects: Sequence[Suspect]) -> str:
    buffer = io.StringIO()
    writer = csv.writer(buffer, lineterminator="\n")
    writer.writerow(_COLUMNS)
    for s in suspects:
        place = (f"{s.x:.1f}", f"{s.y:.1f}")
        writer.writerow(
            (cases[s.source].name, *place, s.kind, f"{s.score:.3f}", f"{s.spread:.3f}", s.label)
        )
    return buffer.getvalue()


def _write_sheets(cases: Sequence[Case], suspects: Sequence[Suspect], out: Path) -> None:
    """Write a sheet for each kind, the surest first."""
    from segmitos.evaluation.gallery import Crop, gallery_picture
    from segmitos.io.files import write_bytes

    for kind in _kinds(suspects):
        some = [suspect for suspect in suspects if suspect.kind == kind][:_SHEET]
        crops = [Crop(cases[s.source].name, s.x, s.y, s.score) for s in some]
        write_bytes(out / f"audit-{kind.replace(' ', '-')}.png", gallery_picture(cases, crops))


def _with_unsure(case: Case, index: int, suspects: Sequence[Suspect]) -> Case:
    """Return a case whose suspects are neither mitosis nor hard negative."""
    own = np.array([(s.x, s.y) for s in suspects if s.source == index]).reshape(-1, 2)
    if not len(own):
        return case
    # Labels that are suspected lie where the suspect is, but for rounding.
    mitoses, confidence = _without(case.mitoses_xy, own), case.confidence
    return dataclasses.replace(
        case,
        mitoses_xy=case.mitoses_xy[mitoses],
        confidence=None if confidence is None else confidence[mitoses],
        hard_negatives_xy=case.hard_negatives_xy[_without(case.hard_negatives_xy, own)],
        unsure_xy=np.concatenate([case.unsure_xy, own]),
    )


def _without(points: NDArray[np.float64], suspects: NDArray[np.float64]) -> NDArray[np.bool_]:
    if not len(points):
        return np.zeros(0, bool)
    apart = np.abs(points[:, None] - suspects[None]).max(axis=2).min(axis=1)
    result: NDArray[np.bool_] = apart > 0.5
    return result

"""`segmitos dataset audit`: labels that look wrong, by networks of other slides."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click

from segmitos.commands.progress import in_words
from segmitos.errors import OutputError, ScaleError, UsageError
from segmitos.options import (
    FilePath,
    cases_option,
    data_argument,
    exclude_option,
    mpp_option,
    threads_option,
)

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from segmitos.io.datasets import Case
    from segmitos.training.audit import Suspect

_COLUMNS = ("case", "x_px", "y_px", "kind", "score", "spread", "label")
_SHEET = 96


@click.command("audit")
@data_argument
@click.option("-o", "--out", type=FilePath, required=True, help="New folder to write.")
@cases_option
@exclude_option
@mpp_option
@click.option(
    "--folds",
    type=click.IntRange(2),
    default=3,
    show_default=True,
    help="Parts that the slides are divided in; each is judged by networks of the others.",
)
@click.option(
    "--seeds",
    type=click.IntRange(1),
    default=2,
    show_default=True,
    help="Networks for each part, whose probabilities are averaged.",
)
@click.option(
    "--steps",
    type=click.IntRange(1),
    default=600,
    show_default=True,
    help="Steps of each training, about half a second each on one CPU core.",
)
@click.option(
    "--missed-above",
    type=click.FloatRange(0, 1),
    default=0.6,
    show_default=True,
    help="Probability from which a cell without the label of a mitosis is suspected.",
)
@click.option(
    "--doubtful-below",
    type=click.FloatRange(0, 1),
    default=0.05,
    show_default=True,
    help="Probability up to which a labelled mitosis is suspected.",
)
@threads_option
def audit(
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
    """List labels that look wrong, and write a copy in which they are unsure.

    Each slide is judged by networks that were trained on the other slides. Look at the sheets: what
    the networks suspect is not what a pathologist would say.

    Example: segmitos dataset audit points:DIR -o audit
    """
    from dataclasses import asdict

    from segmitos.commands.progress import print_warnings
    from segmitos.io.datasets import load_dataset
    from segmitos.io.files import new_folder, write_json, write_text
    from segmitos.report.dataset_conversion import convert_dataset
    from segmitos.training.audit import MPP, AuditOptions, audit_labels
    from segmitos.training.sampling import load_training_images, warnings_of

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
    print_warnings(warnings_of(sources))
    suspects = audit_labels(sources, options, lambda text: print(text, flush=True), threads)
    placed = [_at_level_0(chosen[suspect.source], suspect) for suspect in suspects]
    with new_folder(out) as folder:
        write_text(folder / "audit.csv", _table(chosen, placed))
        _write_sheets(chosen, placed, folder)
        doubted = [_with_unsure(case, index, placed) for index, case in enumerate(chosen)]
        written = convert_dataset(doubted, folder / "points")
        write_json(
            folder / "audit.json",
            {
                "data": list(data),
                "options": asdict(options),
                "mpp": MPP,
                "cases": len(chosen),
                "slides": len({case.slide for case in chosen}),
                "suspects": {kind: sum(s.kind == kind for s in placed) for kind in _kinds(placed)},
            },
        )
    for kind in _kinds(placed):
        print(f"{kind:<17} {sum(s.kind == kind for s in placed)}")
    print(f"{len(placed)} suspects in {out / 'audit.csv'}; look at {out / 'audit-*.png'}")
    print(f"{in_words(written, 'image')} with these labels as unsure in {out / 'points'}")
    return 0


def _kinds(suspects: Sequence[Suspect]) -> list[str]:
    return sorted({suspect.kind for suspect in suspects})


def _at_level_0(case: Case, suspect: Suspect) -> Suspect:
    """Move a suspect from 0.25 um/px to the pixels of its image; labels to where they are."""
    from dataclasses import replace

    import numpy as np

    from segmitos.io.geometry import rescale
    from segmitos.training.audit import MPP

    assert case.mpp is not None
    x, y = rescale(np.array([suspect.x, suspect.y]), MPP / case.mpp)
    return replace(suspect, x=float(x), y=float(y))


def _table(cases: Sequence[Case], suspects: Sequence[Suspect]) -> str:
    import csv
    import io

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
    from dataclasses import replace

    import numpy as np

    own = np.array([(s.x, s.y) for s in suspects if s.source == index]).reshape(-1, 2)
    if not len(own):
        return case
    # Labels that are suspected lie where the suspect is, but for rounding.
    mitoses, confidence = _without(case.mitoses_xy, own), case.confidence
    return replace(
        case,
        mitoses_xy=case.mitoses_xy[mitoses],
        confidence=None if confidence is None else confidence[mitoses],
        hard_negatives_xy=case.hard_negatives_xy[_without(case.hard_negatives_xy, own)],
        unsure_xy=np.concatenate([case.unsure_xy, own]),
    )


def _without(points: NDArray[np.float64], suspects: NDArray[np.float64]) -> NDArray[np.bool_]:
    import numpy as np

    if not len(points):
        return np.zeros(0, bool)
    apart = np.abs(points[:, None] - suspects[None]).max(axis=2).min(axis=1)
    result: NDArray[np.bool_] = apart > 0.5
    return result

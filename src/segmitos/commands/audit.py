"""`segmitos dataset audit`: labels that look wrong, by networks of other slides."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from segmitos.commands.progress import Bar, in_words, print_warnings
from segmitos.errors import OutputError, ScaleError, UsageError
from segmitos.options import (
    DataSets,
    FilePath,
    data_options,
    threads_option,
)
from segmitos.training.packages import require_training

if TYPE_CHECKING:
    from segmitos.io.datasets import Case
    from segmitos.training.audit import Suspect

_COLUMNS = ("case", "x_px", "y_px", "kind", "score", "spread", "label")
_SHEET = 96


@click.command("audit")
@data_options
@click.option("-o", "--out", type=FilePath, required=True, help="New folder to write.")
@click.option(
    "--folds",
    type=click.IntRange(2),
    default=3,
    show_default=True,
    help="Parts that the slides are divided in, no more than there are slides; each is judged by "
    "networks of the others.",
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
    help="Probability up to which a labeled mitosis is suspected.",
)
@threads_option
def audit(data: DataSets, out: Path, threads: int | None, **given: Any) -> None:
    """List labels that look wrong, and write a copy in which they are unsure.

    Each slide is judged by networks that were trained on the other slides. Look at the sheets: what
    the networks suspect is not what a pathologist would say.

    Example: segmitos dataset audit points:DIR -o audit
    """
    require_training()
    from dataclasses import asdict

    from segmitos.io.files import new_folder, write_json, write_text
    from segmitos.report.dataset_conversion import convert_dataset, lost_in_conversion
    from segmitos.training.audit import MPP, AuditOptions, audit_labels
    from segmitos.training.sampling import load_training_images, warnings_of

    if out.exists() and any(out.iterdir()):
        raise OutputError(f"{out} is not empty; name a new folder for the audit")
    options = AuditOptions(**given)
    if not options.doubtful_below < options.missed_above:
        raise UsageError(
            f"--doubtful-below {options.doubtful_below:g} must be below --missed-above "
            f"{options.missed_above:g}"
        )
    chosen = data.load()
    for case in chosen:
        if case.mpp is None:
            raise ScaleError(f"{case.name}: um per pixel unknown; give --mpp")
    sources = load_training_images(chosen, MPP)
    print_warnings(warnings_of(sources))
    with Bar("training steps", options.folds * options.seeds * options.steps) as bar:
        suspects = audit_labels(sources, options, bar.show, threads)
    placed = [_at_level_0(suspect, sources[suspect.source].ratio) for suspect in suspects]
    with new_folder(out) as folder:
        write_text(folder / "audit.csv", _table(chosen, placed))
        _write_sheets(chosen, placed, folder)
        doubted = [_with_unsure(case, index, placed) for index, case in enumerate(chosen)]
        written = convert_dataset(doubted, folder / "points")
        write_json(
            folder / "audit.json",
            {
                "data": list(data.names),
                "options": asdict(options),
                "mpp": MPP,
                "cases": len(chosen),
                "slides": len({case.slide for case in chosen}),
                "suspects": {kind: sum(s.kind == kind for s in placed) for kind in _kinds(placed)},
            },
        )
    print_warnings([*data.left_out(), *lost_in_conversion(chosen)])
    for kind in _kinds(placed):
        print(f"{kind:<17} {sum(s.kind == kind for s in placed)}")
    look = f"; look at {out / 'audit-*.png'}" if placed else ""
    print(f"{len(placed)} suspects in {out / 'audit.csv'}{look}")
    print(f"{in_words(written, 'image')} with these labels as unsure in {out / 'points'}")


def _kinds(suspects: Sequence[Suspect]) -> list[str]:
    return sorted({suspect.kind for suspect in suspects})


def _at_level_0(suspect: Suspect, ratio: float) -> Suspect:
    """Return a suspect with its position in pixels of its file instead of those of the networks."""
    from dataclasses import replace

    import numpy as np

    from segmitos.io.geometry import rescale

    x, y = rescale(np.array([suspect.x, suspect.y]), ratio)
    return replace(suspect, x=float(x), y=float(y))


def _table(cases: Sequence[Case], suspects: Sequence[Suspect]) -> str:
    from segmitos.io.tables import table_text, text_cell

    rows = [
        (
            text_cell(cases[s.source].name),
            f"{s.x:.1f}",
            f"{s.y:.1f}",
            s.kind,
            f"{s.score:.3f}",
            f"{s.spread:.3f}",
            s.label,
        )
        for s in suspects
    ]
    return table_text(_COLUMNS, rows)


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

    from segmitos.io.pairs import is_near

    own = np.array([(s.x, s.y) for s in suspects if s.source == index]).reshape(-1, 2)
    if not len(own):
        return case
    # Labels that are suspected lie where the suspect is, but for rounding.
    mitoses, others = (
        ~is_near(points, own, 0.5) for points in (case.mitoses_xy, case.hard_negatives_xy)
    )
    return replace(
        case,
        mitoses_xy=case.mitoses_xy[mitoses],
        confidence=None if case.confidence is None else case.confidence[mitoses],
        hard_negatives_xy=case.hard_negatives_xy[others],
        unsure_xy=np.concatenate([case.unsure_xy, own]),
    )

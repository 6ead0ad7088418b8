"""`segmitos recount`: results counted again, with other settings or as a reader corrected them."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import click

from segmitos.commands.progress import in_words, print_warnings
from segmitos.errors import DataError, InputError, OutputError, UsageError
from segmitos.io.files import display_path
from segmitos.options import FilePath, counting_options, json_option, print_json

if TYPE_CHECKING:
    from segmitos.cohort.atomic_folder import RunRecord
    from segmitos.counting.recount import Recount
    from segmitos.counting.saved import SavedResult
    from segmitos.counting.summary import Summary


@click.command()
@click.argument("folder", type=FilePath, help="A result of detect, or an output folder of it.")
@click.option(
    "--with",
    "corrected",
    type=FilePath,
    help="GeoJSON of marks as a reader left them, say from QuPath; of several results, a folder "
    "of NAME.geojson.",
)
@click.option("--reader", default="", help="Name of the reader, for the report.")
@click.option("--note", default="", help="Free text of the reader, for the report.")
@click.option(
    "--hotspot",
    type=click.Choice(["follow", "fixed"]),
    default="follow",
    show_default=True,
    help="Search the hotspot again among the corrected marks, or count in the model's.",
)
@click.option(
    "--screened", is_flag=True, help="The reader looked at all of the windows, not at marks alone."
)
@click.option("--tubules", type=click.IntRange(1, 3), help="Score of tubules, for a grade.")
@click.option("--nuclei", type=click.IntRange(1, 3), help="Score of nuclei, for a grade.")
@counting_options(defaults=False)
@click.option(
    "-o", "--out", type=FilePath, help="Folder for the files of a review; default: the result's."
)
@click.option("--overwrite", is_flag=True, help="Replace the review of another reader.")
@json_option
def recount(
    folder: Path,
    corrected: Path | None,
    reader: str,
    note: str,
    hotspot: Literal["follow", "fixed"],
    screened: bool,
    tubules: int | None,
    nuclei: int | None,
    out: Path | None,
    overwrite: bool,
    json_out: bool,
    **given: Any,
) -> int:
    """Count a result of detect again, without the networks.

    With --with, as a reader corrected it: the files reviewed.geojson, .csv, .json and .html are
    written, and the result stays as it is. Without, the result itself is counted with other
    settings. What is not given stays as it was. FOLDER is that of one result or of a whole run.

    Example: segmitos recount results/slide --with corrected.geojson --reader Anna
    """
    from segmitos.cohort.atomic_folder import open_results
    from segmitos.cohort.names import COHORT
    from segmitos.cohort.tables import write_tables

    changes = {key: value for key, value in given.items() if value is not None}
    results = [result.path for result in open_results(folder)]
    if corrected is None:
        named = {"--reader": reader, "--note": note, "--screened": screened, "--out": out}
        useless = [option for option, value in named.items() if value]
        if tubules or nuclei or useless or hotspot != "follow":
            what = useless[0] if useless else "--hotspot, --tubules or --nuclei"
            raise UsageError(f"{what} needs a corrected file; give it with --with")
        if not changes:
            raise UsageError("nothing to change: give --with, or a setting to count with")
        work = [partial(_change, result, changes, json_out) for result in results]
    else:
        given_review = _Given(
            changes=changes,
            reader=display_path(reader.strip()),
            note=display_path(note.strip()),
            hotspot=hotspot,
            screened=screened,
            tubules=tubules,
            nuclei=nuclei,
            overwrite=overwrite,
        )
        work = []
        for result, file in _corrected_files(results, corrected, folder).items():
            target = result if out is None else out / result.name if len(results) > 1 else out
            work.append(partial(_review, result, file, target, given_review, json_out))
    run = folder.absolute().parent if results == [folder] else folder
    contents, problems = [], 0
    try:
        for step in work:
            try:
                contents.append(step())
            except (InputError, OutputError) as error:
                # As in detect, one that fails does not stop the others.
                problems += 1
                print(f"segmitos: error: {error}", file=sys.stderr)
    finally:
        # Also where the user interrupts: the tables say what the folders hold.
        if (run / COHORT).is_file():
            write_tables(run)
    if json_out:
        print_json(contents)
    return 1 if problems else 0


def _corrected_files(results: list[Path], corrected: Path, folder: Path) -> dict[Path, Path]:
    """Return the corrected file of each result that has one."""
    if not corrected.exists():
        raise InputError(f"there is no {corrected}")
    if corrected.is_file():
        if len(results) > 1 or results != [folder]:
            raise UsageError(
                f"{folder} holds several results and {corrected} is one file; give the folder of "
                "one result, or a folder of NAME.geojson"
            )
        return {folder: corrected}
    found = {result: corrected / f"{result.name}.geojson" for result in results}
    found = {result: file for result, file in found.items() if file.is_file()}
    if not found:
        raise InputError(f"{corrected} holds no {results[0].name}.geojson, nor that of any other")
    names = {result.name for result in results}
    strange = sorted(file.name for file in corrected.glob("*.geojson") if file.stem not in names)
    if strange:
        raise InputError(f"{corrected / strange[0]}: {folder} holds no result of this name")
    return found


def _change(folder: Path, changes: dict[str, Any], quiet: bool) -> dict[str, Any]:
    """Count a result with other settings, in its place."""
    from segmitos.cohort.atomic_folder import OutputFolder
    from segmitos.cohort.finished_results import recount_result
    from segmitos.counting.summary import parse_summary
    from segmitos.io.outputs import SUMMARY
    from segmitos.report.signed import signed_reviews

    whole = folder.absolute()
    files = recount_result(OutputFolder(whole.parent, whole.name), changes)
    summary = parse_summary(files[SUMMARY], str(folder / SUMMARY))
    if not quiet:
        print(f"{folder.name}: {_figures(summary)}")
    warnings = []
    if _has_other_settings(folder, summary):
        warnings.append(
            f"{folder.name}: its review still has the earlier settings; recount --with again"
        )
    for who, signed in signed_reviews(whole.parent, whole.name).items():
        if _has_other_settings(signed, summary):
            warnings.append(
                f"{folder.name}: {who} signed the count with the earlier settings; take the "
                "signature back and sign again (segmitos review)"
            )
    print_warnings(warnings)
    return {"name": folder.name, "summary": json.loads(files[SUMMARY])}


def _has_other_settings(folder: Path, summary: Summary) -> bool:
    """Tell whether the review in a folder was counted with other settings than a result."""
    from segmitos.report.reviewed import is_counted_alike, read_review

    try:
        review = read_review(folder)
    except DataError:
        return True
    return review is not None and not is_counted_alike(review.get("settings"), summary.settings)


@dataclass(frozen=True)
class _Given:
    """What the options say of a review, the same for every result."""

    changes: Mapping[str, Any]
    """Settings to count with, in place of the result's own."""
    reader: str
    note: str
    hotspot: Literal["follow", "fixed"]
    screened: bool
    tubules: int | None
    nuclei: int | None
    overwrite: bool


def _review(
    folder: Path, corrected: Path, target: Path, given: _Given, quiet: bool
) -> dict[str, Any]:
    """Write the files of a review of one result."""
    from segmitos.cohort.identity import is_still_there
    from segmitos.counting.corrections import corrections, read_edited
    from segmitos.counting.recount import Review, recount
    from segmitos.io.files import write_files
    from segmitos.report.result_files import open_image, read_pictures
    from segmitos.report.reviewed import review_content, reviewed_files

    saved, record = _read_result(folder, given.changes)
    found = recount(
        saved,
        corrections(saved, read_edited(corrected, saved)),
        hotspot=given.hotspot,
        screened=given.screened,
        tubules=given.tubules,
        nuclei=given.nuclei,
    )
    review = Review(found, given.reader, display_path(corrected.name), given.note)
    _check_target(target, corrected, given)
    picture, crops = read_pictures(folder)
    there = record is not None and is_still_there(record.input)
    slide = open_image(saved, Path(record.input.path)) if record and there else None
    try:
        files = reviewed_files(saved, review, picture, crops, slide)
    finally:
        if slide is not None:
            slide.close()
    write_files(target, files)
    if not quiet:
        print(f"{folder.name}: {_compared(found)}")
        if given.tubules is not None:
            print(f"{folder.name}: {_graded(found)}")
    return {"name": folder.name, "review": review_content(saved, review)}


def _read_result(folder: Path, changes: Mapping[str, Any]) -> tuple[SavedResult, RunRecord | None]:
    """Read a result, to be counted with some settings changed, and the record of its input.

    Raises:
        DataError: where its files are not those that were written.
        UsageError: for a setting that changes what was found, not how it is counted.
    """
    from segmitos.cohort.atomic_folder import OutputFolder
    from segmitos.counting.saved import TISSUE, change_settings, read_saved
    from segmitos.io.outputs import SUMMARY
    from segmitos.io.points.candidates import CANDIDATES

    saved = read_saved(folder)
    result = OutputFolder(folder.absolute().parent, folder.absolute().name)
    record = result.record()
    changed = {SUMMARY, CANDIDATES, TISSUE} & set(result.changed_files())
    if record is not None and changed:
        raise DataError(f"{folder / min(changed)} is damaged or was changed; run detect again")
    if {"min_score", "min_area_um2"} & changes.keys():
        raise UsageError(
            "--min-score and --min-area-um2 change what the model found; change the result first, "
            "without --with"
        )
    return change_settings(saved, dict(changes)) if changes else saved, record


def _check_target(target: Path, corrected: Path, given: _Given) -> None:
    """Refuse to write a review over the corrected file, or over what is not to be replaced."""
    from segmitos.io.outputs import check_folder
    from segmitos.report.reviewed import REVIEWED, REVIEWED_GEOJSON, check_reader

    if corrected.resolve() in [(target / name).resolve() for name in REVIEWED]:
        raise UsageError(f"{corrected} would be written over; move it, or name a folder with -o")
    if not given.overwrite:
        check_reader(target, given.reader)
        check_folder(target, REVIEWED, REVIEWED_GEOJSON)


def _figures(summary: Summary) -> str:
    inside = "" if summary.hotspot is None else f", {summary.hotspot.count} in the hotspot"
    scores = () if summary.score is None else summary.score.systems
    told = "".join(f", {one.system} score {one.score}" for one in scores)
    return f"{in_words(summary.count, 'mitotic figure')}{inside}{told}"


def _graded(found: Recount) -> str:
    """Return the grade by each window, or why there is none, in a line."""
    if found.grade is None:
        return f"no grade: {found.reviewed.score_reason}"
    return ", ".join(f"grade {grade} ({where})" for where, grade in found.grade.items())


def _compared(found: Recount) -> str:
    """Return the model's and the reader's figures, and what was changed, in a line."""
    parts = [f"{found.model.count} -> {found.reviewed.count} mitotic figures"]
    if found.model.hotspot and found.reviewed.hotspot:
        parts.append(f"hotspot {found.model.hotspot.count} -> {found.reviewed.hotspot.count}")
    for entry in found.reviewed.score.systems if found.reviewed.score else ():
        earlier = found.model.score.of(entry.where) if found.model.score else None
        was = "-" if earlier is None else earlier.score
        parts.append(f"{entry.system} score {was} -> {entry.score}")
    tally = found.tally
    changed = f"{tally.confirmed} confirmed, {tally.rejected} rejected, {tally.added} added"
    more = [f"{n} {word}" for n, word in ((tally.moved, "moved"), (tally.unsure, "unsure")) if n]
    return ", ".join(parts) + f" ({', '.join([changed, *more])})"

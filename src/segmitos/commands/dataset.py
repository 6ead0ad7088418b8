"""`segmitos dataset`: list the formats, describe a data set, convert it."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from segmitos.commands.audit import audit
from segmitos.commands.progress import in_words, print_warnings
from segmitos.errors import DataError, UsageError
from segmitos.io.text import listed
from segmitos.options import (
    DataSets,
    FilePath,
    InOrder,
    data_options,
    json_option,
    print_json,
)

if TYPE_CHECKING:
    from segmitos.io.datasets import Case


@click.group("dataset", cls=InOrder, no_args_is_help=True)
def dataset_app() -> None:
    """List, describe, audit and convert data sets."""


@dataset_app.command("list")
@json_option
def dataset_list(json_out: bool) -> None:
    """List the data set formats.

    Example: segmitos dataset list
    """
    from segmitos.io.datasets import FORMATS

    if json_out:
        print_json({name: info.summary for name, info in FORMATS.items()})
        return
    for name, info in FORMATS.items():
        print(f"{name:<12} {info.summary}")


@dataset_app.command("describe")
@data_options
@click.option(
    "--sheet",
    type=FilePath,
    help="Write all labels as crops (PNG pages), their table, and the regions.",
)
@json_option
def dataset_describe(
    data: DataSets,
    sheet: Path | None,
    json_out: bool,
) -> int:
    """Count cases, slides and mitoses, and list what looks wrong.

    Example: segmitos dataset describe mitos14:DIR --sheet sheet.png
    """
    from segmitos.report.dataset_report import describe, find_problems

    if sheet is not None and sheet.suffix.lower() not in ("", ".png"):
        raise UsageError(f"--sheet {sheet}: the pages are PNG; give a name that ends in .png")
    problems: list[str] = []
    chosen = data.load(problems)
    summary = describe(chosen)
    problems = list(dict.fromkeys([*problems, *find_problems(chosen)]))
    notes = data.left_out()
    written: list[Path] = []
    if sheet is not None and chosen:
        try:
            written = _write_sheets(chosen, sheet)
        except DataError as error:
            problems.append(str(error))
    if json_out:
        print_json({**summary, "notes": notes, "problems": problems})
    else:
        for key, value in summary.items():
            print(f"{key.replace('_', ' '):<16} {_plain(value)}")
        for note in notes:
            print(f"{'note':<16} {note}")
        print(f"{'problems':<16} {len(problems) or 'none'}")
        for problem in problems[:50]:
            print(f"  {problem}")
        if len(problems) > 50:
            print(f"  and {len(problems) - 50} more (--json shows all)")
        if written:
            print(f"{'sheets':<16} {listed(written, 4)}")
    if problems:
        print(f"segmitos: {in_words(len(problems), 'problem')} in the data set", file=sys.stderr)
    return 1 if problems else 0


def _write_sheets(cases: Sequence[Case], sheet: Path) -> list[Path]:
    """Write pages of crops, the table of labels and pages of regions; return what was written."""
    from segmitos.io.files import write_bytes, write_text
    from segmitos.io.outputs import check_file, is_own_picture
    from segmitos.report.contact_sheet import (
        contact_sheets,
        is_label_table,
        label_table,
        labeled_points,
        region_sheets,
    )

    points = labeled_points(cases)
    written = [sheet.with_suffix(".csv")]
    check_file(written[0], is_own=is_label_table)
    write_text(written[0], label_table(points))
    pages = (("", contact_sheets(points)), ("-regions", region_sheets(cases)))
    for kind, pictures in pages:
        for number, picture in enumerate(pictures, start=1):
            page = "" if number == 1 else f"-{number}"
            written.append(sheet.with_name(f"{sheet.stem}{kind}{page}{sheet.suffix or '.png'}"))
            check_file(written[-1], is_own=is_own_picture)
            write_bytes(written[-1], picture)
    return written


def _plain(value: Any) -> str:
    if isinstance(value, dict):
        return listed([f"{key}: {count}" for key, count in value.items()], 12)
    return "unknown" if value is None else str(value)


dataset_app.add_command(audit)


@dataset_app.command("convert")
@data_options
@click.option("-o", "--out", type=FilePath, required=True, help="Folder to write.")
def dataset_convert(
    data: DataSets,
    out: Path,
) -> None:
    """Convert a data set to a folder of images with one CSV of points each.

    Example: segmitos dataset convert mitos14:DIR -o points
    """
    from segmitos.report.dataset_conversion import convert_dataset, lost_in_conversion

    chosen = data.load()
    count = convert_dataset(chosen, out)
    print_warnings([*data.left_out(), *lost_in_conversion(chosen)])
    print(f"{in_words(count, 'image')} with points in {out}")

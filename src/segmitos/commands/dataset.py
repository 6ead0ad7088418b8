"""`segmitos dataset`: list the formats, describe a data set, convert it."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from segmitos.errors import DataError

if TYPE_CHECKING:
    from segmitos.io.datasets import Case


def run_list(json_out: bool) -> int:
    """Print the formats."""
    from segmitos.io.datasets import FORMATS

    if json_out:
        print(json.dumps({name: info.summary for name, info in FORMATS.items()}, indent=2))
        return 0
    for name, info in FORMATS.items():
        print(f"{name:<12} {info.summary}")
    return 0


def run_describe(
    data: Sequence[str],
    cases: Sequence[str] | None,
    exclude: Sequence[str] | None,
    mpp: float | None,
    override_mpp: bool,
    sheet: Path | None,
    json_out: bool,
) -> int:
    """Print what a data set holds and what looks wrong; exit code 1 where something does."""
    from segmitos.io.datasets import load_dataset
    from segmitos.report.dataset_report import describe, find_problems

    problems: list[str] = []
    chosen = load_dataset(data, cases or (), exclude or (), mpp, override_mpp, problems)
    summary = describe(chosen)
    problems = list(dict.fromkeys([*problems, *find_problems(chosen)]))
    written: list[Path] = []
    if sheet is not None and chosen:
        try:
            written = _write_sheets(chosen, sheet)
        except DataError as error:
            problems.append(str(error))
    if json_out:
        print(json.dumps({**summary, "problems": problems}, indent=2, sort_keys=True))
    else:
        for key, value in summary.items():
            print(f"{key.replace('_', ' '):<16} {_plain(value)}")
        print(f"{'problems':<16} {len(problems) or 'none'}")
        for problem in problems[:50]:
            print(f"  {problem}")
        if len(problems) > 50:
            print(f"  and {len(problems) - 50} more (--json shows all)")
        if written:
            print(f"{'sheets':<16} {_named(written)}")
    if problems:
        noun = "problem" if len(problems) == 1 else "problems"
        print(f"segmitos: {len(problems)} {noun} in the data set", file=sys.stderr)
    return 1 if problems else 0


def _write_sheets(cases: Sequence[Case], sheet: Path) -> list[Path]:
    """Write pages of crops, the table of labels and pages of regions; return what was written."""
    from segmitos.io.files import write_bytes, write_text
    from segmitos.report.contact_sheet import (
        contact_sheets,
        label_table,
        labelled_points,
        region_sheets,
    )

    points = labelled_points(cases)
    written = [sheet.with_suffix(".csv")]
    write_text(written[0], label_table(points))
    pages = (("", contact_sheets(points)), ("-regions", region_sheets(cases)))
    for kind, pictures in pages:
        for number, picture in enumerate(pictures, start=1):
            page = "" if number == 1 else f"-{number}"
            written.append(sheet.with_name(f"{sheet.stem}{kind}{page}{sheet.suffix or '.png'}"))
            write_bytes(written[-1], picture)
    return written


def _named(written: Sequence[Path]) -> str:
    """Name files, the first ones where there are many."""
    more = f" and {len(written) - 4} more" if len(written) > 4 else ""
    return ", ".join(str(path) for path in written[:4]) + more


def _plain(value: Any) -> str:
    if isinstance(value, dict):
        parts = [f"{key}: {count}" for key, count in value.items()]
        shown = ", ".join(parts[:12])
        return shown + (f", and {len(parts) - 12} more" if len(parts) > 12 else "")
    return "unknown" if value is None else str(value)


def run_convert(
    data: Sequence[str],
    out: Path,
    cases: Sequence[str] | None,
    exclude: Sequence[str] | None,
    mpp: float | None,
    override_mpp: bool,
) -> int:
    """Write a data set as a `points` folder."""
    from segmitos.io.datasets import load_dataset
    from segmitos.report.dataset_conversion import convert_dataset

    chosen = load_dataset(data, cases or (), exclude or (), mpp, override_mpp)
    count = convert_dataset(chosen, out)
    print(f"{count} images with their points in {out}")
    return 0

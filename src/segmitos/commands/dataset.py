"""`segmitos dataset`: list the formats, describe a data set, convert it."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any


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
    from segmitos.io.files import write_bytes
    from segmitos.report.dataset_report import contact_sheet, describe, find_problems

    chosen = load_dataset(data, cases or (), exclude or (), mpp, override_mpp)
    summary = describe(chosen)
    problems = find_problems(chosen)
    if sheet is not None:
        write_bytes(sheet, contact_sheet(chosen))
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
    return 1 if problems else 0


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
    from segmitos.report.dataset_report import convert_dataset

    chosen = load_dataset(data, cases or (), exclude or (), mpp, override_mpp)
    count = convert_dataset(chosen, out)
    print(f"{count} images with their points in {out}")
    return 0

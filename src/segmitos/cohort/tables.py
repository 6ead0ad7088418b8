"""`cohort.csv`, `cohort.html`, `failures.csv`: of all results in a folder, whoever wrote them.

They are made of the folders of results and the records of failures alone, so that several
processes, or a job array, may write into one folder.
"""

from __future__ import annotations

import contextlib
import io
import os
from collections.abc import Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Literal

from segmitos.cohort.atomic_folder import OutputFolder, RunRecord, results_in
from segmitos.cohort.failures import Failure, read_failures
from segmitos.cohort.identity import RESULT_FORMAT
from segmitos.cohort.names import (
    COHORT,
    COHORT_PARQUET,
    FAILURE_RECORDS,
    FAILURES,
)
from segmitos.errors import DataError, OutputError
from segmitos.io.files import remove_file, write_bytes, write_text
from segmitos.io.outputs import COHORT_REPORT, PROGRAM, RUN, SUMMARY
from segmitos.io.tables import table_text, text_cell
from segmitos.report.signed import shown_review

COLUMNS: dict[str, type] = {
    "name": str,
    "status": str,
    "count": int,
    "tissue_area_mm2": float,
    "density_per_mm2": float,
    "hotspot_count": int,
    "hotspot_density_per_mm2": float,
    "who_score": int,
    "nottingham_score": int,
    "score_uncertain": bool,
    "score_reason": str,
    "reader": str,
    "reviewed_count": int,
    "reviewed_hotspot_count": int,
    "reviewed_who_score": int,
    "reviewed_nottingham_score": int,
    "warnings": str,
    "mpp": float,
    "mpp_source": str,
    "path": str,
    "cause": str,
}
"""Columns of cohort.csv, and what is in them."""
FAILURE_COLUMNS = ("name", "path", "cause")

_OWN_HEADERS = {COHORT: tuple(COLUMNS)[:2], FAILURES: FAILURE_COLUMNS[:2]}
_OWN_MARKS = {COHORT_REPORT: b"SegMitos", COHORT_PARQUET: b"segmitos"}
_ROUNDS = 5

Row = dict[str, Any]


def status_of(summary: Mapping[str, Any]) -> Literal["done", "warning", "no tissue"]:
    """Return what a finished result is: done, warning, or no tissue."""
    if not summary["tissue_area_mm2"]:
        return "no tissue"
    return "warning" if summary.get("warnings") else "done"


def check_tables_replaceable(out: Path) -> None:
    """Refuse a folder in which a file that is not ours has the name of a table.

    Raises:
        OutputError: naming the file.
    """
    for name in (*_OWN_HEADERS, *_OWN_MARKS):
        path = out / name
        if os.path.lexists(path) and not _is_own(path):
            raise OutputError(
                f"{path} was not written by SegMitos, and stays as it is; move it, or choose "
                "another folder with -o"
            )


def _is_own(path: Path) -> bool:
    """Tell whether a table is ours, as written or saved again by a spreadsheet; or empty."""
    try:
        if not path.is_file():
            return False
        content = path.read_bytes()
    except OSError:
        return False
    if not content.strip():
        return True
    if path.name in _OWN_MARKS:
        return _OWN_MARKS[path.name] in content
    first = content.removeprefix(b"\xef\xbb\xbf").split(b"\n")[0].decode("utf-8", "replace")
    for sign in ",;\t":
        cells = tuple(cell.strip().strip('"') for cell in first.split(sign))
        if cells[:2] == _OWN_HEADERS[path.name]:
            return True
    return False


def write_tables(out: Path, failed: Sequence[Failure] = (), parquet: bool = True) -> None:
    """Make the tables of all results in a folder, again where another process wrote meanwhile.

    Args:
        out: the folder.
        failed: failures of this run, whose records a full disk may have swallowed.
        parquet: whether there is time for the Parquet table, too; without it none stays.

    Raises:
        OutputError: where they cannot be written.
    """
    check_tables_replaceable(out)
    for _ in range(_ROUNDS):
        before = _state(out)
        _write(out, _rows(out, failed), parquet)
        if _state(out) == before:
            break


def _state(out: Path) -> list[tuple[str, int, int]]:
    """Return what changes when a result or a failure comes, goes or is made again."""
    found = []
    for folder in results_in(out):
        try:
            about = (folder.path / RUN).stat()
        except OSError:
            continue
        found.append((folder.name, about.st_ino, about.st_mtime_ns))
    # Another process may just remove the folder of failures, the last one of which is mended.
    with contextlib.suppress(FileNotFoundError):
        found += [(one.name, one.inode(), 0) for one in os.scandir(out / FAILURE_RECORDS)]
    return sorted(found)


def _rows(out: Path, failed: Sequence[Failure]) -> list[Row]:
    """Return a row for each result and each failed input in a folder, by name."""
    failures = {failure.path: failure for failure in (*failed, *read_failures(out))}
    rows = []
    for folder in results_in(out):
        row = _row(folder)
        if row["path"] not in failures:
            rows.append(row)
    _tell_copies(rows)
    nothing: Row = dict.fromkeys(COLUMNS)
    rows += [
        {**nothing, "name": one.name, "status": "failed", "path": one.path, "cause": one.cause}
        for one in failures.values()
    ]
    return sorted(rows, key=lambda row: (row["name"], row["path"]))


def _tell_copies(rows: Sequence[Row]) -> None:
    """Warn in the rows of an input that has several results, such as a copied folder."""
    of_input: dict[str, list[Row]] = {}
    for row in rows:
        if row["status"] != "failed":
            of_input.setdefault(row["path"], []).append(row)
    for same in of_input.values():
        names = [row["name"] for row in same]
        for row in same if len(same) > 1 else ():
            others = ", ".join(name for name in names if name != row["name"])
            said = f"the same input as {others}: counted more than once; remove all but one"
            row |= {
                "status": "warning",
                "warnings": "; ".join(filter(None, [row["warnings"], said])),
            }


def _unreadable(folder: OutputFolder, record: RunRecord | None) -> str:
    """Say why a result is in no table."""
    if record is not None and record.identity.format != RESULT_FORMAT:
        return f"{folder.path} is of another version of segmitos; run detect again"
    what = RUN if record is None else SUMMARY
    return f"{folder.path / what} is damaged or was changed; run detect again"


def _row(folder: OutputFolder) -> Row:
    row: Row = dict.fromkeys(COLUMNS)
    row["name"], row["path"] = folder.name, ""
    record = folder.record()
    summary = None
    if record is not None:
        row["path"] = record.input.path
        if record.identity.format == RESULT_FORMAT:
            summary = folder.summary(record)
    if summary is None:
        row["status"] = "failed"
        row["cause"] = _unreadable(folder, record)
        return row
    hotspot = summary.get("hotspot") or {}
    numbers = [name for name, kind in COLUMNS.items() if kind is not str]
    row |= {name: summary[name] for name in numbers if name in summary}
    row |= {
        "status": status_of(summary),
        "hotspot_count": hotspot.get("count"),
        "hotspot_density_per_mm2": hotspot.get("density_per_mm2"),
        "score_reason": summary.get("score_reason"),
        "mpp_source": summary.get("mpp_source"),
    }
    if summary.get("score"):
        row["score_uncertain"] = summary["score"]["uncertain"]
    reviewed = _reviewed(folder, summary)
    said = [*(summary.get("warnings") or ()), *filter(None, [reviewed.pop("warnings", None)])]
    return row | _scores(summary) | reviewed | {"warnings": "; ".join(said) or None}


def _scores(counted: Mapping[str, Any], prefix: str = "") -> Row:
    """Return the scores of a count, model's or reader's."""
    names = {"hotspot": "who_score", "ten fields": "nottingham_score"}
    systems = (counted.get("score") or {}).get("systems", ())
    return {prefix + names[system["where"]]: system["score"] for system in systems}


def _reviewed(folder: OutputFolder, summary: Mapping[str, Any]) -> Row:
    """Return what a reader made of a result, nothing where there is no review of it."""
    place, note = shown_review(folder.out, folder.name)
    if place is None:
        return {"warnings": note or None}
    from segmitos.report.reviewed import is_counted_alike, read_review

    try:
        review = read_review(place) or {}
        if (review.get("input"), review.get("model_file")) != (summary["input"], summary["model"]):
            note = "; ".join(filter(None, ["the review is of another image or model", note]))
            return {"warnings": note}
        counted = review["reviewed"]
        row = {
            "reader": review["reader"] or None,
            "reviewed_count": int(counted["count"]),
            "reviewed_hotspot_count": (counted["hotspot"] or {}).get("count"),
            **_scores(counted, "reviewed_"),
        }
    except (DataError, LookupError, TypeError, ValueError, AttributeError):
        return {"warnings": "reviewed.json is damaged"}
    if not is_counted_alike(review.get("settings"), summary["settings"]):
        note = "; ".join(filter(None, ["the review has other settings", note]))
    return {**row, "warnings": note or None}


def _write(out: Path, rows: Sequence[Row], parquet: bool) -> None:
    from segmitos.report.html import write_cohort_report

    # First what a disk that is nearly full must still take.
    failed = [row for row in rows if row["status"] == "failed"]
    if failed:
        write_text(out / FAILURES, _csv(FAILURE_COLUMNS, failed))
    else:
        remove_file(out / FAILURES)
    write_text(out / COHORT, _csv(tuple(COLUMNS), rows))
    # Of a single input there is nothing to compare, and starting all this takes a moment.
    if len(rows) > 1 or (out / COHORT_REPORT).exists():
        shown = [
            {key: "" if value is None else str(value) for key, value in row.items()} for row in rows
        ]
        write_cohort_report(out, shown)
        if parquet:
            _write_parquet(out / COHORT_PARQUET, rows)
        else:
            remove_file(out / COHORT_PARQUET)


def _csv(columns: Sequence[str], rows: Sequence[Row]) -> str:
    return table_text(columns, [[text_cell(row[column]) for column in columns] for row in rows])


def _write_parquet(path: Path, rows: Sequence[Row]) -> None:
    """Write the table as Parquet where pandas and pyarrow are there; no old one stays."""
    try:
        if find_spec("pandas") is None:
            raise ModuleNotFoundError
        import pyarrow
        import pyarrow.parquet
    except ImportError:
        # Also where pyarrow does not fit the other libraries: this table is an extra.
        remove_file(path)
        return

    kinds = {
        bool: pyarrow.bool_(),
        int: pyarrow.int64(),
        float: pyarrow.float64(),
        str: pyarrow.string(),
    }
    fields = [pyarrow.field(name, kinds[kind]) for name, kind in COLUMNS.items()]
    schema = pyarrow.schema(fields, metadata={PROGRAM: "cohort"})
    buffer = io.BytesIO()
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(list(rows), schema), buffer)
    write_bytes(path, buffer.getvalue())

"""Many inputs: resumable, one failure stops nothing else, the same bytes however it is spread."""

from __future__ import annotations

import csv
import io
import os
import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

from segmitos.cohort.job import Job, JobSettings, run_job
from segmitos.cohort.results import (
    COHORT,
    COHORT_REPORT,
    FAILURES,
    output_names,
    read_summary,
    recover,
    sweep,
)
from segmitos.errors import InputError, OutputError, UsageError
from segmitos.io.files import write_text
from segmitos.io.slide import find_images

Status = Literal["done", "skipped", "failed"]
_COLUMNS = (
    "name",
    "status",
    "count",
    "tissue_area_mm2",
    "density_per_mm2",
    "hotspot_count",
    "hotspot_density_per_mm2",
    "mpp",
    "path",
)


@dataclass(frozen=True)
class Outcome:
    """What became of one input."""

    name: str
    path: Path
    status: Status
    message: str = ""
    exit_code: int = 0
    summary: dict[str, Any] = field(default_factory=dict)


OnOutcome = Callable[[Outcome], None]


def run(
    inputs: Sequence[Path | str],
    out: Path,
    settings: JobSettings,
    workers: int = 1,
    cluster: str | None = None,
    on_outcome: OnOutcome = lambda outcome: None,
    on_progress: Callable[[str, int, int], None] = lambda name, done, total: None,
) -> list[Outcome]:
    """Detect on many inputs and write one folder each, cohort.csv and failures.csv.

    Args:
        inputs: files, folders, globs, list files.
        out: folder of the results.
        settings: model and options, the same for all.
        workers: inputs worked on at once, each in a process of its own; 1 stays in this one.
        cluster: address of a Dask scheduler to send the inputs to instead.
        on_outcome: told of each input as it ends.
        on_progress: (name, tiles done, tiles in all), where the work is on this machine.

    Returns:
        Outcomes in the order of the inputs.

    Raises:
        InputError: where the only input does not exist; OutputError: where `out` cannot be
            written; UsageError: where there is no such cluster.
    """
    if workers < 1:
        raise UsageError(f"--workers {workers} must be at least 1")
    entries = _present(inputs)
    paths = [entry for entry in entries if isinstance(entry, Path)]
    _check_writable(out)
    for name in (COHORT, FAILURES, COHORT_REPORT):
        recover(out, name)
    given = dict(zip(output_names(paths), paths, strict=True))
    jobs = [Job(str(path), str(out), name, settings) for name, path in given.items()]
    for entry in entries:
        if isinstance(entry, Outcome):
            on_outcome(entry)
    outcomes: dict[Path, Outcome] = {}
    for result in _results(jobs, workers, cluster, on_progress):
        path = given[result["name"]]
        outcomes[path] = _outcome(result, path)
        on_outcome(outcomes[path])
    # A worker of a run that was killed may have outlived its job's turn, not the cohort.
    sweep(out, list(given))
    ordered = [outcomes[entry] if isinstance(entry, Path) else entry for entry in entries]
    _write_tables(out, ordered)
    return ordered


def _results(
    jobs: Sequence[Job],
    workers: int,
    cluster: str | None,
    on_progress: Callable[[str, int, int], None],
) -> Iterator[dict[str, Any]]:
    """Yield the results of jobs as they end, wherever they run."""
    if cluster is not None:
        from segmitos.cohort.workers import on_cluster

        # Workers elsewhere stand in other folders.
        whole = [
            replace(job, path=os.path.abspath(job.path), out=os.path.abspath(job.out))
            for job in jobs
        ]
        yield from on_cluster(whole, cluster)
    elif workers > 1 and len(jobs) > 1:
        from segmitos.cohort.workers import in_processes

        yield from in_processes(jobs, min(workers, len(jobs)), on_progress)
    else:
        yield from (run_job(job, on_progress) for job in jobs)


def _present(inputs: Sequence[Path | str]) -> list[Path | Outcome]:
    """Find the images of each input, each image once.

    An input that is missing fails alone, unless it is the only one.
    """
    entries: list[Path | Outcome] = []
    seen: set[str] = set()
    for one in inputs:
        try:
            images = find_images([one])
        except InputError as error:
            if len(inputs) == 1:
                raise
            entries.append(Outcome(str(one), Path(one), "failed", str(error), error.exit_code))
            continue
        for image in images:
            if os.path.abspath(image) not in seen:
                seen.add(os.path.abspath(image))
                entries.append(image)
    return entries


def _check_writable(out: Path) -> None:
    """Refuse an output folder that cannot be written before hours of work, not after."""
    try:
        out.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=out):
            pass
    except OSError as error:
        raise OutputError(f"cannot write in {out}: {error.strerror or error}") from error


def _outcome(result: dict[str, Any], path: Path) -> Outcome:
    return Outcome(
        result["name"],
        path,
        result["status"],
        result.get("message", ""),
        result.get("exit_code", 0),
        result.get("summary", {}),
    )


def _write_tables(out: Path, outcomes: Sequence[Outcome]) -> None:
    """cohort.csv, one row an input, in input order; failures.csv where there are failures."""
    rows = []
    for outcome in outcomes:
        summary = outcome.summary or read_summary(out / outcome.name) or {}
        hotspot = summary.get("hotspot") or {}
        values = {
            **summary,
            "name": outcome.name,
            "status": "failed" if outcome.status == "failed" else "done",
            "path": str(outcome.path),
            "hotspot_count": hotspot.get("count"),
            "hotspot_density_per_mm2": hotspot.get("density_per_mm2"),
        }
        if outcome.status == "failed":
            values = {key: values[key] for key in ("name", "status", "path")}
        rows.append([values.get(column, "") for column in _COLUMNS])
    write_text(out / COHORT, _table(_COLUMNS, rows))
    failures = [[o.name, str(o.path), o.message] for o in outcomes if o.status == "failed"]
    if failures:
        write_text(out / FAILURES, _table(("name", "path", "cause"), failures))
    else:
        (out / FAILURES).unlink(missing_ok=True)


def _table(header: Sequence[str], rows: Sequence[Sequence[Any]]) -> str:
    buffer = io.StringIO()
    writer = csv.writer(buffer, lineterminator="\n")
    writer.writerow(header)
    writer.writerows([["" if value is None else value for value in row] for row in rows])
    return buffer.getvalue()

"""Many inputs: resumable, one failure stops nothing else, the same bytes however it is spread."""

from __future__ import annotations

import csv
import io
import json
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from segmitos.detect.job import Job, JobSettings, run_job
from segmitos.detect.results import SUMMARY, output_names
from segmitos.errors import OutputError, UsageError
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
        on_progress: (name, tiles done, tiles in all), where the work is in this process.

    Returns:
        Outcomes in the order of the inputs.

    Raises:
        InputError: where an input path does not exist; OutputError: where `out` cannot be written.
    """
    if workers < 1:
        raise UsageError(f"--workers {workers} must be at least 1")
    paths, missing = _present(inputs)
    names = output_names(paths)
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OutputError(f"cannot make {out}: {error.strerror}") from error
    jobs = [Job(str(p), str(out), n, settings) for p, n in zip(paths, names, strict=True)]
    outcomes: dict[str, Outcome] = {}
    for outcome in missing:
        on_outcome(outcome)
    if cluster is not None:
        stream = _on_cluster(jobs, cluster)
    elif workers > 1 and len(jobs) > 1:
        stream = _in_processes(jobs, min(workers, len(jobs)))
    else:
        stream = (_outcome(run_job(job, on_progress)) for job in jobs)
    for outcome in stream:
        outcomes[outcome.name] = outcome
        on_outcome(outcome)
    ordered = [*missing, *(outcomes[name] for name in names)]
    _write_tables(out, ordered)
    return ordered


def _present(inputs: Sequence[Path | str]) -> tuple[list[Path], list[Outcome]]:
    """Find the images of each input; one that is missing fails alone unless it is the only one."""
    from segmitos.errors import InputError

    paths: list[Path] = []
    missing: list[Outcome] = []
    for one in inputs:
        try:
            paths += find_images([one])
        except InputError as error:
            if len(inputs) == 1:
                raise
            missing.append(Outcome(str(one), Path(one), "failed", str(error), error.exit_code))
    return list(dict.fromkeys(paths)), missing


def _outcome(result: dict[str, Any]) -> Outcome:
    return Outcome(
        result["name"],
        Path(result["path"]),
        result["status"],
        result.get("message", ""),
        result.get("exit_code", 0),
        result.get("summary", {}),
    )


def _in_processes(jobs: Sequence[Job], workers: int) -> Iterator[Outcome]:
    """Run jobs in local processes; the threads of the machine are shared among them."""
    import multiprocessing
    from dataclasses import replace

    from segmitos.detect.model import available_threads

    settings = jobs[0].settings
    threads = settings.threads or max(1, available_threads() // workers)
    jobs = [replace(job, settings=replace(settings, threads=threads)) for job in jobs]
    left = list(jobs)
    # A worker that dies takes its pool with it; what it left undone is tried once more.
    for _ in range(2):
        ended: set[str] = set()
        with ProcessPoolExecutor(workers, multiprocessing.get_context("spawn")) as pool:
            waiting = {pool.submit(run_job, job): job for job in left}
            for future in as_completed(waiting):
                try:
                    outcome = _outcome(future.result())
                except BrokenProcessPool:
                    continue
                ended.add(outcome.name)
                yield outcome
        left = [job for job in left if job.name not in ended]
        if not left:
            return
    for job in left:
        message = f"{job.path}: its worker process died twice (out of memory?)"
        yield Outcome(job.name, Path(job.path), "failed", message, 1)


def _on_cluster(jobs: Sequence[Job], address: str) -> Iterator[Outcome]:
    """Send jobs to a Dask scheduler; one whose worker is lost is sent to another."""
    try:
        from distributed import Client, as_completed
        from distributed.scheduler import KilledWorker
    except ImportError as error:
        raise UsageError(
            "--cluster needs Dask distributed: pip install 'segmitos[cluster]'"
        ) from error
    try:
        client = Client(address, timeout="20s")
    except (OSError, TimeoutError, ValueError) as error:
        raise UsageError(f"no Dask scheduler answers at {address}: {error}") from error
    with client:
        waiting = {
            client.submit(run_job, job, key=f"segmitos-{job.name}-{time.time_ns()}", retries=3): job
            for job in jobs
        }
        for future in as_completed(list(waiting)):
            job = waiting[future]
            try:
                yield _outcome(future.result())
            except KilledWorker:
                message = f"{job.path}: several workers died on it (out of memory?)"
                yield Outcome(job.name, Path(job.path), "failed", message, 1)


def _write_tables(out: Path, outcomes: Sequence[Outcome]) -> None:
    """cohort.csv, one row an input, in input order; failures.csv where there are failures."""
    rows = []
    for outcome in outcomes:
        summary = outcome.summary or _saved_summary(out / outcome.name)
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
    write_text(out / "cohort.csv", _table(_COLUMNS, rows))
    failures = [[o.name, str(o.path), o.message] for o in outcomes if o.status == "failed"]
    if failures:
        write_text(out / "failures.csv", _table(("name", "path", "cause"), failures))
    else:
        (out / "failures.csv").unlink(missing_ok=True)


def _saved_summary(folder: Path) -> dict[str, Any]:
    try:
        content: dict[str, Any] = json.loads((folder / SUMMARY).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return content


def _table(header: Sequence[str], rows: Sequence[Sequence[Any]]) -> str:
    buffer = io.StringIO()
    writer = csv.writer(buffer, lineterminator="\n")
    writer.writerow(header)
    writer.writerows([["" if value is None else value for value in row] for row in rows])
    return buffer.getvalue()

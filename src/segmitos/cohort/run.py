"""Detection on many inputs: resumable, and one that fails does not stop the others."""

from __future__ import annotations

import contextlib
import os
import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path

from segmitos.cohort.atomic_folder import repair_results, results_in
from segmitos.cohort.job import Job, OnTiles, Outcome, fail, failure_of, run_job
from segmitos.cohort.names import output_names, own_name
from segmitos.cohort.settings import JobSettings
from segmitos.cohort.tables import check_tables_replaceable, write_tables
from segmitos.errors import InputError, OutputError, UsageError
from segmitos.io.arguments import paths_of, whole_of
from segmitos.io.files import absolute_path, display_path, remove_stale_partials
from segmitos.io.points.read_regions import regions_for
from segmitos.io.slide.entry import InputEntry
from segmitos.io.slide.find import find_inputs
from segmitos.io.text import reason_of

OnOutcome = Callable[[Outcome], None]
OnNote = Callable[[str], None]


def run(
    inputs: Sequence[Path | str],
    out: Path,
    settings: JobSettings,
    workers: int = 1,
    cluster: str | None = None,
    on_outcome: OnOutcome = lambda outcome: None,
    on_progress: OnTiles = lambda name, done, total: None,
    on_start: Callable[[int], None] = lambda total: None,
    on_note: OnNote = lambda text: None,
    shard: tuple[int, int] = (1, 1),
) -> list[Outcome]:
    """Detect on many inputs and write one folder each, and the tables of all results in `out`.

    The tables are also written where the run is interrupted.

    Args:
        inputs: files, folders, globs, lists, tables of inputs.
        out: folder of the results.
        settings: model and options, the same for all but for what a table of inputs says.
        workers: inputs worked on at once, each in a process of its own; 1 stays in this one.
        cluster: address of a Dask scheduler to send the inputs to instead.
        on_outcome: told of each input as it ends.
        on_progress: (name, tiles done, tiles in all), where the work is in this process.
        on_start: told how many inputs there are.
        on_note: told in words what is passed over, or waited for.
        shard: (i, n): only every n-th input, beginning with the i-th, counted from 1.

    Returns:
        Outcomes in the order of the inputs.

    Raises:
        InputError: where no input exists; OutputError: where `out` cannot be written, or is the
            folder of the inputs; UsageError: where there is no such cluster; those of
            `JobSettings.checked`.
    """
    inputs = paths_of(inputs, "paths")
    workers = whole_of(workers, "workers")
    if workers < 1:
        raise UsageError(f"--workers {workers} must be at least 1")
    if not isinstance(shard, tuple) or len(shard) != 2:
        raise UsageError(f"shard {shard!r:.60} must be two whole numbers (i, n)")
    number, shards = (whole_of(one, "shard") for one in shard)
    if not 1 <= number <= shards:
        raise UsageError(f"--shard {number}/{shards}: the first number must be from 1 to {shards}")
    settings = settings.checked()
    out = absolute_path(out)
    entries = find_inputs(inputs, out, on_note)
    _check_apart(entries, out)
    _prepare(out)
    chosen = list(zip(_names(entries, out), entries, strict=True))[number - 1 :: shards]
    on_start(len(chosen))
    shared = _shared_regions(entries, settings)
    outcomes: dict[str, Outcome] = {}
    jobs = []
    for name, entry in chosen:
        # Workers elsewhere stand in other folders, so that paths are whole.
        path = str(absolute_path(entry.path))
        named = entry.name is not None
        job = Job(path, str(out), name, _settings_for(entry, settings), named)
        problem = entry.problem or _other_name(name, entry, out) or shared.get(entry.path)
        if problem:
            outcomes[name] = fail(job, problem)
            on_outcome(outcomes[name])
        else:
            jobs.append(job)
    order = {job.path: job.name for job in jobs}
    try:
        for outcome in _results(jobs, workers, cluster, on_progress, on_note):
            outcomes[order[str(outcome.path)]] = outcome
            on_outcome(outcome)
    finally:
        # A worker of an earlier run that was killed may have begun a folder since `_prepare`.
        remove_stale_partials(out)
        failed = [failure_of(one) for one in outcomes.values() if one.status == "failed"]
        # Who interrupts does not want to wait for more libraries to load.
        write_tables(out, failed, parquet=len(outcomes) == len(chosen))
    return [outcomes[name] for name, _ in chosen]


def _check_apart(entries: Sequence[InputEntry], out: Path) -> None:
    """Refuse to write results among the inputs, where a folder of one's name may hold pixels.

    Raises:
        UsageError: naming the folder.
    """
    real = os.path.realpath(out)
    for entry in entries:
        if os.path.realpath(entry.path.parent) == real:
            raise UsageError(
                f"-o {out} is the folder of the inputs ({entry.path.name} is in it); name another "
                "for the results"
            )


def _prepare(out: Path) -> None:
    """Refuse an output folder that cannot be written before hours of work, not after."""
    try:
        out.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=out):
            pass
    except (OSError, ValueError) as error:
        reason = reason_of(error)
        if out.is_file():
            reason = "it is a file; name a folder"
        raise OutputError(f"cannot write in {out}: {reason}") from error
    try:
        os.getcwd()
    except FileNotFoundError:
        # Libraries and new processes ask for it; all paths of the run are whole.
        os.chdir(out)
    remove_stale_partials(out)
    repair_results(out)
    check_tables_replaceable(out)


def _names(entries: Sequence[InputEntry], out: Path) -> list[str]:
    """Name the folders: as before where an input has a result, else told apart by their paths."""
    found: dict[str, list[str]] = {}
    for folder in results_in(out):
        record = folder.record()
        if record is not None:
            found.setdefault(record.input.path, []).append(folder.name)
    paths = [display_path(absolute_path(entry.path)) for entry in entries]
    wanted = [entry.name or entry.slide_name for entry in entries]
    fresh = output_names([entry.path for entry in entries], wanted)
    # Of a result and its copies the one of the name that it would get now.
    owned = {
        path: name if name in found[path] else found[path][0]
        for path, name in zip(paths, fresh, strict=True)
        if path in found
    }
    reused = {owned[path].casefold() for path in paths if path in owned}
    return [
        owned.get(path) or (own_name(name, entry.path) if name.casefold() in reused else name)
        for path, name, entry in zip(paths, fresh, entries, strict=True)
    ]


def _other_name(name: str, entry: InputEntry, out: Path) -> str:
    """Say that an input that a table names has its result under another name, or could not have."""
    if entry.name is None or output_names([entry.path], [entry.name]) == [name]:
        return ""
    if not (out / name).is_dir():
        return (
            f"{entry.path}: the name {entry.name!r} is that of another result or of a file of the "
            "run, or differs from it in upper and lower case alone; give it another name"
        )
    return (
        f"{entry.path}: its result is in the folder {name!r}, not {entry.name!r}; rename neither, "
        "or remove that folder"
    )


def _shared_regions(entries: Sequence[InputEntry], settings: JobSettings) -> dict[Path, str]:
    """Say of inputs that share a file in a folder of regions that it cannot be of both."""
    users: dict[Path, list[Path]] = {}
    for entry in entries:
        roi = _settings_for(entry, settings).roi
        if roi is not None and roi.is_dir():
            # Where there is none, the input says so itself.
            with contextlib.suppress(InputError):
                users.setdefault(regions_for(roi, entry.path), []).append(entry.path)
    return {
        path: f"{path}: {file} would be the regions of {paths[path == paths[0]]}, too; name the "
        "regions of each in a table with the columns path,roi"
        for file, paths in users.items()
        if len(paths) > 1
        for path in paths
    }


def _settings_for(entry: InputEntry, settings: JobSettings) -> JobSettings:
    """Return the settings with what a table says of one input."""
    if entry.mpp is not None:
        settings = replace(settings, mpp=entry.mpp)
    return settings if entry.roi is None else replace(settings, roi=absolute_path(entry.roi))


def _results(
    jobs: Sequence[Job],
    workers: int,
    cluster: str | None,
    on_progress: OnTiles,
    on_note: OnNote,
) -> Iterator[Outcome]:
    """Yield the results of jobs as they end, wherever they run."""
    if cluster is not None:
        from segmitos.cohort.cluster import on_cluster

        yield from on_cluster(jobs, cluster, on_note)
    elif workers > 1 and len(jobs) > 1:
        from segmitos.cohort.workers import in_processes

        yield from in_processes(jobs, min(workers, len(jobs)))
    else:
        yield from (run_job(job, on_progress) for job in jobs)

"""One input from path to output folder: the piece of work that processes and clusters share."""

from __future__ import annotations

import os
import platform
import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

import msgspec
import numpy as np
from numpy.typing import NDArray

from segmitos.cohort.atomic_folder import NameTakenError, OutputFolder
from segmitos.cohort.contents import MapPart, map_file, result_files
from segmitos.cohort.failures import Failure, clear_failure, record_failure
from segmitos.cohort.finished_results import count_changes, recount_result
from segmitos.cohort.identity import (
    RESULT_FORMAT,
    Identity,
    InputRecord,
    is_unchanged,
    read_input,
    settings_of,
)
from segmitos.cohort.names import own_name
from segmitos.cohort.settings import JobSettings
from segmitos.cohort.tables import status_of
from segmitos.detection.model import Model, load_model
from segmitos.detection.pipeline import detect_slide
from segmitos.detection.tiling import Tile
from segmitos.errors import InputError, SegMitosError
from segmitos.io.error_log import CaughtBugs
from segmitos.io.files import absolute_path, display_path
from segmitos.io.outputs import PROGRAM, SUMMARY
from segmitos.io.points.read_regions import regions_for
from segmitos.io.slide import Slide

Status = Literal["done", "warning", "no tissue", "skipped", "failed"]


@dataclass(frozen=True)
class Job:
    """One input, where its result goes, under which name, and whether a table gives that."""

    path: str
    out: str
    name: str
    settings: JobSettings
    is_named: bool = False


@dataclass(frozen=True)
class Outcome:
    """What became of one input.

    Attributes:
        name: of its folder.
        path: of the input.
        status: `skipped` where the result was finished before.
        message: why it failed, or was done again.
        exit_code: that this outcome asks for.
        summary: content of summary.json, empty where it failed.
        seconds: that it took.
    """

    name: str
    path: Path
    status: Status
    message: str = ""
    exit_code: int = 0
    summary: dict[str, Any] = field(default_factory=dict, repr=False)
    seconds: float = 0.0

    @property
    def warnings(self) -> tuple[str, ...]:
        """What a user must know beside the result."""
        return tuple(self.summary.get("warnings", ()))

    @property
    def result_status(self) -> str:
        """The status as the tables say it: of a result finished before, what it was then."""
        return status_of(self.summary) if self.summary else "failed"


EXIT_NO_TISSUE = 3
"""Exit code of a run in which nothing failed, but an input had no tissue to count on."""

OnTiles = Callable[[str, int, int], None]


def run_job(job: Job, on_progress: OnTiles = lambda name, done, total: None) -> Outcome:
    """Do one input; a failure is noted in the output folder and returned, not raised.

    What is a fault of SegMitos goes with its traceback into `errors.log`.
    """
    began = time.monotonic()
    path, shown = Path(job.path), display_path(job.path)
    message, exit_code = "", 1
    with CaughtBugs(Path(job.out), shown) as caught:
        try:
            try:
                outcome = _run(job, on_progress)
            except NameTakenError:
                if job.is_named:
                    raise
                outcome = _run(replace(job, name=own_name(job.name, path)), on_progress)
            clear_failure(Path(job.out), display_path(absolute_path(path)))
            return replace(outcome, seconds=round(time.monotonic() - began, 3))
        except SegMitosError as error:
            text, exit_code = str(error), error.exit_code
            named = any(one in text for one in (job.path, str(path), shown))
            message = text if named else f"{shown}: {text}"
    if caught.message:
        message = f"{shown}: {caught.message}"
    return fail(job, message, exit_code, round(time.monotonic() - began, 3))


def fail(job: Job, message: str, exit_code: int = 1, seconds: float = 0.0) -> Outcome:
    """Note in the output folder that an input failed, and return it as an outcome."""
    outcome = Outcome(
        job.name, Path(job.path), "failed", display_path(message), exit_code, seconds=seconds
    )
    try:
        record_failure(Path(job.out), failure_of(outcome))
    except SegMitosError as error:
        # A full disk, say: then this is the cause, and the console at least says it.
        if str(error) not in outcome.message:
            outcome = replace(outcome, message=f"{outcome.message} ({error})")
    return outcome


def failure_of(outcome: Outcome) -> Failure:
    """Return the record of an input that failed."""
    path = display_path(absolute_path(outcome.path))
    return Failure(PROGRAM, outcome.name, path, outcome.message, outcome.exit_code)


def _run(job: Job, on_progress: OnTiles) -> Outcome:
    job = _with_own_regions(job)
    settings, path = job.settings, Path(job.path)
    folder = OutputFolder(Path(job.out), job.name)
    model = load_model(settings.model, settings.device, settings.threads)
    folder.repair()
    folder.check_replaceable()
    source = read_input(path)
    identity = Identity(
        format=RESULT_FORMAT,
        path=display_path(absolute_path(path)),
        input=source.sha256,
        model=model.sha256,
        settings=settings_of(settings),
    )
    if not settings.overwrite:
        summary = folder.finished(identity)
        if summary is not None:
            return Outcome(job.name, path, "skipped", summary=summary)
        changes = count_changes(folder, identity)
        if changes is not None:
            counted = recount_result(folder, changes)
            summary = msgspec.json.decode(counted[SUMMARY], type=dict[str, Any])
            note = f"counted again: another {', '.join(sorted(changes))}"
            return Outcome(job.name, path, status_of(summary), note, summary=summary)
    note = _why_again(folder, identity)
    files, run = _detect(job, model, identity, source, on_progress)
    if not is_unchanged(path, source):
        raise InputError(f"{path}: was changed while it was read; run the same command again")
    folder.commit(files, identity, source, run)
    summary = msgspec.json.decode(files[SUMMARY], type=dict[str, Any])
    return Outcome(job.name, path, status_of(summary), note, summary=summary)


def _with_own_regions(job: Job) -> Job:
    """Name this input's file where the regions are a folder; the others' do not concern it.

    Raises:
        InputError: where the folder holds none for it.
    """
    roi = job.settings.roi
    if roi is None or not roi.is_dir():
        return job
    own = replace(job.settings, roi=regions_for(roi, Path(job.path)))
    return replace(job, settings=own)


def _detect(
    job: Job, model: Model, identity: Identity, source: InputRecord, on_progress: OnTiles
) -> tuple[dict[str, bytes], dict[str, Any]]:
    """Return the files of a result, and what run.json says of the run."""
    settings, path = job.settings, Path(job.path)
    began = time.time()
    with Slide.open(path, settings.mpp, settings.override_mpp, settings.page) as slide:
        map_parts: list[MapPart] = []

        def keep(part: NDArray[np.float32], tile: Tile) -> None:
            map_parts.append((tile.row, tile.column, np.rint(part * 255).astype(np.uint8)))

        result = detect_slide(
            slide,
            model,
            settings,
            progress=lambda done, total: on_progress(job.name, done, total),
            on_map=keep if settings.probability_map else None,
        )
        detected = time.time()
        about = {
            "input": {
                "name": display_path(path.name),
                "bytes": source.bytes,
                "sha256": source.sha256,
            },
            "model": {"name": model.spec.name, "sha256": model.sha256},
            "settings": identity.settings,
        }
        files = result_files(job.name, slide, result, model, about)
    if settings.probability_map:
        files["probability.tif"] = map_file(map_parts, result, model.spec)
    return files, {
        "started": time.strftime("%Y-%m-%dT%H:%M:%S%z", time.localtime(began)),
        "seconds": round(time.time() - began, 3),
        "seconds_detecting": round(detected - began, 3),
        "device": result.device,
        "threads": settings.threads,
        "machine": {
            "python": platform.python_version(),
            "system": platform.platform(),
            "processor": platform.machine(),
        },
        "process": os.getpid(),
    }


def _why_again(folder: OutputFolder, identity: Identity) -> str:
    """Say why an earlier result is replaced.

    Raises:
        NameTakenError: where it is that of another input; OutputError: where it must stay.
    """
    if not folder.path.exists():
        return ""
    folder.check_owner(identity)
    record = folder.record()
    if record is None:
        return "done again: run.json was damaged"
    changed = record.identity.differences(identity)
    if changed:
        return f"done again: another {', '.join(changed)}"
    files = folder.changed_files()
    return f"done again: {', '.join(files)} missing or changed" if files else "done again"

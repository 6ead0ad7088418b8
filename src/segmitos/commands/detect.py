"""`segmitos detect`, `demo` and `report`."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from segmitos.commands.run_display import RunDisplay, outcome_as_dict, verbosity_of
from segmitos.errors import UsageError
from segmitos.io.files import absolute_path, display_path
from segmitos.options import (
    FilePath,
    counting_options,
    device_option,
    json_option,
    model_option,
    mpp_option,
    page_option,
    print_json,
    qupath_option,
    several,
    threads_option,
)

if TYPE_CHECKING:
    from segmitos.cohort.job import Outcome
    from segmitos.cohort.settings import JobSettings

DEMO_MPP = 0.25
"""Of a x40 scan, which the demo assumes where an image does not say its scale."""


def shard_of(context: click.Context, parameter: click.Parameter, value: str) -> tuple[int, int]:
    """Read a part of a job array, `3/8`."""
    first, slash, second = value.partition("/")
    if not (slash and first.isdecimal() and second.isdecimal()):
        raise click.BadParameter(f"{value!r} is not I/N, such as 3/8", context, parameter)
    if not 1 <= int(first) <= int(second):
        raise click.BadParameter(f"{value!r}: I must be from 1 to N", context, parameter)
    return int(first), int(second)


@click.command()
@click.argument(
    "paths",
    nargs=-1,
    required=True,
    callback=several,
    help="Images, slides, folders, globs, a .txt list, or a .csv table path,mpp,roi,name.",
)
@click.option(
    "-o",
    "--out",
    type=FilePath,
    default="segmitos-out",
    show_default=True,
    help="Folder for the results.",
)
@mpp_option
@page_option
@model_option
@device_option
@threads_option
@click.option("--roi", type=FilePath, help="GeoJSON of regions, or a folder of them.")
@click.option(
    "--tissue-mask/--no-tissue-mask",
    "tissue",
    default=True,
    show_default=True,
    help="Read tissue only; --no-tissue-mask reads all.",
)
@click.option("--threshold", help="'otsu' or a probability; default: the model's.")
@counting_options(defaults=True)
@click.option(
    "--map",
    "probability_map",
    is_flag=True,
    help="Also write the probability map as pyramidal TIFF.",
)
@qupath_option
@click.option(
    "--workers",
    type=click.IntRange(min=1),
    default=1,
    show_default=True,
    help="Inputs worked on at once, in processes.",
)
@click.option("--cluster", help="Address of a Dask scheduler, tcp://HOST:8786.")
@click.option(
    "--shard",
    default="1/1",
    callback=shard_of,
    help="I/N: only every N-th input from the I-th on, for job arrays into one folder.",
)
@click.option("--overwrite", is_flag=True, help="Do finished inputs again.")
@json_option
@click.option("-v", "--verbose", is_flag=True, help="Also say how each result was made.")
@click.option("--quiet", is_flag=True, help="Say nothing but errors.")
@click.option("--log", type=FilePath, help="File to append events to, one JSON line each.")
def detect(
    paths: Sequence[str],
    out: Path,
    workers: int,
    cluster: str | None,
    shard: tuple[int, int],
    json_out: bool,
    verbose: bool,
    quiet: bool,
    log: Path | None,
    **given: Any,
) -> int:
    """Detect mitoses in images and slides.

    Example: segmitos detect slides/ -o results --mpp 0.25
    """
    # Detection does no linear algebra, and the threads for it would spin while they start.
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
    from segmitos.cohort.settings import JobSettings
    from segmitos.io.geometry import check_mpp, check_override

    # All other options are named as the settings are.
    settings = JobSettings(**given)
    if settings.mpp is not None:
        check_mpp(settings.mpp, "--mpp")
    elif not any(str(path).lower().endswith(".csv") for path in paths):
        check_override(settings.override_mpp, settings.mpp)
    if cluster is not None and workers > 1:
        raise UsageError(
            "--workers is for this machine, --cluster has workers of its own: give one"
        )
    shown = verbosity_of(verbose, quiet)
    code, _ = _run(
        paths, absolute_path(out), settings, workers, cluster, json_out, shard, shown, log
    )
    return code


def _run(
    paths: Sequence[str],
    out: Path,
    settings: JobSettings,
    workers: int,
    cluster: str | None,
    json_out: bool,
    shard: tuple[int, int] = (1, 1),
    verbosity: int = 0,
    log: Path | None = None,
) -> tuple[int, list[Outcome]]:
    """Do all inputs; return the exit code and what became of each."""
    from segmitos.cohort.job import EXIT_NO_TISSUE
    from segmitos.cohort.run import run

    display = RunDisplay(verbosity, log, json_out)
    try:
        outcomes = run(
            paths,
            out,
            settings,
            workers,
            cluster,
            on_outcome=display.outcome,
            on_progress=display.tiles,
            on_start=display.start,
            on_note=display.note,
            shard=shard,
        )
    finally:
        display.close()
    if json_out:
        print_json(_as_json(outcomes, out))
    display.end(outcomes, out)
    if any(outcome.status == "failed" for outcome in outcomes):
        return 1, outcomes
    empty = any(outcome.result_status == "no tissue" for outcome in outcomes)
    return (EXIT_NO_TISSUE if empty else 0), outcomes


def _as_json(outcomes: Sequence[Outcome], out: Path) -> dict[str, Any]:
    return {
        "out": display_path(out),
        "results": [
            {**outcome_as_dict(outcome), "summary": outcome.summary or None} for outcome in outcomes
        ],
    }


@click.command()
@click.argument("image", type=FilePath, help="An H&E image, about 0.25 um per pixel.")
@click.option(
    "-o",
    "--out",
    type=FilePath,
    default="segmitos-demo",
    show_default=True,
    help="Folder for the result.",
)
@click.option(
    "--mpp",
    type=float,
    help="Micrometers per pixel, where the image does not say it itself; default: 0.25.",
)
@click.option("--override-mpp", is_flag=True, help="Use --mpp even where the image says otherwise.")
@page_option
def demo(image: Path, out: Path, mpp: float | None, override_mpp: bool, page: int | None) -> int:
    """Detect mitoses in one image and say where to look at the result.

    Example: segmitos demo field.png
    """
    from segmitos.cohort.settings import JobSettings
    from segmitos.io.geometry import check_mpp
    from segmitos.io.outputs import REPORT
    from segmitos.io.slide import Slide

    if mpp is not None:
        check_mpp(mpp, "--mpp")
    else:
        with Slide.open(image, page=page) as slide:
            if slide.mpp is None:
                mpp = DEMO_MPP
                print(f"the image does not say its scale: {mpp} um per pixel assumed (--mpp)")
    settings = JobSettings(mpp=mpp, override_mpp=override_mpp, page=page, overwrite=True)
    out = absolute_path(out)
    code, outcomes = _run([str(image)], out, settings, 1, None, False)
    for outcome in outcomes:
        if outcome.summary:
            report = display_path(out / outcome.name / REPORT)
            if outcome.summary["count"] == 0 and outcome.result_status != "no tissue":
                print("no mitotic figure was found; the report shows what came nearest")
            print(f"report, for your browser: {report}")
    return code


@click.command()
@click.argument("folder", type=FilePath, help="An output folder of detect.")
def report(folder: Path) -> int:
    """Make the HTML reports again from saved results, without the model.

    Example: segmitos report results
    """
    from segmitos.cohort.finished_results import rebuild_reports

    written, problems = rebuild_reports(folder)
    for path in written:
        print(display_path(path))
    for problem in problems:
        print(f"segmitos: error: {problem}", file=sys.stderr)
    return 1 if problems else 0

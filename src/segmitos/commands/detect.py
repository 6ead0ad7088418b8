"""`segmitos detect`, `demo` and `report`."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from segmitos.commands.run_display import RunDisplay, outcome_as_dict, verbosity_of
from segmitos.errors import UsageError
from segmitos.io.files import absolute_path, display_path

if TYPE_CHECKING:
    from segmitos.cohort.job import Outcome
    from segmitos.cohort.settings import JobSettings

DEMO_MPP = 0.25
"""Of a x40 scan, which the demo assumes where an image does not say its scale."""


def run_detect(
    paths: Sequence[str],
    out: Path,
    mpp: float | None,
    override_mpp: bool,
    page: int | None,
    model: Path | None,
    device: str,
    threads: int | None,
    roi: Path | None,
    tissue_mask: bool,
    threshold: str | None,
    min_score: float | None,
    min_area_um2: float | None,
    hotspot_area: float,
    hotspot_shape: str,
    field_diameter: float,
    probability_map: bool,
    qupath: str,
    workers: int,
    cluster: str | None,
    shard: tuple[int, int],
    overwrite: bool,
    json_out: bool,
    verbose: bool,
    quiet: bool,
    log: Path | None,
) -> int:
    """Run detection on all inputs; print a line each and a total."""
    # Detection does no linear algebra, and the threads for it would spin while they start.
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
    name = _model_name(model)
    from segmitos.cohort.settings import JobSettings
    from segmitos.detection.pipeline import DetectOptions, parse_threshold
    from segmitos.io.geometry import check_mpp

    if mpp is not None:
        check_mpp(mpp, "--mpp")
    elif override_mpp and not any(str(path).lower().endswith(".csv") for path in paths):
        raise UsageError("--override-mpp insists on the value of --mpp: give that, too")
    settings = JobSettings(
        model=name,
        device=device,
        threads=threads,
        options=DetectOptions(
            mpp=mpp,
            override_mpp=override_mpp,
            page=page,
            threshold=None if threshold is None else parse_threshold(threshold),
            min_score=min_score,
            min_area_um2=min_area_um2,
            tissue=tissue_mask,
            roi=None if roi is None else absolute_path(roi),
        ),
        hotspot_area_mm2=hotspot_area,
        hotspot_shape=hotspot_shape,
        field_diameter_mm=field_diameter,
        probability_map=probability_map,
        qupath=qupath,
        overwrite=overwrite,
    )
    _check_early(settings)
    shown = verbosity_of(verbose, quiet)
    code, _ = _run(
        paths, absolute_path(out), settings, workers, cluster, json_out, shard, shown, log
    )
    return code


def _model_name(model: Path | None) -> str | None:
    """Name a model so that it is found from any folder, and a shipped one on any machine."""
    if model is None:
        return None
    from segmitos.detection.model import is_builtin

    return str(model) if is_builtin(model) else str(absolute_path(model))


def _check_early(settings: JobSettings) -> None:
    """Refuse a wrong model, threshold or region file once, before any input is read."""
    from segmitos.detection.model import load_model
    from segmitos.detection.regions import read_regions

    model = load_model(settings.model, settings.device, settings.threads)
    settings.options.thresholds(model.spec.thresholds)
    if settings.options.roi is not None and not settings.options.roi.is_dir():
        read_regions(settings.options.roi)


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
        print(json.dumps(_as_json(outcomes, out), indent=2, sort_keys=True))
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


def run_demo(
    image: Path, out: Path, mpp: float | None, override_mpp: bool, page: int | None
) -> int:
    """Detect on one image with the default model and point to the report."""
    from segmitos.cohort.settings import JobSettings
    from segmitos.detection.pipeline import DetectOptions
    from segmitos.io.geometry import check_mpp
    from segmitos.io.slide import Slide

    if mpp is not None:
        check_mpp(mpp, "--mpp")
    else:
        with Slide.open(image, page=page) as slide:
            if slide.mpp is None:
                mpp = DEMO_MPP
                print(f"the image does not say its scale: {mpp} um per pixel assumed (--mpp)")
    options = DetectOptions(mpp=mpp, override_mpp=override_mpp, page=page)
    settings = JobSettings(options=options, overwrite=True)
    out = absolute_path(out)
    code, outcomes = _run([str(image)], out, settings, 1, None, False)
    for outcome in outcomes:
        if outcome.summary:
            report = display_path(out / outcome.name / "report.html")
            if outcome.summary["count"] == 0 and outcome.result_status != "no tissue":
                print("no mitotic figure was found; the report shows what came nearest")
            print(f"report, for your browser: {report}")
    return code


def run_report(folder: Path) -> int:
    """Make reports again from saved results."""
    from segmitos.cohort.reports import rebuild_reports

    written, problems = rebuild_reports(folder)
    for path in written:
        print(display_path(path))
    for problem in problems:
        print(f"segmitos: error: {problem}", file=sys.stderr)
    return 1 if problems else 0

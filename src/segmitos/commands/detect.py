"""`segmitos detect`, `demo` and `report`."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from segmitos.cohort.job import JobSettings
    from segmitos.cohort.run import Outcome


def run_detect(
    paths: Sequence[str],
    out: Path,
    mpp: float | None,
    override_mpp: bool,
    model: Path | None,
    device: str,
    threads: int | None,
    roi: Path | None,
    tissue_mask: bool,
    binarization: str | None,
    min_score: float | None,
    min_area: float | None,
    hotspot_area: float,
    hotspot_shape: str,
    field_diameter: float,
    probability_map: bool,
    qupath: str,
    workers: int,
    cluster: str | None,
    overwrite: bool,
    json_out: bool,
) -> int:
    """Run detection on all inputs; print a line each and a total."""
    # Detection does no linear algebra, and the threads for it would spin while they start.
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
    name = _model_name(model)
    from segmitos.cohort.job import JobSettings
    from segmitos.detection.pipeline import DetectOptions, parse_binarization
    from segmitos.io.geometry import check_mpp

    if mpp is not None:
        check_mpp(mpp, "--mpp")
    settings = JobSettings(
        model=name,
        device=device,
        threads=threads,
        options=DetectOptions(
            mpp=mpp,
            override_mpp=override_mpp,
            binarization=None if binarization is None else parse_binarization(binarization),
            min_score=min_score,
            min_area_um2=min_area,
            tissue=tissue_mask,
            roi=None if roi is None else roi.absolute(),
        ),
        hotspot_area_mm2=hotspot_area,
        hotspot_shape=hotspot_shape,
        field_diameter_mm=field_diameter,
        probability_map=probability_map,
        qupath=qupath,
        overwrite=overwrite,
    )
    _check_early(settings)
    return _run(paths, out.absolute(), settings, workers, cluster, json_out)


def _model_name(model: Path | None) -> str | None:
    """Name a model so that it is found from any folder, and a shipped one on any machine."""
    if model is None:
        return None
    from segmitos.detection.model import is_builtin

    return str(model) if is_builtin(model) else str(model.absolute())


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
) -> int:
    from segmitos.cohort.run import run
    from segmitos.commands.progress import Bar

    bars: dict[str, Bar] = {}

    def on_progress(name: str, done: int, total: int) -> None:
        if name not in bars:
            bars[name] = Bar(name, total, "tiles")
        bars[name].show(done, total)

    def on_outcome(outcome: Outcome) -> None:
        if outcome.name in bars:
            bars.pop(outcome.name).clear()
        if outcome.status == "failed":
            print(f"segmitos: error: {outcome.message}", file=sys.stderr, flush=True)
        elif not json_out:
            print(_line(outcome), flush=True)

    outcomes = run(paths, out, settings, workers, cluster, on_outcome, on_progress)
    failed = [outcome for outcome in outcomes if outcome.status == "failed"]
    done = [outcome for outcome in outcomes if outcome.status != "failed"]
    if json_out:
        print(json.dumps(_as_json(outcomes, out), indent=2, sort_keys=True))
    else:
        total = sum(outcome.summary["count"] for outcome in done)
        skipped = sum(outcome.status == "skipped" for outcome in done)
        kept = f" ({skipped} finished before)" if skipped else ""
        text = f"{len(done)} of {len(outcomes)} done{kept}, {total} mitotic figures; results: {out}"
        print(text)
    if len(outcomes) > 1:
        from segmitos.report.html import write_cohort_report

        write_cohort_report(out)
    if failed and len(outcomes) > 1:
        print(f"{len(failed)} failed; causes: {out / 'failures.csv'}", file=sys.stderr)
    return max((outcome.exit_code for outcome in failed), default=0) and 1


def _line(outcome: Outcome) -> str:
    summary = outcome.summary
    count = summary["count"]
    figures = "1 mitotic figure" if count == 1 else f"{count} mitotic figures"
    density = summary["density_per_mm2"]
    spread = "" if density is None else f", {density:.1f} per mm2"
    note = " (finished before)" if outcome.status == "skipped" else ""
    return f"{outcome.name}: {figures} on {summary['tissue_area_mm2']:.2f} mm2{spread}{note}"


def _as_json(outcomes: Sequence[Outcome], out: Path) -> dict[str, Any]:
    return {
        "out": str(out),
        "results": [
            {
                "name": outcome.name,
                "path": str(outcome.path),
                "status": outcome.status,
                "message": outcome.message,
                "summary": outcome.summary or None,
            }
            for outcome in outcomes
        ],
    }


def run_demo(image: Path, out: Path, mpp: float, override_mpp: bool) -> int:
    """Detect on one image with the default model and point to the report."""
    from segmitos.cohort.job import JobSettings
    from segmitos.detection.pipeline import DetectOptions
    from segmitos.io.geometry import check_mpp

    check_mpp(mpp, "--mpp")
    settings = JobSettings(
        options=DetectOptions(mpp=mpp, override_mpp=override_mpp), overwrite=True
    )
    code = _run([str(image)], out.absolute(), settings, 1, None, False)
    if code == 0:
        print(f"report: {out.absolute() / image.stem / 'report.html'}")
    return code


def run_report(folder: Path) -> int:
    """Make reports again from saved results."""
    from segmitos.report.result_files import rebuild

    written = rebuild(folder)
    for path in written:
        print(path)
    return 0

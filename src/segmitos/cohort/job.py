"""One input from path to output folder: the piece of work that processes and clusters share."""

from __future__ import annotations

import hashlib
import json
import os
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from segmitos.cohort.results import (
    RUN,
    SUMMARY,
    finished,
    input_of,
    machine,
    place,
    read_summary,
    recover,
    to_json,
)
from segmitos.cohort.results import versions as package_versions
from segmitos.detection.model import Model, load_model
from segmitos.detection.pipeline import DetectOptions, SlideResult, detect_slide
from segmitos.errors import InputError, OutputError, SegMitosError
from segmitos.io.slide import Slide


@dataclass(frozen=True)
class JobSettings:
    """What all inputs of a run share; plain values, so that it travels to other machines."""

    model: str | None = None
    device: str = "auto"
    threads: int | None = None
    options: DetectOptions = field(default_factory=DetectOptions)
    hotspot_area_mm2: float = 2.0
    hotspot_shape: str = "square"
    field_diameter_mm: float = 0.55
    probability_map: bool = False
    qupath: str = "annotation"
    overwrite: bool = False

    def result_settings(self) -> dict[str, Any]:
        """The settings that the output depends on, JSON-able; not threads, workers or device."""
        options = asdict(self.options)
        options["roi"] = None if self.options.roi is None else _file_hash(self.options.roi)
        return {
            **options,
            "hotspot_area_mm2": self.hotspot_area_mm2,
            "hotspot_shape": self.hotspot_shape,
            "field_diameter_mm": self.field_diameter_mm,
            "probability_map": self.probability_map,
            "qupath": self.qupath,
        }


@dataclass(frozen=True)
class Job:
    """One input, where its result goes, under which name."""

    path: str
    out: str
    name: str
    settings: JobSettings


def run_job(
    job: Job,
    on_progress: Callable[[str, int, int], None] = lambda name, done, total: None,
) -> dict[str, Any]:
    """Do one input; an expected failure is returned with its cause, not raised.

    Returns:
        `name`, `path`, `status` (done, skipped, failed), and `summary` or `message`.
    """
    about: dict[str, Any] = {"name": job.name, "path": job.path}
    try:
        return {**about, **_run(job, on_progress)}
    except SegMitosError as error:
        text = str(error)
        message = text if job.path in text or str(Path(job.path)) in text else f"{job.path}: {text}"
        return {**about, "status": "failed", "message": message, "exit_code": error.exit_code}
    except MemoryError:
        message = f"{job.path}: out of memory; try fewer --workers"
    except (OSError, ValueError, LookupError, ArithmeticError, RuntimeError) as error:
        # What a decoder may trip over in a damaged file, in its own words.
        cause = " ".join(f"{type(error).__name__}: {error}".split())[:300]
        message = f"{job.path}: cannot be processed ({cause})"
    return {**about, "status": "failed", "message": message, "exit_code": 1}


def _run(job: Job, on_progress: Callable[[str, int, int], None]) -> dict[str, Any]:
    settings, out, path = job.settings, Path(job.out), Path(job.path)
    model = load_model(settings.model, settings.device, settings.threads)
    recover(out, job.name)
    identity = _identity(path, model, settings)
    note = ""
    if not settings.overwrite:
        summary = finished(out / job.name, identity)
        if summary is not None:
            return {"status": "skipped", "summary": summary}
        note = _check_replaceable(out / job.name, path, identity)
    began = time.time()
    with Slide.open(path, settings.options.mpp, settings.options.override_mpp) as slide:
        parts = _MapSaver(model) if settings.probability_map else None
        result = detect_slide(
            slide,
            model,
            settings.options,
            progress=lambda done, total: on_progress(job.name, done, total),
            on_map=parts.add if parts is not None else None,
        )
        detected = time.time()
        files = result_files(job, slide, result, model, identity)
    if parts is not None:
        files["probability.tif"] = parts.encoded(result)
    finished_at = time.time()
    files[RUN] = to_json(
        {
            "input": str(path.absolute()),
            "started": time.strftime("%Y-%m-%dT%H:%M:%S%z", time.localtime(began)),
            "seconds": round(finished_at - began, 3),
            "seconds_detecting": round(detected - began, 3),
            "device": result.device,
            "threads": settings.threads,
            "machine": machine(),
            "process": os.getpid(),
        }
    )
    place(out, job.name, files)
    return {"status": "done", "summary": json.loads(files[SUMMARY]), "message": note}


def _check_replaceable(folder: Path, path: Path, identity: dict[str, Any]) -> str:
    """Say why an earlier result is replaced; refuse where it is that of another input.

    Raises:
        OutputError: where the folder holds what was found on another file.
    """
    summary = read_summary(folder)
    if summary is None:
        return ""
    earlier = input_of(folder)
    if summary.get("input") != identity["input"] and earlier not in (None, str(path.absolute())):
        raise OutputError(
            f"{path}: {folder} holds the result of {earlier}; choose another folder with -o, or "
            "replace it with --overwrite"
        )
    changed = [key for key in ("input", "model", "settings") if summary.get(key) != identity[key]]
    return f"done again: another {' and '.join(changed)}" if changed else "done again: incomplete"


def _file_hash(path: Path) -> str:
    try:
        return hashlib.sha256(path.read_bytes()).hexdigest()
    except OSError as error:
        raise InputError(f"cannot read {path}: {error.strerror or error}") from error


def _identity(path: Path, model: Model, settings: JobSettings) -> dict[str, Any]:
    """What a finished result must agree with to be left as it is."""
    try:
        size = path.stat().st_size
    except OSError as error:
        raise InputError(f"{path}: {error.strerror or error}") from error
    return {
        "input": {"name": path.name, "bytes": size},
        "model": {"name": model.spec.name, "sha256": model.sha256},
        "settings": settings.result_settings(),
    }


def result_files(
    job: Job, slide: Slide, result: SlideResult, model: Model, identity: dict[str, Any]
) -> dict[str, bytes]:
    """Return all files of the output folder, by name, but run.json and the probability map."""
    from segmitos.counting.saved import new_result
    from segmitos.counting.summary import TissueFile, UsedThresholds
    from segmitos.report import result_files as report_files

    height, width = result.tissue.mask.shape
    about = {
        "name": job.name,
        **identity,
        "width_px": result.width_px,
        "height_px": result.height_px,
        "mpp": result.mpp,
        "mpp_source": result.mpp_source,
        "bounds_px": slide.bounds,
        "tissue": TissueFile(result.tissue.mpp, width, height),
        "thresholds": UsedThresholds(
            **asdict(result.thresholds), binarization_value=result.binarization_value
        ),
        "model_card": {
            "description": model.spec.description,
            "datasets": list(model.spec.datasets),
            "license": model.spec.license,
            "intended_use": model.spec.intended_use,
            "training_commit": model.spec.training_commit,
            "validation": model.spec.validation,
            "thresholds": asdict(model.spec.thresholds),
            "mpp": model.spec.mpp,
        },
        "versions": package_versions(result.device),
    }
    return report_files.result_files(new_result(result.candidates, result.tissue, about), slide)


class _MapSaver:
    """Keeps the smoothed map as bytes (0..255) for saving as a pyramidal TIFF."""

    def __init__(self, model: Model) -> None:
        self._stride = model.spec.stride
        self._mpp = model.spec.mpp * model.spec.stride
        self._parts: list[tuple[int, int, np.ndarray[Any, Any]]] = []

    def add(self, part: np.ndarray[Any, Any], tile: Any) -> None:
        """Take a written part of the map."""
        values = np.rint(part * 255).astype(np.uint8)
        self._parts.append((tile.row, tile.column, values))

    def encoded(self, result: SlideResult) -> bytes:
        """Return the TIFF: tiled, deflated, pyramidal, with its scale."""
        from segmitos.io.map_tiff import encode_map

        ratio = self._mpp / result.mpp
        shape = (int(np.ceil(result.height_px / ratio)), int(np.ceil(result.width_px / ratio)))
        whole = np.zeros(shape, np.uint8)
        for row, column, values in self._parts:
            room = whole[row : row + values.shape[0], column : column + values.shape[1]]
            room[:] = values[: room.shape[0], : room.shape[1]]
        return encode_map(whole, self._mpp)


__all__ = ["Job", "JobSettings", "result_files", "run_job"]

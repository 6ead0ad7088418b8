"""The files of one result."""

from __future__ import annotations

import platform
from dataclasses import asdict
from typing import Any

import numpy as np

from segmitos._version import __version__
from segmitos.detection.model import Model
from segmitos.detection.pipeline import SlideResult
from segmitos.detection.runtimes import import_onnxruntime, import_openvino
from segmitos.io.slide import Slide


def result_files(
    name: str,
    slide: Slide,
    result: SlideResult,
    model: Model,
    about: dict[str, Any],
) -> dict[str, bytes]:
    """Return all files of the output folder, by name, but run.json and the probability map.

    `about` says whose result it is: input, model and settings.
    """
    from segmitos.counting.saved import new_result
    from segmitos.counting.summary import TissueFile, UsedThresholds
    from segmitos.report import result_files as report_files

    height, width = result.tissue.mask.shape
    content = {
        "name": name,
        **about,
        "width_px": result.width_px,
        "height_px": result.height_px,
        "mpp": result.mpp,
        "mpp_source": result.mpp_source,
        "bounds_px": slide.bounds,
        "tissue": TissueFile(result.tissue.mpp, width, height),
        "thresholds": UsedThresholds(
            **asdict(result.thresholds), threshold_value=result.threshold_value
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
        "versions": versions(result.device),
        "warnings": warnings_of(slide, result),
    }
    return report_files.result_files(new_result(result.candidates, result.tissue, content), slide)


def warnings_of(slide: Slide, result: SlideResult) -> tuple[str, ...]:
    """Return what a user must know beside a result, each once: of the file, then of its pixels."""
    said = (*getattr(slide, "warnings", ()), *getattr(result, "warnings", ()))
    return tuple(dict.fromkeys(said))


class MapSaver:
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


def versions(device: str) -> dict[str, str]:
    """Versions that can affect a result on a device."""
    import numpy
    import PIL

    found = {
        "segmitos": __version__,
        "numpy": numpy.__version__,
        "pillow": PIL.__version__,
    }
    if device == "openvino":
        return {**found, "openvino": import_openvino().__version__}
    return {**found, "onnxruntime": import_onnxruntime().__version__}


def machine() -> dict[str, Any]:
    """Where a run took place."""
    return {
        "python": platform.python_version(),
        "system": platform.platform(),
        "processor": platform.machine(),
    }

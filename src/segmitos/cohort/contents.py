"""Which files the folder of one result holds."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

import numpy as np
from numpy.typing import NDArray

from segmitos._version import __version__
from segmitos.detection.model import Model
from segmitos.detection.pipeline import SlideResult
from segmitos.detection.runtimes import import_onnxruntime, import_openvino
from segmitos.detection.spec import ModelSpec
from segmitos.io.slide import Slide

MapPart = tuple[int, int, NDArray[np.uint8]]
"""Row and column of a part of the probability map, and its values, 0 to 255."""


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
        # What a user must know, each once: of the file, then of its pixels.
        "warnings": tuple(dict.fromkeys((*slide.warnings, *result.warnings))),
    }
    return report_files.result_files(new_result(result.candidates, result.tissue, content), slide)


def map_file(parts: Sequence[MapPart], result: SlideResult, spec: ModelSpec) -> bytes:
    """Return the probability map as TIFF: tiled, deflated, pyramidal, with its scale."""
    from segmitos.io.map_tiff import encode_map

    mpp = spec.map_mpp
    ratio = mpp / result.mpp
    shape = (int(np.ceil(result.height_px / ratio)), int(np.ceil(result.width_px / ratio)))
    whole = np.zeros(shape, np.uint8)
    for row, column, values in parts:
        room = whole[row : row + values.shape[0], column : column + values.shape[1]]
        room[:] = values[: room.shape[0], : room.shape[1]]
    return encode_map(whole, mpp)


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

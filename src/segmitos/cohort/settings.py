"""The settings of a run over many inputs."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

from segmitos.counting.count import CountSettings
from segmitos.detection.model import is_builtin, load_model
from segmitos.detection.pipeline import DetectOptions
from segmitos.errors import UsageError
from segmitos.io.arguments import path_of, whole_of
from segmitos.io.files import absolute_path
from segmitos.io.geometry import check_mpp
from segmitos.io.points.geojson_features import OBJECT_TYPES
from segmitos.io.points.read_regions import read_regions


@dataclass(frozen=True)
class JobSettings(DetectOptions, CountSettings):
    """What all inputs of a run share; plain values, so that it travels to other machines."""

    model: Path | str | None = None
    """Name of a built-in model or path of a file; None takes the default model."""
    device: str = "auto"
    threads: int | None = None
    probability_map: bool = False
    qupath: str = "annotation"
    overwrite: bool = False

    def checked(self) -> JobSettings:
        """Return these settings with whole paths, which hold in any folder.

        Raises:
            ModelError: for a model that cannot be used.
            ScaleError: for a scale that is impossible.
            UsageError: for a threshold, device or the like that makes no sense.
            InputError: for a file of regions that cannot be read.
        """
        if self.mpp is not None:
            check_mpp(self.mpp, "mpp")
        if self.page is not None and whole_of(self.page, "page") < 1:
            raise UsageError(f"page {self.page}: pages are counted from 1")
        if self.qupath not in OBJECT_TYPES:
            raise UsageError(f"qupath {self.qupath!r}: choose {' or '.join(OBJECT_TYPES)}")
        model = None if self.model is None else str(path_of(self.model, "model"))
        if model is not None and not is_builtin(model):
            model = str(absolute_path(model))
        roi = None if self.roi is None else absolute_path(self.roi)
        self.thresholds(load_model(model, self.device, self.threads).spec.thresholds)
        if roi is not None and not roi.is_dir():
            read_regions(roi)
        return replace(self, model=model, roi=roi)

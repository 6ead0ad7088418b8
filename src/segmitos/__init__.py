"""SegMitos: mitosis detection in H&E histopathology, trained from one click per mitosis.

The names below are imported when they are first used, so that `import segmitos` costs nothing.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from segmitos.assess.evaluation import Evaluation, evaluate
    from segmitos.assess.matching import Match, match_points
    from segmitos.detect.mitoses import Thresholds
    from segmitos.detect.model import Model, ModelSpec
    from segmitos.errors import SegMitosError
    from segmitos.io.datasets import Case, load_dataset
    from segmitos.io.detections import Detections
    from segmitos.io.slide import Slide

__version__ = "0.1.0"

_HOMES = {
    "Case": "segmitos.io.datasets",
    "Detections": "segmitos.io.detections",
    "Evaluation": "segmitos.assess.evaluation",
    "Match": "segmitos.assess.matching",
    "Model": "segmitos.detect.model",
    "ModelSpec": "segmitos.detect.model",
    "SegMitosError": "segmitos.errors",
    "Slide": "segmitos.io.slide",
    "Thresholds": "segmitos.detect.mitoses",
    "evaluate": "segmitos.assess.evaluation",
    "load_dataset": "segmitos.io.datasets",
    "match_points": "segmitos.assess.matching",
}

__all__ = [
    "Case",
    "Detections",
    "Evaluation",
    "Match",
    "Model",
    "ModelSpec",
    "SegMitosError",
    "Slide",
    "Thresholds",
    "detect",
    "evaluate",
    "load_dataset",
    "match_points",
]


def __getattr__(name: str) -> Any:
    if name == "detect":
        return import_module("segmitos.detect")
    if name in _HOMES:
        return getattr(import_module(_HOMES[name]), name)
    raise AttributeError(f"module 'segmitos' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted([*__all__, "__version__"])

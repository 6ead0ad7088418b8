"""SegMitos: mitosis detection in H&E histopathology, trained from one click per mitosis.

The names below are imported when they are first used, so that `import segmitos` costs nothing.
"""

from __future__ import annotations

from segmitos._version import __version__ as __version__

# As in `typing`, which takes longer to load than all else before signals are answered.
TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from segmitos.cohort.detect_many import detect_many
    from segmitos.cohort.job import Outcome
    from segmitos.counting.count import Count, CountSettings, count
    from segmitos.counting.recount import recount
    from segmitos.counting.reviewed_marks import ReviewedMark
    from segmitos.counting.saved import SavedResult, read_saved
    from segmitos.detection.model import Model, ModelSpec
    from segmitos.detection.pipeline import detect
    from segmitos.detection.postprocess import Thresholds
    from segmitos.errors import SegMitosError
    from segmitos.evaluation.matching import Match, match_points
    from segmitos.evaluation.scoring import Evaluation, evaluate
    from segmitos.io.datasets import Case, load_dataset
    from segmitos.io.points.detections import Detections
    from segmitos.io.slide import Slide
    from segmitos.training.recipe import Recipe
    from segmitos.training.train import train


_HOMES = {
    "Case": "segmitos.io.datasets.case",
    "Count": "segmitos.counting.count",
    "CountSettings": "segmitos.counting.count",
    "Detections": "segmitos.io.points.detections",
    "Evaluation": "segmitos.evaluation.scoring",
    "Match": "segmitos.evaluation.matching",
    "Model": "segmitos.detection.model",
    "ModelSpec": "segmitos.detection.model",
    "Outcome": "segmitos.cohort.job",
    "Recipe": "segmitos.training.recipe",
    "ReviewedMark": "segmitos.counting.reviewed_marks",
    "SavedResult": "segmitos.counting.saved",
    "SegMitosError": "segmitos.errors",
    "Slide": "segmitos.io.slide.slide",
    "Thresholds": "segmitos.detection.postprocess",
    "count": "segmitos.counting.count",
    "detect": "segmitos.detection.pipeline",
    "detect_many": "segmitos.cohort.detect_many",
    "evaluate": "segmitos.evaluation.scoring",
    "load_dataset": "segmitos.io.datasets.load",
    "match_points": "segmitos.evaluation.matching",
    "read_saved": "segmitos.counting.saved",
    "recount": "segmitos.counting.recount",
    "train": "segmitos.training.train",
}

__all__ = [
    "Case",
    "Count",
    "CountSettings",
    "Detections",
    "Evaluation",
    "Match",
    "Model",
    "ModelSpec",
    "Outcome",
    "Recipe",
    "ReviewedMark",
    "SavedResult",
    "SegMitosError",
    "Slide",
    "Thresholds",
    "count",
    "detect",
    "detect_many",
    "evaluate",
    "load_dataset",
    "match_points",
    "read_saved",
    "recount",
    "train",
]


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        from importlib import import_module

        return getattr(import_module(_HOMES[name]), name)
    raise AttributeError(f"module 'segmitos' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted([*__all__, "__version__"])

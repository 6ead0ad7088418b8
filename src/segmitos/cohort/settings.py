"""What a run is asked to do."""

from __future__ import annotations

from dataclasses import dataclass, field

from segmitos.detection.pipeline import DetectOptions


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

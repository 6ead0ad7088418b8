"""The specification in a model file: all that detection must know beside the graph."""

from __future__ import annotations

import dataclasses
import json
from dataclasses import dataclass, field
from typing import Any

from segmitos.detection.postprocess import Thresholds
from segmitos.detection.stain import Stain
from segmitos.errors import ModelError, UsageError

METADATA_KEY = "segmitos"
# Input of a graph with a first look: the pixels whose map is asked for.
WRITTEN = "written"
# They are (top, left, bottom, right) of the image.
Written = tuple[int, int, int, int]
FORMAT_VERSION = 1


@dataclass(frozen=True)
class FirstLook:
    """How a model chooses what of an image its networks see (see `training.combine`)."""

    network: str
    mpp: float
    """Scale that the first look is taken at, um per pixel."""
    above: float
    """Its probability from which on a peak is looked at."""
    window_px: int
    """Side of what the networks see round a peak, in pixels of the model's scale."""
    confirm_above: float = 0.0
    """The networks after the first see a window only where that one found more; 0: always."""


@dataclass(frozen=True)
class ModelSpec:
    """What a model file says of itself beside its graph."""

    name: str
    mpp: float
    """Scale that images are read at, um per pixel."""
    stride: int
    """Image pixels per map cell."""
    context_px: int
    """Pixels beyond which nothing sways a cell's probability; half the receptive field."""
    smoothing_sigma_um: float
    thresholds: Thresholds
    color: Stain | None
    """Staining that every slide is matched to; None leaves colors as they are."""
    labels: dict[str, Any] = field(default_factory=dict)
    datasets: tuple[str, ...] = ()
    training_commit: str = ""
    license: str = ""
    intended_use: str = ""
    description: str = ""
    validation: dict[str, Any] = field(default_factory=dict)
    """Precision, recall, F-score and on what they were measured."""
    first_look: FirstLook | None = None
    """None where the networks see all of an image."""
    format_version: int = FORMAT_VERSION

    def to_json(self) -> str:
        """Return the specification as JSON, keys sorted."""
        return json.dumps(dataclasses.asdict(self), sort_keys=True)

    @classmethod
    def from_json(cls, text: str, where: str = "model") -> ModelSpec:
        """Read a specification back.

        Raises:
            ModelError: naming the key that is missing, unknown or wrong.
        """
        try:
            content = json.loads(text)
        except json.JSONDecodeError as error:
            raise ModelError(f"{where}: its metadata is not JSON: {error}") from error
        if not isinstance(content, dict):
            raise ModelError(f"{where}: its metadata is no JSON object")
        version = content.get("format_version")
        if version != FORMAT_VERSION:
            raise ModelError(
                f"{where}: model file format {version!r}; this version of SegMitos reads "
                f"{FORMAT_VERSION}: install the SegMitos that wrote it, or export it again"
            )
        known = {entry.name for entry in dataclasses.fields(cls)}
        # Files of before there were first looks do not name theirs.
        unknown, missing = set(content) - known, known - set(content) - {"first_look"}
        if unknown or missing:
            what = f"unknown {sorted(unknown)}" if unknown else f"missing {sorted(missing)}"
            raise ModelError(f"{where}: keys of its metadata are off: {what}")
        try:
            content["thresholds"] = Thresholds(**content["thresholds"])
            if content["color"] is not None:
                stain = content["color"]
                content["color"] = Stain(tuple(stain["mean"]), tuple(stain["std"]))
            if content.get("first_look") is not None:
                content["first_look"] = FirstLook(**content["first_look"])
            content["datasets"] = tuple(content["datasets"])
            spec = cls(**content)
            spec.check(where)
        except (TypeError, KeyError, UsageError) as error:
            raise ModelError(f"{where}: its metadata is off: {error}") from error
        return spec

    def check(self, where: str) -> None:
        """Raise ModelError, naming `where`, for numbers that cannot be."""
        if not (isinstance(self.mpp, float) and 0.01 <= self.mpp <= 200):
            raise ModelError(f"{where}: mpp {self.mpp!r} is no scale in um per pixel")
        if not (isinstance(self.stride, int) and self.stride in (1, 2, 4, 8, 16, 32)):
            raise ModelError(f"{where}: stride {self.stride!r} is not 1, 2, 4, 8, 16 or 32")
        if not (isinstance(self.context_px, int) and 0 <= self.context_px <= 4096):
            raise ModelError(f"{where}: context_px {self.context_px!r} is not from 0 to 4096")
        if not 0 <= self.smoothing_sigma_um < 100:
            raise ModelError(f"{where}: smoothing_sigma_um {self.smoothing_sigma_um!r} is off")
        stain = self.color
        if stain is not None and not (
            len(stain.mean) == len(stain.std) == 3 and min(stain.std) > 0 and min(stain.mean) >= 0
        ):
            raise ModelError(f"{where}: color {stain} is not three means and three deviations")
        look = self.first_look
        if look is not None and not (
            isinstance(look.window_px, int)
            and 0 < look.above < 1
            and 0 <= look.confirm_above < 1
            and 0.01 <= look.mpp <= 200
        ):
            raise ModelError(f"{where}: first_look {look} is off")
        for key in ("name", "training_commit", "license", "intended_use", "description"):
            if not isinstance(getattr(self, key), str):
                raise ModelError(f"{where}: {key} {getattr(self, key)!r} is not a text")
        for key in ("labels", "validation"):
            if not isinstance(getattr(self, key), dict):
                raise ModelError(f"{where}: {key} {getattr(self, key)!r} is not an object")


def holds_integers(content: bytes) -> bool:
    """Tell whether a model file has quantized layers, in loops of its graph or outside of them."""
    # Operators go by their names in the file, wherever in the graph they are.
    return b"QuantizeLinear" in content

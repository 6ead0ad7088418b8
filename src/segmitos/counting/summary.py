"""`summary.json`: everything that is said of one image, as a typed object. See docs/summary.md."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from segmitos.counting.count import Count
from segmitos.errors import DataError, InputError
from segmitos.io.files import json_text, no_result
from segmitos.io.outputs import SUMMARY
from segmitos.io.text import reason_of


@dataclass(frozen=True)
class TissueFile:
    """Where the tissue mask is, and its scale."""

    mpp: float
    """Micrometers per pixel of `tissue.png`, from the image's top left corner."""
    width: int
    height: int


@dataclass(frozen=True)
class UsedThresholds:
    """Thresholds that made detections of candidates."""

    threshold: float | str
    threshold_value: float
    """Probability that the threshold stands for on this image."""
    min_area_um2: float
    min_score: float


@dataclass(frozen=True, kw_only=True)
class Summary(Count):
    """One result of `segmitos detect`.

    Attributes:
        name: of the result's folder.
        input: identity of the image.
        model: name and hash of the model file.
        settings: that the result depends on.
        width_px: of the image, level 0.
        height_px: of the image, level 0.
        mpp: micrometers per level-0 pixel.
        mpp_source: where the scale is from.
        bounds_px: x, y, width, height of the scanned part; QuPath counts from its corner.
        tissue: the mask.
        thresholds: that were used.
        model_card: what the model file says of itself.
        versions: of the packages that affect a result.
        warnings: what went other than planned, in words.
    """

    name: str
    input: dict[str, Any]
    model: dict[str, Any]
    settings: dict[str, Any]
    width_px: int
    height_px: int
    mpp: float
    mpp_source: str
    bounds_px: tuple[int, int, int, int]
    tissue: TissueFile
    thresholds: UsedThresholds
    model_card: dict[str, Any]
    versions: dict[str, str]
    warnings: tuple[str, ...] = field(default=())

    def to_json(self) -> bytes:
        """Return the content of summary.json."""
        return json_text(to_dict(self)).encode("utf-8")


def to_dict(counted: Count) -> dict[str, Any]:
    """Return a count or a summary as JSON-able values, with the densities of its windows."""
    content = asdict(counted)
    for name, window in (("hotspot", counted.hotspot), ("fields", counted.fields)):
        if window is not None:
            content[name]["density_per_mm2"] = window.density_per_mm2
    return content


def parse_summary(content: bytes, where: str) -> Summary:
    """Read the content of a summary.json.

    Raises:
        DataError: for what is no summary, with the place that is wrong.
    """
    import msgspec

    try:
        return msgspec.json.decode(content, type=Summary)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise DataError(f"{where} is damaged or of another version: {error}") from error


def read_summary(folder: Path) -> Summary:
    """Read the summary of a result's folder. Raises InputError, DataError."""
    path = folder / SUMMARY
    try:
        content = path.read_bytes()
    except FileNotFoundError as error:
        raise InputError(no_result(folder, f"no {SUMMARY}")) from error
    except OSError as error:
        raise InputError(f"cannot read {path}: {reason_of(error)}") from error
    return parse_summary(content, str(path))

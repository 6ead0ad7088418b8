"""The labeled points of one image, whatever file they came from."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from segmitos.errors import DataError, UsageError
from segmitos.io.files import display_path
from segmitos.io.geometry import check_mpp
from segmitos.io.points.classes import LABELS, Label
from segmitos.io.points.regions import Regions

_COLUMNS = ("score", "area_um2", "confidence")


@dataclass(frozen=True, eq=False)
class Annotations:
    """Points of one image with their labels, in the order of their file.

    Attributes:
        xy: level-0 pixels (n, 2), pixel centers at integers, float64, finite.
        labels: `mitosis`, `non-mitosis` or `unsure` of each point.
        score: probability of a detector (n,); nan where unknown.
        area_um2: area of the blob (n,); nan where unknown.
        confidence: fraction of annotators that called it a mitosis (n,); nan where unknown.
        mpp: micrometers per level-0 pixel, None where the file does not say.
        name: of the image.
        regions: where the image was reviewed; None is all of it.
        left_out: what the file holds and this does not, by kind: `Ignore*`, say.
        laboratory: who made the slides, "" where the file does not say.
        qupath_offset_px: where QuPath's frame begins on the slide, level-0 pixels, as the file says
            or its reader was told.

    Raises:
        DataError: if a score, area or confidence is infinite.
        UsageError: if lengths differ or a position is not finite.
        ScaleError: if `mpp` is impossible.
    """

    xy: NDArray[np.float64]
    labels: tuple[Label, ...]
    score: NDArray[np.float64] | None = None
    area_um2: NDArray[np.float64] | None = None
    confidence: NDArray[np.float64] | None = None
    mpp: float | None = None
    name: str = ""
    regions: Regions | None = None
    left_out: Mapping[str, int] = field(default_factory=dict)
    laboratory: str = ""
    qupath_offset_px: tuple[float, float] = (0.0, 0.0)

    def __post_init__(self) -> None:
        points = np.array(self.xy, np.float64).reshape(-1, 2)
        # A file's name may hold bytes that no format can.
        for text in ("name", "laboratory"):
            object.__setattr__(self, text, display_path(getattr(self, text)))
        object.__setattr__(self, "xy", points)
        object.__setattr__(self, "labels", tuple(self.labels))
        if len(self.labels) != len(points) or not set(self.labels) <= set(LABELS):
            raise UsageError(f"{len(points)} points need as many labels, each one of {LABELS}")
        if not np.isfinite(points).all():
            raise UsageError("annotations must have finite positions")
        for name in _COLUMNS:
            given = getattr(self, name)
            values = np.full(len(points), math.nan) if given is None else np.array(given, float)
            if np.isinf(values).any():
                raise DataError(f"{self.name or 'annotations'}: a value of {name} is infinite")
            if values.shape != (len(points),):
                raise UsageError(f"{len(points)} points need as many values of {name}")
            object.__setattr__(self, name, values)
        if self.mpp is not None:
            object.__setattr__(self, "mpp", check_mpp(self.mpp, self.name or "annotations"))

    @classmethod
    def from_groups(
        cls,
        mitoses_xy: NDArray[np.float64],
        hard_negatives_xy: NDArray[np.float64],
        unsure_xy: NDArray[np.float64],
    ) -> Annotations:
        """Make annotations from an array (n, 2) of each label."""
        groups = (mitoses_xy, hard_negatives_xy, unsure_xy)
        labels = [label for label, group in zip(LABELS, groups, strict=True) for _ in group]
        return cls(np.concatenate(groups), tuple(labels))

    @classmethod
    def from_rows(
        cls, rows: Sequence[Sequence[float]], labels: Sequence[Label], **more: Any
    ) -> Annotations:
        """Make annotations from rows of x, y, score, area and confidence; `more` as for all."""
        table = np.array(rows, np.float64).reshape(-1, 5)
        x, y, score, area, confidence = table.T
        return cls(np.stack([x, y], 1), tuple(labels), score, area, confidence, **more)

    def __len__(self) -> int:
        return len(self.xy)

    def __repr__(self) -> str:
        counts = ", ".join(f"{count} {label}" for label, count in self.counts().items())
        scale = "unknown scale" if self.mpp is None else f"{self.mpp:g} um/px"
        return f"Annotations({self.name!r}, {counts}, {scale})"

    def counts(self) -> dict[Label, int]:
        """Return how many points there are of each label."""
        found = Counter(self.labels)
        return {label: found[label] for label in LABELS}

    def is_label(self, label: Label) -> NDArray[np.bool_]:
        """Tell which points have a label, (n,)."""
        return np.array([own == label for own in self.labels], np.bool_)

    def of(self, label: Label) -> NDArray[np.float64]:
        """Return the positions (k, 2) of one label."""
        return self.xy[self.is_label(label)]

    def mitosis_confidence(self) -> NDArray[np.float64] | None:
        """Return the confidence of each mitosis (k,), nan where unknown; None if it is of all."""
        values = np.asarray(self.confidence)[self.is_label("mitosis")]
        return None if np.isnan(values).all() else values

    def select(self, chosen: NDArray[np.bool_]) -> Annotations:
        """Return the points that a mask (n,) picks."""
        labels = [label for label, kept in zip(self.labels, chosen, strict=True) if kept]
        columns = {name: getattr(self, name)[chosen] for name in _COLUMNS}
        return replace(self, xy=self.xy[chosen], labels=tuple(labels), **columns)

    def moved(self, right_px: float, down_px: float) -> Annotations:
        """Return points and regions moved by a number of level-0 pixels."""
        regions = None if self.regions is None else self.regions.moved(right_px, down_px)
        return replace(self, xy=self.xy + np.array([right_px, down_px]), regions=regions)

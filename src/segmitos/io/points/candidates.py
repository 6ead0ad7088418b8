"""Candidates: every blob that detection saw, whether it became a detection or not.

They are what a threshold is changed on, and what a reader is shown, without running the networks
again. Each has an identity that the GeoJSON shares, so that what comes back from QuPath is matched
by it.
"""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from segmitos.errors import DataError
from segmitos.io.points.detections import Detections
from segmitos.io.tables import table_text
from segmitos.io.text import read_text

CANDIDATES = "candidates.csv"
COLUMNS = ("id", "x_px", "y_px", "x_um", "y_um", "area_um2", "score", "detection")
_NUMBERS = ("x_px", "y_px", "area_um2", "score")


@dataclass(frozen=True, eq=False)
class Candidates:
    """Blobs of one image, ordered by y, then x.

    Attributes:
        ids: identity of each, the same in every run and in the GeoJSON.
        x_px: level-0 pixels, pixel centers at integers; float64 (n,).
        y_px: the same.
        area_um2: of the blob.
        score: mean probability of the blob. A blob that reaches the threshold of the map is
            measured above it, any other above the floor of 0.1, so that its score lies below.
        is_detection: bool (n,), whether it passes the thresholds of probability, score and area.
        mpp: micrometers per level-0 pixel.
        name: of the image.
    """

    ids: tuple[str, ...] = field(repr=False)
    x_px: NDArray[np.float64]
    y_px: NDArray[np.float64]
    area_um2: NDArray[np.float64]
    score: NDArray[np.float64]
    is_detection: NDArray[np.bool_]
    mpp: float
    name: str = ""

    def __len__(self) -> int:
        return len(self.ids)

    @cached_property
    def xy(self) -> NDArray[np.float64]:
        """Positions, (n, 2)."""
        return np.stack([self.x_px, self.y_px], axis=1)

    @cached_property
    def index(self) -> Mapping[str, int]:
        """Place of each identity."""
        return {one: place for place, one in enumerate(self.ids)}

    def has_detection(self, identity: str | None) -> bool:
        """Tell whether an identity is that of a detection."""
        place = self.index.get(identity or "")
        return place is not None and bool(self.is_detection[place])

    def detections(self) -> Detections:
        """Return those that are detections, in the same order."""
        kept = self.is_detection
        return Detections(
            self.x_px[kept],
            self.y_px[kept],
            self.area_um2[kept],
            self.score[kept],
            self.mpp,
            self.name,
        )

    def filtered(self, threshold: float, min_area_um2: float, min_score: float) -> Candidates:
        """Return the same candidates, `is_detection` by these thresholds.

        `threshold` must be the probability they were found at: another one gives other blobs.
        """
        passes = (
            (self.score > threshold) & (self.area_um2 >= min_area_um2) & (self.score >= min_score)
        )
        return replace(self, is_detection=passes)

    def to_csv(self) -> str:
        """Return CSV text; `detection` is 1 or 0."""
        positions = (self.x_px, self.y_px, self.x_px * self.mpp, self.y_px * self.mpp)
        numbers = np.stack([*positions, self.area_um2, self.score], axis=1).tolist()
        rows = zip(self.ids, numbers, self.is_detection, strict=True)
        return table_text(COLUMNS, ([one, *values, int(kept)] for one, values, kept in rows))


def read_candidates(path: Path, mpp: float, name: str = "") -> Candidates:
    """Read `Candidates.to_csv`.

    Args:
        path: of the file.
        mpp: micrometers per level-0 pixel, from the summary.
        name: of the image.

    Raises:
        DataError: if the file cannot be read, for missing columns, or a value that is not a number,
            with its line.
    """
    rows = list(csv.reader(io.StringIO(read_text(path))))
    if not rows or tuple(rows[0]) != COLUMNS:
        raise DataError(f"{path} is damaged: its first line must be {','.join(COLUMNS)}")
    ids: list[str] = []
    kept: list[bool] = []
    values: list[list[float]] = []
    for number, row in enumerate(rows[1:], start=2):
        cells = dict(zip(COLUMNS, row, strict=False))
        try:
            values.append([float(cells[column]) for column in _NUMBERS])
            kept.append({"1": True, "0": False}[cells["detection"]])
        except (KeyError, ValueError) as error:
            raise DataError(f"{path}, line {number} is damaged: {','.join(row)!r}") from error
        if not all(math.isfinite(value) for value in values[-1]):
            raise DataError(f"{path}, line {number} is damaged: a value is not finite")
        ids.append(cells["id"])
    if len(set(ids)) < len(ids):
        raise DataError(f"{path} is damaged: two candidates have one id")
    table = np.array(values, dtype=np.float64).reshape(-1, len(_NUMBERS))
    x, y, area, score = np.ascontiguousarray(table.T)
    return Candidates(tuple(ids), x, y, area, score, np.array(kept, dtype=bool), mpp, name)

"""From probability map to mitoses: smooth, threshold, find blobs, filter (paper, section 3.3).

The map comes in parts, in any order. Of each part only what can ever matter is kept: a histogram,
from which Otsu's threshold of the whole field or slide follows, and the pixels above a floor, as
sorted coordinates. A slide's map of a gigapixel costs megabytes, blobs cross tile borders freely,
and one big tile gives the same blobs as many small ones.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from segmitos.detection.connected import measure_regions
from segmitos.errors import DataError, InputError, ModelError, UsageError
from segmitos.io.arguments import number_of
from segmitos.io.geometry import map_to_image

# Probabilities at or below the floor are never part of a blob, whatever the threshold.
FLOOR = 0.1
BINS = 1024
# Kernel radius in standard deviations.
TRUNCATE = 3.0
# A map of which more than this fraction lies above the floor is not one of mitoses, unless it is so
# small that one mitosis fills it; and no map may fill the memory.
_MAX_FRACTION = 0.2
_SMALL_MAP = 1_000_000
_MAX_PIXELS = 8_000_000
_NOT_MITOSES = (
    f"{{}} of the map lies above probability {FLOOR}: the image is not what the model was trained "
    "on (stain, scale, focus); check --mpp"
)
# Rounding in a network or in the smoothing may leave 0..1 by this much.
_ROUNDING = 1e-3


@dataclass(frozen=True)
class Thresholds:
    """How a probability map is turned into mitoses.

    `threshold` is `otsu` (of the whole field or slide) or a fixed probability; blobs are kept
    where their area is at least `min_area_um2` and their mean probability at least `min_score`.
    """

    threshold: float | Literal["otsu"]
    min_area_um2: float
    min_score: float

    def __post_init__(self) -> None:
        if self.threshold != "otsu" and not (
            isinstance(self.threshold, float) and FLOOR <= self.threshold < 1
        ):
            raise UsageError(
                f"threshold {self.threshold!r} must be 'otsu' or from {FLOOR} to below 1"
            )
        if not 0 <= number_of(self.min_area_um2, "min_area_um2") < 1e6:
            raise UsageError(f"min_area_um2 {self.min_area_um2} must be 0 or more")
        if not 0 <= number_of(self.min_score, "min_score") <= 1:
            raise UsageError(f"min_score {self.min_score} must be from 0 to 1")


def tuned_thresholds(tuned: Mapping[str, Any]) -> Thresholds:
    """Return the thresholds in the content of a thresholds.json of `evaluate --tune`.

    Raises:
        DataError: where they are not what thresholds can be.
    """
    try:
        return Thresholds(**tuned["thresholds"])
    except (TypeError, UsageError) as error:
        raise DataError(f"thresholds are off: {error}") from error


@dataclass(frozen=True)
class Blobs:
    """Connected regions above a threshold, ordered by y, then x.

    `x_px`, `y_px`: probability-weighted centroids in pixels of the model's scale, pixel centers at
    integers; `area_um2`; `score`: mean probability; all float64 of shape (n,).
    `peak`: largest probability; `threshold`: the probability that separated them from the rest.
    """

    x_px: NDArray[np.float64]
    y_px: NDArray[np.float64]
    area_um2: NDArray[np.float64]
    score: NDArray[np.float64]
    peak: NDArray[np.float64]
    threshold: float

    def __len__(self) -> int:
        return len(self.x_px)

    def keep(self, thresholds: Thresholds) -> NDArray[np.bool_]:
        """Mark the blobs that pass the area and score filters (paper, section 3.3)."""
        result: NDArray[np.bool_] = (self.area_um2 >= thresholds.min_area_um2) & (
            self.score >= thresholds.min_score
        )
        return result


def smoothing_radius(sigma_um: float, map_mpp: float) -> int:
    """Map pixels of context that `smooth` looks at on every side."""
    return int(TRUNCATE * sigma_um / map_mpp + 0.5)


def smooth(
    probability: NDArray[np.float32], sigma_um: float, map_mpp: float
) -> NDArray[np.float32]:
    """Smooth a map (h, w) with a Gaussian of `sigma_um`; borders repeat the edge."""
    if sigma_um <= 0:
        return probability
    radius = smoothing_radius(sigma_um, map_mpp)
    steps = np.arange(-radius, radius + 1)
    weights = np.exp(-0.5 * (steps * map_mpp / sigma_um) ** 2)
    weights = (weights / weights.sum()).astype(np.float32)
    # Added up pixel by pixel in one order, so that a value does not depend on its tile.
    height, width = probability.shape
    padded = np.pad(probability, ((radius, radius), (0, 0)), mode="edge")
    down = weights[0] * padded[:height]
    for step, weight in enumerate(weights[1:], 1):
        down += weight * padded[step : step + height]
    padded = np.pad(down, ((0, 0), (radius, radius)), mode="edge")
    across: NDArray[np.float32] = weights[0] * padded[:, :width]
    for step, weight in enumerate(weights[1:], 1):
        across += weight * padded[:, step : step + width]
    return across


def otsu_threshold(histogram: NDArray[np.int64]) -> float:
    """Return the threshold on 0..1 that best splits a histogram into two classes (Otsu 1979).

    Args:
        histogram: counts in equal bins over 0..1.

    Returns:
        The upper edge of the last bin of the lower class. Where all counts lie in one bin there
        are no two classes, and 1.0 is returned: nothing is above it.
    """
    counts = histogram.astype(np.float64)
    bins = len(counts)
    centers = (np.arange(bins) + 0.5) / bins
    below = np.cumsum(counts)
    above = below[-1] - below
    sums = np.cumsum(counts * centers)
    possible = (below > 0) & (above > 0)
    if not possible.any():
        return 1.0
    low = sums / np.maximum(below, 1)
    high = (sums[-1] - sums) / np.maximum(above, 1)
    between = np.where(possible, below * above * (high - low) ** 2, -1.0)
    return float((np.argmax(between) + 1) / bins)


class MapAccumulator:
    """Takes a smoothed probability map in parts, gives the blobs of the whole."""

    def __init__(self, map_mpp: float, stride: int, check_plausible: bool = True) -> None:
        """Begin an empty map of `map_mpp` um and `stride` model pixels per map pixel.

        `check_plausible` refuses maps that cannot be those of mitoses, before they fill the memory.
        """
        self.map_mpp = map_mpp
        self.check_plausible = check_plausible
        self.stride = stride
        self.histogram = np.zeros(BINS, np.int64)
        self._rows = [np.zeros(0, np.int32)]
        self._columns = [np.zeros(0, np.int32)]
        self._values = [np.zeros(0, np.float32)]
        self._above = 0

    def add(
        self,
        part: NDArray[np.float32],
        column: int,
        row: int,
        mask: NDArray[np.bool_] | None = None,
    ) -> None:
        """Add a part (h, w) whose first pixel is (`column`, `row`) of the map.

        Args:
            part: smoothed probabilities.
            column: of the map.
            row: of the map.
            mask: (h, w), the pixels that belong to the map; None for all.

        Raises:
            ModelError: for values that are no probabilities.
            InputError: if so much of the map is above 0.1 that it would fill the memory.
        """
        if not (part.min() >= -_ROUNDING and part.max() <= 1 + _ROUNDING):
            raise ModelError(
                f"the model gives values from {part.min()} to {part.max()}, which are no "
                "probabilities from 0 to 1; export it again"
            )
        values = part if mask is None else part[mask]
        indices = np.clip((values * BINS).astype(np.int32), 0, BINS - 1)
        self.histogram += np.bincount(indices.ravel(), minlength=BINS)
        self._above += int(np.count_nonzero(values > FLOOR))
        kept = part > FLOOR
        if mask is not None:
            kept &= mask
        rows, columns = np.nonzero(kept)
        if self.check_plausible and self._above > _MAX_PIXELS:
            raise InputError(_NOT_MITOSES.format(f"more than {_MAX_PIXELS:,} pixels"))
        if len(rows):
            self._rows.append((rows + row).astype(np.int32))
            self._columns.append((columns + column).astype(np.int32))
            self._values.append(part[rows, columns])

    @property
    def pixels(self) -> int:
        """Pixels added so far, without those that a mask left out."""
        return int(self.histogram.sum())

    def threshold_value(self, threshold: float | Literal["otsu"]) -> float:
        """Return the probability that a threshold stands for on this map.

        Otsu's threshold is taken from all pixels of the map (holistic, as in the paper) and is not
        let below the floor: on a field without mitoses it would split noise from noise.
        """
        if threshold != "otsu":
            return threshold
        return max(otsu_threshold(self.histogram), FLOOR)

    def blobs(self, threshold: float | Literal["otsu"]) -> Blobs:
        """Find the 8-connected regions above a threshold, with area, mean score and centroid.

        Raises:
            InputError: if so much of the map is above 0.1 that it is not one of mitoses.
            ValueError: for a threshold below the floor.
        """
        if self.check_plausible and self._above > _MAX_FRACTION * max(self.pixels, _SMALL_MAP):
            raise InputError(_NOT_MITOSES.format(f"more than {_MAX_FRACTION:.0%}"))
        level = self.threshold_value(threshold)
        if level < FLOOR:
            raise ValueError(f"threshold {level} lies below the floor of {FLOOR}")
        rows, columns = np.concatenate(self._rows), np.concatenate(self._columns)
        values = np.concatenate(self._values)
        above = values > level
        rows, columns, values = rows[above], columns[above], values[above]
        order = np.lexsort((columns, rows))
        rows, columns, values = rows[order], columns[order], values[order]
        member, area, score, column, row = measure_regions(rows, columns, values)
        x, y = map_to_image(column, self.stride), map_to_image(row, self.stride)
        peak = np.zeros(len(area))
        np.maximum.at(peak, member, values)
        sequence = np.lexsort((x, y))
        return Blobs(
            x[sequence],
            y[sequence],
            (area * self.map_mpp**2)[sequence].astype(np.float64),
            score[sequence],
            peak[sequence],
            level,
        )

    def faint_blobs(self, threshold: float | Literal["otsu"]) -> Blobs:
        """Find the blobs above the floor that a threshold leaves out whole.

        They can never be detections; a reader may want to see them. Those that the threshold
        cuts smaller or apart are left out here, since `blobs` has them.
        """
        faint = self.blobs(FLOOR)
        keep = faint.peak <= np.float32(self.threshold_value(threshold))
        fields = ("x_px", "y_px", "area_um2", "score", "peak")
        return replace(faint, **{name: getattr(faint, name)[keep] for name in fields})


def blobs_of_map(
    probability: NDArray[np.float32],
    mpp: float,
    stride: int,
    sigma_um: float,
    threshold: float | Literal["otsu"],
) -> Blobs:
    """Smooth a whole map and find its blobs.

    Args:
        probability: (h, w).
        mpp: um per pixel of the image.
        stride: image pixels per map pixel.
        sigma_um: of the Gaussian; 0 leaves the map as it is.
        threshold: a probability, or `otsu`.
    """
    accumulator = MapAccumulator(mpp * stride, stride, check_plausible=False)
    accumulator.add(smooth(probability, sigma_um, mpp * stride), 0, 0)
    return accumulator.blobs(threshold)

"""Frames and scales: the one place where positions go from one frame to another.

Positions are (x, y), pixel centers at integers, origin top left. A pixel of one scale covers
`ratio` pixels of another along each axis, from the first pixel's edge on.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any, Protocol, TypeVar

import numpy as np
from numpy.typing import NDArray

from segmitos.errors import ScaleError, UsageError

T = TypeVar("T", float, NDArray[Any])

SMALLEST_MPP, LARGEST_MPP = 0.01, 200.0
SAME_WITHIN = 0.02
"""Fraction by which two scales may differ and still be one: of file and user, of both axes."""
LARGEST_PX = 1e9
"""No position in an annotation file is further from the origin."""


def rescale(position_px: NDArray[Any], ratio: float) -> NDArray[np.float64]:
    """Return positions in pixels of another scale.

    Args:
        position_px: positions along one axis, or (n, 2) of both, pixel centers at integers.
        ratio: pixels of the new scale per pixel of the old one (old um/px over new um/px).

    Returns:
        The same shape, pixel centers at integers of the new scale.
    """
    return (np.asarray(position_px, np.float64) + 0.5) * ratio - 0.5


def from_corner(position_px: T, ratio: float = 1.0) -> T:
    """Return positions counted from the image's corner, in pixels of another scale.

    SVG, Pillow's drawing of areas and the boxes of `Slide.read` count so: a pixel's edges, not its
    center, are at integers. Arguments as for `rescale`.
    """
    return (position_px + 0.5) * ratio


def map_to_image(position: T, stride: int) -> T:
    """Return positions on a network's map in pixels of its image.

    Args:
        position: map pixels, centers at integers; any shape.
        stride: image pixels per map pixel, along each axis.
    """
    return position * stride + (stride - 1) / 2


def image_to_map(position_px: T, stride: int) -> T:
    """Return positions in an image in pixels of a network's map; see `map_to_image`."""
    return (position_px - (stride - 1) / 2) / stride


def to_qupath(xy_px: NDArray[np.float64], bounds: tuple[int, int, int, int]) -> NDArray[np.float64]:
    """Return level-0 positions as QuPath counts them: from the corner of what was scanned.

    QuPath crops a slide to the bounds that OpenSlide states (openslide.bounds-x, -y), so that its
    origin lies there. An image without bounds has its own corner as origin: nothing changes.

    Args:
        xy_px: (n, 2) level-0 pixels; how pixel centers are counted is left as it is.
        bounds: `Slide.bounds`, (x, y, width, height).
    """
    return np.asarray(xy_px, np.float64) - np.array(bounds[:2], np.float64)


def from_qupath(
    xy_px: NDArray[np.float64], bounds: tuple[int, int, int, int]
) -> NDArray[np.float64]:
    """Return positions that QuPath counted (see `to_qupath`) in the slide's level-0 pixels."""
    return np.asarray(xy_px, np.float64) + np.array(bounds[:2], np.float64)


def pad_to_multiple(image: NDArray[np.uint8], multiple: int) -> NDArray[np.uint8]:
    """Return an image (h, w, 3) grown with white at its right and bottom to multiples of a side."""
    height, width = image.shape[:2]
    room = ((0, -height % multiple), (0, -width % multiple), (0, 0))
    return np.pad(image, room, constant_values=255)


def same_scale(one_mpp: float, other_mpp: float) -> bool:
    """Tell whether two scales are taken for one: they differ by no more than 2 %."""
    return abs(one_mpp - other_mpp) <= SAME_WITHIN * max(one_mpp, other_mpp)


def as_points(values: NDArray[Any], what: str = "positions") -> NDArray[np.float64]:
    """Return positions (n, 2) as floats.

    Args:
        values: (n, 2), or nothing of any shape.
        what: to call them in an error.

    Raises:
        UsageError: for another shape, or numbers that are not finite.
    """
    try:
        points = np.asarray(values, dtype=np.float64)
    except (TypeError, ValueError) as error:
        raise UsageError(f"{what} {values!r:.60} must be numbers") from error
    if points.size == 0:
        return np.zeros((0, 2))
    if points.ndim != 2 or points.shape[1] != 2:
        raise UsageError(f"{what} must be an array of shape (n, 2), not {points.shape}")
    if not np.isfinite(points).all():
        raise UsageError(f"{what} must have finite coordinates")
    return points


class Placed(Protocol):
    """What lies at a place."""

    @property
    def x_px(self) -> float: ...
    @property
    def y_px(self) -> float: ...


def xy_of(placed: Iterable[Placed]) -> NDArray[np.float64]:
    """Return the positions (n, 2) of marks, points and the like."""
    return np.array([(one.x_px, one.y_px) for one in placed], dtype=np.float64).reshape(-1, 2)


def check_mpp(value: float, what: str = "mpp", largest: float = LARGEST_MPP) -> float:
    """A scale in micrometers per pixel, checked.

    Raises:
        ScaleError: unless it is a number from 0.01 to `largest`.
    """
    number = math.nan
    if isinstance(value, int | float | np.integer | np.floating) and not isinstance(value, bool):
        number = float(value)
    if not SMALLEST_MPP <= number <= largest:
        shown = repr(value) if isinstance(value, str) else value
        raise ScaleError(
            f"{what}: {shown} is not a scale; give micrometers per pixel between "
            f"{SMALLEST_MPP} and {largest:g}, e.g. 0.25 for a x40 scan"
        )
    return number


def check_override(override_mpp: bool, mpp: float | None) -> None:
    """Refuse to override the scale of a file with none. Raises UsageError."""
    if override_mpp and mpp is None:
        raise UsageError("--override-mpp insists on the value of --mpp: give that, too")

"""Where most mitoses are: the hotspot, and the area of ten high-power fields."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from segmitos.counting.grading import FIELDS, Unavailable, field_area_mm2
from segmitos.counting.window_search import max_count_window
from segmitos.counting.window_shapes import Box, Disc, Points, Window
from segmitos.errors import UsageError
from segmitos.io.geometry import as_points, check_mpp, from_corner

if TYPE_CHECKING:
    from segmitos.detection.tissue import TissueMask

SHAPES = ("square", "circle", "box")
_BOX_RATIO = 4 / 3
_MIN_TISSUE_FRACTION = 0.5
# Told apart from the other reasons, since a count of none in a window that fits can be scored.
NO_MITOSES = Unavailable("no mitoses were found")


@dataclass(frozen=True)
class Hotspot:
    """The window with the most mitoses.

    Attributes:
        shape: `square`, `circle` or `box` (4:3, the longer side across).
        area_mm2: of the window.
        x_px: left edge of the window (of its bounding square for a circle), level-0 pixels.
        y_px: top edge.
        width_px: of the window.
        height_px: of the window.
        count: of mitoses in it, those on its border included.
        tissue_fraction: of the window's area; 1 where no mask was given.
    """

    shape: str
    area_mm2: float
    x_px: float
    y_px: float
    width_px: float
    height_px: float
    count: int
    tissue_fraction: float = 1.0

    @property
    def density_per_mm2(self) -> float:
        """Mitoses per mm2 of the window."""
        return self.count / self.area_mm2

    def outline_xy(self) -> NDArray[np.float64]:
        """Return the outline (k, 2) in level-0 pixels: 4 corners, or 72 of a circle."""
        x0, y0 = self.x_px, self.y_px
        x1, y1 = x0 + self.width_px, y0 + self.height_px
        if self.shape != "circle":
            return np.array([(x0, y0), (x1, y0), (x1, y1), (x0, y1)])
        angle = np.linspace(0, 2 * math.pi, 72, endpoint=False)
        center = np.array([(x0 + x1) / 2, (y0 + y1) / 2])
        return center + self.width_px / 2 * np.stack([np.cos(angle), np.sin(angle)], axis=1)

    def holds(self, points_xy: NDArray[Any]) -> NDArray[np.bool_]:
        """Tell which points (n, 2), level-0 pixels, lie in the window or on its border."""
        points = np.asarray(points_xy, dtype=np.float64).reshape(-1, 2)
        window: Window = Box(self.width_px, self.height_px)
        if self.shape == "circle":
            window = Disc(self.width_px / 2)
        center = (self.x_px + self.width_px / 2, self.y_px + self.height_px / 2)
        return window.holds(points, center)


def hotspot(
    points_xy: NDArray[Any],
    mpp: float,
    width_px: float,
    height_px: float,
    area_mm2: float = 2.0,
    shape: str = "square",
    tissue: TissueMask | None = None,
    min_tissue_fraction: float = _MIN_TISSUE_FRACTION,
) -> Hotspot | Unavailable:
    """Find the window with the most mitoses, over all positions, exactly.

    The window lies wholly inside the image. With a tissue mask it also holds at least
    `min_tissue_fraction` of tissue by area: the plane of window centers is cut into grid squares of
    a 64th of the window's side (larger on very large slides), the fraction is taken from the mask
    in the middle of each square, and the search is exact over all positions in the squares that
    pass. Among equal windows one is chosen by a fixed rule, and moved so that its mitoses are in
    its middle.

    Args:
        points_xy: mitoses (n, 2), level-0 pixels.
        mpp: micrometers per level-0 pixel.
        width_px: of the image.
        height_px: of the image.
        area_mm2: of the window; 2 mm2 is the WHO's.
        shape: `square`, `circle`, or `box` (4:3).
        tissue: mask, if the window must lie on tissue.
        min_tissue_fraction: least fraction of the window's area.

    Returns:
        The hotspot, or why there is none: an image smaller than the window, too little tissue
        anywhere, or `NO_MITOSES` where a window has room and there is nothing to count in it.

    Raises:
        UsageError: for an unknown shape, an area that is not positive, a fraction outside 0..1, or
            positions that are not (n, 2) and finite.
        ScaleError: for an impossible scale.
    """
    check_mpp(mpp, "hotspot")
    if not 0 <= min_tissue_fraction <= 1:
        raise UsageError(f"fraction of tissue {min_tissue_fraction} must be from 0 to 1")
    window = _window(shape, area_mm2, mpp)
    half_x, half_y = window.half
    sides_um = np.array([[width_px, height_px], [2 * half_x, 2 * half_y]]) * mpp
    lacks = sides_um[0] < sides_um[1] * (1 - 1e-9)
    # Smaller by a hair: with three digits both sizes would read the same.
    digits = 6 if (lacks & (sides_um[1] < 1.01 * sides_um[0])).any() else 3
    image, box = (_size(w, h, digits) for w, h in sides_um.tolist())
    what = f"the {box} window of {area_mm2:.3g} mm2 ({shape})"
    if lacks.any():
        return Unavailable(f"the image is {image}: smaller than {what}")
    points = as_points(points_xy)
    # Pixel centers are at integers, so the image begins half a pixel before them.
    left, top = half_x - 0.5, half_y - 0.5
    bounds = (left, top, max(left, width_px - half_x - 0.5), max(top, height_px - half_y - 0.5))
    measure = None if tissue is None else _TissueFraction(tissue, window, mpp)
    lacking = Unavailable(f"nowhere does {what} hold {min_tissue_fraction:.0%} of tissue")
    if not len(points):
        fits = measure is None or measure.most(bounds, window) >= min_tissue_fraction
        return NO_MITOSES if fits else lacking
    found = max_count_window(
        points,
        window,
        bounds,
        None if measure is None else lambda centers: measure(centers) >= min_tissue_fraction,
    )
    if found is None:
        return lacking
    count, center = found
    middle = _centered(points, window, bounds, center, count)
    if measure is None or measure(np.array([middle]))[0] >= min_tissue_fraction:
        center = middle
    fraction = 1.0 if measure is None else min(1.0, float(measure(np.array([center]))[0]))
    return Hotspot(
        shape=shape,
        area_mm2=area_mm2,
        x_px=center[0] - half_x,
        y_px=center[1] - half_y,
        width_px=2 * half_x,
        height_px=2 * half_y,
        count=count,
        tissue_fraction=fraction,
    )


def window_at(
    center: tuple[float, float],
    mpp: float,
    width_px: float,
    height_px: float,
    area_mm2: float = 2.0,
    shape: str = "square",
) -> Hotspot:
    """Return a window of count 0, its center as near to a place as the image allows.

    Args:
        center: x and y, level-0 pixels.
        mpp: as `hotspot`, with the arguments not named here.
        width_px: see there.
        height_px: see there.
        area_mm2: see there.
        shape: see there.
    """
    half_x, half_y = _window(shape, area_mm2, mpp).half
    x = min(max(center[0] - half_x, -0.5), width_px - 2 * half_x - 0.5)
    y = min(max(center[1] - half_y, -0.5), height_px - 2 * half_y - 0.5)
    return Hotspot(shape, area_mm2, x, y, 2 * half_x, 2 * half_y, 0)


def count_in_fields(
    points_xy: NDArray[Any],
    mpp: float,
    width_px: float,
    height_px: float,
    field_diameter_mm: float,
    fields: int = FIELDS,
    tissue: TissueMask | None = None,
    min_tissue_fraction: float = _MIN_TISSUE_FRACTION,
) -> Hotspot | Unavailable:
    """Count in the area of so many high power fields, where it holds the most mitoses.

    The fields are taken as one 4:3 window of the same area, as is usual on digital slides; ten
    separate circles placed at will would always find more.

    Args:
        points_xy: as `hotspot`, with the arguments not named here.
        mpp: see there.
        width_px: see there.
        height_px: see there.
        field_diameter_mm: of the microscope's field (0.40 to 0.69 for the Nottingham table).
        fields: how many, ten by convention.
        tissue: see there.
        min_tissue_fraction: see there.

    Raises:
        UsageError: for a diameter or a number of fields that is not positive; as `hotspot`.
    """
    if not (fields >= 1 and math.isfinite(field_diameter_mm) and field_diameter_mm > 0):
        raise UsageError(f"{fields} fields of {field_diameter_mm} mm: both must be above 0")
    area = field_area_mm2(field_diameter_mm) * fields
    return hotspot(points_xy, mpp, width_px, height_px, area, "box", tissue, min_tissue_fraction)


class _TissueFraction:
    """Fraction of tissue in a window, by area, from sums over the mask; none is off the mask."""

    def __init__(self, tissue: TissueMask, window: Window, mpp: float) -> None:
        self.scale = mpp / tissue.mpp
        self.strips = [tuple(value * self.scale for value in strip) for strip in window.strips()]
        self.area = sum((x1 - x0) * (y1 - y0) for x0, y0, x1, y1 in self.strips)
        height, width = tissue.mask.shape
        # int32 takes half the memory of NumPy's sums; row by row, no copy of the mask is made.
        self.sums = np.zeros((height + 1, width + 1), np.int32)
        for row, marked in enumerate(tissue.mask, 1):
            np.cumsum(marked, dtype=np.int32, out=self.sums[row, 1:])
            self.sums[row] += self.sums[row - 1]

    def __call__(self, centers: Points) -> NDArray[np.float64]:
        x, y = from_corner(centers, self.scale).T
        total = np.zeros(len(centers))
        for x0, y0, x1, y1 in self.strips:
            total += self._below(x + x1, y + y1) - self._below(x + x0, y + y1)
            total += self._below(x + x0, y + y0) - self._below(x + x1, y + y0)
        return total / self.area

    def most(self, bounds: tuple[float, float, float, float], window: Window) -> float:
        """Return the largest fraction at any center on a grid of a 32nd of the window.

        On a slide very large for its window the grid is coarser: 2000 places a side.
        """
        x, y = (
            np.linspace(low, high, min(2000, math.ceil((high - low) / half * 16) + 1))
            for low, high, half in zip(bounds[:2], bounds[2:], window.half, strict=True)
        )
        # A row at a time: a slide has some million places.
        return max(float(self(np.stack([x, np.full_like(x, at)], axis=1)).max()) for at in y)

    def _below(self, x: NDArray[np.float64], y: NDArray[np.float64]) -> NDArray[np.float64]:
        """Tissue above and left of a place, in mask pixels; exact between pixels too."""
        rows, columns = self.sums.shape
        x, y = np.clip(x, 0, columns - 1), np.clip(y, 0, rows - 1)
        i, j = np.minimum(y.astype(int), rows - 2), np.minimum(x.astype(int), columns - 2)
        v, u = y - i, x - j
        sums = self.sums
        upper = sums[i, j] * (1 - u) + sums[i, j + 1] * u
        lower = sums[i + 1, j] * (1 - u) + sums[i + 1, j + 1] * u
        result: NDArray[np.float64] = upper * (1 - v) + lower * v
        return result


def _window(shape: str, area_mm2: float, mpp: float) -> Window:
    if shape not in SHAPES:
        raise UsageError(f"hotspot shape {shape!r}: choose one of {', '.join(SHAPES)}")
    if not (math.isfinite(area_mm2) and area_mm2 > 0):
        raise UsageError(f"hotspot area {area_mm2} mm2 must be above 0")
    area_px = area_mm2 * 1e6 / mpp**2
    if shape == "circle":
        return Disc(math.sqrt(area_px / math.pi))
    height = math.sqrt(area_px / (_BOX_RATIO if shape == "box" else 1.0))
    return Box(area_px / height, height)


def _centered(
    points: Points,
    window: Window,
    bounds: tuple[float, float, float, float],
    center: tuple[float, float],
    count: int,
) -> tuple[float, float]:
    """Move a window so that what it holds is in its middle, if it then still holds as much."""
    held = points[window.holds(points, center)]
    if not len(held):
        return center
    middle = (held.min(axis=0) + held.max(axis=0)) / 2
    x = min(max(float(middle[0]), bounds[0]), bounds[2])
    y = min(max(float(middle[1]), bounds[1]), bounds[3])
    return (x, y) if int(window.holds(points, (x, y)).sum()) >= count else center


def _size(width_um: float, height_um: float, digits: int) -> str:
    return f"{width_um / 1000:.{digits}g} x {height_um / 1000:.{digits}g} mm"

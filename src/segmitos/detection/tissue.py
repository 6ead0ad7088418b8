"""Where there is tissue: a mask at low resolution, so that only tissue is read.

Stained tissue is colored and darker than glass. Left out are empty glass, black and gray borders,
shadows, pen (strong colors that no stain has, or black ink) and specks of dirt.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from segmitos.detection.connected import label_pixels
from segmitos.detection.stain import OD_TABLE
from segmitos.io.geometry import from_corner
from segmitos.io.points.regions import Regions

_MIN_OD = 0.06
_MIN_CHROMA = 0.03
# All channels below this are black.
_BLACK = 40
# Gray from this density on is a shadow, an edge or a fill, never tissue of some color.
_DARK_OD = 0.35
_MIN_TISSUE_UM2 = 20_000.0
_GAP_UM = 48.0
# Work goes on this far around tissue: the mask is coarse, and mitoses sit at edges too.
_MARGIN_UM = 32.0
_ROWS_AT_ONCE = 256
_LARGE_MASK_PX = 2_000_000

Mask = NDArray[np.bool_]


@dataclass(frozen=True)
class Overview:
    """A picture of a whole slide.

    Attributes:
        pixels: (h, w, 3) uint8 RGB.
        step: level-0 pixels per pixel.
        mpp: um per pixel.
        bounds: (x, y, width, height) of the scanned area in level-0 pixels.
        size_px: width and height of the slide, level-0 pixels; the last pixels of the picture may
            stick out of it or fall short of its border.
    """

    pixels: NDArray[np.uint8]
    step: float
    mpp: float
    bounds: tuple[int, int, int, int]
    size_px: tuple[int, int]


@dataclass(frozen=True)
class TissueMask:
    """A mask (h, w) whose pixel covers `mpp` x `mpp` um of the slide, from its top left corner.

    `area_mm2` is the area of what is marked. Work is done on `around`: the mask and 32 um more.
    """

    mask: Mask
    mpp: float
    area_mm2: float

    @cached_property
    def around(self) -> Mask:
        """The mask, grown by 32 um."""
        return dilate(self.mask, max(1, round(_MARGIN_UM / self.mpp)))

    @cached_property
    def _everywhere(self) -> bool:
        return bool(self.around.all())

    def on_map(self, column: int, row: int, columns: int, rows: int, map_mpp: float) -> Mask | None:
        """Tell which map pixels to work on: those whose center lies on `around`.

        Args:
            column: of the first map pixel, counted from the slide's left border.
            row: of the first map pixel, from its top.
            columns: of the answer.
            rows: of the answer.
            map_mpp: um per map pixel.

        Returns:
            A mask (rows, columns), or None where all of them are.
        """
        if self._everywhere:
            return None
        ratio = map_mpp / self.mpp
        x = from_corner(column + np.arange(columns), ratio).astype(np.int64)
        y = from_corner(row + np.arange(rows), ratio).astype(np.int64)
        height, width = self.mask.shape
        # Rounding may lead one pixel past the mask's last.
        x, y = np.minimum(x, width - 1), np.minimum(y, height - 1)
        part = self.around[y[0] : y[-1] + 1, x[0] : x[-1] + 1]
        if part.all():
            return None
        if not part.any():
            return np.zeros((rows, columns), bool)
        wanted: Mask = part[np.ix_(y - y[0], x - x[0])]
        return None if wanted.all() else wanted


def find_tissue(
    overview: Overview, regions: Regions | None = None, everywhere: bool = False
) -> TissueMask:
    """Mark the tissue of a slide.

    Args:
        overview: a picture of the whole slide (`SlideView.overview`).
        regions: level-0 pixels; where given, only tissue inside them counts.
        everywhere: True marks all of the scanned area, tissue or not.
    """
    step, shape = overview.step, overview.pixels.shape[:2]
    mask = np.ones(shape, bool) if everywhere else mark_tissue(overview.pixels, overview.mpp)
    x, y, w, h = overview.bounds
    scanned = np.zeros_like(mask)
    scanned[int(y / step) : -int(-(y + h) // step), int(x / step) : -int(-(x + w) // step)] = True
    mask &= scanned
    width, height = (side / step for side in overview.size_px)
    if regions is None:
        area_px = _area(mask, width, height)
    else:
        drawn = regions.mask(1 / step, (mask.shape[0], mask.shape[1]))
        mask &= drawn
        # Counted in pixels of the mask, then applied to the exact area of the outlines.
        fraction = _area(mask, width, height) / max(_area(drawn, width, height), 1e-9)
        area_px = fraction * regions.area_px2(*overview.size_px) / step**2
    return TissueMask(mask, overview.mpp, area_px * overview.mpp**2 / 1e6)


def _area(mask: Mask, width: float, height: float) -> float:
    """Return the area of a mask in its pixels; the last row and column have what is left of a side.

    Args:
        mask: (h, w).
        width: of what it is a mask of, in its pixels.
        height: likewise.
    """
    last_row, last_column = (
        max(0.0, side - number + 1)
        for side, number in zip((height, width), mask.shape, strict=True)
    )
    rows = mask.sum(axis=1) + (last_column - 1) * mask[:, -1]
    return float(rows[:-1].sum() + last_row * rows[-1])


def mark_tissue(picture: NDArray[np.uint8], mpp: float) -> Mask:
    """Mark stained tissue on an RGB picture (h, w, 3) of `mpp` um per pixel."""
    stained, gray, foreign = _by_color(picture)
    if not stained.any():
        # A gray copy of a stained section: the domain check warns of it.
        stained = gray
    radius = max(1, round(_GAP_UM / 2 / mpp))
    closed = ~dilate(~dilate(stained, radius), radius) & ~foreign
    # On a picture smaller than a few specks nothing is a speck.
    smallest = min(_MIN_TISSUE_UM2, 0.02 * stained.size * mpp**2)
    return _without_specks(closed, smallest / mpp**2)


def mark_black_and_gray(picture: NDArray[np.uint8]) -> Mask:
    """Mark black and dark gray on an RGB picture (h, w, 3) of about 8 um per pixel.

    Gray is not marked where nothing on the picture is colored.
    """
    stained, gray, _ = _by_color(picture)
    black: Mask = picture.max(axis=2) < _BLACK
    return black | gray if stained.any() else black


def _without_specks(mask: Mask, min_px: float) -> Mask:
    """Leave out the 8-connected parts of fewer pixels."""
    if mask.size > _LARGE_MASK_PX:
        # By coordinates, as below, this would take 24 times the mask's memory; where there is less
        # to do, its import would take longer than the work.
        from scipy import ndimage

        parts = np.empty(mask.shape, np.int32)
        ndimage.label(mask, np.ones((3, 3)), output=parts)
        keep = np.bincount(parts.ravel()) >= min_px
        keep[0] = False
        large_parts: Mask = keep[parts]
        return large_parts
    rows, columns = np.nonzero(mask)
    labels, count = label_pixels(rows, columns)
    large = (np.bincount(labels, minlength=count) >= min_px)[labels]
    result = np.zeros(mask.shape, bool)
    result[rows[large], columns[large]] = True
    return result


def _by_color(picture: NDArray[np.uint8]) -> tuple[Mask, Mask, Mask]:
    """Tell which pixels are stained, which are dark gray, and which are ink or black."""
    stained, gray, foreign = (np.zeros(picture.shape[:2], bool) for _ in range(3))
    for top in range(0, len(picture), _ROWS_AT_ONCE):
        rows = slice(top, top + _ROWS_AT_ONCE)
        stained[rows], gray[rows], foreign[rows] = _rows_by_color(picture[rows])
    return stained, gray, foreign


def _rows_by_color(picture: NDArray[np.uint8]) -> tuple[Mask, Mask, Mask]:
    density = OD_TABLE[picture]
    mean = (density[:, :, 0] + density[:, :, 1] + density[:, :, 2]) / 3
    red, green, blue = (picture[:, :, channel].astype(np.int16) for channel in range(3))
    low = np.minimum(np.minimum(red, green), blue)
    high = np.maximum(np.maximum(red, green), blue)
    black = high < _BLACK
    gray = high - low < 12
    # Hematoxylin and eosin both take green most; green or blue ink takes red most, red ink
    # leaves red bright while taking green and blue alike and fully.
    green_ink = (green > red + 15) & (green > 40)
    blue_ink = (blue > red + 60) & (blue > green + 40) & (density[:, :, 0] > 0.9)
    red_ink = (red > 150) & (green < 60) & (blue < 60)
    chroma = density[:, :, 1] - np.minimum(density[:, :, 0], density[:, :, 2])
    stained = (mean > _MIN_OD) & ((chroma > _MIN_CHROMA) | (mean > 0.35))
    foreign = black | green_ink | blue_ink | red_ink
    return stained & ~(foreign | gray), gray & (mean >= _DARK_OD) & ~foreign, foreign


def dilate(mask: Mask, radius: int) -> Mask:
    """Dilate a mask by a square of `radius` pixels; outside of it nothing is marked."""
    result = mask
    for axis in (0, 1):
        wider = result.copy()
        length = result.shape[axis]
        for step in range(1, min(radius, length - 1) + 1):
            early = (slice(None),) * axis + (slice(0, length - step),)
            late = (slice(None),) * axis + (slice(step, length),)
            wider[early] |= result[late]
            wider[late] |= result[early]
        result = wider
    return result

"""A slide as the model sees it: at the model's scale, in the model's staining, white around."""

from __future__ import annotations

import copy
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from segmitos.detection.stain import Stain, apply_lookup, od_statistics, stain_lookup
from segmitos.errors import ScaleError
from segmitos.io.geometry import from_corner
from segmitos.io.slide import Slide

# Scale of an overview, um per pixel.
OVERVIEW_MPP = 8.0
MAX_OVERVIEW_PX = 4096
# Views of up to this many pixels are read once and kept.
MAX_KEPT_PX = 8_000_000
# Coarser than the model's scale by this factor, nuclei begin to lose their texture.
WARN_COARSER = 1.3
# Coarser by this, nothing is left of what the model looks for.
MAX_COARSER = 2.5
# A slide's staining is measured on so many squares of tissue, spread over it.
STAIN_SQUARES = 64
STAIN_SQUARE_PX = 128
# As in training: every fourth pixel in x and y, at the model's scale.
STAIN_STEP_PX = 4

Pixels = NDArray[np.uint8]


@dataclass(frozen=True)
class Overview:
    """A picture of a whole slide.

    Attributes:
        pixels: (h, w, 3) uint8 RGB.
        step: level-0 pixels per pixel.
        mpp: um per pixel.
        bounds: (x, y, width, height) of the scanned area in level-0 pixels.
        area_mm2: of the whole slide.
    """

    pixels: Pixels
    step: float
    mpp: float
    bounds: tuple[int, int, int, int]
    area_mm2: float


class MaskOfTissue(Protocol):
    """What stain matching needs of `detection.tissue.TissueMask`."""

    @property
    def mask(self) -> NDArray[np.bool_]:
        """True where there is tissue."""

    @property
    def mpp(self) -> float:
        """Um per pixel of the mask."""


class SlideView:
    """The pixels of a slide at the model's scale. Nothing about it changes once it is made.

    Attributes:
        slide: that is viewed.
        mpp: um per pixel.
        ratio: level-0 pixels per pixel.
        width: pixels; a last one is left out where less than all of it is on the slide.
        height: likewise.
        warnings: what a user should know of the scale, a line each.
    """

    def __init__(self, slide: Slide, mpp: float) -> None:
        """View a slide at `mpp` um per pixel.

        Raises:
            ScaleError: where the slide's scale is unknown, or far too coarse for the model.
        """
        own = slide.require_mpp()
        self.warnings = check_scale(slide, own, mpp)
        self.slide = slide
        self.mpp = mpp
        self.ratio = mpp / own
        self.width = max(1, int(slide.width / self.ratio + 1e-6))
        self.height = max(1, int(slide.height / self.ratio + 1e-6))
        self._table: NDArray[np.uint8] | None = None
        self._kept: Pixels | None = None
        if self.width * self.height <= MAX_KEPT_PX:
            self._kept = self._from_slide(0, 0, self.width, self.height)

    def overview(self) -> Overview:
        """Return the whole slide at about `OVERVIEW_MPP`; of a small view from its own pixels."""
        slide, own = self.slide, self.slide.require_mpp()
        area_mm2 = slide.width * slide.height * own**2 / 1e6
        if self._kept is not None:
            from PIL import Image

            factor = max(1, round(OVERVIEW_MPP / self.mpp))
            picture: Pixels = np.asarray(Image.fromarray(self._kept).reduce(factor))
            step = factor * self.ratio
        else:
            longest = max(slide.width, slide.height)
            wanted = max(1, round(longest * own / OVERVIEW_MPP))
            side = min(longest, wanted, MAX_OVERVIEW_PX)
            picture, step = slide.thumbnail(side), longest / side
        return Overview(picture, step, own * step, slide.bounds, area_mm2)

    def stain_matched(self, target: Stain | None, tissue: MaskOfTissue) -> SlideView:
        """Return the view with the slide's staining moved onto `target`; None leaves it.

        The statistics are taken from tissue all over the slide, so that no tiling changes them.
        """
        stain = None if target is None else od_statistics(self._sample(tissue))
        if target is None or stain is None:
            return self
        matched = copy.copy(self)
        matched._table = stain_lookup(stain, target)
        return matched

    def read(self, x: int, y: int, width: int, height: int) -> Pixels:
        """Return a region (height, width, 3) that begins on the view; past its end it is white."""
        inside_width, inside_height = min(width, self.width - x), min(height, self.height - y)
        pixels = self._raw(x, y, inside_width, inside_height)
        if self._table is not None:
            pixels = apply_lookup(pixels, self._table)
        if (inside_width, inside_height) == (width, height):
            return pixels
        whole = np.full((height, width, 3), 255, np.uint8)
        whole[:inside_height, :inside_width] = pixels
        return whole

    def _raw(self, x: int, y: int, width: int, height: int) -> Pixels:
        if self._kept is not None:
            return np.ascontiguousarray(self._kept[y : y + height, x : x + width])
        return self._from_slide(x, y, width, height)

    def _from_slide(self, x: int, y: int, width: int, height: int) -> Pixels:
        pixels: Pixels = self.slide.read(
            x * self.ratio, y * self.ratio, width, height, mpp=self.mpp
        )
        return pixels

    def _sample(self, tissue: MaskOfTissue) -> Pixels:
        """Return pixels (n, 3): of all of a small view, of squares of tissue of a large one."""
        if self._kept is not None:
            return self._kept[::STAIN_STEP_PX, ::STAIN_STEP_PX].reshape(-1, 3)
        rows, columns = np.nonzero(tissue.mask)
        if not len(rows):
            return np.zeros((0, 3), np.uint8)
        # Steps of the golden ratio spread over rows and columns alike, whatever the shape.
        steps = np.arange(STAIN_SQUARES) * 0.6180339887 % 1
        chosen = np.unique((steps * len(rows)).astype(np.int64))
        side = STAIN_SQUARE_PX
        squares = []
        for row, column in zip(rows[chosen], columns[chosen], strict=True):
            x = round(from_corner(column, tissue.mpp) / self.mpp - side / 2)
            y = round(from_corner(row, tissue.mpp) / self.mpp - side / 2)
            x = min(max(0, x), max(0, self.width - side))
            y = min(max(0, y), max(0, self.height - side))
            width, height = min(side, self.width), min(side, self.height)
            squares.append(self._from_slide(x, y, width, height).reshape(-1, 3))
        return np.concatenate(squares)


def check_scale(slide: Slide, own: float, mpp: float) -> tuple[str, ...]:
    """Return what is to be said of a slide's scale beside the model's. Raises ScaleError."""
    coarser = own / mpp
    if coarser > MAX_COARSER:
        raise ScaleError(
            f"{slide.path}: {own:g} um per pixel is too coarse for a model that reads images "
            f"at {mpp:g} (at most {MAX_COARSER:g} times as coarse); if the scale is wrong, give "
            "the right one with --mpp and --override-mpp"
        )
    if coarser > WARN_COARSER:
        return (
            f"{own:g} um per pixel is {coarser:.1f} times as coarse as the model's scale of "
            f"{mpp:g}: expect missed mitoses; a x40 scan has about 0.25",
        )
    return ()

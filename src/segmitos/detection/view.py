"""A slide as the model sees it: at the model's scale, stain matched, white beyond its border."""

from __future__ import annotations

import copy

import numpy as np
from numpy.typing import NDArray

from segmitos.detection.stain import Stain, apply_lookup, od_statistics, stain_lookup
from segmitos.detection.tissue import Overview, TissueMask, dilate, mark_black_and_gray
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
        if self._kept is not None:
            factor = _overview_factor(self.mpp)
            picture, step = _reduced(self._kept, factor), factor * self.ratio
        else:
            longest = max(slide.width, slide.height)
            wanted = max(1, round(longest * own / OVERVIEW_MPP))
            side = min(longest, wanted, MAX_OVERVIEW_PX)
            picture, step = slide.thumbnail(side), longest / side
        return Overview(picture, step, own * step, slide.bounds, (slide.width, slide.height))

    def stain_matched(self, target: Stain | None, tissue: TissueMask) -> SlideView:
        """Return the view with the slide's staining moved onto `target`; None leaves it.

        The statistics are taken from tissue all over the slide, so that no tiling changes them;
        not from black or gray borders.
        """
        if target is None:
            return self
        pixels = [np.zeros((0, 3), np.uint8)]
        if self._kept is not None:
            pixels += [stain_pixels(self._kept, self.mpp, STAIN_STEP_PX)]
        else:
            squares = self.squares_of_tissue(tissue, STAIN_SQUARES, STAIN_SQUARE_PX)
            pixels += [stain_pixels(square, self.mpp) for square in squares]
        stain = od_statistics(np.concatenate(pixels))
        if stain is None:
            return self
        matched = copy.copy(self)
        matched._table = stain_lookup(stain, target)
        return matched

    def read(self, x: int, y: int, width: int, height: int) -> Pixels:
        """Return a region (height, width, 3) that begins on the view; past its end it is white."""
        inside_width, inside_height = min(width, self.width - x), min(height, self.height - y)
        if self._kept is not None:
            pixels = np.ascontiguousarray(self._kept[y : y + inside_height, x : x + inside_width])
        else:
            pixels = self._from_slide(x, y, inside_width, inside_height)
        if self._table is not None:
            pixels = apply_lookup(pixels, self._table)
        if (inside_width, inside_height) == (width, height):
            return pixels
        whole = np.full((height, width, 3), 255, np.uint8)
        whole[:inside_height, :inside_width] = pixels
        return whole

    def _from_slide(self, x: int, y: int, width: int, height: int) -> Pixels:
        pixels: Pixels = self.slide.read(
            x * self.ratio, y * self.ratio, width, height, mpp=self.mpp
        )
        return pixels

    def squares_of_tissue(self, tissue: TissueMask, count: int, side: int) -> list[Pixels]:
        """Return up to `count` squares of tissue, `side` pixels wide, spread over the view.

        They are smaller where the view is; there are none without tissue.
        """
        rows, columns = np.nonzero(tissue.mask)
        if not len(rows):
            return []
        # Steps of the golden ratio spread over rows and columns alike, whatever the shape.
        steps = np.arange(count) * 0.6180339887 % 1
        chosen = np.unique((steps * len(rows)).astype(np.int64))
        width, height = min(side, self.width), min(side, self.height)
        corners = []
        for places, largest in ((columns, self.width - width), (rows, self.height - height)):
            first = np.rint(from_corner(places[chosen], tissue.mpp) / self.mpp - side / 2)
            corners.append(first.clip(0, largest).astype(int).tolist())
        return [self.read(x, y, width, height) for x, y in zip(*corners, strict=True)]


def stain_pixels(pixels: Pixels, mpp: float, step: int = 1) -> Pixels:
    """Return the pixels to measure a staining on, without black or gray borders.

    Args:
        pixels: (h, w, 3) RGB.
        mpp: um per pixel of them.
        step: 4 takes every fourth pixel in x and y.

    Returns:
        (n, 3) RGB.
    """
    factor = _overview_factor(mpp)
    # One pixel of the overview more: at a border they are mixed.
    left_out = dilate(mark_black_and_gray(_reduced(pixels, factor)), 1)
    rows, columns = (np.arange(0, side, step) // factor for side in pixels.shape[:2])
    chosen: Pixels = pixels[::step, ::step][~left_out[np.ix_(rows, columns)]]
    return chosen


def _overview_factor(mpp: float) -> int:
    return max(1, round(OVERVIEW_MPP / mpp))


def _reduced(pixels: Pixels, factor: int) -> Pixels:
    """Return pixels (h, w, 3) averaged in blocks of `factor` x `factor`."""
    from PIL import Image

    reduced: Pixels = np.asarray(Image.fromarray(pixels).reduce(factor))
    return reduced


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

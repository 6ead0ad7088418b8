"""A slide as the model sees it: at the model's scale, in the model's staining, white around."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from segmitos.detection.stain import Stain, apply_lookup, od_statistics, stain_lookup
from segmitos.detection.tissue import MASK_MPP, Overview, TissueMask, read_overview
from segmitos.errors import ScaleError
from segmitos.io.slide import Slide

# Planes of up to this many pixels are read once and kept.
SMALL_PX = 8_000_000
# Upsampled more than this, nothing is left of what the model looks for.
_COARSEST = 4.0
# A slide's staining is measured on so many squares of tissue, spread over it.
_SAMPLES = 64
_SAMPLE_PX = 128
# As in training: every fourth pixel in x and y, at the model's scale.
_EVERY = 4

Pixels = NDArray[np.uint8]


class SlideView:
    """The pixels of a slide at the model's scale.

    Attributes:
        width: pixels; a last one is left out where less than all of it is on the slide.
        height: likewise.
        ratio: level-0 pixels per pixel.
    """

    def __init__(self, slide: Slide, mpp: float) -> None:
        """Lay a plane of `mpp` um per pixel over a slide.

        Raises:
            ScaleError: where the slide's scale is unknown, or far too coarse for the model.
        """
        own = slide.require_mpp()
        if own > _COARSEST * mpp:
            raise ScaleError(
                f"{slide.path}: {own:g} um per pixel is too coarse for a model that reads images "
                f"at {mpp:g}; if the scale is wrong, give the right one with --mpp"
            )
        self.slide = slide
        self.mpp = mpp
        self.ratio = mpp / own
        self.width = max(1, int(slide.width / self.ratio + 1e-6))
        self.height = max(1, int(slide.height / self.ratio + 1e-6))
        self._kept: Pixels | None = None
        self._table: NDArray[np.uint8] | None = None

    def overview(self) -> Overview:
        """Return the whole slide at about `MASK_MPP`; of a small plane from its own pixels."""
        if not self._small:
            return read_overview(self.slide)
        from PIL import Image

        factor = max(1, round(MASK_MPP / self.mpp))
        whole = Image.fromarray(self._raw(0, 0, self.width, self.height))
        return np.asarray(whole.reduce(factor)), factor * self.ratio

    def match_stain(self, target: Stain | None, tissue: TissueMask) -> None:
        """Move the slide's staining onto `target`, by statistics that no tiling changes."""
        if target is None:
            return
        stain = od_statistics(self._sample(tissue))
        self._table = None if stain is None else stain_lookup(stain, target)

    def read(self, x: int, y: int, width: int, height: int) -> Pixels:
        """Return a region (height, width, 3) that begins on the plane; past its end it is white."""
        inside_width, inside_height = min(width, self.width - x), min(height, self.height - y)
        pixels = self._raw(x, y, inside_width, inside_height)
        if self._table is not None:
            pixels = apply_lookup(pixels, self._table)
        if (inside_width, inside_height) == (width, height):
            return pixels
        whole = np.full((height, width, 3), 255, np.uint8)
        whole[:inside_height, :inside_width] = pixels
        return whole

    @property
    def _small(self) -> bool:
        return self.width * self.height <= SMALL_PX

    def _raw(self, x: int, y: int, width: int, height: int) -> Pixels:
        if self._small:
            if self._kept is None:
                self._kept = self._from_slide(0, 0, self.width, self.height)
            return np.ascontiguousarray(self._kept[y : y + height, x : x + width])
        return self._from_slide(x, y, width, height)

    def _from_slide(self, x: int, y: int, width: int, height: int) -> Pixels:
        pixels: Pixels = self.slide.read(
            x * self.ratio, y * self.ratio, width, height, mpp=self.mpp
        )
        return pixels

    def _sample(self, tissue: TissueMask) -> Pixels:
        """Return pixels (n, 3): of all of a small plane, of squares of tissue of a large one."""
        if self._small:
            return self._raw(0, 0, self.width, self.height)[::_EVERY, ::_EVERY].reshape(-1, 3)
        rows, columns = np.nonzero(tissue.mask)
        if not len(rows):
            return np.zeros((0, 3), np.uint8)
        # Steps of the golden ratio spread over rows and columns alike, whatever the shape.
        chosen = np.unique((np.arange(_SAMPLES) * 0.6180339887 % 1 * len(rows)).astype(np.int64))
        squares = []
        for row, column in zip(rows[chosen], columns[chosen], strict=True):
            x = round((int(column) + 0.5) * tissue.mpp / self.mpp - _SAMPLE_PX / 2)
            y = round((int(row) + 0.5) * tissue.mpp / self.mpp - _SAMPLE_PX / 2)
            x = min(max(0, x), max(0, self.width - _SAMPLE_PX))
            y = min(max(0, y), max(0, self.height - _SAMPLE_PX))
            width, height = min(_SAMPLE_PX, self.width), min(_SAMPLE_PX, self.height)
            squares.append(self._from_slide(x, y, width, height).reshape(-1, 3))
        return np.concatenate(squares)

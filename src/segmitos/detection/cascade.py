"""The cascade: one small network sees all of an image, the others patches round what it finds.

1. The proposal network gives a coarse map of the image; its local maxima above a threshold are
   the proposals.
2. Where the model has a screening network, it sees a small patch round each proposal, and those
   that it gives too little are dropped.
3. The image is divided in blocks; round every block that holds a proposal a patch is cut.
4. The first network sees all patches, the others only those in which the first one found more
   than a second threshold. Their maps are averaged.
5. The middle of each averaged patch is written into the map, by maximum. Elsewhere the map is 0.

A patch is cut at the same place of the slide however the slide is tiled, so that the map of the
whole is the sum of its tiles.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from segmitos.detection.patches import CHUNK_SIZE, cut_squares, judge_places
from segmitos.detection.runtimes import Network
from segmitos.detection.spec import CascadeSettings
from segmitos.io.geometry import rescale

Box = tuple[int, int, int, int]
"""Top, left, bottom, right in pixels of an image; it may reach beyond it."""
Boxes = NDArray[np.int64]
"""Several boxes, one a row (n, 4)."""


class CascadeMap:
    """The map of one image, made where it is asked for.

    Args:
        image: (h, w, 3) uint8 RGB at the model's scale, sides multiples of 32.
        proposal: the proposal network.
        networks: the others; all but the first see what the first one chose.
        settings: of the cascade.
        stride: image pixels per pixel of the map.
        origin: (x, y) of the image on its slide, multiples of 32 px: blocks are counted from the
            slide's corner.
        screening: patches (n, side, side, 3) uint8 -> probabilities (n,); None keeps all
            proposals.
    """

    def __init__(
        self,
        image: NDArray[np.uint8],
        proposal: Network,
        networks: Sequence[Network],
        settings: CascadeSettings,
        stride: int,
        origin: tuple[int, int] = (0, 0),
        screening: Network | None = None,
    ) -> None:
        self._image = image
        self._networks = networks
        self._settings = settings
        self._stride = stride
        self._screening = screening
        self._proposals = local_maxima(proposal(image[None])[0], settings.proposal_threshold)
        self._corners = block_patch_corners(self._proposals, settings, origin)
        self._done = np.zeros(len(self._corners), bool)
        # Patches may begin outside of the image.
        self._around = settings.patch_px // stride
        height, width = image.shape[:2]
        self._map = np.pad(np.zeros((height // stride, width // stride), np.float32), self._around)

    def fill(self, boxes: Boxes | None = None) -> NDArray[np.float32]:
        """Run the patches that write into any of the boxes, and were not run before.

        Args:
            boxes: top, left, bottom, right (n, 4) in pixels of the image; None is all of it.

        Returns:
            Probabilities (h / stride, w / stride), 0 where no patch was.
        """
        if boxes is None:
            boxes = np.array([(0, 0, *self._image.shape[:2])])
        settings = self._settings
        begin = self._corners + settings.margin_px
        end = self._corners + settings.patch_px - settings.margin_px
        wanted = np.zeros(len(begin), bool)
        for top, left, bottom, right in np.unique(boxes, axis=0).tolist():
            wanted |= np.all((end > (top, left)) & (begin < (bottom, right)), axis=1)
        wanted &= ~self._done
        self._done |= wanted
        proposals, corners = self._proposals[wanted], self._corners[wanted]
        if self._screening is not None:
            passed = passes_screening(self._image, proposals, self._screening, settings)
            corners = corners[passed]
        if len(corners):
            self._run(np.unique(corners, axis=0))
        return self._map[self._around : -self._around, self._around : -self._around]

    def _run(self, corners: NDArray[np.int64]) -> None:
        """Write what the networks say of patches (n, 2), by their top and left corners."""
        settings, stride = self._settings, self._stride
        total = self._middles(self._networks[0], corners)
        if len(self._networks) > 1 and settings.ensemble_threshold > 0:
            found = total.max(axis=(1, 2)) > settings.ensemble_threshold
            corners, total = corners[found], total[found]
        if not len(corners):
            return
        for network in self._networks[1:]:
            total += self._middles(network, corners)
        total /= np.float32(len(self._networks))
        places = (corners + settings.margin_px) // stride + self._around
        for middle, (row, column) in zip(total, places, strict=True):
            part = self._map[row : row + middle.shape[0], column : column + middle.shape[1]]
            np.maximum(part, middle, out=part)

    def _middles(self, network: Network, corners: NDArray[np.int64]) -> NDArray[np.float32]:
        """Return what a network says of the middle of each patch."""
        rim = self._settings.margin_px // self._stride
        maps = []
        for start in range(0, len(corners), CHUNK_SIZE):
            some = corners[start : start + CHUNK_SIZE, ::-1]
            patches = cut_squares(some, self._settings.patch_px, self._image)
            maps.append(network(patches)[:, rim:-rim, rim:-rim])
        return np.concatenate(maps)


def local_maxima(map_: NDArray[np.float32], threshold: float) -> NDArray[np.int64]:
    """Return (n, 2) row and column of the pixels above a threshold that no neighbor exceeds."""
    height, width = map_.shape
    padded = np.pad(map_, 1, constant_values=-np.inf)
    highest = map_
    for dy in range(3):
        for dx in range(3):
            highest = np.maximum(highest, padded[dy : dy + height, dx : dx + width])
    return np.argwhere((map_ >= highest) & (map_ > threshold))


def passes_screening(
    image: NDArray[np.uint8],
    proposals: NDArray[np.int64],
    screening: Network,
    settings: CascadeSettings,
) -> NDArray[np.bool_]:
    """Tell which proposals (n, 2), rows and columns, the screening network lets through (n,)."""
    xy = rescale(proposals[:, ::-1].astype(np.float64), settings.proposal_stride_px)
    probability = judge_places(screening, image, xy, settings.screening_patch_px)
    return probability > settings.screening_threshold


def block_patch_corners(
    proposals: NDArray[np.int64], settings: CascadeSettings, origin: tuple[int, int]
) -> NDArray[np.int64]:
    """Return the (top, left) corners (n, 2) of the patches round the blocks of proposals (n, 2).

    Args:
        proposals: (n, 2) row and column on the map of the proposal network.
        settings: of the cascade.
        origin: (x, y) of the image on its slide, px.

    Returns:
        Pixels of the image, the same for proposals of one block; they may be negative.
    """
    origin_yx = np.array(origin[::-1], np.int64)
    pixels = proposals * settings.proposal_stride_px + origin_yx
    blocks = pixels // settings.block_px
    corners: NDArray[np.int64] = (
        blocks * settings.block_px - (settings.patch_px - settings.block_px) // 2 - origin_yx
    )
    return corners

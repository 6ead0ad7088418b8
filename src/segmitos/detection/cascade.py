"""The cascade: a small proposal network looks at all of an image, the networks only at patches.

1. The proposal network gives a coarse map of the image; its local maxima above a threshold are
   the proposals.
2. The image is divided in blocks; round every block that holds a proposal a patch is cut.
3. The first network sees all patches, the others only those in which the first one found more
   than a second threshold. Their maps are averaged.
4. The middle of each averaged patch is written into the map, by maximum. Elsewhere the map is 0.

A patch is cut at the same place of the slide however the slide is tiled, so that the map of the
whole is the sum of its tiles.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from segmitos.detection.runtimes import Network
from segmitos.detection.spec import CascadeSettings

# Patches that go through a network together: enough to fill the CPU, few enough for its cache.
BATCH_SIZE = 8
# Gray that stands for what lies outside of the image: the mean that the networks subtract.
OUTSIDE = 127

Box = tuple[int, int, int, int]
"""Top, left, bottom, right in pixels of an image; it may reach beyond it."""


@dataclass(frozen=True)
class CascadeNetworks:
    """The networks of a cascade, ready to run."""

    proposal: Network
    first: Network
    others: Sequence[Network]


def run_cascade(
    image: NDArray[np.uint8],
    networks: CascadeNetworks,
    settings: CascadeSettings,
    stride: int,
    output_box: Box | None = None,
    origin: tuple[int, int] = (0, 0),
) -> NDArray[np.float32]:
    """Return the map of one image.

    Args:
        image: (h, w, 3) uint8 RGB at the model's scale, sides multiples of 32.
        networks: to run.
        settings: of the cascade.
        stride: image pixels per pixel of the map.
        output_box: only this part of the map will be used; patches that write nothing there are
            left out.
        origin: (x, y) of the image on its slide, multiples of 32 px: blocks are counted from the
            slide's corner.

    Returns:
        Probabilities (h / stride, w / stride), 0 where no patch was.
    """
    proposals = local_maxima(networks.proposal(image[None])[0], settings.proposal_threshold)
    corners = patch_corners(proposals, settings, origin)
    height, width = image.shape[:2]
    corners = corners[_touches(corners, settings, output_box or (0, 0, height, width))]
    writer = _MapWriter(height, width, settings, stride)
    if not len(corners):
        return writer.map()
    padded = np.pad(
        image,
        ((settings.patch_px, settings.patch_px), (settings.patch_px, settings.patch_px), (0, 0)),
        constant_values=OUTSIDE,
    )

    def run(network: Network, corners: NDArray[np.int64]) -> NDArray[np.float32]:
        """Return what a network says of the middle of each patch."""
        shifted = corners + settings.patch_px
        rim = settings.margin_px // stride
        maps = []
        for start in range(0, len(shifted), BATCH_SIZE):
            some = shifted[start : start + BATCH_SIZE]
            patches = np.stack(
                [padded[y : y + settings.patch_px, x : x + settings.patch_px] for y, x in some]
            )
            maps.append(network(patches)[:, rim:-rim, rim:-rim])
        return np.concatenate(maps)

    total = run(networks.first, corners)
    if networks.others and settings.ensemble_threshold > 0:
        found = total.max(axis=(1, 2)) > settings.ensemble_threshold
        corners, total = corners[found], total[found]
    if len(corners):
        for network in networks.others:
            total += run(network, corners)
        writer.add(total / np.float32(1 + len(networks.others)), corners)
    return writer.map()


def local_maxima(map_: NDArray[np.float32], threshold: float) -> NDArray[np.int64]:
    """Return (n, 2) row and column of the pixels above a threshold that no neighbor exceeds."""
    height, width = map_.shape
    padded = np.pad(map_, 1, constant_values=-np.inf)
    highest = map_
    for dy in range(3):
        for dx in range(3):
            highest = np.maximum(highest, padded[dy : dy + height, dx : dx + width])
    return np.argwhere((map_ >= highest) & (map_ > threshold))


def patch_corners(
    proposals: NDArray[np.int64], settings: CascadeSettings, origin: tuple[int, int]
) -> NDArray[np.int64]:
    """Return the (top, left) corners (n, 2) of the patches of proposals, each corner once.

    Args:
        proposals: (n, 2) row and column on the map of the proposal network.
        settings: of the cascade.
        origin: (x, y) of the image on its slide, px.

    Returns:
        Pixels of the image, ordered by row, then column; they may be negative.
    """
    origin_yx = np.array(origin[::-1], np.int64)
    pixels = proposals * settings.proposal_stride_px + origin_yx
    blocks = np.unique(pixels // settings.block_px, axis=0)
    corners: NDArray[np.int64] = (
        blocks * settings.block_px - (settings.patch_px - settings.block_px) // 2 - origin_yx
    )
    return corners


def _touches(corners: NDArray[np.int64], settings: CascadeSettings, box: Box) -> NDArray[np.bool_]:
    """Tell which patches write into a box."""
    begin, end = corners + settings.margin_px, corners + settings.patch_px - settings.margin_px
    result: NDArray[np.bool_] = np.all((end > box[:2]) & (begin < box[2:]), axis=1)
    return result


class _MapWriter:
    """A map that the middles of patches are written into, by maximum."""

    def __init__(self, height: int, width: int, settings: CascadeSettings, stride: int) -> None:
        self._stride = stride
        # Patches may begin outside of the image.
        self._around = settings.patch_px // stride
        self._shift = settings.margin_px
        shape = (height // stride + 2 * self._around, width // stride + 2 * self._around)
        self._map = np.zeros(shape, np.float32)

    def add(self, middles: NDArray[np.float32], corners: NDArray[np.int64]) -> None:
        at = (corners + self._shift) // self._stride + self._around
        for middle, (row, column) in zip(middles, at, strict=True):
            part = self._map[row : row + middle.shape[0], column : column + middle.shape[1]]
            np.maximum(part, middle, out=part)

    def map(self) -> NDArray[np.float32]:
        inside = slice(self._around, -self._around)
        return self._map[inside, inside]

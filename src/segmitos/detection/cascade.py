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

from segmitos.detection.patches import cut_squares, judge_places
from segmitos.detection.runtimes import Network
from segmitos.detection.spec import CascadeSettings
from segmitos.io.geometry import rescale

# Patches that are cut together, to be in memory at once.
CHUNK_SIZE = 64

Box = tuple[int, int, int, int]
"""Top, left, bottom, right in pixels of an image; it may reach beyond it."""


def run_cascade(
    image: NDArray[np.uint8],
    proposal: Network,
    networks: Sequence[Network],
    settings: CascadeSettings,
    stride: int,
    output_box: Box | None = None,
    origin: tuple[int, int] = (0, 0),
    screening: Network | None = None,
) -> NDArray[np.float32]:
    """Return the map of one image.

    Args:
        image: (h, w, 3) uint8 RGB at the model's scale, sides multiples of 32.
        proposal: the proposal network.
        networks: the others; all but the first see what the first one chose.
        settings: of the cascade.
        stride: image pixels per pixel of the map.
        output_box: only this part of the map will be used; patches that write nothing there are
            left out.
        origin: (x, y) of the image on its slide, multiples of 32 px: blocks are counted from the
            slide's corner.
        screening: patches (n, side, side, 3) uint8 -> probabilities (n,); None keeps all
            proposals.

    Returns:
        Probabilities (h / stride, w / stride), 0 where no patch was.
    """
    proposals = local_maxima(proposal(image[None])[0], settings.proposal_threshold)
    corners = block_patch_corners(proposals, settings, origin)
    height, width = image.shape[:2]
    touching = _touches(corners, settings, output_box or (0, 0, height, width))
    proposals, corners = proposals[touching], corners[touching]
    if screening is not None:
        corners = corners[passes_screening(image, proposals, screening, settings)]
    corners = np.unique(corners, axis=0)
    if not len(corners):
        return np.zeros((height // stride, width // stride), np.float32)

    def run(network: Network, corners: NDArray[np.int64]) -> NDArray[np.float32]:
        """Return what a network says of the middle of each patch."""
        rim = settings.margin_px // stride
        maps = []
        for start in range(0, len(corners), CHUNK_SIZE):
            some = corners[start : start + CHUNK_SIZE, ::-1]
            patches = cut_squares(some, settings.patch_px, image)
            maps.append(network(patches)[:, rim:-rim, rim:-rim])
        return np.concatenate(maps)

    total = run(networks[0], corners)
    if len(networks) > 1 and settings.ensemble_threshold > 0:
        found = total.max(axis=(1, 2)) > settings.ensemble_threshold
        corners, total = corners[found], total[found]
    if len(corners):
        for network in networks[1:]:
            total += run(network, corners)
        total /= np.float32(len(networks))
    # Patches may begin outside of the image.
    around = settings.patch_px // stride
    result = np.pad(np.zeros((height // stride, width // stride), np.float32), around)
    places = (corners + settings.margin_px) // stride + around
    for middle, (row, column) in zip(total, places, strict=True):
        part = result[row : row + middle.shape[0], column : column + middle.shape[1]]
        np.maximum(part, middle, out=part)
    return result[around:-around, around:-around]


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


def _touches(corners: NDArray[np.int64], settings: CascadeSettings, box: Box) -> NDArray[np.bool_]:
    """Tell which patches write into a box."""
    begin, end = corners + settings.margin_px, corners + settings.patch_px - settings.margin_px
    result: NDArray[np.bool_] = np.all((end > box[:2]) & (begin < box[2:]), axis=1)
    return result

"""Patches round points: cut from an image, and shown to a network that gives one score each."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from segmitos.detection.runtimes import Network

# Patches that are cut together, to be in memory at once.
CHUNK_SIZE = 64
# Gray that stands for what lies outside of the image: the mean that the networks subtract.
OUTSIDE = 127

Read = Callable[[int, int, int, int], NDArray[np.uint8]]


def patch_corners(center: NDArray[np.float64], side: int) -> NDArray[np.int64]:
    """Return the first pixel of squares round points, along one axis or both."""
    return np.floor(center + 1).astype(np.int64) - side // 2


def cut_patches(
    xy: NDArray[np.float64], side: int, width: int, height: int, read: Read
) -> NDArray[np.uint8]:
    """Cut squares (n, side, side, 3) round points (n, 2), gray where they reach past the image.

    Args:
        xy: points, pixels of the image.
        side: of the squares, pixels.
        width: of the image.
        height: of the image.
        read: gives a region (height, width, 3) of the image from x, y, width and height.
    """
    return _cut(patch_corners(xy, side), side, width, height, read)


def cut_squares(
    corners: NDArray[np.int64], side: int, image: NDArray[np.uint8]
) -> NDArray[np.uint8]:
    """Cut squares (n, side, side, 3) of an image (h, w, 3) by their left and top corners (n, 2)."""

    def read(x: int, y: int, width: int, height: int) -> NDArray[np.uint8]:
        return image[y : y + height, x : x + width]

    return _cut(corners, side, image.shape[1], image.shape[0], read)


def _cut(
    corners: NDArray[np.int64], side: int, width: int, height: int, read: Read
) -> NDArray[np.uint8]:
    patches = np.full((len(corners), side, side, 3), OUTSIDE, np.uint8)
    for patch, (left, top) in zip(patches, corners.tolist(), strict=True):
        x0, y0 = max(0, left), max(0, top)
        x1, y1 = min(width, left + side), min(height, top + side)
        if x0 < x1 and y0 < y1:
            patch[y0 - top : y1 - top, x0 - left : x1 - left] = read(x0, y0, x1 - x0, y1 - y0)
    return patches


def judge_places(
    network: Network, image: NDArray[np.uint8], xy: NDArray[np.float64], side: int
) -> NDArray[np.float32]:
    """Return what a network says of squares round points (n, 2) of an image: probabilities (n,).

    Args:
        network: patches (n, side, side, 3) uint8 -> probabilities (n,).
        image: (h, w, 3) uint8 RGB.
        xy: points, pixels of the image.
        side: of the squares, pixels.
    """
    parts = [np.zeros(0, np.float32)]
    for begin in range(0, len(xy), CHUNK_SIZE):
        corners = patch_corners(xy[begin : begin + CHUNK_SIZE], side)
        parts.append(network(cut_squares(corners, side, image)))
    return np.concatenate(parts)

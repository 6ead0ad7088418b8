"""A probability map as a pyramidal TIFF that QuPath and OpenSlide open beside the slide."""

from __future__ import annotations

import io

import numpy as np
from numpy.typing import NDArray

_TILE = 256


def encode_map(values: NDArray[np.uint8], mpp: float) -> bytes:
    """Return a tiled, deflated, pyramidal TIFF.

    Args:
        values: (h, w) uint8, probability times 255.
        mpp: um per map pixel, written as resolution in map pixels per centimeter.
    """
    import tifffile

    buffer = io.BytesIO()
    per_cm = 1e4 / mpp
    levels = [values]
    while max(levels[-1].shape) > 2 * _TILE:
        levels.append(_halved(levels[-1]))
    with tifffile.TiffWriter(buffer, bigtiff=values.size > 2**31) as writer:
        for index, level in enumerate(levels):
            factor = 2**index
            writer.write(
                level,
                tile=(_TILE, _TILE),
                compression="zlib",
                photometric="minisblack",
                subfiletype=1 if index else 0,
                resolution=(per_cm / factor, per_cm / factor),
                resolutionunit="CENTIMETER",
                metadata=None,
                software="segmitos",
                datetime=None,
            )
    return buffer.getvalue()


def _halved(values: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Return the maximum of every 2 x 2 map pixels, so that small blobs survive the pyramid."""
    height, width = (side + side % 2 for side in values.shape)
    padded = np.zeros((height, width), np.uint8)
    padded[: values.shape[0], : values.shape[1]] = values
    result: NDArray[np.uint8] = padded.reshape(height // 2, 2, width // 2, 2).max(axis=(1, 3))
    return result

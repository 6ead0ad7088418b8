"""Stain statistics in optical density, and the lookup table that matches one slide to another.

Optical density (OD = -ln((I + 1) / 256), Beer-Lambert) is where stains add up. The mean and the
spread of a slide's tissue in each channel sum up its staining and its scanner; moving them onto a
target (Reinhard et al. 2001, here in OD) is affine per channel in OD, therefore a lookup table of
256 entries per channel on the stored bytes: exact, and almost free.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

OD_TABLE: NDArray[np.float32] = -np.log((np.arange(256, dtype=np.float32) + 1) / 256)
# A pixel is tissue when its mean OD is above glass and below pen or fold, and it is not padding.
_GLASS_OD = 0.15
_BLACK = 10
# Densities past this are saturated nuclei, pen or dirt; they may not drag the spread.
_CEILING_OD = 2.5
_FEWEST_PIXELS = 500
# Pixels that go through a lookup table at once.
_BAND_PX = 500_000
GAIN_LIMITS = (0.5, 2.0)


@dataclass(frozen=True)
class Stain:
    """Mean and standard deviation of tissue OD in red, green and blue."""

    mean: tuple[float, float, float]
    std: tuple[float, float, float]


def tissue_pixels(image: NDArray[np.uint8]) -> NDArray[np.bool_]:
    """Mark the stained pixels of an RGB image of shape (..., 3); returns shape (...)."""
    # Over so short an axis, NumPy reduces ten times slower than it adds.
    red, green, blue = (image[..., channel] for channel in range(3))
    density = (OD_TABLE[red] + OD_TABLE[green] + OD_TABLE[blue]) / 3
    brightest = np.maximum(np.maximum(red, green), blue)
    result: NDArray[np.bool_] = (density > _GLASS_OD) & (brightest >= _BLACK)
    return result


def od_statistics(image: NDArray[np.uint8]) -> Stain | None:
    """Measure the staining of an image.

    Args:
        image: RGB, shape (..., 3), uint8; any number of pixels.

    Returns:
        The stain, or None where there are fewer than 500 tissue pixels to measure it on.
    """
    pixels = image[tissue_pixels(image)]
    if len(pixels) < _FEWEST_PIXELS:
        return None
    # From exact histograms: the same result whatever the order or number of the pixels' reading.
    means, deviations = [], []
    values = np.minimum(OD_TABLE.astype(np.float64), _CEILING_OD)
    for channel in range(3):
        counts = np.bincount(pixels[:, channel], minlength=256).astype(np.float64)
        mean = float(counts @ values / counts.sum())
        variance = float(counts @ (values - mean) ** 2 / counts.sum())
        means.append(mean)
        deviations.append(max(variance, 1e-4) ** 0.5)
    return Stain((means[0], means[1], means[2]), (deviations[0], deviations[1], deviations[2]))


def stain_affine(stain: Stain, target: Stain) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return gain and offset (3,) of optical density that move `stain` onto `target`.

    The gain of each channel is kept within 0.5 to 2, so that faint slides are not blown up.
    """
    gain = np.clip(np.array(target.std) / np.array(stain.std), *GAIN_LIMITS)
    return gain, np.array(target.mean) - gain * np.array(stain.mean)


def stain_lookup(stain: Stain, target: Stain) -> NDArray[np.uint8]:
    """Return the (256, 3) table that moves bytes stained as `stain` onto `target`."""
    table = np.empty((256, 3), np.uint8)
    for channel, (gain, offset) in enumerate(zip(*stain_affine(stain, target), strict=True)):
        density = OD_TABLE * gain + offset
        # Glass stays glass: no density below zero, and 255 maps to 255.
        level = np.exp(-np.maximum(density, 0.0)) * 256 - 1
        table[:, channel] = np.clip(np.rint(level), 0, 255).astype(np.uint8)
    table[255] = 255
    return table


def apply_lookup(image: NDArray[np.uint8], table: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Map an (h, w, 3) uint8 image through a (256, 3) table."""
    from PIL import Image

    flat = table.T.reshape(-1).tolist()
    mapped = np.empty_like(image)
    # Band by band: a band stays in the cache, and its memory is used again for the next.
    band = max(1, _BAND_PX // max(1, image.shape[1]))
    for top in range(0, len(image), band):
        part = Image.fromarray(image[top : top + band], "RGB")
        mapped[top : top + band] = np.asarray(part.point(flat))
    return mapped

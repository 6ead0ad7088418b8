"""The map of mitoses per mm2: one color scale for all slides.

The scale runs from 1 to 64 per mm2, each doubling an equal step of color, so that a color means the
same on every slide. The colors are matplotlib's viridis (CC0), light to dark: equal steps look
equal, they are told apart by lightness alone (color-blind readers, gray prints), and no H&E stain
has them. What lies below 1 per mm2 is left clear.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from segmitos.io.files import image_bytes
from segmitos.io.geometry import rescale

TICKS = (1, 2, 4, 8, 16, 32, 64)
"""Mitoses per mm2 at equal distances on the scale."""
SIGMA_UM = 400.0
"""Of the Gaussian that mitoses are averaged with: its effective area, 4 pi sigma^2, is 2 mm2."""
MAX_SIDE_PX = 350
_COLORS = np.array(
    [
        (253, 231, 37),
        (213, 226, 26),
        (170, 220, 50),
        (129, 211, 77),
        (92, 200, 99),
        (61, 188, 116),
        (39, 173, 129),
        (31, 159, 136),
        (33, 144, 141),
        (38, 129, 142),
        (44, 113, 142),
        (51, 98, 141),
        (59, 81, 139),
        (66, 63, 133),
        (71, 44, 122),
        (72, 23, 105),
        (68, 1, 84),
    ],
    np.float64,
)
_ALPHA = 0.75
_CLEAR_BELOW = 0.7
# Gray of tissue under the colors, for a legend that looks like the map.
_GRAY = 190.0


def density_per_mm2(
    xy_px: NDArray[np.float64], width_px: int, height_px: int, mpp: float
) -> NDArray[np.float64]:
    """Return mitoses per mm2 (rows, columns) on a grid of at most 350 squares over the image.

    Args:
        xy_px: mitoses (n, 2), level-0 pixels.
        width_px: of the image.
        height_px: of the image.
        mpp: micrometers per level-0 pixel.
    """
    step_px = max(width_px, height_px) / MAX_SIDE_PX
    columns, rows = math.ceil(width_px / step_px), math.ceil(height_px / step_px)
    sigma_px = SIGMA_UM / mpp
    total = np.zeros((rows, columns))
    x, y = (rescale(np.arange(number), step_px) for number in (columns, rows))
    # The Gaussian is a product of one along each axis; in parts, to keep memory small.
    for start in range(0, len(xy_px), 10_000):
        part = xy_px[start : start + 10_000]
        across = np.exp(-0.5 * ((part[:, :1] - x) / sigma_px) ** 2)
        down = np.exp(-0.5 * ((part[:, 1:] - y) / sigma_px) ** 2)
        total += down.T @ across
    return total / (2 * math.pi * (SIGMA_UM / 1000) ** 2)


def color_of(density: NDArray[np.float64]) -> NDArray[np.uint8]:
    """Return the color (..., 4), RGB and alpha, of mitoses per mm2."""
    place = np.log2(np.maximum(density, 1e-9) / TICKS[0]) / math.log2(TICKS[-1] / TICKS[0])
    steps = np.clip(place, 0, 1) * (len(_COLORS) - 1)
    index = np.arange(len(_COLORS))
    rgb = [np.interp(steps, index, _COLORS[:, channel]) for channel in range(3)]
    alpha = _ALPHA * np.clip((density - _CLEAR_BELOW) / (TICKS[0] - _CLEAR_BELOW), 0, 1)
    return np.rint(np.stack([*rgb, alpha * 255], axis=-1)).astype(np.uint8)


def density_png(
    xy_px: NDArray[np.float64],
    width_px: int,
    height_px: int,
    mpp: float,
    tissue: NDArray[np.bool_],
) -> bytes:
    """Return the map as PNG with transparency, to be laid over the image; clear off the tissue."""
    from PIL import Image

    picture = color_of(density_per_mm2(xy_px, width_px, height_px, mpp))
    size = (picture.shape[1], picture.shape[0])
    covered = Image.fromarray(tissue).convert("L").resize(size, Image.Resampling.BOX)
    picture[:, :, 3] = np.rint(picture[:, :, 3] * (np.asarray(covered) / 255.0)).astype(np.uint8)
    return image_bytes(picture, drawn=True)


def legend_gradient() -> str:
    """Return the colors of the scale as a CSS gradient, as they look on gray tissue."""
    shown = np.rint(_COLORS * _ALPHA + _GRAY * (1 - _ALPHA)).astype(int)
    return "linear-gradient(to right, " + ", ".join(f"rgb{tuple(c)}" for c in shown.tolist()) + ")"

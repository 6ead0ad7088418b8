"""Dark nuclei by stain density: the ordinary cells that a verifier must learn to refuse."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from segmitos.detection.stain import OD_TABLE
from segmitos.io.geometry import map_to_image

# Gaussians whose difference answers to a nucleus, the weight of its ring, and the least answer.
_INNER_UM, _OUTER_UM, _OUTER_WEIGHT, _MIN_RESPONSE = 1.25, 4.5, 0.6, 0.06
_MIN_DISTANCE_UM = 2.0
_WORK_UM = 0.5
# As many of the darkest are kept.
_MAX_PER_MM2 = 2500.0


def find_dark_nuclei(image: NDArray[np.uint8], mpp: float) -> NDArray[np.float64]:
    """Find the darkest compact nuclei of an image.

    Args:
        image: RGB (h, w, 3) uint8, its stain matched.
        mpp: um per pixel.

    Returns:
        Positions (n, 2) as (x, y) in pixels of the image, the darkest first.
    """
    from scipy.ndimage import gaussian_filter, maximum_filter

    step = max(1, round(_WORK_UM / mpp))
    rows, columns = image.shape[0] // step * step, image.shape[1] // step * step
    # Red is what hematoxylin absorbs and eosin does not.
    density = OD_TABLE[image[:rows, :columns, 0]]
    density = density.reshape(rows // step, step, columns // step, step).mean((1, 3))
    per_um = 1 / (mpp * step)
    response = gaussian_filter(density, _INNER_UM * per_um, mode="reflect")
    response -= _OUTER_WEIGHT * gaussian_filter(density, _OUTER_UM * per_um, mode="reflect")
    side = 2 * max(1, round(_MIN_DISTANCE_UM * per_um)) + 1
    peaks = (response == maximum_filter(response, side)) & (response > _MIN_RESPONSE)
    row, column = np.nonzero(peaks)
    area_mm2 = image.shape[0] * image.shape[1] * mpp**2 * 1e-6
    order = np.argsort(-response[row, column], kind="stable")[
        : max(6, int(_MAX_PER_MM2 * area_mm2))
    ]
    return map_to_image(np.stack([column[order], row[order]], axis=1), step)

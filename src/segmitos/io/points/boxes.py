"""Boxes in COCO-like files: `[x, y, width, height]`, or MIDOG's corners `[x1, y1, x2, y2]`.

Nothing in a file says which; what the numbers allow does.
"""

from __future__ import annotations

from typing import Literal

import numpy as np
from numpy.typing import NDArray

from segmitos.errors import DataError

Layout = Literal["sizes", "corners"]
_SIDE_PX = 50.0
"""Of MIDOG's labels."""
_SAME_PX = 1.0
_ENOUGH = 3
"""Boxes of one size that are no accident."""


def box_layout(
    boxes: NDArray[np.float64],
    images: NDArray[np.float64],
    areas: NDArray[np.float64],
    where: str,
    expected: Layout | None = None,
) -> Layout:
    """Tell what the boxes of a file are.

    Args:
        boxes: (n, 4).
        images: width and height of each box's image, (n, 2); nan where unknown.
        areas: `area` of each box, (n,); nan where unknown.
        where: the file, for the error.
        expected: what they are where they may be both; None refuses that.

    Raises:
        DataError: where boxes are neither, or may be both.
    """
    if not len(boxes):
        return expected or "sizes"
    shapes = {layout: sides(boxes, layout) for layout in _LAYOUTS}
    possible = [layout for layout in _LAYOUTS if (shapes[layout] > 0).all()]
    if "sizes" not in possible and (shapes["sizes"] >= 0).all():
        possible.append("sizes")
    if not possible:
        bad = boxes[((shapes["sizes"] < 0) | (shapes["corners"] <= 0)).any(axis=1)][0]
        raise DataError(
            f"{where}: a bbox {bad.tolist()} has a negative size, read as [x, y, width, height] or "
            "as [x1, y1, x2, y2]"
        )
    inside = [layout for layout in possible if not _outside(boxes, layout, images).any()]
    if not inside:
        raise DataError(
            f"{where}: boxes lie outside their images, read as [x, y, width, height] or as "
            f"[x1, y1, x2, y2], e.g. {boxes[_outside(boxes, possible[0], images)][0].tolist()}"
        )
    stated = {
        layout: np.isclose(shapes[layout].prod(axis=1), areas, rtol=1e-3, atol=0.5).all()
        for layout in inside
    }
    # The area of an outline, as COCO has it, is no larger than its box.
    larger = {
        layout: (areas > shapes[layout].prod(axis=1) * 1.001 + 0.5).any() for layout in inside
    }
    for told in (
        [layout for layout in inside if stated[layout]],
        [layout for layout in inside if not larger[layout]],
        [layout for layout in inside if _is_uniform(shapes[layout])],
    ):
        if len(inside) > 1 and len(told) == 1:
            inside = told
    if expected in inside:
        return expected
    if len(inside) > 1:
        raise DataError(
            f"{where}: boxes such as {boxes[0].tolist()} may be [x, y, width, height] or MIDOG's "
            "[x1, y1, x2, y2]; say which with --boxes sizes or --boxes corners"
        )
    return inside[0]


_LAYOUTS: tuple[Layout, ...] = ("sizes", "corners")


def sides(boxes: NDArray[np.float64], layout: Layout) -> NDArray[np.float64]:
    """Return width and height (n, 2) of boxes (n, 4)."""
    return boxes[:, 2:] if layout == "sizes" else boxes[:, 2:] - boxes[:, :2]


def centers(boxes: NDArray[np.float64], layout: Layout) -> NDArray[np.float64]:
    """Return the centers (n, 2) of boxes (n, 4)."""
    return boxes[:, :2] + sides(boxes, layout) / 2


def _outside(
    boxes: NDArray[np.float64], layout: Layout, images: NDArray[np.float64]
) -> NDArray[np.bool_]:
    """Tell which boxes lie outside of their image: at its border half of one may stick out."""
    middle, slack = centers(boxes, layout), sides(boxes, layout) / 2
    with np.errstate(invalid="ignore"):
        beyond = (middle < -slack) | (middle > images + slack)
    return np.asarray(beyond.any(axis=1), np.bool_)


def _is_uniform(shape: NDArray[np.float64]) -> bool:
    """Tell whether all boxes are of one size, as those drawn round points are."""
    same = bool((np.abs(shape - shape[0]) <= _SAME_PX).all())
    return same and (len(shape) >= _ENOUGH or bool((np.abs(shape - _SIDE_PX) <= _SAME_PX).all()))

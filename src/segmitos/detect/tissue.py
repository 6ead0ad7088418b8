"""Where there is tissue: a mask at low resolution, so that only tissue is read.

Stained tissue is coloured and darker than glass. Left out are empty glass, black borders, pen
(strong colours that no stain has, or black ink) and specks of dirt.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from segmitos.detect.colour import OD_TABLE
from segmitos.errors import DataError
from segmitos.io.slide import Slide

MASK_MPP = 8.0
# On single fields there is little to leave out and much to lose.
_LARGEST_SIDE_PX = 4096
_LEAST_OD = 0.06
_LEAST_CHROMA = 0.03
_SMALLEST_UM2 = 20_000.0


@dataclass(frozen=True)
class TissueMask:
    """A mask (h, w) whose pixel covers `mpp` x `mpp` um of the slide, from its top left corner."""

    mask: NDArray[np.bool_]
    mpp: float

    @property
    def area_mm2(self) -> float:
        """Area marked as tissue."""
        return float(self.mask.sum()) * self.mpp**2 / 1e6

    def touches(self, x_um: float, y_um: float, width_um: float, height_um: float) -> bool:
        """Tell whether a rectangle, in um from the top left corner, holds any tissue."""
        x0, y0 = max(0, int(x_um / self.mpp)), max(0, int(y_um / self.mpp))
        x1 = int(np.ceil((x_um + width_um) / self.mpp))
        y1 = int(np.ceil((y_um + height_um) / self.mpp))
        return bool(self.mask[y0:y1, x0:x1].any())

    def inside(self, x_um: NDArray[np.float64], y_um: NDArray[np.float64]) -> NDArray[np.bool_]:
        """Tell which points, in um from the top left corner, lie on marked pixels."""
        height, width = self.mask.shape
        columns = np.floor(x_um / self.mpp).astype(int)
        rows = np.floor(y_um / self.mpp).astype(int)
        within = (columns >= 0) & (columns < width) & (rows >= 0) & (rows < height)
        result = np.zeros(len(columns), bool)
        result[within] = self.mask[rows[within], columns[within]]
        return result


def tissue_mask(slide: Slide, roi: Path | None = None, find_tissue: bool = True) -> TissueMask:
    """Mark the tissue of a slide.

    Args:
        slide: of known scale.
        roi: GeoJSON of polygons, level-0 pixels; only tissue inside them counts.
        find_tissue: False marks all of the scanned area.

    Raises:
        DataError: for a region file that is not GeoJSON with polygons.
    """
    mpp = slide.require_mpp()
    longest = max(slide.width, slide.height)
    side = min(longest, max(1, round(longest * mpp / MASK_MPP)), _LARGEST_SIDE_PX)
    picture = slide.thumbnail(side)
    height, width = picture.shape[:2]
    mask_mpp = mpp * slide.width / width
    mask = mark_tissue(picture, mask_mpp) if find_tissue else np.ones((height, width), bool)
    scale = width / slide.width
    x, y, w, h = slide.bounds
    scanned = np.zeros_like(mask)
    scanned[
        int(y * scale) : int(np.ceil((y + h) * scale)),
        int(x * scale) : int(np.ceil((x + w) * scale)),
    ] = True
    mask &= scanned
    if roi is not None:
        mask &= _rasterised(read_regions(roi), scale, (height, width))
    return TissueMask(mask, mask_mpp)


def mark_tissue(picture: NDArray[np.uint8], mpp: float) -> NDArray[np.bool_]:
    """Mark stained tissue on an RGB picture (h, w, 3) of `mpp` um per pixel."""
    from scipy import ndimage

    density = OD_TABLE[picture]
    mean = density.mean(axis=2)
    low, high = picture.min(axis=2).astype(int), picture.max(axis=2).astype(int)
    red, green, blue = (picture[:, :, i].astype(int) for i in range(3))
    black = high < 40
    grey_shadow = (high - low < 12) & (mean < 0.5)
    # Haematoxylin and eosin both take green most; green or blue ink takes red most, red ink
    # leaves red bright while taking green and blue alike and fully.
    green_ink = (green > red + 15) & (green > 40)
    blue_ink = (blue > red + 60) & (blue > green + 40) & (density[:, :, 0] > 0.9)
    red_ink = (red > 150) & (green < 60) & (blue < 60)
    chroma = density[:, :, 1] - np.minimum(density[:, :, 0], density[:, :, 2])
    stained = (mean > _LEAST_OD) & ((chroma > _LEAST_CHROMA) | (mean > 0.35))
    stained &= ~(black | grey_shadow | green_ink | blue_ink | red_ink)
    # Close gaps of about 50 um, then drop specks.
    radius = max(1, round(24 / mpp))
    closed = ndimage.binary_closing(
        np.pad(stained, radius), structure=np.ones((3, 3)), iterations=radius
    )[radius:-radius, radius:-radius]
    labels, count = ndimage.label(closed)
    if not count:
        return np.zeros(stained.shape, bool)
    areas = np.bincount(labels.ravel()) * mpp**2
    # On a picture smaller than a few specks nothing is a speck.
    smallest = min(_SMALLEST_UM2, 0.02 * stained.size * mpp**2)
    keep = areas >= smallest
    keep[0] = False
    result: NDArray[np.bool_] = keep[labels]
    return result


def read_regions(path: Path) -> list[list[NDArray[np.float64]]]:
    """Read polygons from GeoJSON: a list of regions, each its outer ring and its holes, (n, 2).

    Raises:
        DataError: where the file is not GeoJSON or holds no polygon.
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise DataError(f"cannot read regions {path}: {error.strerror}") from error
    except ValueError as error:
        raise DataError(f"regions {path} are not GeoJSON: {error}") from error
    regions = [region for feature in _features(content) for region in _polygons(feature, path)]
    if not regions:
        raise DataError(f"{path} holds no polygon to limit the work to")
    return regions


def _features(content: Any) -> list[Any]:
    if isinstance(content, list):
        return content
    if isinstance(content, dict) and content.get("type") == "FeatureCollection":
        found = content.get("features")
        return found if isinstance(found, list) else []
    return [content]


def _polygons(feature: Any, path: Path) -> list[list[NDArray[np.float64]]]:
    geometry = feature.get("geometry", feature) if isinstance(feature, dict) else None
    if not isinstance(geometry, dict):
        return []
    kind, coordinates = geometry.get("type"), geometry.get("coordinates")
    if kind not in ("Polygon", "MultiPolygon"):
        return []
    try:
        several = [coordinates] if kind == "Polygon" else coordinates
        regions = [[np.asarray(ring, float)[:, :2] for ring in rings] for rings in several]
    except (TypeError, ValueError, IndexError) as error:
        raise DataError(f"{path}: a {kind} has coordinates that are no rings of x, y") from error
    return regions


def _rasterised(
    regions: Sequence[Sequence[NDArray[np.float64]]], scale: float, shape: tuple[int, int]
) -> NDArray[np.bool_]:
    from PIL import Image, ImageDraw

    result = np.zeros(shape, bool)
    for rings in regions:
        picture = Image.new("1", (shape[1], shape[0]))
        draw = ImageDraw.Draw(picture)
        for index, ring in enumerate(rings):
            corners = [(float(x) * scale, float(y) * scale) for x, y in ring]
            if len(corners) >= 3:
                draw.polygon(corners, fill=1 if index == 0 else 0)
        result |= np.asarray(picture)
    return result

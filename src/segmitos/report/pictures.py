"""Pictures for the report: overview with outline, heat and hotspot; a sheet of detections.

Drawn with Pillow alone, so that detection on one field does not wait for a plotting library.
"""

from __future__ import annotations

import io
import math
from collections.abc import Mapping
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from segmitos.io.files import image_bytes
from segmitos.io.points.detections import Detections
from segmitos.io.slide import Slide

OVERVIEW_PX = 1400
CROP_PX = 112
CROP_UM = 32.0
COLUMNS = 8
MOST_CROPS = 96
MOST_RINGS = 3000
_HEAT_STEP = 4
_MARK = (40, 235, 90)
_MARK_EDGE = (0, 60, 20)
_OUTLINE = (40, 90, 200)
_HOTSPOT = (200, 30, 30)


class Mask(Protocol):
    """What the pictures need of a tissue mask."""

    @property
    def mask(self) -> NDArray[np.bool_]:
        """True on tissue, (h, w)."""

    @property
    def mpp(self) -> float:
        """Micrometres per mask pixel."""


def gallery_order(detections: Detections) -> NDArray[np.intp]:
    """Indices of the detections to show: by score, the highest first, and the lowest of all.

    Where there are more than fit, three quarters are the surest and the rest those nearest the
    threshold, since those are the ones to check.
    """
    order = np.lexsort((detections.x_px, detections.y_px, -detections.score))
    if len(order) <= MOST_CROPS:
        return order
    surest = MOST_CROPS * 3 // 4
    return np.concatenate([order[:surest], order[-(MOST_CROPS - surest) :]])


def overview(
    slide: Slide,
    detections: Detections,
    tissue: Mask | None,
    hotspot_xy: NDArray[np.float64] | None,
) -> bytes:
    """Draw the whole image with tissue outline, density, hotspot and a mark on every detection."""
    from PIL import Image, ImageDraw

    picture = slide.thumbnail(OVERVIEW_PX)
    width = picture.shape[1]
    scale = width / slide.width
    if tissue is not None:
        picture = _outlined(picture, tissue)
    xy = (np.stack([detections.x_px, detections.y_px], 1) + 0.5) * scale
    field_um = slide.width * (slide.mpp or 1.0)
    if len(xy) >= 20 and field_um > 2500:
        picture = _heated(picture, xy, 500.0 / field_um * width, tissue)
    many = len(xy) > MOST_RINGS
    if many:
        picture = _dotted(picture, xy)
    image = Image.fromarray(picture)
    if slide.mpp is not None:
        _draw_scale_bar(image, slide.mpp / scale)
    draw = ImageDraw.Draw(image)
    if hotspot_xy is not None:
        corners = [(float(x + 0.5) * scale, float(y + 0.5) * scale) for x, y in hotspot_xy]
        draw.line([*corners, corners[0]], fill=_HOTSPOT, width=3)
    # A mark is a ring round the cell on a field, a dot on a slide.
    radius = max(3.0, 10.0 / (slide.mpp or 0.25) * scale)
    for x, y in () if many else xy:
        box = (x - radius, y - radius, x + radius, y + radius)
        if radius > 6:
            outer = (box[0] - 1, box[1] - 1, box[2] + 1, box[3] + 1)
            draw.ellipse(outer, outline=_MARK_EDGE, width=7)
            draw.ellipse(box, outline=_MARK, width=5)
        else:
            draw.ellipse(box, fill=_MARK, outline=_MARK_EDGE, width=1)
    return _jpeg(image, 82)


def _draw_scale_bar(image: Any, um_per_px: float) -> None:
    """Draw a bar of a round length, about a sixth of the width, at the lower left."""
    from PIL import ImageDraw, ImageFont

    room = image.width * um_per_px / 6
    power = 10.0 ** math.floor(math.log10(room))
    length = max(step * power for step in (1, 2, 5) if step * power <= room)
    text = f"{length / 1000:g} mm"  # Pillow's own font has no mu
    size = max(11, image.width // 36)
    wide, left, base = length / um_per_px, size // 2 + 4, image.height - size // 2 - 4
    draw = ImageDraw.Draw(image)
    frame = (left - 5, base - size * 1.5 - 5, left + max(wide, size * 3.6) + 5, base + 5)
    draw.rectangle(frame, fill="white")
    draw.line([(left, base), (left + wide, base)], fill="black", width=max(3, size // 6))
    font = ImageFont.load_default(size)
    draw.text((left, base - size * 1.5), text, fill="black", font=font)


def _dotted(picture: NDArray[np.uint8], xy: NDArray[np.float64]) -> NDArray[np.uint8]:
    """Set a pixel for every detection: where there are thousands, rings would hide the tissue."""
    height, width = picture.shape[:2]
    result = picture.copy()
    columns = np.clip(xy[:, 0].astype(int), 0, width - 1)
    rows = np.clip(xy[:, 1].astype(int), 0, height - 1)
    result[rows, columns] = _MARK_EDGE
    return result


def _outlined(picture: NDArray[np.uint8], tissue: Mask) -> NDArray[np.uint8]:
    from PIL import Image

    height, width = picture.shape[:2]
    mask = Image.fromarray(tissue.mask).resize((width, height), Image.Resampling.NEAREST)
    filled = np.pad(np.asarray(mask), 2, constant_values=True)
    # Two pixels wide; by shifts, since importing a filter costs more than the whole picture.
    inner = filled.copy()
    for step in (1, 2):
        for axis in (0, 1):
            inner &= np.roll(filled, step, axis) & np.roll(filled, -step, axis)
    edge = (filled & ~inner)[2:-2, 2:-2]
    result = picture.copy()
    result[edge] = _OUTLINE
    return result


def _heated(
    picture: NDArray[np.uint8], xy: NDArray[np.float64], sigma_px: float, tissue: Mask | None
) -> NDArray[np.uint8]:
    """Blend a map of detection density over the tissue, strongest where there are most."""
    from PIL import Image
    from scipy import ndimage

    height, width = picture.shape[:2]
    # Smooth at a quarter of the size; the map has no detail finer than that.
    small_size = (math.ceil(height / _HEAT_STEP), math.ceil(width / _HEAT_STEP))
    counts = np.zeros(small_size, np.float32)
    columns = np.clip((xy[:, 0] / _HEAT_STEP).astype(int), 0, small_size[1] - 1)
    rows = np.clip((xy[:, 1] / _HEAT_STEP).astype(int), 0, small_size[0] - 1)
    np.add.at(counts, (rows, columns), 1)
    density = ndimage.gaussian_filter(
        counts, max(1.0, sigma_px / 2 / _HEAT_STEP), mode="constant", truncate=3
    )
    smooth = Image.fromarray(density / density.max())
    share = np.asarray(smooth.resize((width, height), Image.Resampling.BILINEAR)) ** 0.7 * 0.65
    if tissue is not None:
        mask = Image.fromarray(tissue.mask).resize((width, height), Image.Resampling.NEAREST)
        share = share * np.asarray(mask)
    hot = np.array([225, 60, 20], np.float32)
    weight = share[:, :, None]
    blended: NDArray[np.uint8] = (picture * (1 - weight) + hot * weight).astype(np.uint8)
    return blended


def gallery(slide: Slide, detections: Detections, order: NDArray[np.intp]) -> bytes | None:
    """Draw a sheet of crops of 32 um with a 10 um scale bar, in the given order."""
    from PIL import Image, ImageDraw

    if not len(order):
        return None
    mpp = slide.require_mpp()
    rows = math.ceil(len(order) / COLUMNS)
    sheet = Image.new("RGB", (COLUMNS * CROP_PX, rows * CROP_PX), "white")
    crop_mpp = CROP_UM / CROP_PX
    reach = CROP_UM / 2 / mpp
    for place, index in enumerate(order):
        x = detections.x_px[index] + 0.5 - reach
        y = detections.y_px[index] + 0.5 - reach
        crop = Image.fromarray(slide.read(x, y, CROP_PX, CROP_PX, mpp=crop_mpp))
        draw = ImageDraw.Draw(crop)
        bar = 10.0 / crop_mpp
        base = CROP_PX - 8
        draw.line([(6, base), (6 + bar, base)], fill="white", width=5)
        draw.line([(7, base), (5 + bar, base)], fill="black", width=3)
        sheet.paste(crop, (place % COLUMNS * CROP_PX, place // COLUMNS * CROP_PX))
    return _jpeg(sheet, 85)


def small(picture: bytes, side_px: int) -> bytes:
    """Shrink a JPEG to a longer side of `side_px`."""
    from PIL import Image

    image = Image.open(io.BytesIO(picture))
    image.thumbnail((side_px, side_px))
    return _jpeg(image, 75)


def _jpeg(image: Any, quality: int) -> bytes:
    return image_bytes(image, "jpg", quality, drawn=True)


def histogram_svg(
    scores: NDArray[np.float64], threshold: float | None, labels: Mapping[str, str]
) -> str:
    """Return an inline SVG: a histogram of scores from 0 to 1 with the threshold drawn in."""
    width, height, base = 460, 170, 140
    counts, _ = np.histogram(scores, bins=25, range=(0, 1))
    top = max(1, int(counts.max()))
    bars = []
    for place, count in enumerate(counts):
        tall = count / top * 115
        bars.append(
            f'<rect x="{10 + place * 17.6:.1f}" y="{base - tall:.1f}" width="16" '
            f'height="{tall:.1f}" class="bar"><title>{count}</title></rect>'
        )
    line = ""
    if threshold is not None:
        x = 10 + threshold * 440
        line = (
            f'<line x1="{x:.1f}" y1="12" x2="{x:.1f}" y2="{base}" class="cut"/>'
            f'<text x="{x - 4:.1f}" y="20" text-anchor="end">{labels["threshold"]} '
            f"{threshold:.2f}</text>"
        )
    ticks = "".join(
        f'<text x="{10 + value * 440:.0f}" y="158" text-anchor="middle">{value:g}</text>'
        for value in (0, 0.25, 0.5, 0.75, 1)
    )
    return (
        f'<svg viewBox="0 0 {width} {height}" role="img" aria-label="{labels["title"]}">'
        f'<line x1="10" y1="{base}" x2="450" y2="{base}" class="axis"/>{"".join(bars)}{line}'
        f'<text x="10" y="10">{top}</text>{ticks}</svg>'
    )

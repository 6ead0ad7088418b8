"""The map of a report: the image with density, tissue outline, windows and marks, as one SVG.

Marks are links to their crops and crops link back; each has an anchor of its own. All is drawn from
a result's saved files, so that another window or verdict needs no slide.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from segmitos.counting.saved import SavedResult
from segmitos.counting.windows import Hotspot
from segmitos.io.files import image_bytes
from segmitos.io.geometry import from_corner, xy_of
from segmitos.report.density import density_png
from segmitos.report.marks import ShownMark
from segmitos.report.pictures import data_uri, size_of

# A density is shown on images that hold more than one field's worth of it.
DENSITY_FROM_UM = 2500.0
MAX_RINGS = 3000
_RING_UM = 12.0
# Below this a ring round a cell is a dot.
_SMALLEST_PX = 6.0
_OUTLINE_RGBA = (20, 20, 20, 170)


def has_density(saved: SavedResult, count: int) -> bool:
    """Tell whether a map of density says anything of an image with so many mitoses."""
    summary = saved.summary
    return count > 0 and summary.mpp * max(summary.width_px, summary.height_px) > DENSITY_FROM_UM


def map_svg(
    saved: SavedResult,
    overview: bytes,
    marks: Sequence[ShownMark],
    numbers: Mapping[str, int],
    hotspot: Hotspot | None,
    fields: Hotspot | None,
) -> str:
    """Return the map as inline SVG.

    Args:
        saved: the result.
        overview: JPEG of the whole image.
        marks: to draw.
        numbers: of the crops, by the id of the mark; a mark without one has no link.
        hotspot: window to draw, where there is one.
        fields: window of ten fields, where there is one.
    """
    summary = saved.summary
    width, height = size_of(overview)
    scale = width / summary.width_px
    mitoses = xy_of(mark for mark in marks if mark.state in ("mitosis", "added"))
    layers = [_image(overview, "jpeg", width, height, "slide")]
    if has_density(saved, len(mitoses)):
        picture = density_png(
            mitoses, summary.width_px, summary.height_px, summary.mpp, saved.tissue.mask
        )
        layers.append(_image(picture, "png", width, height, "density"))
    layers.append(_image(outline_png(saved.tissue.mask), "png", width, height, "outline"))
    layers += [
        _window(window, scale, name)
        for name, window in (("fields", fields), ("hotspot", hotspot))
        if window is not None
    ]
    layers.append(_marks(marks, numbers, scale, _RING_UM / 2 / summary.mpp * scale))
    return (
        f'<svg class="map" viewBox="0 0 {width} {height}" role="img" '
        f'aria-label="Map of the image with all marks">{"".join(layers)}</svg>'
    )


def outline_png(tissue: NDArray[np.bool_]) -> bytes:
    """Return the outline of a mask as PNG with transparency."""
    padded = np.pad(tissue, 1, constant_values=False)
    inner = padded.copy()
    for axis in (0, 1):
        inner &= np.roll(padded, 1, axis) & np.roll(padded, -1, axis)
    edge = (padded & ~inner)[1:-1, 1:-1]
    # What goes on to the image's border has no outline there.
    edge[[0, -1], :] = edge[:, [0, -1]] = False
    picture = np.zeros((*tissue.shape, 4), np.uint8)
    picture[edge] = _OUTLINE_RGBA
    return image_bytes(picture, drawn=True)


def _image(content: bytes, kind: str, width: int, height: int, name: str) -> str:
    return (
        f'<image class="{name}" width="{width}" height="{height}" preserveAspectRatio="none" '
        f'href="{data_uri(content, kind)}"/>'
    )


def _window(window: Hotspot, scale: float, name: str) -> str:
    x, y = from_corner(window.x_px, scale), from_corner(window.y_px, scale)
    w, h = window.width_px * scale, window.height_px * scale
    if window.shape == "circle":
        shape = f'<circle cx="{x + w / 2:.1f}" cy="{y + h / 2:.1f}" r="{w / 2:.1f}"'
    else:
        shape = f'<rect x="{x:.1f}" y="{y:.1f}" width="{w:.1f}" height="{h:.1f}"'
    # Twice: a white rim keeps the line visible on any color.
    return f'<g class="window {name}">{shape} class="rim"/>{shape} class="line"/></g>'


def _marks(
    marks: Sequence[ShownMark], numbers: Mapping[str, int], scale: float, ring_px: float
) -> str:
    """Draw marks with a crop one by one, as links, and all others in one path of each state."""
    small = " small" if len(marks) > MAX_RINGS else ""
    by_state: dict[str, list[str]] = {}
    single = []
    for mark in marks:
        x, y = from_corner(mark.x_px, scale), from_corner(mark.y_px, scale)
        path = _shape(x, y, mark.state, ring_px)
        number = numbers.get(mark.id)
        if number is None:
            by_state.setdefault(mark.state, []).append(path)
            continue
        single.append(
            f'<a href="#c{number}" aria-label="Mark {number}">'
            f'<g id="m{number}" class="mark {mark.state}">{_stroke(path)}'
            f"<title>{number}</title></g></a>"
        )
    rest = [
        f'<g class="mark {state}">{_stroke("".join(paths))}</g>'
        for state, paths in by_state.items()
    ]
    ring = " ring" if ring_px > _SMALLEST_PX else ""
    return f'<g class="marks{small}{ring}">{"".join([*rest, *single])}</g>'


def _shape(x: float, y: float, state: str, ring_px: float) -> str:
    """Return the path of a mark: ring (a dot on a slide), cross if rejected, square if added."""
    r = max(ring_px, _SMALLEST_PX)
    if state == "rejected":
        d = r * 0.7
        return (
            f"M{x - d:.1f} {y - d:.1f}l{2 * d:.1f} {2 * d:.1f}"
            f"m0 {-2 * d:.1f}l{-2 * d:.1f} {2 * d:.1f}"
        )
    if state == "added":
        return f"M{x - r:.1f} {y - r:.1f}h{2 * r:.1f}v{2 * r:.1f}h{-2 * r:.1f}z"
    if ring_px <= _SMALLEST_PX:
        return f"M{x:.1f} {y:.1f}h0"
    half = f"a{r:.1f} {r:.1f} 0 1 0 {{:.1f}} 0"
    return f"M{x - r:.1f} {y:.1f}" + half.format(2 * r) + half.format(-2 * r)


def _stroke(path: str) -> str:
    return f'<path class="rim" d="{path}"/><path class="line" d="{path}"/>'


def scale_bar(width_um: float) -> tuple[str, float]:
    """Return a round length, about a sixth of the width, in words and as a fraction of it."""
    room_um = width_um / 6
    power = 10.0 ** math.floor(math.log10(room_um))
    length_um = max(step * power for step in (1, 2, 5) if step * power <= room_um)
    text = f"{length_um / 1000:g} mm" if length_um >= 1000 else f"{length_um:g} µm"
    return text, length_um / width_um

"""The scale a TIFF states: Aperio's text, OME-XML, ImageJ's text, or the resolution tags."""

from __future__ import annotations

import re
from typing import Any
from xml.etree import ElementTree

from segmitos.io.slide.scale import (
    MM_PER_INCH,
    UM_PER_UNIT,
    Scale,
    first_understood,
    scale_of,
    scale_of_dpi,
    scale_of_texts,
)

_APERIO_MPP = re.compile(r"\|\s*MPP\s*=\s*([^|\r\n]*)")
_NO_UNIT, _INCH, _CENTIMETRE, _MILLIMETRE, _MICROMETRE = 1, 2, 3, 4, 5
_PER_INCH = {
    _INCH: 1.0,
    _CENTIMETRE: MM_PER_INCH / 10,
    _MILLIMETRE: MM_PER_INCH,
    _MICROMETRE: MM_PER_INCH * 1000,
}


def aperio(description: str) -> Scale | None:
    """From an SVS's `... |MPP = 0.2500|...`."""
    match = _APERIO_MPP.search(description)
    if match is None:
        return None
    text = match.group(1).strip()
    return scale_of_texts(text, text, "aperio.MPP")


def ome(xml: str | None, width: int, height: int) -> Scale | None:
    """From PhysicalSizeX and PhysicalSizeY of the OME image of that size, with their units."""
    for pixels in _ome_pixels(xml):
        if (pixels.get("SizeX"), pixels.get("SizeY")) != (str(width), str(height)):
            continue
        x, y = (pixels.get(f"PhysicalSize{axis}") for axis in "XY")
        if x is None and y is None:
            continue
        unit_x, unit_y = (pixels.get(f"PhysicalSize{axis}Unit", "µm") for axis in "XY")
        tag = "OME PhysicalSizeX"
        if unit_x != unit_y or unit_x not in UM_PER_UNIT:
            return Scale(0.0, 0.0, tag, f"{x} {unit_x} x {y} {unit_y}")
        return scale_of_texts(x or "", y or "", tag, UM_PER_UNIT[unit_x])
    return None


def ome_channel_names(xml: str | None) -> list[str]:
    """Names of the channels of the first OME image; empty strings where unnamed."""
    for pixels in _ome_pixels(xml):
        return [child.get("Name", "") for child in pixels if _local(child) == "Channel"]
    return []


def generic(tif: Any, page: Any) -> Scale | None:
    """From ImageJ's text or the resolution tags; a screen's or printer's density is no scale."""
    density = _density(page)
    metadata = tif.imagej_metadata if tif.is_imagej else None
    imagej = _imagej(metadata or {}, density)
    # Converters keep Aperio's text.
    text = aperio(str(page.description or ""))
    if density is None:
        return first_understood([imagej, text])
    per_inch = _PER_INCH.get(int(page.resolutionunit or _NO_UNIT), 0.0)
    resolution = scale_of_dpi(density[0] * per_inch, density[1] * per_inch, "TIFF resolution")
    return first_understood([imagej, resolution, text])


def _density(page: Any) -> tuple[float, float] | None:
    """Pixels per unit along both axes, None where the file says nothing that could be."""
    values = []
    for code in (282, 283):
        value = page.tags.valueof(code)
        if not isinstance(value, tuple) or len(value) != 2 or value[1] <= 0 or value[0] <= 0:
            return None
        values.append(value[0] / value[1])
    return values[0], values[1]


def _imagej(metadata: dict[str, Any], density: tuple[float, float] | None) -> Scale | None:
    """From ImageJ's unit: its resolution is in pixels of that unit."""
    unit = str(metadata.get("unit", "")).strip()
    # Without calibration ImageJ writes "pixel", or inches from the density of a screen.
    if not unit or unit.lower() in ("pixel", "pixels", "inch", "in") or density is None:
        return None
    tag = "ImageJ unit"
    um = UM_PER_UNIT.get(unit, UM_PER_UNIT.get(unit.lower(), 0.0))
    shown = f"{1 / density[0]:g} x {1 / density[1]:g} {unit}"
    return scale_of(um / density[0], um / density[1], tag, shown)


def _ome_pixels(xml: str | None) -> list[ElementTree.Element]:
    try:
        root = ElementTree.fromstring(xml or "")
    except ElementTree.ParseError:
        return []
    return [
        child
        for image in root
        if _local(image) == "Image"
        for child in image
        if _local(child) == "Pixels"
    ]


def _local(element: ElementTree.Element) -> str:
    return element.tag.rsplit("}", 1)[-1]

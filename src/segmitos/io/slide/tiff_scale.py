"""The scale a TIFF states: Aperio's text, OME-XML, ImageJ's text, or the resolution tags."""

from __future__ import annotations

import re
from typing import Any
from xml.etree import ElementTree

from segmitos.io.slide.backend import MM_PER_INCH, Scale, plausible_scale, scale_from_dpi

_APERIO_MPP = re.compile(r"\|\s*MPP\s*=\s*([0-9.eE+-]+)")
_UM_PER_UNIT = {"nm": 1e-3, "µm": 1.0, "μm": 1.0, "um": 1.0, "mm": 1e3, "cm": 1e4, "m": 1e6}
_IMAGEJ_UM = ("micron", "microns", "um", "µm", "μm", "\\u00b5m", "\\u00B5m", "micrometer")
_NO_UNIT, _INCH, _CENTIMETRE = 1, 2, 3


def aperio(description: str) -> Scale | None:
    """From an SVS's `... |MPP = 0.2500|...`."""
    match = _APERIO_MPP.search(description)
    try:
        mpp = float(match.group(1)) if match else 0.0
    except ValueError:
        return None
    return plausible_scale(mpp, mpp, "aperio.MPP")


def ome(xml: str | None, width: int, height: int) -> Scale | None:
    """From PhysicalSizeX and PhysicalSizeY of the OME image of that size, with their units."""
    for pixels in _ome_pixels(xml):
        if (pixels.get("SizeX"), pixels.get("SizeY")) != (str(width), str(height)):
            continue
        try:
            mpp_x, mpp_y = (
                float(pixels.get(f"PhysicalSize{axis}", ""))
                * _UM_PER_UNIT[pixels.get(f"PhysicalSize{axis}Unit", "µm")]
                for axis in "XY"
            )
        except (ValueError, KeyError):
            return None
        return plausible_scale(mpp_x, mpp_y, "OME PhysicalSizeX")
    return None


def ome_channel_names(xml: str | None) -> list[str]:
    """Names of the channels of the first OME image; empty strings where unnamed."""
    for pixels in _ome_pixels(xml):
        return [child.get("Name", "") for child in pixels if _local(child) == "Channel"]
    return []


def generic(tif: Any, page: Any) -> Scale | None:
    """From ImageJ's text or the resolution tags; a screen's or printer's density is no scale."""
    try:
        x, y = (float(value) for value in page.resolution)
    except (TypeError, ValueError, ZeroDivisionError):
        return None
    if x <= 0 or y <= 0:
        return None
    unit = int(page.resolutionunit or _NO_UNIT)
    metadata = tif.imagej_metadata if tif.is_imagej else None
    if metadata and str(metadata.get("unit", "")) in _IMAGEJ_UM:
        return plausible_scale(1 / x, 1 / y, "ImageJ unit")
    if unit == _INCH:
        return scale_from_dpi(x, y, "TIFF resolution")
    if unit == _CENTIMETRE:
        inch = MM_PER_INCH / 10
        return scale_from_dpi(x * inch, y * inch, "TIFF resolution")
    return None


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

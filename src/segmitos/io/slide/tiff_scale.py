"""The scale a TIFF states: Aperio's text, OME-XML, ImageJ's text, or the resolution tags."""

from __future__ import annotations

import re
from dataclasses import replace
from xml.etree import ElementTree

import segmitos.io.slide.tiff_tags as tags
from segmitos.io.geometry import same_scale
from segmitos.io.slide.scale import (
    MM_PER_INCH,
    UM_PER_UNIT,
    Scale,
    first_understood,
    scale_of,
    scale_of_dpi,
    scale_of_texts,
)
from segmitos.io.slide.tiff_tags import Directory

_APERIO_MPP = re.compile(r"\|\s*MPP\s*=\s*([^|\r\n]*)")
_APERIO_REDUCTION = re.compile(
    r"(\d{1,9})x\d+(?: \[-?\d+,-?\d+ (\d{1,9})x\d+\])?(?: \(\d+x\d+\))? *"
    r"-> *(\d{1,9})x(\d{1,9})"
)
_IMAGEJ_UNIT = re.compile(r"^unit=(.*)$", re.MULTILINE)
_TAG = "TIFF resolution"
_INCH, _CENTIMETER, _MILLIMETER, _MICROMETER = 2, 3, 4, 5
_PER_INCH = {
    _INCH: 1.0,
    _CENTIMETER: MM_PER_INCH / 10,
    _MILLIMETER: MM_PER_INCH,
    _MICROMETER: MM_PER_INCH * 1000,
}


def aperio(description: str, size: tuple[int, int]) -> Scale | None:
    """From an SVS's `... |MPP = 0.2500|...`.

    Of an image that was made smaller, as the text says with `46000x32914 -> 1024x732`, that is the
    scale of the slide it was made of.

    Args:
        description: of the image.
        size: its width and height.
    """
    match = _APERIO_MPP.search(description)
    if match is None:
        return None
    text = match.group(1).strip()
    stated = scale_of_texts(text, text, "aperio.MPP")
    for slide, region, reduced, height in _APERIO_REDUCTION.findall(description):
        if (int(reduced), int(height)) == size:
            return _reduced(stated, int(region or slide) / size[0])
    return stated


def ome(xml: str | None, width: int, height: int) -> Scale | None:
    """From PhysicalSizeX and PhysicalSizeY of the OME image of that size, with their units."""
    for pixels in _ome_pixels(xml, width, height):
        x, y = (pixels.get(f"PhysicalSize{axis}") for axis in "XY")
        if x is None and y is None:
            continue
        unit_x, unit_y = (pixels.get(f"PhysicalSize{axis}Unit", "µm") for axis in "XY")
        tag = "OME PhysicalSizeX"
        if unit_x != unit_y or unit_x not in UM_PER_UNIT:
            return Scale(0.0, 0.0, tag, f"{x} {unit_x} x {y} {unit_y}")
        return scale_of_texts(x or "", y or "", tag, UM_PER_UNIT[unit_x])
    return None


def ome_images(xml: str, width: int, height: int) -> list[tuple[dict[str, int], list[str]]]:
    """What an OME text says of each of its images of that size.

    Returns:
        For each: the numbers of channels that are stored apart ("C"), focal planes ("Z") and
        times ("T"), and the channels' names, empty where unnamed.
    """
    found = []
    for pixels in _ome_pixels(xml, width, height):
        channels = [child for child in pixels if _local(child) == "Channel"]
        sizes = {axis: _count(pixels.get(f"Size{axis}", "1")) for axis in "ZTC"}
        # A channel of three samples per pixel is RGB.
        sizes["C"] = len(channels) or sizes["C"]
        found.append((sizes, [child.get("Name", "") for child in channels]))
    return found


def _count(text: str) -> int:
    return int(text) if text.isascii() and text.isdigit() and len(text) < 9 else 1


def generic(description: str, page: Directory) -> Scale | None:
    """From ImageJ's text or the resolution tags; a screen's or printer's density is no scale."""
    # Converters that make an image smaller keep Aperio's text as it was.
    chosen = first_understood([_imagej(description, page), _resolution(page)])
    return _beside(chosen, aperio(description, page.size))


def beside_resolution(stated: Scale | None, page: Directory) -> Scale | None:
    """The scale that a text states, with that of the resolution tags where it is another."""
    return _beside(stated, _resolution(page))


def _beside(chosen: Scale | None, other: Scale | None) -> Scale | None:
    """The first that is understood, with the second where both are and differ."""
    if chosen is None or not chosen.is_understood or other is None or not other.is_understood:
        return first_understood([chosen, other])
    if same_scale(chosen.mpp_x, other.mpp_x):
        return chosen
    return replace(chosen, other=f"{other.mpp_x:.4g} ({other.tag})")


def _resolution(page: Directory) -> Scale | None:
    x, y = _density(page)
    unit = page.integers(tags.RESOLUTION_UNIT)
    # Without a unit the standard has inches.
    per_inch = _PER_INCH.get(int(unit[0]) if len(unit) else _INCH, 0.0)
    return None if x is None or y is None else scale_of_dpi(x * per_inch, y * per_inch, _TAG)


def _density(page: Directory) -> tuple[float | None, float | None]:
    return page.ratio(tags.X_RESOLUTION), page.ratio(tags.Y_RESOLUTION)


def of_reduction(stated: Scale | None, full: Scale | None, factor: float) -> Scale | None:
    """The scale of an image that is marked as a smaller copy of another of the file.

    Args:
        stated: by itself; writers that give each level the text and tags of the first state the
            full image's.
        full: of the full image.
        factor: pixels of the full image per pixel.
    """
    if stated is None or full is None or not (stated.is_understood and full.is_understood):
        return stated
    return _reduced(full, factor) if same_scale(stated.mpp_x, full.mpp_x) else stated


def _reduced(full: Scale, factor: float) -> Scale:
    """Return the scale of an image that was made smaller, from that of the full one."""
    if not full.is_understood or same_scale(factor, 1):
        return full
    text = f"{full.mpp_x:.4g} of an image {factor:.4g} times as wide"
    scale = scale_of(full.mpp_x * factor, full.mpp_y * factor, full.tag, text)
    return replace(scale, other=f"{full.mpp_x:.4g}, of an image {factor:.4g} times as wide")


def _imagej(description: str, page: Directory) -> Scale | None:
    """From ImageJ's unit: its resolution is in pixels of that unit."""
    match = _IMAGEJ_UNIT.search(description) if description.startswith("ImageJ=") else None
    unit = match.group(1).strip() if match else ""
    x, y = _density(page)
    # Without calibration ImageJ writes "pixel", or inches from the density of a screen.
    if not unit or unit.lower() in ("pixel", "pixels", "inch", "in") or x is None or y is None:
        return None
    um = UM_PER_UNIT.get(unit, UM_PER_UNIT.get(unit.lower(), 0.0))
    return scale_of(um / x, um / y, "ImageJ unit", f"{1 / x:g} x {1 / y:g} {unit}")


def _ome_pixels(xml: str | None, width: int, height: int) -> list[ElementTree.Element]:
    """Return what an OME text says of its images of that size."""
    try:
        root = ElementTree.fromstring(xml or "")
    except ElementTree.ParseError:
        return []
    size = (str(width), str(height))
    images = [image for image in root if _local(image) == "Image"]
    found = [child for image in images for child in image if _local(child) == "Pixels"]
    return [child for child in found if (child.get("SizeX"), child.get("SizeY")) == size]


def _local(element: ElementTree.Element) -> str:
    return element.tag.rsplit("}", 1)[-1]

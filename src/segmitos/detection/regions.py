"""Regions drawn by a person (GeoJSON polygons, as QuPath exports them) that limit the work."""

from __future__ import annotations

from pathlib import Path

from segmitos.errors import DataError, InputError
from segmitos.io.points.read_regions import read_regions
from segmitos.io.points.regions import Regions
from segmitos.io.slide import Slide

__all__ = ["Regions", "read_regions", "regions_for", "regions_of_slide"]

_SUFFIXES = (".geojson", ".json")


def regions_for(roi: Path, image: Path) -> Path:
    """Return the file of regions that belongs to an image.

    Args:
        roi: a GeoJSON file for all images, or a folder with one for each: `slide.geojson` or
            `slide.svs.geojson` for `slide.svs`.
        image: the image's path.

    Raises:
        InputError: where there is none.
    """
    if not roi.is_dir():
        if not roi.exists():
            raise InputError(f"{roi}: no such file or folder of regions")
        return roi
    names = [f"{stem}{suffix}" for stem in (image.stem, image.name) for suffix in _SUFFIXES]
    for name in names:
        if (roi / name).is_file():
            return roi / name
    raise InputError(f"{roi} holds no regions of {image.name}: {names[0]} is missing")


def regions_of_slide(roi: Path, slide: Slide) -> Regions:
    """Read the regions of a slide, from QuPath's frame into level-0 pixels.

    Args:
        roi: as for `regions_for`.
        slide: opened.

    Raises:
        InputError: where there is no file, or it cannot be read.
        DataError: where it is not GeoJSON, holds no polygon, or touches nothing of the slide.
    """
    path = regions_for(roi, slide.path)
    left, top = slide.bounds[:2]
    regions = read_regions(path).moved(left, top)
    if not regions.touches(slide.width, slide.height):
        raise DataError(
            f"{path}: no region touches the image {slide.path.name} of {slide.width} x "
            f"{slide.height} px; were they drawn on another image, or at another scale?"
        )
    return regions

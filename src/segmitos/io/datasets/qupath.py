"""What a pathologist drew in QuPath: images with the GeoJSON of File > Export objects.

The export of `slide.svs` is `slide.geojson` or `slide.svs.geojson`, beside the image or in a
folder `annotations` next to it. Every object has a class: points (or outlines, which stand for
their centroid) of `Mitotic figure`, and of `Hard negative` for look-alikes. Regions such as
`Hotspot`, `Region*` or `Tumor` and what is classed `Ignore*` are passed over; an object without a
class, or of another one, is refused by name, since nobody can tell what it means.

An export without objects is an empty collection, and says that there is no mitosis.
"""

from __future__ import annotations

from pathlib import Path

from segmitos.errors import DataError
from segmitos.io.datasets.case import Case, Points
from segmitos.io.datasets.points import annotated_images
from segmitos.io.datasets.table import require_folder
from segmitos.io.points.read import read_points
from segmitos.io.slide import find_images


def qupath(path: Path) -> list[Case]:
    """Read a folder of images and their QuPath exports.

    Raises:
        DataError: for a folder without any export, an image without one, an object that cannot be
            a mitosis, or a point outside its image.
    """
    require_folder(path, "qupath")
    images = find_images([path])
    if not any(_export_of(image) for image in images):
        raise DataError(f"{path} holds no QuPath export (IMAGE.geojson beside IMAGE)")
    return annotated_images(path, _export_of, _read)


def _read(export: Path) -> tuple[Points, Points]:
    return read_points(export, polygons="centroid")


def _export_of(image: Path) -> Path | None:
    for folder in (image.parent, image.parent / "annotations"):
        for name in (f"{image.name}.geojson", f"{image.stem}.geojson"):
            if (folder / name).is_file():
                return folder / name
    return None

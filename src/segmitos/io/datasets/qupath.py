"""What a pathologist drew in QuPath: images with the GeoJSON of File > Export objects.

The export of `slide.svs` is `slide.geojson` or `slide.svs.geojson`, beside the image or in a
folder `annotations` next to it. Every point has a class: `Mitotic figure`, `Hard negative` for
look-alikes, `Unsure` for neither; outlines of these classes stand for their centroid. Outlines
without a class, or of class `Region*`, are the reviewed regions: every mitosis in them is marked,
and nothing outside is used. `Ignore*` and `Necrosis` are cut out of them, or of the whole image.
`Hotspot`, `Tumor`, `Stroma` and `Tissue` are passed over; another class is refused by name, since
nobody can tell what it means. Positions are in QuPath's frame, which begins at the bounds of the
scanned area.

An export without objects is an empty collection, and says that there is no mitosis.
"""

from __future__ import annotations

from pathlib import Path

from segmitos.errors import DataError
from segmitos.io.datasets.case import Case
from segmitos.io.datasets.points import annotated_images
from segmitos.io.datasets.table import require_folder
from segmitos.io.problems import Problems
from segmitos.io.slide import find_images


def qupath(path: Path, problems: Problems | None = None) -> list[Case]:
    """Read a folder of images and their QuPath exports.

    Raises:
        DataError: for a folder without any export, an image without one, an object that cannot be
            a mitosis, or a point outside its image.
    """
    require_folder(path, "qupath")
    images = find_images([path])
    if not any(_export_of(image) for image in images):
        raise DataError(f"{path} holds no QuPath export (IMAGE.geojson beside IMAGE)")
    return annotated_images(path, _export_of, polygons="centroid", problems=problems)


def _export_of(image: Path) -> Path | None:
    for folder in (image.parent, image.parent / "annotations"):
        for name in (f"{image.name}.geojson", f"{image.stem}.geojson"):
            if (folder / name).is_file():
                return folder / name
    return None

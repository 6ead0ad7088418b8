"""A folder of images with one CSV or GeoJSON of points each: what a researcher has tonight.

`field.png` beside `field.csv` or `field.geojson`; or the tables in a folder `points/`. A CSV has a
header with `x,y` or `x_px,y_px` and may have `label`. An image without a table has no mitosis
only if its table is there and empty; without one it is an error, since nobody may have looked.
Frames of one slide share what stands before the last `_`, or lie in a folder named after it.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from segmitos.errors import DataError
from segmitos.io.datasets import Case, Points
from segmitos.io.points import read_points
from segmitos.io.readers.table import check_inside
from segmitos.io.slide import Slide, find_images


def points(path: Path) -> list[Case]:
    """Read a folder of images and point tables.

    Raises:
        DataError: for an image without a table, a table that is off, a point outside its image.
    """
    return annotated_images(path, _table_of, read_points)


def annotated_images(
    path: Path,
    table_of: Callable[[Path], Path | None],
    read: Callable[[Path], tuple[Points, Points]],
) -> list[Case]:
    """Read a folder of images, each with a file of points that `table_of` finds.

    Raises:
        DataError: for an image without a file, and what `read` raises.
    """
    cases = []
    for image in find_images([path]):
        table = table_of(image)
        if table is None:
            raise DataError(
                f"{image} has no annotations: {image.with_suffix('.csv').name} or "
                f"{image.with_suffix('.geojson').name} is missing (an empty table means none)"
            )
        mitoses, others = read(table)
        with Slide.open(image) as slide:
            size, mpp = (slide.width, slide.height), slide.mpp
        check_inside(mitoses, size, table)
        check_inside(others, size, table)
        parent = image.parent.relative_to(path)
        name = parent.as_posix() if parent.parts else image.stem.rpartition("_")[0] or image.stem
        cases.append(
            Case(
                name=image.relative_to(path).with_suffix("").as_posix(),
                image=image,
                mitoses_xy=mitoses,
                hard_negatives_xy=others,
                mpp=mpp,
                slide=name,
                patient=name,
                dataset=path.name,
                size_px=size,
            )
        )
    return cases


def _table_of(image: Path) -> Path | None:
    for folder in (image.parent, image.parent / "points"):
        for suffix in (".csv", ".geojson"):
            table = folder / (image.stem + suffix)
            if table.is_file():
                return table
    return None

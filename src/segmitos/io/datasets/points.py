"""A folder of images with one CSV or GeoJSON of points each: what a researcher has tonight.

`field.png` beside `field.csv` or `field.geojson`; or the tables in a folder `points/`. A CSV has a
header with `x,y` or `x_px,y_px` and may have `label`. An image without a table has no mitosis only
if its table is there and empty; without one it is an error, since nobody may have looked. Frames
of one slide share what stands before the last `_`, or lie in a folder named after it. The scale is
the image's own, or what stands in a file `mpp.txt` in its folder or one above.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from segmitos.errors import DataError, ScaleError
from segmitos.io.datasets.case import Case, Points
from segmitos.io.datasets.table import check_inside, image_header, require_folder
from segmitos.io.geometry import check_mpp
from segmitos.io.points.read import read_points
from segmitos.io.slide import find_images


def points(path: Path) -> list[Case]:
    """Read a folder of images and point tables.

    Raises:
        DataError: for an image without a table, a table that is off, a point outside its image.
        ScaleError: for an `mpp.txt` that is no scale.
    """
    require_folder(path, "points")
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
        size, mpp = image_header(image)
        given = _written_mpp(image.parent, path)
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
                mpp=mpp if given is None else given,
                slide=name,
                patient=name,
                dataset=path.name,
                size_px=size,
            )
        )
    return cases


def _written_mpp(folder: Path, root: Path) -> float | None:
    """Read the nearest `mpp.txt` from a folder up to the root, None without one."""
    for place in (folder, *folder.parents):
        note = place / "mpp.txt"
        if note.is_file():
            text = note.read_text(encoding="utf-8", errors="replace").strip()
            try:
                return check_mpp(float(text), str(note))
            except ValueError as error:
                raise ScaleError(f"{note}: {text[:40]!r} is not a scale in um/px") from error
        if place == root:
            break
    return None


def _table_of(image: Path) -> Path | None:
    for folder in (image.parent, image.parent / "points"):
        for suffix in (".csv", ".geojson"):
            table = folder / (image.stem + suffix)
            if table.is_file():
                return table
    return None

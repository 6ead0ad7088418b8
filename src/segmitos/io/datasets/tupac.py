"""AMIDA13, TUPAC16's auxiliary set, and the SlideRunner databases of their later labels.

Layout (challenge pages; Veta et al. 2015, 2019): images `<case>/<nn>.tif`, in the folders
`mitoses_image_data_part_1..3` or not; tables `mitoses_ground_truth/<case>/<nn>.csv` with
**row,column**, no header; a missing table means no mitosis. Cases 01 to 23 are AMIDA13 (fields of
2000 x 2000 px), 24 to 73 one region of 5657 x 5657 px, which is 2 mm2 at 0.25 um/px. The
alternative labels (Bertram et al. 2020) add `nonmitoses_ground_truth/` in the same form.

Row before column: the challenge page asks for submissions in "row-column order", the repository of
the alternative labels describes its CSVs as "the y-coordinate and the x-coordinate", and two
independent readers swap the cells (a third does not, and is wrong).
"""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path

import numpy as np

from segmitos.errors import DataError
from segmitos.io.datasets.case import Case, Points, no_points
from segmitos.io.datasets.table import (
    check_inside,
    headless_points,
    image_header,
    images_under,
    require_folder,
)

MPP = 0.25
_TRUTH, _OTHERS = "mitoses_ground_truth", "nonmitoses_ground_truth"
_LAST_AMIDA = 23
# What the classes of the published databases are called, in lower case.
_MITOSIS = ("mitosis", "mitose", "mitotic figure", "mitotic figures", "mitotic cell")
_LOOK_ALIKE = (
    "hard negative",
    "non-mitotic figure",
    "not mitotic figure",
    "nonmitosis",
    "non-mitosis",
    "nonmitotic cell",
    "non-mitotic cell",
    "mitotic figure look-alike",
    "hard negative look-alike",
    "imposter",
)


def amida13(path: Path) -> list[Case]:
    """Read cases 01 to 23. Raises DataError as `tupac16` does."""
    return [case for case in _folders(path, "amida13") if int(case.slide) <= _LAST_AMIDA]


def tupac16(path: Path) -> list[Case]:
    """Read all cases of a folder, or the annotations of a SlideRunner database.

    A table whose image is not there gives a case too, so that the annotations alone can be
    described; `find_problems` names the image.

    Raises:
        DataError: for a folder without tables, a cell that is no number, a point outside, two
            images of one name.
    """
    if path.is_file():
        return sliderunner(path, "tupac16", MPP)
    return _folders(path, "tupac16")


def _folders(path: Path, dataset: str) -> list[Case]:
    require_folder(path, dataset)
    truth = path / _TRUTH
    if not truth.is_dir():
        raise DataError(f"{path} has no folder {_TRUTH}: it is not in this layout")
    images: dict[tuple[str, str], Path] = {}
    for image in images_under(path, recursive=True):
        folders = image.relative_to(path).parts[:-1]
        # The challenges' test fields have the same names as the training fields.
        if not image.parent.name.isdigit() or any("test" in name.lower() for name in folders):
            continue
        key = (image.parent.name, image.stem)
        if images.setdefault(key, image) != image:
            raise DataError(f"{images[key]} and {image} are both image {image.stem} of {key[0]}")
    tables = [(table.parent.name, table.stem) for table in truth.glob("[0-9]*/*.csv")]
    if images and tables and not set(images) & set(tables):
        raise DataError(f"none of the tables in {truth} belongs to an image, e.g. {tables[0]}")
    for slide, stem in tables:
        images.setdefault((slide, stem), path / slide / f"{stem}.tif")
    return [_case(*key, images[key], path, dataset) for key in sorted(images)]


def _case(slide: str, stem: str, image: Path, path: Path, dataset: str) -> Case:
    size, _ = image_header(image)
    mitoses, look_alikes = (
        _swapped(path / folder / slide / f"{stem}.csv", size) for folder in (_TRUTH, _OTHERS)
    )
    return Case(
        name=f"{slide}_{stem}",
        image=image,
        mitoses_xy=mitoses,
        hard_negatives_xy=look_alikes,
        mpp=MPP,
        slide=slide,
        patient=slide,
        dataset=dataset,
        size_px=size,
    )


def _swapped(table: Path, size: tuple[int, int] | None) -> Points:
    """Read row,column as x, y."""
    if not table.is_file():
        return no_points()
    points = headless_points(table, ("row", "column"))[:, ::-1]
    check_inside(points, size, table)
    return points


def sliderunner(path: Path, dataset: str, mpp: float) -> list[Case]:
    """Read a SlideRunner database: one case a slide, whose image lies in the database's folder.

    The class of an annotation is the agreed one; cells that are neither mitoses nor look-alikes,
    and deleted annotations, are passed over. A position is the center of its corners (one corner
    for spots, two for circles and boxes), x, y in level-0 pixels. The tables are joined as
    SlideRunner's README and the repository of TUPAC16's alternative labels describe it.

    Raises:
        DataError: for a file that is no such database, or has no class of mitoses.
    """
    try:
        uri = f"{path.absolute().as_uri()}?mode=ro"
        with closing(sqlite3.connect(uri, uri=True)) as database:
            classes = dict(database.execute("SELECT uid, name FROM Classes"))
            columns = {row[1] for row in database.execute("PRAGMA table_info(Slides)")}
            size = "width, height" if {"width", "height"} <= columns else "NULL, NULL"
            slides = database.execute(f"SELECT uid, filename, {size} FROM Slides").fetchall()
            columns = {row[1] for row in database.execute("PRAGMA table_info(Annotations)")}
            rows = database.execute(
                "SELECT a.slide, a.agreedClass, AVG(c.coordinateX), AVG(c.coordinateY) "
                "FROM Annotations a JOIN Annotations_coordinates c ON c.annoId = a.uid "
                + ("WHERE a.deleted = 0 " if "deleted" in columns else "")
                + "GROUP BY a.uid ORDER BY a.uid"
            ).fetchall()
    except sqlite3.Error as error:
        raise DataError(f"{path} is not a SlideRunner database: {error}") from error
    kinds = {
        uid: str(name).strip().lower().replace("_", " ") in _MITOSIS
        for uid, name in classes.items()
        if str(name).strip().lower().replace("_", " ") in _MITOSIS + _LOOK_ALIKE
    }
    if not any(kinds.values()):
        names = ", ".join(map(str, classes.values()))
        raise DataError(f"{path}: none of its classes is mitosis: {names}")
    points: dict[tuple[int, bool], list[tuple[float, float]]] = {}
    for slide, kind, x, y in rows:
        if kind in kinds and x is not None:
            points.setdefault((slide, kinds[kind]), []).append((float(x), float(y)))
    return [
        Case(
            name=Path(filename).stem,
            image=path.parent / filename,
            mitoses_xy=np.array(points.get((uid, True), []), float).reshape(-1, 2),
            hard_negatives_xy=np.array(points.get((uid, False), []), float).reshape(-1, 2),
            mpp=mpp,
            # Stitched cases are `01_stitched1.tif`; the case's number is the slide.
            slide=Path(filename).stem.split("_")[0],
            patient=Path(filename).stem.split("_")[0],
            dataset=dataset,
            size_px=(int(width), int(height)) if width and height else None,
        )
        for uid, filename, width, height in slides
    ]

"""AMIDA13, TUPAC16's auxiliary set, and the SlideRunner databases of their later labels.

Layout (challenge pages; Veta et al. 2015, 2019): images `<case>/<nn>.tif`, in the folders
`mitoses_image_data_part_1..3` or not; tables `mitoses_ground_truth/<case>/<nn>.csv` with
**row,column**, no header; a missing table means no mitosis. The alternative labels (Bertram et al.
2020) add `nonmitoses_ground_truth/` in the same form, and come as a SlideRunner SQLite, whose
coordinates are x, y. About 0.25 um/px.
"""

from __future__ import annotations

import sqlite3
from pathlib import Path

import numpy as np

from segmitos.errors import DataError
from segmitos.io.datasets import Case, Points, no_points
from segmitos.io.readers.table import check_inside, headless_points, image_size

MPP = 0.25
_SUFFIXES = (".tif", ".tiff", ".png", ".jpg")
# What the classes of the published databases are called, in lower case.
_MITOSIS = ("mitosis", "mitose", "mitotic figure", "mitotic figures", "mitotic cell")


def amida13(path: Path) -> list[Case]:
    """Read cases 01 to 23. Raises DataError as `tupac16` does."""
    return [
        case for case in _folders(path, "amida13") if case.slide.isdigit() and int(case.slide) < 24
    ]


def tupac16(path: Path) -> list[Case]:
    """Read all cases of a folder, or the annotations of a SlideRunner database.

    Raises:
        DataError: for a folder without tables, a cell that is no number, a point outside.
    """
    if path.is_file():
        return sliderunner(path, "tupac16", MPP)
    return _folders(path, "tupac16")


def _folders(path: Path, dataset: str) -> list[Case]:
    truth = next((p for p in (path / "mitoses_ground_truth", path) if p.is_dir()), path)
    if not (path / "mitoses_ground_truth").is_dir():
        raise DataError(f"{path} has no folder mitoses_ground_truth: it is not in this layout")
    images = sorted(
        image
        for image in path.rglob("*")
        if image.suffix.lower() in _SUFFIXES and image.parent.name.isdigit()
    )
    return [_case(image, truth, path / "nonmitoses_ground_truth", dataset) for image in images]


def _case(image: Path, truth: Path, others: Path, dataset: str) -> Case:
    slide = image.parent.name
    size = image_size(image)
    mitoses = _swapped(truth / slide / f"{image.stem}.csv", size)
    look_alikes = _swapped(others / slide / f"{image.stem}.csv", size)
    return Case(
        name=f"{slide}_{image.stem}",
        image=image,
        mitoses_xy=mitoses,
        hard_negatives_xy=look_alikes,
        mpp=MPP,
        slide=slide,
        patient=slide,
        dataset=dataset,
        size_px=size,
    )


def _swapped(table: Path, size: tuple[int, int]) -> Points:
    """Read row,column as x, y."""
    if not table.is_file():
        return no_points()
    points = headless_points(table, ("row", "column"))[:, ::-1]
    check_inside(points, size, table)
    return points


def sliderunner(path: Path, dataset: str, mpp: float) -> list[Case]:
    """Read a SlideRunner database: one case a slide, whose image lies in the database's folder.

    The class of an annotation is the agreed one. Its position is the centre of its corners (one
    corner for spots, two for circles and boxes).

    Raises:
        DataError: for a file that is no such database.
    """
    try:
        with sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro", uri=True) as database:
            classes = dict(database.execute("SELECT uid, name FROM Classes"))
            slides = dict(database.execute("SELECT uid, filename FROM Slides"))
            rows = database.execute(
                "SELECT a.slide, a.agreedClass, a.uid, AVG(c.coordinateX), AVG(c.coordinateY) "
                "FROM Annotations a JOIN Annotations_coordinates c ON c.annoId = a.uid "
                "GROUP BY a.uid ORDER BY a.uid"
            ).fetchall()
    except sqlite3.Error as error:
        raise DataError(f"{path} is not a SlideRunner database: {error}") from error
    wanted = {uid for uid, name in classes.items() if str(name).strip().lower() in _MITOSIS}
    if not wanted:
        raise DataError(f"{path}: none of its classes is mitosis: {', '.join(classes.values())}")
    points: dict[tuple[int, bool], list[tuple[float, float]]] = {}
    for slide, kind, _, x, y in rows:
        if kind in classes and x is not None:
            points.setdefault((slide, kind in wanted), []).append((float(x), float(y)))
    return [
        Case(
            name=Path(filename).stem,
            image=path.parent / filename,
            mitoses_xy=np.array(points.get((uid, True), []), float).reshape(-1, 2),
            hard_negatives_xy=np.array(points.get((uid, False), []), float).reshape(-1, 2),
            mpp=mpp,
            slide=Path(filename).stem,
            patient=Path(filename).stem,
            dataset=dataset,
        )
        for uid, filename in slides.items()
    ]

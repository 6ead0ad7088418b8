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

import re
from collections import Counter
from pathlib import Path

from segmitos.errors import DataError
from segmitos.io.datasets.case import Case, Points, no_points
from segmitos.io.datasets.table import (
    check_inside,
    headless_points,
    image_header,
    images_under,
    named_file,
    require_folder,
)
from segmitos.io.points.sliderunner import read_sliderunner
from segmitos.io.problems import Problems, collected

MPP = 0.25
_TRUTH, _OTHERS = "mitoses_ground_truth", "nonmitoses_ground_truth"
_LAST_AMIDA = 23


def amida13(path: Path, problems: Problems | None = None) -> list[Case]:
    """Read cases 01 to 23. Raises DataError as `tupac16` does."""
    cases = _folders(path, "amida13", problems)
    return [case for case in cases if int(case.slide) <= _LAST_AMIDA]


def tupac16(path: Path, problems: Problems | None = None) -> list[Case]:
    """Read all cases of a folder, or the annotations of a SlideRunner database.

    A table whose image is not there gives a case too, so that the annotations alone can be
    described; `find_problems` names the image.

    Raises:
        DataError: for a folder without tables, one of tables that is not named as a case, a cell
            that is no number, a point outside, two images of one name.
    """
    if path.is_file():
        return sliderunner(path, "tupac16", MPP)
    return _folders(path, "tupac16", problems)


def _folders(path: Path, dataset: str, problems: Problems | None) -> list[Case]:
    require_folder(path, dataset)
    truth = path / _TRUTH
    if not truth.is_dir():
        raise DataError(f"{path} has no folder {_TRUTH}: it is not in this layout")
    images: dict[tuple[str, str], Path] = {}
    for image in images_under(path, recursive=True):
        folders = image.relative_to(path).parts[:-1]
        # The challenges' test fields have the same names as the training fields.
        if not _is_case(image.parent.name) or any("test" in name.lower() for name in folders):
            continue
        key = (image.parent.name, image.stem)
        if images.setdefault(key, image) != image:
            raise DataError(f"{images[key]} and {image} are both image {image.stem} of {key[0]}")
    tables = []
    for table in sorted(truth.glob("[0-9]*/*.csv")):
        with collected(problems):
            if not _is_case(table.parent.name):
                raise DataError(f"{table} is of no case: {table.parent.name!r} is not its number")
            tables.append((table.parent.name, table.stem))
    if images and tables and not set(images) & set(tables):
        raise DataError(f"none of the tables in {truth} belongs to an image, e.g. {tables[0]}")
    for slide, stem in tables:
        images.setdefault((slide, stem), path / slide / f"{stem}.tif")
    cases = []
    for key in sorted(images):
        with collected(problems):
            cases.append(_case(*key, images[key], path, dataset))
    return cases


def _is_case(folder: str) -> bool:
    """Tell whether a folder is named as a case is: by a number."""
    return re.fullmatch("[0-9]+", folder) is not None


def _case(slide: str, stem: str, image: Path, path: Path, dataset: str) -> Case:
    size, _, _ = image_header(image)
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

    Annotations that are neither mitoses nor look-alikes nor unsure are passed over.

    Raises:
        DataError: for a file that is no such database, or has no class of mitoses.
    """
    return [
        Case(
            name=Path(found.name).stem,
            image=named_file(path.parent, found.name, str(path)),
            mitoses_xy=found.of("mitosis"),
            hard_negatives_xy=found.of("non-mitosis"),
            unsure_xy=found.of("unsure"),
            mpp=mpp,
            # Stitched cases are `01_stitched1.tif`; the case's number is the slide.
            slide=Path(found.name).stem.split("_")[0],
            patient=Path(found.name).stem.split("_")[0],
            dataset=dataset,
            size_px=size,
        )
        for found, size in read_sliderunner(path)
    ]


def other_classes(path: Path) -> list[str]:
    """Say which annotations of a SlideRunner database `sliderunner` passes over, by class.

    Raises:
        DataError: as it does.
    """
    if not path.is_file():
        return []
    counts: Counter[str] = Counter()
    for found, _ in read_sliderunner(path):
        counts.update(found.left_out)
    named = ", ".join(f"{count} of {kind}" for kind, count in sorted(counts.items()))
    return [f"{path}: annotations of other classes are left out: {named}"] if counts else []

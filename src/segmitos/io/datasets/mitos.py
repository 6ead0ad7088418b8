"""ICPR 2014 MITOS-ATYPIA.

Layout (challenge page; Racoceanu and Capron 2014): `A03/frames/x40/A03_00Aa.tiff` beside
`A03/mitosis/A03_00Aa_mitosis.csv` and `..._not_mitosis.csv`, lines `x,y,confidence` without
header, an empty file where there is none; archives often unpack into a doubled folder
(`A03/A03/frames`). Slide names begin with the scanner: A for Aperio ScanScope XT (1539 x 1376 px),
H for Hamamatsu NanoZoomer 2.0-HT (1663 x 1485 px); A03 and H03 are scans of the same tissue, so of
one patient. The order x, y was confirmed in three independent readers (they index `image[y, x]`)
and on the images: dark nuclei lie under the points as read, and not under them transposed.
"""

from __future__ import annotations

from pathlib import Path

from segmitos.errors import DataError
from segmitos.io.datasets.case import Case
from segmitos.io.datasets.table import (
    check_inside,
    headless_points,
    image_header,
    images_under,
    require_folder,
)
from segmitos.io.problems import Problems, collected

# The field of both scanners is the same 0.38 x 0.34 mm: 1539 px x 0.2455 = 1663 px x 0.2272 um.
MPP = {"A": 0.2455, "H": 0.2273}
_SCANNERS = {"A": "Aperio", "H": "Hamamatsu"}
_COLUMNS = ("x", "y", "confidence")
# Look-alikes of one scanner were carried over from the other by scaling, which is 10 px off.
_CARRIED_OVER_PX = 12.0


def mitos14(path: Path, problems: Problems | None = None) -> list[Case]:
    """Read the challenge's folder, or that of one of its slides.

    Raises:
        DataError: for a frame without its CSV, a cell that is no number, a confidence that is
            none, a point outside.
    """
    require_folder(path, "mitos14")
    pattern = "frames/x40"
    found = [path / pattern] if (path / pattern).is_dir() else []
    for depth in ("*/", "*/*/", "*/*/*/"):
        found += [] if found else sorted(path.glob(depth + pattern))
    cases = []
    for frames in found:
        for image in images_under(frames):
            with collected(problems):
                cases.append(_case(image, frames.parents[1]))
    return cases


def _case(image: Path, folder: Path) -> Case:
    table = folder / "mitosis" / f"{image.stem}_mitosis.csv"
    others = folder / "mitosis" / f"{image.stem}_not_mitosis.csv"
    if not table.is_file():
        raise DataError(f"{image} has no annotations: {table} is missing")
    mitoses = headless_points(table, _COLUMNS)
    hard = headless_points(others, _COLUMNS) if others.is_file() else mitoses[:0]
    for file, confidence in ((table, mitoses[:, 2]), (others, hard[:, 2])):
        outside = confidence[(confidence < 0) | (confidence > 1)]
        if len(outside):
            raise DataError(f"{file}: confidence {outside[0]:g} is not between 0 and 1")
    size, _, _ = image_header(image)
    check_inside(mitoses[:, :2], size, table)
    check_inside(hard[:, :2], size, others, _CARRIED_OVER_PX)
    slide = folder.name
    return Case(
        name=image.stem,
        image=image,
        mitoses_xy=mitoses[:, :2],
        hard_negatives_xy=hard[:, :2],
        mpp=MPP.get(slide[:1]),
        slide=slide,
        patient=slide[1:],
        dataset="mitos14",
        confidence=mitoses[:, 2],
        scanner=_SCANNERS.get(slide[:1], ""),
        size_px=size,
    )

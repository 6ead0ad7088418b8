"""ICPR 2014 MITOS-ATYPIA.

Layout (challenge page; Racoceanu and Capron 2014): `A03/frames/x40/A03_00Aa.tiff` beside
`A03/mitosis/A03_00Aa_mitosis.csv` and `..._not_mitosis.csv`, lines `x,y,confidence` without header,
an empty file where there is none. Slide names begin with the scanner: A for Aperio ScanScope XT,
H for Hamamatsu NanoZoomer.
"""

from __future__ import annotations

from pathlib import Path

from segmitos.errors import DataError
from segmitos.io.datasets import Case
from segmitos.io.readers.table import check_inside, headless_points, image_size

MPP = {"A": 0.2455, "H": 0.2273}
_SCANNERS = {"A": "Aperio", "H": "Hamamatsu"}
_SUFFIXES = (".tiff", ".tif", ".jpg", ".jpeg", ".png", ".bmp")


def mitos14(path: Path) -> list[Case]:
    """Read the challenge's folder, or that of one of its slides.

    Raises:
        DataError: for a frame without its CSV, a cell that is no number, a point outside.
    """
    slides = [path] if (path / "frames").is_dir() else sorted(path.iterdir())
    cases = []
    for folder in slides:
        frames = folder / "frames" / "x40"
        if not frames.is_dir():
            continue
        for image in sorted(frames.iterdir()):
            if image.suffix.lower() in _SUFFIXES:
                cases.append(_case(image, folder))
    return cases


def _case(image: Path, folder: Path) -> Case:
    table = folder / "mitosis" / f"{image.stem}_mitosis.csv"
    others = folder / "mitosis" / f"{image.stem}_not_mitosis.csv"
    if not table.is_file():
        raise DataError(f"{image} has no annotations: {table} is missing")
    mitoses = headless_points(table, ("x", "y", "confidence"))
    hard = headless_points(others, ("x", "y", "confidence")) if others.is_file() else mitoses[:0]
    size = image_size(image)
    check_inside(mitoses[:, :2], size, table)
    scanner = folder.name[:1]
    return Case(
        name=image.stem,
        image=image,
        mitoses_xy=mitoses[:, :2],
        hard_negatives_xy=hard[:, :2],
        mpp=MPP.get(scanner),
        slide=folder.name,
        patient=folder.name[1:],
        dataset="mitos14",
        confidence=mitoses[:, 2],
        scanner=_SCANNERS.get(scanner, ""),
        size_px=size,
    )

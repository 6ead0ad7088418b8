"""ICPR 2012 MITOSIS: pixel masks.

Layout (challenge page; Roux et al. 2013): folders `A00_v2` .. `A04_v2` (Aperio ScanScope XT, 2084
x 2084 px) and `H00_v2` .. (Hamamatsu NanoZoomer, 2252 x 2250 px), each with the field
`A00_01.bmp`, its annotations `A00_01.csv`, one mitosis a line, the flat list of its pixels
`x,y,x,y,...`, and the overlay `A00_01.jpg`, which is not a field. A00 and H00 are scans of the
same slide, so of one patient. The order x, y was confirmed in two independent readers (one takes
`row[::2]` for x, the other the first of each pair for the column).

Both scanners' fields are 512 um wide and high: 0.2456 um/px for Aperio; 0.2273 across and 0.2275
down for Hamamatsu, whose mean is taken.

Also read: tiles in `images/` with masks of the same name in `masks/` (255 = mitosis), and
SlideRunner databases.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from segmitos.errors import DataError
from segmitos.io.datasets.case import Case, Points, no_points
from segmitos.io.datasets.masks import cached, read_mask, save_mask
from segmitos.io.datasets.table import (
    IMAGES,
    check_inside,
    image_size,
    images_under,
    number,
    read_lines,
)
from segmitos.io.datasets.tupac import sliderunner
from segmitos.io.problems import Problems, collected

MPP = {"A": 0.2456, "H": 0.2274}
_SCANNERS = {"A": "Aperio", "H": "Hamamatsu"}


def mitos12(path: Path, problems: Problems | None = None) -> list[Case]:
    """Read the challenge's folders, a folder of tiles and masks, or a SlideRunner database.

    Raises:
        DataError: for an odd list of pixels, a cell that is no number, a pixel outside the image,
            an image without its CSV or mask.
    """
    if path.is_file():
        return [_of_slide(case) for case in sliderunner(path, "mitos12", MPP["A"])]
    if (path / "masks").is_dir():
        return _each(lambda image: _tile(image, path / "masks"), _images(path / "images"), problems)
    # Fields by their stem: a picture of another kind beside the BMP is the overlay.
    fields: dict[Path, Path] = {}
    for image in _images(path):
        known = fields.setdefault(image.with_suffix(""), image)
        if IMAGES.index(image.suffix.lower()) < IMAGES.index(known.suffix.lower()):
            fields[image.with_suffix("")] = image
    return _each(_field, list(fields.values()), problems)


def _each(
    read: Callable[[Path], Case], images: list[Path], problems: Problems | None
) -> list[Case]:
    cases = []
    for image in images:
        with collected(problems):
            cases.append(read(image))
    return cases


def _images(folder: Path) -> list[Path]:
    if not folder.is_dir():
        raise DataError(f"{folder} is missing: its tiles should lie beside masks/")
    return images_under(folder, recursive=True)


def _case(image: Path, mitoses_xy: Points, mask: Path, size: tuple[int, int]) -> Case:
    case = Case(
        name=image.stem,
        image=image,
        mitoses_xy=mitoses_xy,
        hard_negatives_xy=no_points(),
        mpp=None,
        slide="",
        mask=mask,
        size_px=size,
    )
    return _of_slide(case)


def _of_slide(case: Case) -> Case:
    """Fill in what a field's name tells: scanner, slide, patient, scale."""
    slide = case.name.split("_")[0]
    return dataclasses.replace(
        case,
        mpp=MPP.get(slide[:1]),
        slide=slide,
        patient=slide[1:],
        dataset="mitos12",
        scanner=_SCANNERS.get(slide[:1], ""),
    )


def _field(image: Path) -> Case:
    table = image.with_suffix(".csv")
    if not table.is_file():
        raise DataError(f"{image} has no annotations: {table.name} is missing")
    size = image_size(image)
    lists = [pixels for pixels in _pixel_lists(table) if len(pixels)]
    for pixels in lists:
        check_inside(pixels, size, table)
    centers = np.array([pixels.mean(axis=0) for pixels in lists]).reshape(-1, 2)
    return _case(image, centers, _mask_of(lists, size, table), size)


def _pixel_lists(table: Path) -> list[NDArray[np.float64]]:
    """Read one (n, 2) list of x, y a line."""
    lists = []
    for line, cells in read_lines(table):
        while cells and not cells[-1]:
            cells.pop()
        values = [number(cell, table, line, "pixel") for cell in cells]
        if len(values) % 2:
            raise DataError(f"{table}, line {line}: {len(values)} numbers are no list of x,y pairs")
        lists.append(np.array(values, float).reshape(-1, 2))
    return lists


def _mask_of(lists: list[NDArray[np.float64]], size: tuple[int, int], table: Path) -> Path:
    path = cached(f"pixel lists {size} ".encode() + table.read_bytes(), ".png")
    if not path.is_file():
        mask = np.zeros((size[1], size[0]), np.uint8)
        for pixels in lists:
            columns, rows = np.rint(pixels).astype(int).clip(0, np.array(size) - 1).T
            mask[rows, columns] = 255
        save_mask(mask, path)
    return path


def _tile(image: Path, masks: Path) -> Case:
    from scipy import ndimage

    found = [path for path in images_under(masks) if path.stem == image.stem]
    if not found:
        raise DataError(f"{image} has no mask in {masks}")
    filled = read_mask(found[0])
    size = image_size(image)
    if filled.shape != size[::-1]:
        raise DataError(
            f"mask {found[0]} has {filled.shape[1]} x {filled.shape[0]} px, "
            f"its image {size[0]} x {size[1]}"
        )
    labels, count = ndimage.label(filled, np.ones((3, 3)))
    centers = ndimage.center_of_mass(filled, labels, np.arange(1, count + 1)) if count else []
    return _case(image, np.array(centers, float).reshape(-1, 2)[:, ::-1], found[0], size)

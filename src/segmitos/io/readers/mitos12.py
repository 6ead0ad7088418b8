"""ICPR 2012 MITOSIS: pixel masks.

Layout (challenge page; Roux et al. 2013): folders `A00_v2` .. (Aperio ScanScope XT, 0.2456 um/px)
and `H00_v2` .. (Hamamatsu NanoZoomer, 0.2273 um/px), each with `A00_01.bmp` and `A00_01.csv`: one
mitosis a line, the flat list of its pixels `x,y,x,y,...`. Also read: tiles in `images/` with masks
of the same name in `masks/` (255 = mitosis), and SlideRunner databases.
"""

from __future__ import annotations

import dataclasses
import tempfile
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from segmitos.errors import DataError
from segmitos.io.datasets import Case
from segmitos.io.readers.table import check_inside, image_size, number, read_lines
from segmitos.io.readers.tupac import sliderunner

MPP = {"A": 0.2456, "H": 0.2273}
_SUFFIXES = (".bmp", ".png", ".jpg", ".jpeg", ".tif", ".tiff")


def mitos12(path: Path) -> list[Case]:
    """Read the challenge's folders, a folder of tiles and masks, or a database.

    Raises:
        DataError: for an odd list of pixels, a cell that is no number, a pixel outside the image,
            an image without its CSV or mask.
    """
    if path.is_file():
        # One field is one image of the database; fields of one slide share its name's first part.
        return [
            dataclasses.replace(
                case,
                slide=case.name.split("_")[0],
                patient=case.name.split("_")[0][1:],
                mpp=MPP.get(case.name[:1]),
            )
            for case in sliderunner(path, "mitos12", MPP["A"])
        ]
    if (path / "masks").is_dir():
        return _tiles(path)
    images = sorted(i for i in path.rglob("*") if i.suffix.lower() in _SUFFIXES)
    return [_case(image) for image in images]


def _case(image: Path) -> Case:
    table = image.with_suffix(".csv")
    if not table.is_file():
        raise DataError(f"{image} has no annotations: {table.name} is missing")
    size = image_size(image)
    mask = np.zeros((size[1], size[0]), np.uint8)
    centres = []
    for line, cells in enumerate(read_lines(table), start=1):
        values = [number(cell, table, line, "pixel") for cell in cells if cell]
        if not values:
            continue
        if len(values) % 2:
            raise DataError(f"{table}, line {line}: {len(values)} numbers are no list of x,y pairs")
        pixels = np.array(values).reshape(-1, 2)
        check_inside(pixels, size, table)
        centres.append(pixels.mean(axis=0))
        columns, rows = np.rint(pixels).astype(int).clip(0, np.array(size) - 1).T
        mask[rows, columns] = 255
    return Case(
        name=image.stem,
        image=image,
        mitoses_xy=np.array(centres, float).reshape(-1, 2),
        hard_negatives_xy=np.zeros((0, 2)),
        mpp=MPP.get(image.stem[:1]),
        slide=image.stem.split("_")[0],
        patient=image.stem.split("_")[0][1:],
        dataset="mitos12",
        mask=_saved(mask, table),
        scanner={"A": "Aperio", "H": "Hamamatsu"}.get(image.stem[:1], ""),
        size_px=size,
    )


def _saved(mask: NDArray[np.uint8], table: Path) -> Path:
    """Keep a mask drawn from a pixel list where training can read it again."""
    import hashlib

    from PIL import Image

    key = hashlib.sha256(str(table.absolute()).encode() + table.read_bytes()).hexdigest()[:24]
    path = Path(tempfile.gettempdir()) / "segmitos-masks" / f"{key}.png"
    if not path.exists():
        from io import BytesIO

        from segmitos.io.files import write_bytes

        buffer = BytesIO()
        Image.fromarray(mask).save(buffer, "PNG")
        write_bytes(path, buffer.getvalue())
    return path


def _tiles(path: Path) -> list[Case]:
    from PIL import Image
    from scipy import ndimage

    cases = []
    for image in sorted((path / "images").iterdir()):
        if image.suffix.lower() not in _SUFFIXES:
            continue
        found = [p for p in (path / "masks").glob(f"{image.stem}.*") if p.suffix in _SUFFIXES]
        if not found:
            raise DataError(f"{image} has no mask in {path / 'masks'}")
        try:
            with Image.open(found[0]) as opened:
                filled = np.asarray(opened.convert("L")) > 127
        except OSError as error:
            raise DataError(f"cannot read mask {found[0]}: {error}") from error
        labels, count = ndimage.label(filled, np.ones((3, 3)))
        centres = ndimage.center_of_mass(filled, labels, np.arange(1, count + 1)) if count else []
        cases.append(
            Case(
                name=image.stem,
                image=image,
                mitoses_xy=np.array(centres, float).reshape(-1, 2)[:, ::-1],
                hard_negatives_xy=np.zeros((0, 2)),
                mpp=MPP.get(image.stem[:1]),
                slide=image.stem.split("_")[0],
                patient=image.stem.split("_")[0],
                dataset="mitos12",
                mask=found[0],
                size_px=(filled.shape[1], filled.shape[0]),
            )
        )
    return cases

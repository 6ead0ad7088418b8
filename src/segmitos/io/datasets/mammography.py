"""mini-MIAS: mammograms with a circle round each mass, just what the concentric label needs.

The published table `Info.txt` (Suckling et al. 1994) has one finding a line, parted by blanks:
`mdb001 G CIRC B 535 425 197`, which is film, tissue, abnormality (CALC, CIRC, SPIC, MISC, ARCH,
ASYM, NORM), severity (B benign, M malignant), x, y and radius in pixels. Its notes, read in two
copies, say that the origin is the **bottom left** corner, that the films are 1024 x 1024 px at 200
um/px, and that they come in pairs, odd and even number, of one patient. The films agree: in 82 of
92 masses the circle stands out more from its surroundings when y counts from the bottom than when
it counts from the top.

Also read, and first where both are there: `lesions.csv` with the columns file, tissue,
abnormality, severity, x_px, y_px, radius_px, y from the top. Calcifications and normal films are
left out: there is no mass on them.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from segmitos.errors import DataError
from segmitos.io.datasets.case import Case, no_points
from segmitos.io.datasets.table import IMAGES, named_file, named_rows, number, require_folder
from segmitos.io.problems import Problems, collected

MPP = 200.0
_SIDE_PX = 1024
_COLUMNS = ("file", "tissue", "abnormality", "severity", "x_px", "y_px", "radius_px")
_MASSES = ("CIRC", "SPIC", "MISC", "ARCH", "ASYM")
_Lesion = tuple[float, float, float]


def mini_mias(path: Path, problems: Problems | None = None) -> list[Case]:
    """Read a folder of films; every mass is foreground, its radius in `radii_px`.

    Raises:
        DataError: for a missing table or column, a cell that is no number, a circle whose center
            is outside, a radius of nothing.
    """
    require_folder(path, "mini-mias")
    table = path / "lesions.csv"
    if not table.is_file() and (path / "Info.txt").is_file():
        table = path / "Info.txt"
    found = _published(table) if table.suffix == ".txt" else _plain(table)
    lesions: dict[str, list[_Lesion]] = {}
    for line, film, (x, y, radius) in found:
        with collected(problems):
            named_file(path, film, f"{table}, line {line}")
            if radius <= 0:
                raise DataError(f"{table}, line {line}: radius_px {radius:g} must be above 0")
            if not (0 <= x < _SIDE_PX and 0 <= y < _SIDE_PX):
                raise DataError(
                    f"{table}, line {line}: ({x:g}, {y:g}) lies outside its film of "
                    f"{_SIDE_PX} x {_SIDE_PX} px"
                )
            lesions.setdefault(film, []).append((x, y, radius))
    return [_case(path, film, np.array(circles), table) for film, circles in lesions.items()]


def _plain(table: Path) -> Iterator[tuple[int, str, _Lesion]]:
    for line, row in named_rows(table, _COLUMNS):
        x, y, radius = (number(row[name], table, line, name) for name in _COLUMNS[4:])
        yield line, row["file"], (x, y, radius)


def _published(table: Path) -> Iterator[tuple[int, str, _Lesion]]:
    for line, text in enumerate(table.read_text(encoding="latin-1").splitlines(), start=1):
        cells = text.split()
        # Some masses have no place (`*NOTE 3*`): they are spread over the film.
        if len(cells) != 7 or not re.fullmatch(r"mdb\d+", cells[0]) or cells[2] not in _MASSES:
            continue
        names = ("x", "y", "radius")
        values = zip(cells[4:], names, strict=True)
        x, y, radius = (number(cell, table, line, name) for cell, name in values)
        yield line, cells[0], (x, _SIDE_PX - y, radius)


def _case(path: Path, film: str, circles: np.ndarray, table: Path) -> Case:
    image = path / film
    if not image.suffix:
        there = [image.with_suffix(suffix) for suffix in IMAGES]
        image = next((place for place in there if place.is_file()), image.with_suffix(".pgm"))
    stem = image.stem
    digits = re.sub(r"\D", "", stem)
    return Case(
        name=stem,
        image=image,
        mitoses_xy=circles[:, :2],
        hard_negatives_xy=no_points(),
        mpp=MPP,
        slide=stem,
        # Films 1 and 2 are the two breasts of the first woman, 3 and 4 of the second.
        patient=f"{(int(digits) + 1) // 2:03d}" if digits else stem,
        dataset="mini-mias",
        radii_px=circles[:, 2],
        size_px=(_SIDE_PX, _SIDE_PX),
    )

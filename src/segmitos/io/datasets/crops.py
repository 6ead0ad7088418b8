"""Crops cut round mitoses: a folder with `crops.csv`.

Columns `file, dataset, slide, x_px, y_px, label, subtype, is_centre`; one row a mitosis, so that a
file with a neighbor in view has several. Everything else in a crop is background. Crops of this
kind, 128 x 128 px with the labeled cell in the middle, are published by Bertram et al. 2025
(AMi-Br: all mitoses of MIDOG 2021 and of TUPAC16 with its alternative labels).
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from segmitos.errors import DataError
from segmitos.io.datasets.case import Case
from segmitos.io.datasets.table import named_file, named_rows, number, require_folder
from segmitos.io.points.classes import CLASSES, LABELS, Label
from segmitos.io.problems import Problems, collected

MPP = 0.25
_COLUMNS = ("file", "dataset", "slide", "x_px", "y_px", "label")


def crops(path: Path, problems: Problems | None = None) -> list[Case]:
    """Read a folder of crops; the slide of a case is `dataset/slide`.

    Images are not opened here: there are thousands, and `find_problems` looks at each.

    Raises:
        DataError: for a missing table or column, a cell that is no number, an unknown label, a
            file that is said to come from two slides.
    """
    require_folder(path, "crops")
    table = path / "crops.csv"
    points: dict[str, dict[Label, list[tuple[float, float]]]] = {}
    slides: dict[str, str] = {}
    laboratories: dict[str, str] = {}
    for line, row in named_rows(table, _COLUMNS):
        with collected(problems):
            file, label = row["file"], CLASSES.label(row["label"])
            named_file(path, file, f"{table}, line {line}")
            if label is None:
                known = ", ".join(LABELS)
                raise DataError(
                    f"{table}, line {line}: label is {row['label']!r}, not one of {known}"
                )
            x, y = (number(row[name], table, line, name) for name in ("x_px", "y_px"))
            points.setdefault(file, {name: [] for name in LABELS})[label].append((x, y))
            slide = f"{row['dataset']}/{row['slide']}"
            laboratories[file] = row["dataset"]
            if slides.setdefault(file, slide) != slide:
                raise DataError(f"{table}, line {line}: {file} is of {slides[file]} and of {slide}")
    return [
        Case(
            name=file,
            image=path / file,
            mitoses_xy=np.array(points[file]["mitosis"], float).reshape(-1, 2),
            hard_negatives_xy=np.array(points[file]["non-mitosis"], float).reshape(-1, 2),
            unsure_xy=np.array(points[file]["unsure"], float).reshape(-1, 2),
            laboratory=laboratories[file],
            mpp=MPP,
            slide=slide,
            patient=slide,
            dataset="crops",
            centered_crop=True,
        )
        for file, slide in slides.items()
    ]

"""Crops cut round mitoses: a folder with `crops.csv`.

Columns `file, dataset, slide, x_px, y_px, label, subtype, is_centre`; one row a mitosis, so that a
file with a neighbour in view has several. Everything else in a crop is background.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from segmitos.errors import DataError
from segmitos.io.datasets import Case, no_points
from segmitos.io.readers.table import number, read_lines

MPP = 0.25
_COLUMNS = ("file", "dataset", "slide", "x_px", "y_px", "label")


def crops(path: Path) -> list[Case]:
    """Read a folder of crops; the slide of a case is `dataset/slide`.

    Raises:
        DataError: for a missing table or column, a cell that is no number, a missing image.
    """
    table = path / "crops.csv"
    lines = read_lines(table)
    header = lines[0] if lines else []
    missing = [name for name in _COLUMNS if name not in header]
    if missing:
        raise DataError(f"{table} lacks the column {missing[0]!r}; it has {', '.join(header)}")
    at = {name: header.index(name) for name in header}
    points: dict[str, list[tuple[float, float]]] = {}
    others: dict[str, list[tuple[float, float]]] = {}
    slides: dict[str, str] = {}
    for line, cells in enumerate(lines[1:], start=2):
        if not any(cells):
            continue
        if len(cells) != len(header):
            raise DataError(f"{table}, line {line}: {len(cells)} columns instead of {len(header)}")
        file = cells[at["file"]]
        x = number(cells[at["x_px"]], table, line, "x_px")
        y = number(cells[at["y_px"]], table, line, "y_px")
        kind = points if cells[at["label"]] == "mitosis" else others
        kind.setdefault(file, []).append((x, y))
        slides[file] = f"{cells[at['dataset']]}/{cells[at['slide']]}"
    return [
        Case(
            name=file,
            image=path / file,
            mitoses_xy=np.array(points.get(file, []), float).reshape(-1, 2),
            hard_negatives_xy=np.array(others[file], float) if file in others else no_points(),
            mpp=MPP,
            slide=slide,
            patient=slide,
            dataset="crops",
            centred_crop=True,
        )
        for file, slide in slides.items()
    ]

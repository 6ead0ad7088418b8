"""mini-MIAS: mammograms with a circle round each mass, just what the concentric label needs.

`lesions.csv`: file, tissue, abnormality (CIRC, SPIC, MISC, ARCH, ASYM), severity (B benign,
M malignant), x_px, y_px from the top left, radius_px; 1024 x 1024 at 200 um/px (Suckling et al.
1994; the original table counts y from the bottom).
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from segmitos.errors import DataError
from segmitos.io.datasets import Case
from segmitos.io.readers.table import number, read_lines

MPP = 200.0
_COLUMNS = ("file", "tissue", "abnormality", "severity", "x_px", "y_px", "radius_px")


def mini_mias(path: Path) -> list[Case]:
    """Read a folder with `lesions.csv`; every lesion is foreground, its radius in `radii_px`.

    Raises:
        DataError: for a missing table or column, or a cell that is no number.
    """
    table = path / "lesions.csv"
    lines = read_lines(table)
    header = lines[0] if lines else []
    missing = [name for name in _COLUMNS if name not in header]
    if missing:
        raise DataError(f"{table} lacks the column {missing[0]!r}; it has {', '.join(header)}")
    at = {name: header.index(name) for name in _COLUMNS}
    lesions: dict[str, list[tuple[float, float, float]]] = {}
    for line, cells in enumerate(lines[1:], start=2):
        if not any(cells):
            continue
        if len(cells) != len(header):
            raise DataError(f"{table}, line {line}: {len(cells)} columns instead of {len(header)}")
        names = ("x_px", "y_px", "radius_px")
        x, y, radius = (number(cells[at[name]], table, line, name) for name in names)
        if radius <= 0:
            raise DataError(f"{table}, line {line}: radius_px {radius:g} must be above 0")
        lesions.setdefault(cells[at["file"]], []).append((x, y, radius))
    return [
        Case(
            name=Path(file).stem,
            image=path / file,
            mitoses_xy=np.array(found)[:, :2],
            hard_negatives_xy=np.zeros((0, 2)),
            mpp=MPP,
            slide=Path(file).stem,
            patient=Path(file).stem,
            dataset="mini-mias",
            radii_px=np.array(found)[:, 2],
        )
        for file, found in lesions.items()
    ]

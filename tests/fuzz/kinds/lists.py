"""Lists and tables of inputs."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image

from segmitos.io.slide.find import find_inputs

from ..kind import Kind


def _images(folder: Path) -> None:
    for name in ("a.png", "b.png"):
        Image.fromarray(np.zeros((8, 8, 3), np.uint8)).save(folder / name)


def _make_list(folder: Path) -> list[Path]:
    _images(folder)
    (folder / "list.txt").write_text("# slides\na.png\n\nb.png\n*.png\n")
    return [folder / "list.txt"]


def _make_table(folder: Path) -> list[Path]:
    _images(folder)
    (folder / "table.csv").write_text("path,mpp,roi,name\na.png,0.25,,first\nb.png,,,second\n")
    return [folder / "table.csv"]


KINDS = [
    Kind("list-txt", _make_list, lambda folder: find_inputs([folder / "list.txt"]), 150),
    Kind("list-csv", _make_table, lambda folder: find_inputs([folder / "table.csv"]), 150),
]

"""Files of points, through `segmitos convert`."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np

from segmitos.cli import main
from segmitos.io.points.annotations import Annotations
from segmitos.io.points.regions import Regions
from segmitos.io.points.write import FORMATS, write_annotations
from tests.factories.points import rectangle

from ..kind import Kind

_SUFFIX = {"geojson": ".geojson", "csv": ".csv", "sliderunner": ".sqlite"}
_FOUND = Annotations(
    np.array([[100.25, 200.0], [300.5, 50.0], [400.0, 60.0], [12.0, 700.0]]),
    ("mitosis", "non-mitosis", "unsure", "mitosis"),
    score=np.array([0.9, 0.5, np.nan, 0.7]),
    area_um2=np.array([20.0, 8.0, 9.0, np.nan]),
    confidence=np.array([1.0, 0.0, 0.5, np.nan]),
    mpp=0.25,
    name="slide.png",
    regions=Regions((rectangle(0, 0, 900, 900),), (rectangle(5, 5, 20, 20),), ("Reviewed",)),
)


def _maker(target: str) -> Callable[[Path], list[Path]]:
    def make(folder: Path) -> list[Path]:
        path = folder / f"in{_SUFFIX.get(target, '.json')}"
        write_annotations(path, _FOUND, target, size_px=(1000, 1000))
        return [path]

    return make


def _reader(target: str) -> Callable[[Path], object]:
    def read(folder: Path) -> object:
        (source,) = folder.glob("in.*")
        options = ["--mpp", "0.25"] if target != "csv" else []
        for other in ("geojson", "csv", "grand-challenge", "coco"):
            code = main(["convert", str(source), "out.bin", "--to", other, "--overwrite", *options])
        return code

    return read


KINDS = [Kind(f"convert-{name}", _maker(name), _reader(name), 40) for name in FORMATS]

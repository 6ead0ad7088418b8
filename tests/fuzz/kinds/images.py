"""Images and slides: opened, and read as a thumbnail and as a region."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np

from factories import slides
from factories.leica import save_scn
from segmitos.io.slide import Slide

from ..kind import Kind

_MAKERS: dict[str, Callable[[Path, np.ndarray], object]] = {
    "png": slides.save_png,
    "jpg": slides.save_jpeg,
    "bmp": slides.save_bmp,
    "tif": slides.save_tiff,
    "pyramid.tif": slides.save_pyramid,
    "ome.tif": slides.save_ome,
    "svs": slides.save_svs,
    "scn": lambda path, image: save_scn(path, image, (64, 32), (900, 700)),
}


def _maker(suffix: str) -> Callable[[Path], list[Path]]:
    def make(folder: Path) -> list[Path]:
        path = folder / f"slide.{suffix}"
        _MAKERS[suffix](path, slides.picture(120, 96))
        return [path]

    return make


def _read(folder: Path) -> object:
    (path,) = folder.glob("slide.*")
    with Slide.open(path, mpp=0.25, override_mpp=True) as slide:
        slide.thumbnail(64)
        slide.read(10, 10, 40, 40, mpp=0.5)
    return None


KINDS = [Kind(f"image-{name}", _maker(name), _read, 15) for name in _MAKERS]

"""Images and slides in every container that is read: found, opened, read whole and in parts."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from segmitos.io.slide import Slide, find_inputs
from tests.factories import slides
from tests.factories.containers import CONTAINERS

from ..kind import Kind

# Few pixels keep an input quick, and its header a large part of it.
_WIDTH, _HEIGHT = 96, 64


def _maker(name: str) -> Callable[[Path], list[Path]]:
    def make(folder: Path) -> list[Path]:
        path = folder / name
        CONTAINERS[name](path, slides.picture(_WIDTH, _HEIGHT))
        return [path]

    return make


def _read(folder: Path) -> object:
    for entry in find_inputs([folder]):
        with Slide.open(entry.path, mpp=0.25, override_mpp=True) as slide:
            slide.thumbnail(64)
            slide.read(0, 0, min(slide.width, 256), min(slide.height, 256))
            slide.read(10, 10, 40, 40, mpp=0.5)
    return None


KINDS = [Kind(f"image-{name}", _maker(name), _read, 20) for name in CONTAINERS]

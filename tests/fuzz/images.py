"""Images and slides in every container that is read."""

from __future__ import annotations

from pathlib import Path

from factories import slides
from factories.containers import CONTAINERS
from segmitos.io.slide import Slide, find_inputs
from tests.fuzz.harness import Target

# Few pixels keep an input quick, and its header a large part of it.
WIDTH, HEIGHT = 96, 64


def targets(folder: Path) -> list[Target]:
    """Every container with one small picture in it."""
    image = slides.picture(WIDTH, HEIGHT)
    found = []
    for name, save in CONTAINERS.items():
        path = folder / name
        save(path, image)
        found.append(Target(name, path.read_bytes(), read_image))
        path.unlink()
    return found


def read_image(path: Path) -> None:
    """As detection does: find it, open it, look at all of it, then at its parts."""
    for entry in find_inputs([path]):
        with Slide.open(entry.path, mpp=0.25) as slide:
            slide.thumbnail(64)
            slide.read(0, 0, min(slide.width, 256), min(slide.height, 256))
            slide.read(0, 0, 64, 64, mpp=0.5)

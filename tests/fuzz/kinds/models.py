"""Model files."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from segmitos.detection.model import Model
from segmitos.detection.pipeline import DetectOptions, detect_slide
from segmitos.io.slide import Slide
from tests.factories.toy_models import write_toy, write_toy_cascade

from ..kind import Kind


def _read(folder: Path) -> object:
    model = Model.load(folder / "toy.segmitos", "cpu", 1)
    pixels = np.full((64, 96, 3), 200, np.uint8)
    pixels[20:30, 20:30] = 40
    detect_slide(Slide.from_array(pixels, 0.25), model, DetectOptions(tissue=False))
    return None


def _make_plain(folder: Path) -> list[Path]:
    return [write_toy(folder / "toy.segmitos")]


def _make_cascade(folder: Path) -> list[Path]:
    return [write_toy_cascade(folder / "toy.segmitos", screened=True)]


def _make_json(folder: Path) -> list[Path]:
    """The specification beside the file: put into it when it is read."""
    import zipfile

    path = write_toy(folder / "toy.segmitos")
    with zipfile.ZipFile(path) as file:
        (folder / "model.json").write_bytes(file.read("model.json"))
    return [folder / "model.json"]


def _read_json(folder: Path) -> object:
    import zipfile

    with zipfile.ZipFile(folder / "toy.segmitos") as file:
        entries = {name: file.read(name) for name in file.namelist()}
    entries["model.json"] = (folder / "model.json").read_bytes()
    with zipfile.ZipFile(folder / "toy.segmitos", "w") as file:
        for name, content in entries.items():
            file.writestr(name, content)
    return _read(folder)


KINDS = [
    Kind("model", _make_plain, _read, 60),
    Kind("model-cascade", _make_cascade, _read, 30),
    Kind("model-json", _make_json, _read_json, 80),
]

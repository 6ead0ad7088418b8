"""Saved results, as `report`, `recount`, `evaluate --detections` and `detect` read them."""

from __future__ import annotations

from functools import cache
from pathlib import Path

import numpy as np
from PIL import Image

from segmitos.cli import main
from tests.factories.toy_models import write_toy

from ..kind import Kind

_OPTIONS = ("--mpp", "0.25", "--threads", "1", "--no-tissue-mask")
_TEXT = (".json", ".csv", ".geojson", ".jpg", ".png")


@cache
def _field() -> np.ndarray:
    rng = np.random.default_rng(0)
    pixels = np.full((128, 160, 3), (222, 178, 200), np.int16) + rng.integers(-9, 9, (128, 160, 3))
    for x, y in ((40, 40), (100, 60), (130, 100)):
        pixels[y - 9 : y + 10, x - 9 : x + 10] = (30, 20, 40)
    return pixels.clip(0, 255).astype(np.uint8)


def _make(folder: Path) -> list[Path]:
    image = folder / "in" / "s_1.png"
    image.parent.mkdir()
    Image.fromarray(_field()).save(image)
    image.with_suffix(".csv").write_text("x,y\n40,40\n100,60\n")
    model = write_toy(folder / "toy.segmitos")
    code = main(["detect", str(image), "-m", str(model), "-o", str(folder / "out"), *_OPTIONS])
    assert code == 0, code
    return [path for path in sorted((folder / "out").rglob("*")) if path.suffix in _TEXT]


def _detect(folder: Path) -> object:
    return main(["detect", "in/s_1.png", "-m", "toy.segmitos", "-o", "out", *_OPTIONS])


def _evaluate(folder: Path) -> object:
    return main(["evaluate", "points:in", "--mpp", "0.25", "--detections", "out"])


KINDS = [
    Kind("report", _make, lambda folder: main(["report", "out/s_1"]), 25),
    Kind("report-cohort", _make, lambda folder: main(["report", "out"]), 25),
    Kind(
        "recount",
        _make,
        lambda folder: main(["recount", "out/s_1", "--field-diameter-mm", "0.6"]),
        30,
    ),
    Kind("detect-again", _make, _detect, 10),
    Kind("evaluate-saved", _make, _evaluate, 25),
]

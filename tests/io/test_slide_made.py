"""The generated slide of the benchmarks holds its frames where its record says."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from segmitos.io.slide import Slide
from tests.factories import slides

SCRIPT = Path(__file__).resolve().parents[2] / "benchmarks" / "make_slide.py"


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("made")
    (folder / "frames").mkdir()
    for number in range(3):
        slides.save_png(folder / "frames" / f"{number}.png", slides.picture(300, 270, number))
    sizes = ["--width", "4001", "--height", "3203", "--tile", "64", "--empty", "0.4"]
    folders = ["--frames", folder / "frames", "--cells", folder / "cells"]
    command = [sys.executable, SCRIPT, folder / "a.tif", *sizes, *folders]
    subprocess.run(command, check=True, capture_output=True)
    return folder


def test_frames_lie_where_the_record_says(made: Path) -> None:
    record = json.loads((made / "a.json").read_text())
    cells = {path.stem: np.asarray(Image.open(path)) for path in sorted((made / "cells").iterdir())}
    with Slide.open(made / "a.tif") as slide:
        assert (slide.width, slide.height, slide.mpp) == (4001, 3203, pytest.approx(0.25))
        assert slide.level_downsamples == (1.0, 2.0)
        for place in record["placements"]:
            box = (place["x_px"], place["y_px"], place["width_px"], place["height_px"])
            cell = cells[Path(place["frame"]).stem][: box[3], : box[2]]
            assert np.array_equal(slide.read(*box), cell)
        x, y = record["placements"][9]["x_px"], record["placements"][9]["y_px"]
        cell = cells[Path(record["placements"][9]["frame"]).stem]
        half = slide.read(x, y, 128, 128, 0.5).astype(int)
        assert np.abs(half - slides.halved(cell)).mean() < 6


def test_the_share_of_glass_is_as_asked(made: Path) -> None:
    with Slide.open(made / "a.tif") as slide:
        small = slide.thumbnail(800).astype(int)
    glass = (np.abs(small - (243, 242, 244)).max(axis=2) < 6).mean()
    # Cells at the right and lower edges are cut, so that the share of the area is not exact.
    assert abs(glass - 0.4) < 0.06

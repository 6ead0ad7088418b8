"""A slide damaged in its tissue is an error, never a silent hole."""

from __future__ import annotations

import numpy as np
import pytest

from segmitos.cohort.run import run
from segmitos.cohort.settings import JobSettings
from tests.factories.slides import corrupt_tile, save_tiff
from tests.factories.synthetic_fields import draw_field
from tests.factories.toy_models import write_toy


@pytest.mark.parametrize("tile_px", [None, 128])
def test_a_corrupt_tile_in_tissue_fails_that_slide_alone(tmp_path, tile_px):
    field = draw_field(np.random.default_rng(1), size=640)[0]
    (tmp_path / "in").mkdir()
    for name in ("bad", "good"):
        save_tiff(tmp_path / "in" / f"{name}.tif", field, tile=(128, 128), compression="jpeg")
    corrupt_tile(tmp_path / "in" / "bad.tif", 12)
    model = str(write_toy(tmp_path / "toy.segmitos"))
    settings = JobSettings(model=model, device="cpu", threads=1, mpp=0.25, tile_px=tile_px)
    bad, good = run([tmp_path / "in"], tmp_path / "out", settings)
    assert bad.status == "failed" and "bad.tif" in bad.message
    assert good.status == "done" and good.summary["count"] > 0
    assert not (tmp_path / "out" / "bad").exists()

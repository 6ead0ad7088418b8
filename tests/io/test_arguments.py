"""Values of the wrong kind, as a Python caller may hand them over: an error that names them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

import segmitos
from segmitos.errors import UsageError
from tests.factories.synthetic_fields import draw_field, write_cases
from tests.factories.toy_models import write_toy

WRONG: dict[str, tuple[Any, str]] = {
    "min_score": ("a", "min_score 'a' must be a number"),
    "min_area_um2": ([1, 2], r"min_area_um2 \[1, 2\] must be a number"),
    "threshold": ([1], r"threshold \[1\] is neither"),
    "roi": (3, "roi 3 must be a path"),
}


@pytest.fixture(scope="module")
def toy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_toy(tmp_path_factory.mktemp("model") / "toy.segmitos")


@pytest.mark.parametrize(
    ("name", "value", "said"),
    [
        *((name, *of) for name, of in WRONG.items()),
        ("model", 3, "model 3 must be a path"),
        ("tile_px", "x", "tile_px 'x' must be a number"),
        ("tile_px", 64.5, "tile_px 64.5 must be a whole number"),
        ("tile_px", 0, "tile_px 0 must be 1 or more"),
    ],
)
def test_detect(toy: Path, name: str, value: object, said: str) -> None:
    image = draw_field(np.random.default_rng(0), 64)[0]
    with pytest.raises(UsageError, match=said):
        segmitos.detect(image, 0.25, **{"model": toy, name: value})


@pytest.mark.parametrize(
    ("name", "value", "said"),
    [
        *((name, *of) for name, of in WRONG.items()),
        ("threads", "x", "threads 'x' must be a number"),
        ("workers", 1.5, "workers 1.5 must be a whole number"),
        ("shard", 3, "shard 3 must be two whole numbers"),
        ("shard", ("a", 2), "shard 'a' must be a number"),
        ("hotspot_area_mm2", "x", "hotspot_area_mm2 'x' must be a number"),
        ("field_diameter_mm", None, "field_diameter_mm None must be a number"),
    ],
)
def test_detect_many(toy: Path, tmp_path: Path, name: str, value: object, said: str) -> None:
    write_cases(tmp_path / "images", slides=1, fields=1)
    with pytest.raises(UsageError, match=said):
        segmitos.detect_many(tmp_path / "images", tmp_path / "out", **{"model": toy, name: value})


def test_paths(tmp_path: Path) -> None:
    wrong: Any = 3
    for call in (
        lambda: segmitos.detect_many([wrong], tmp_path),
        lambda: segmitos.detect_many(b"x", tmp_path),
        lambda: segmitos.detect_many(tmp_path, wrong),
        lambda: segmitos.Slide.open(wrong),
        lambda: segmitos.Model.load(wrong),
        lambda: segmitos.read_saved(wrong),
        lambda: segmitos.load_dataset(wrong),
    ):
        with pytest.raises(UsageError, match="must be a path"):
            call()


def test_a_data_set_may_be_a_path(tmp_path: Path) -> None:
    (case,) = write_cases(tmp_path, slides=1, fields=1)
    case.image.with_suffix(".csv").write_text("x,y\n3,4\n")
    assert [one.name for one in segmitos.load_dataset(tmp_path)] == [case.image.stem]
    assert len(segmitos.load_dataset([tmp_path])) == 1


def test_positions_and_pages() -> None:
    with pytest.raises(UsageError, match="must be numbers"):
        segmitos.match_points("x", np.zeros((1, 2)), 3)
    with pytest.raises(UsageError, match="page 'x' must be a number"):
        segmitos.Slide.open("absent.tif", page="x")
    with pytest.raises(UsageError, match=r"page 1\.5 must be a whole number"):
        segmitos.Slide.open("absent.tif", page=1.5)

"""Values of the wrong kind, as a Python caller may hand them over: an error that names them."""

from __future__ import annotations

import io
import os
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import segmitos
from segmitos.cli import main
from segmitos.errors import InputError, ScaleError, UsageError
from segmitos.evaluation.scoring import compare_rules
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
        ("hotspot_area_mm2", True, "hotspot_area_mm2 True must be a number"),
        ("model", np.zeros((2, 2)), r"model array\(\[\[0., 0.\], \[0., 0.\]\]\) must be a path"),
        ("qupath", "x", "qupath 'x': choose annotation or detection"),
        ("page", 0, "page 0: pages are counted from 1"),
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


def test_an_empty_path_is_not_the_folder_where_the_program_stands(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    write_cases(tmp_path, slides=1, fields=1)
    monkeypatch.chdir(tmp_path)
    for call in (
        lambda: segmitos.detect("", 0.25),
        lambda: segmitos.detect_many("", "out"),
        lambda: segmitos.detect_many(["."], ""),
        lambda: segmitos.Model.load(""),
        lambda: segmitos.read_saved(""),
        lambda: segmitos.load_dataset(""),
    ):
        with pytest.raises(UsageError, match="'' is empty; name a file or folder"):
            call()
    for verb in (["detect", ""], ["dataset", "describe", ""], ["model", "info", ""]):
        assert main(verb) == 2
        assert "'' is empty; name a file or folder" in capsys.readouterr().err


def test_a_scale_as_text_is_shown_as_text(toy: Path) -> None:
    with pytest.raises(ScaleError, match=r"mpp: '0\.25' is not a scale"):
        segmitos.detect(np.zeros((8, 8, 3), np.uint8), "0.25", toy)


@pytest.mark.parametrize(
    "value", [None, b"field.png", ["a.png", "b.png"], [[1], [2, 3]], io.BytesIO()]
)
def test_what_is_neither_path_nor_array_is_no_image(toy: Path, value: object) -> None:
    with pytest.raises(InputError, match=f"type {type(value).__name__} is not an image"):
        segmitos.detect(value, 0.25, toy)


def test_any_object_that_stands_for_a_path_is_one(toy: Path, tmp_path: Path) -> None:
    (case,) = write_cases(tmp_path, slides=1, fields=1)
    found = segmitos.detect(case.image, 0.25, toy)
    with os.scandir(tmp_path) as entries:
        (entry,) = (entry for entry in entries if entry.name == case.image.name)
    assert segmitos.detect(entry, 0.25, toy) == found


def test_what_is_iterated_twice_may_be_a_generator(tmp_path: Path) -> None:
    cases = write_cases(tmp_path, slides=2, fields=1)
    found = {case.name: segmitos.Detections.from_points(case.mitoses_xy, 0.25) for case in cases}
    scored = segmitos.evaluate((case for case in cases), found)
    assert scored.pooled == segmitos.evaluate(cases, found).pooled
    assert scored.pooled.tp == sum(len(case.mitoses_xy) for case in cases) > 0
    rules = compare_rules((case for case in cases), found)
    assert {one.pooled.tp for one in rules.values()} == {scored.pooled.tp}


def test_detections_that_are_not_by_name_are_refused(tmp_path: Path) -> None:
    (case,) = write_cases(tmp_path, slides=1, fields=1)
    detections = segmitos.Detections.from_points(case.mitoses_xy, 0.25)
    with pytest.raises(UsageError, match="must be a mapping from the names of cases"):
        segmitos.evaluate([case], [detections])


def test_a_pattern_of_cases_may_stand_alone(tmp_path: Path) -> None:
    for case in write_cases(tmp_path, slides=2, fields=1):
        case.image.with_suffix(".csv").write_text("x,y\n3,4\n")
    names = [case.name for case in segmitos.load_dataset(tmp_path)]
    for pattern in (names[0], [names[0]], iter([names[0]])):
        assert [case.name for case in segmitos.load_dataset(tmp_path, pattern)] == names[:1]
    assert [case.name for case in segmitos.load_dataset(tmp_path, exclude=names[0])] == names[1:]


def test_what_cannot_be_pickled_says_what_to_hand_over(toy: Path) -> None:
    with pytest.raises(TypeError, match="load it in each process"):
        pickle.dumps(segmitos.Model.load(toy))
    with (
        segmitos.Slide.from_array(np.zeros((8, 8, 3), np.uint8), 0.25) as slide,
        pytest.raises(TypeError, match="hand over its path"),
    ):
        pickle.dumps(slide)


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

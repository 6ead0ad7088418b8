"""Inputs of `segmitos detect` as users give them: pages, scales, tables, folders run twice."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import numpy as np
import pytest
import tifffile
from PIL import Image

from segmitos.cli import main
from tests.factories.synthetic_fields import draw_field
from tests.factories.toy_models import write_toy


@pytest.fixture(scope="module")
def toy(tmp_path_factory: pytest.TempPathFactory) -> str:
    return str(write_toy(tmp_path_factory.mktemp("toy") / "toy.segmitos"))


@pytest.fixture(scope="module")
def image() -> np.ndarray:
    return draw_field(np.random.default_rng(3), size=160)[0]


def save(path: Path, *images: np.ndarray, mpp: float | None = None) -> None:
    options = {} if mpp is None else {"resolution": (1e4 / mpp,) * 2, "resolutionunit": 3}
    with tifffile.TiffWriter(path) as tif:
        for image in images:
            tif.write(image, photometric="rgb", metadata=None, **options)


def summary(folder: Path) -> dict[str, object]:
    return dict(json.loads((folder / "summary.json").read_text()))


def detect(toy: str, out: Path, *arguments: object) -> int:
    given = [str(argument) for argument in arguments]
    return main(["detect", *given, "-m", toy, "-o", str(out), "--threads", "1"])


def test_a_page_is_chosen(
    tmp_path: Path, toy: str, image: np.ndarray, capsys: pytest.CaptureFixture[str]
) -> None:
    save(tmp_path / "a.tif", np.full_like(image, 240), image)
    assert detect(toy, tmp_path / "out", tmp_path / "a.tif", "--mpp", "0.25") == 1
    assert "2 images of like size" in capsys.readouterr().err
    arguments = (tmp_path / "a.tif", "--mpp", "0.25", "--page")
    assert detect(toy, tmp_path / "out", *arguments, "2") == 0
    second = summary(tmp_path / "out" / "a")["count"]
    # Another page is another result.
    detect(toy, tmp_path / "out", *arguments, "1")
    assert summary(tmp_path / "out" / "a")["count"] == 0
    assert second
    assert detect(toy, tmp_path / "out", *arguments, "3") == 1
    assert "has no page 3; it holds page 1: 160 x 160 px" in capsys.readouterr().err


def test_scales_that_differ_are_warned_of_in_every_output(
    tmp_path: Path, toy: str, image: np.ndarray, capsys: pytest.CaptureFixture[str]
) -> None:
    save(tmp_path / "a.tif", image, mpp=0.25)
    out = tmp_path / "out"
    assert detect(toy, out, tmp_path / "a.tif", "--mpp", "0.5") == 0
    said = capsys.readouterr()
    warned = "the file says 0.25 um/px (TIFF resolution), 0.5 was given; 0.25 is used"
    assert warned in said.out + said.err
    assert any(warned in text for text in summary(out / "a")["warnings"])  # type: ignore[attr-defined]
    assert summary(out / "a")["mpp"] == 0.25
    assert warned in (out / "a" / "report.html").read_text()
    (row,) = csv.DictReader((out / "cohort.csv").read_text().splitlines())
    assert (row["status"], warned in row["warnings"]) == ("warning", True)
    assert detect(toy, out, tmp_path / "a.tif", "--mpp", "0.5", "--override-mpp") == 0
    assert summary(out / "a")["mpp"] == 0.5


def test_override_without_a_scale_is_a_usage_error(
    tmp_path: Path, toy: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert detect(toy, tmp_path / "out", tmp_path / "a.tif", "--override-mpp") == 2
    assert "--override-mpp insists on the value of --mpp" in capsys.readouterr().err


def test_a_table_gives_scale_and_name(tmp_path: Path, toy: str, image: np.ndarray) -> None:
    save(tmp_path / "a.tif", image)
    save(tmp_path / "b.tif", image, mpp=0.25)
    (tmp_path / "t.csv").write_text("path;mpp;name\na.tif;0,3;first\nb.tif;;\ngone.tif;;\n")
    assert detect(toy, tmp_path / "out", tmp_path / "t.csv") == 1
    assert summary(tmp_path / "out" / "first")["mpp"] == 0.3
    assert summary(tmp_path / "out" / "b")["mpp"] == 0.25
    assert (
        "gone.tif: cannot be read (No such file" in (tmp_path / "out" / "failures.csv").read_text()
    )


def test_a_folder_that_is_run_twice_finds_no_pictures_of_its_own(
    tmp_path: Path, toy: str, image: np.ndarray, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "slides").mkdir()
    monkeypatch.chdir(tmp_path / "slides")
    save(tmp_path / "slides" / "a.tif", image, mpp=0.25)
    for out in ("segmitos-out", "segmitos-out", "other"):
        assert detect(toy, Path(out), ".") == 0
        with Path(out, "cohort.csv").open() as stream:
            assert [row["name"] for row in csv.DictReader(stream)] == ["a"]


def test_demo_takes_the_scale_of_the_image(
    tmp_path: Path, image: np.ndarray, capsys: pytest.CaptureFixture[str]
) -> None:
    save(tmp_path / "a.tif", image, mpp=0.3)
    assert main(["demo", str(tmp_path / "a.tif"), "-o", str(tmp_path / "out")]) in (0, 3)
    assert summary(tmp_path / "out" / "a")["mpp"] == pytest.approx(0.3)
    save(tmp_path / "b.tif", image)
    assert main(["demo", str(tmp_path / "b.tif"), "-o", str(tmp_path / "out")]) in (0, 3)
    assert "0.25 um per pixel assumed" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("call", "said"),
    [
        ("recount nowhere", "there is no folder nowhere"),
        ("report nowhere", "there is no folder nowhere"),
        ("recount a.png", "a.png is a file; name a folder of results of detect"),
        (
            "detect a.png --cluster tcp://127.0.0.1:1 --workers 2",
            "--cluster has workers of its own",
        ),
        ("detect a.png --mpp 0.25 -o a.png", "a.png: it is a file; name a folder"),
        ("dataset describe points:. --sheet sheet.txt", "give a name that ends in .png"),
        (
            "evaluate points:. --detections out -m other.segmitos",
            "--detections scores what was found; it does not go with --model",
        ),
        ("evaluate points:. --detections out --device cuda", "does not go with --device"),
        (
            "evaluate points:. --tune -o tuned --rule midog",
            "--tune counts one-to-one; it does not go with --rule midog",
        ),
        ("detect a.png --threads 0", "0 is not in the range 1<=x<=512; see"),
        ("detect a.png --field-diameter-mm 5", "5.0 is not in the range 0.4<=x<=0.69; see"),
    ],
)
def test_a_wrong_input_gives_one_line_that_names_it(
    call: str,
    said: str,
    tmp_path: Path,
    image: np.ndarray,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    Image.fromarray(image).save("a.png")
    assert main(call.split()) != 0
    printed = capsys.readouterr().err
    assert said in printed and printed.count("\n") == 1
    assert [path.name for path in tmp_path.iterdir()] == ["a.png"]

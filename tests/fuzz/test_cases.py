"""Inputs that once raised something other than the package's own errors, each in its reader."""

from __future__ import annotations

import shutil
import warnings
from collections.abc import Callable
from pathlib import Path

import numpy as np
from PIL import Image

from segmitos.cli import main
from segmitos.detection.model import Model
from segmitos.evaluation.tuning import read_thresholds
from segmitos.io.points.read_regions import regions_of_slide
from segmitos.io.slide import Slide
from segmitos.io.slide.find import find_inputs
from segmitos.training.checkpoint import load_checkpoint
from segmitos.training.recipe import load_recipe

from .kind import Kind, attempt
from .kinds import KINDS

Reader = Callable[[Path], object]


def image(path: Path, size: tuple[int, int] = (1700, 1500)) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.full((size[1], size[0], 3), 200, np.uint8)).save(path)


def dataset(spec: str, place: str, picture: str | None = None) -> Callable[[Path, Path], Reader]:
    """The case's file at `place` of a data set, with an image beside it."""

    def prepare(case: Path, folder: Path) -> Reader:
        (source,) = (path for path in case.iterdir() if path.name != "what.txt")
        target = folder / place
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(source, target)
        if picture is not None:
            image(folder / picture)
        return lambda _: main(["dataset", "describe", spec])

    return prepare


def each(read: Callable[[Path], object]) -> Callable[[Path, Path], Reader]:
    """Every file of the case, read one by one."""

    def prepare(case: Path, folder: Path) -> Reader:
        files = sorted(path for path in case.iterdir() if path.name != "what.txt")

        def read_all(place: Path) -> object:
            return max((read(path) or 0 for path in files), default=0)  # type: ignore[type-var]

        return read_all

    return prepare


def saved(kind: str) -> Callable[[Path, Path], Reader]:
    """The case's file in place of one of a saved result."""

    def prepare(case: Path, folder: Path) -> Reader:
        # Detecting once is enough: the sound result is the same for all.
        sound = folder.parent / "sound"
        if not sound.is_dir():
            sound.mkdir()
            KINDS[kind].make(sound)
        shutil.copytree(sound, folder, dirs_exist_ok=True)
        for path in case.iterdir():
            if path.name == "what.txt":
                continue
            for target in (folder / "out" / path.name, folder / "out" / "s_1" / path.name):
                if target.exists():
                    shutil.copy(path, target)
        return KINDS[kind].read

    return prepare


def convert(path: Path) -> object:
    out = path.name + ".out"
    options = ["--mpp", "0.25", "--polygons"]
    return main(["convert", str(path), out, "--to", "geojson", *options])


def open_image(path: Path) -> None:
    with Slide.open(path, mpp=0.25, override_mpp=True) as slide:
        slide.thumbnail(64)


def load_run(path: Path) -> None:
    load_checkpoint(path.parent)


def regions(path: Path) -> None:
    slide = Slide.from_array(np.zeros((500, 500, 3), np.uint8), 0.25)
    regions_of_slide(path, slide).mask(0.1, (50, 50))


READERS: dict[str, Callable[[Path, Path], Reader]] = {
    "checkpoint": each(load_run),
    "convert": each(convert),
    "crops-csv": dataset("crops:crops", "crops/crops.csv"),
    "evaluate-detections": saved("evaluate-saved"),
    "image": each(open_image),
    "lesions-csv": dataset("mini-mias:mias", "mias/lesions.csv"),
    "list-txt": each(lambda path: find_inputs([path]) and None),
    "midog-json": dataset("midog:midog", "midog/MIDOG.json"),
    "mitos12-csv": dataset("mitos12:m12", "m12/A00_v2/A00_01.csv", "m12/A00_v2/A00_01.bmp"),
    "mitos14-csv": dataset(
        "mitos14:m14",
        "m14/A03/mitosis/A03_00Aa_mitosis.csv",
        "m14/A03/frames/x40/A03_00Aa.png",
    ),
    "onnx": each(lambda path: Model.load(path, "cpu", 1) and None),
    "points-csv": dataset("points:p", "p/a_1.csv", "p/a_1.png"),
    "points-geojson": dataset("points:p", "p/a_1.geojson", "p/a_1.png"),
    "qupath": dataset("qupath:p", "p/a_1.geojson", "p/a_1.png"),
    "recipe": each(lambda path: load_recipe(path) and None),
    "report": saved("report"),
    "resume": saved("detect-again"),
    "roi": each(regions),
    "sliderunner": dataset("tupac16:sr.sqlite", "sr.sqlite"),
    "thresholds": each(lambda path: read_thresholds(path) and None),
    "tupac-csv": dataset(
        "tupac16:t", "t/mitoses_ground_truth/01/01.csv", "t/mitoses_image_data_part_1/01/01.tif"
    ),
}


def test_none_of_the_inputs_that_once_went_wrong_does(cases_dir, tmp_path):
    wrong = []
    cases = sorted(path for path in (cases_dir / "fuzz").iterdir() if path.is_dir())
    assert len(cases) >= 119
    for case in cases:
        prepare = next(READERS[name] for name in READERS if case.name.startswith(name))
        folder = tmp_path / case.name
        folder.mkdir()
        if not [path for path in case.iterdir() if path.name != "what.txt"]:
            continue
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            kind = Kind(case.name, lambda folder: [], prepare(case, folder))
            problem, _ = attempt(kind, folder)
        if problem:
            wrong.append(f"{case.name}: {problem}")
    shown = "\n".join(wrong)
    assert not wrong, shown

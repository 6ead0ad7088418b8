"""The entry point of the Grand Challenge algorithm, run in a bare tree as the container would."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from segmitos.io.points.read import read_annotations
from tests.factories.synthetic_fields import draw_field

ROOT = Path(__file__).parents[2]
FOLDER = ROOT / "integrations" / "grand_challenge"
MPP = 0.25


def run(tmp_path: Path, **more: str) -> subprocess.CompletedProcess[str]:
    bin_ = tmp_path / "bin"
    bin_.mkdir(exist_ok=True)
    (bin_ / "python").write_text(f'#!/bin/sh\nexec {sys.executable} "$@"\n')
    (bin_ / "python").chmod(0o755)
    return subprocess.run(
        ["sh", FOLDER / "start.sh"],
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
        cwd=tmp_path,
        env={
            "PATH": f"{bin_}:{os.environ['PATH']}",
            "PYTHONPATH": str(ROOT / "src"),
            "HOME": str(tmp_path),
            "SEGMITOS_INPUT": str(tmp_path / "input"),
            "SEGMITOS_OUTPUT": str(tmp_path / "output"),
            **more,
        },
    )


@pytest.fixture
def job(tmp_path: Path) -> Path:
    """A job's folders, with one image that says its scale."""
    images = tmp_path / "input" / "images" / "histopathology-roi-cropout"
    images.mkdir(parents=True)
    (tmp_path / "output").mkdir()
    field = draw_field(np.random.default_rng(0), 512)[0]
    Image.fromarray(field).save(images / "1.tiff", resolution_unit=3, resolution=1e4 / MPP)
    return tmp_path


@pytest.mark.slow
def test_an_image_in_gives_points_in_millimeters_out(job: Path) -> None:
    done = run(job)
    assert done.returncode == 0, done.stderr
    path = job / "output" / "mitotic-figures.json"
    content = json.loads(path.read_text())
    assert content["type"] == "Multiple points"
    assert content["version"] == {"major": 1, "minor": 0}
    for point in content["points"]:
        assert point["name"] in ("mitotic figure", "non-mitotic figure")
        assert 0 <= point["probability"] <= 1
        assert all(0 <= value <= 512 * MPP / 1000 for value in point["point"][:2])
    found = re.search(r"1\.tiff: (\d+) mitotic figures", done.stdout)
    assert found is not None
    assert read_annotations(path, mpp=MPP).counts()["mitosis"] == int(found[1])


@pytest.mark.parametrize("count", [0, 2])
def test_a_job_without_exactly_one_image_is_refused(job: Path, count: int) -> None:
    image = next((job / "input").rglob("1.tiff"))
    if count == 2:
        (image.parent / "2.tiff").write_bytes(image.read_bytes())
    else:
        image.unlink()
    done = run(job)
    assert done.returncode == 1
    assert "Traceback" not in done.stderr
    assert done.stderr.count("\n") == 1
    assert not (job / "output" / "mitotic-figures.json").exists()


def test_a_scale_that_is_no_number_is_refused(job: Path) -> None:
    done = run(job, SEGMITOS_MPP="a quarter")
    assert done.returncode == 2
    assert "SEGMITOS_MPP='a quarter'" in done.stderr


def test_the_container_is_not_root_and_has_what_it_starts() -> None:
    text = (ROOT / "Containerfile").read_text()
    assert re.search(r"^USER user$", text, re.MULTILINE)
    copied = " ".join(re.findall(r"^COPY (?!--from)(.+) \S+$", text, re.MULTILINE)).split()
    for name in copied:
        assert (ROOT / name).exists(), name
    # Without these `pip install .` fails in the container.
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    build = project["tool"]["hatch"]["build"]["targets"]["wheel"]
    needed = [build["hooks"]["custom"]["path"], project["project"]["readme"], *build["packages"]]
    for name in ("pyproject.toml", *needed):
        assert name in copied or Path(name).parts[0] in copied, name

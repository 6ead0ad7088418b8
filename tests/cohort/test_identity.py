"""A result belongs to content, path, model and every setting that affects it."""

from __future__ import annotations

import csv
import dataclasses
import inspect
import json
import os
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from segmitos import detect_many
from segmitos.cohort.atomic_folder import find_results
from segmitos.cohort.identity import (
    UNUSED_IN_RESULT,
    files_of,
    is_unchanged,
    read_input,
    settings_of,
)
from segmitos.cohort.settings import JobSettings
from segmitos.commands.detect import detect
from tests.factories.synthetic_fields import draw_field
from tests.factories.toy_models import write_toy


def changed(value: object, name: str, tmp_path: Path) -> object:
    """Another value of a field."""
    if name == "roi":
        (tmp_path / "roi.geojson").write_text("{}")
        return tmp_path / "roi.geojson"
    if isinstance(value, bool):
        return not value
    if name in ("hotspot_shape", "field_diameter_mm"):
        return "circle" if name == "hotspot_shape" else 0.6
    if isinstance(value, int | float):
        return value + 1
    return f"{value}-other"


@pytest.mark.parametrize("name", [field.name for field in dataclasses.fields(JobSettings)])
def test_every_setting_counts_but_those_that_are_named(name, tmp_path):
    settings = JobSettings()
    other = dataclasses.replace(
        settings, **{name: changed(getattr(settings, name), name, tmp_path)}
    )
    assert (settings_of(other) == settings_of(settings)) == (name in UNUSED_IN_RESULT)


def test_settings_that_do_not_count_are_fields():
    assert {field.name for field in dataclasses.fields(JobSettings)} >= UNUSED_IN_RESULT


def test_the_content_of_an_input_counts_whole_and_of_a_large_one_in_blocks(tmp_path):
    path = tmp_path / "a.tif"
    path.write_bytes(bytes(1000))
    first = read_input(path)
    assert (first.bytes, first.files, first.path) == (1000, 1, str(path))
    path.write_bytes(bytes(999) + b"x")
    assert read_input(path).sha256 != first.sha256
    # A name is no content, and an older time none either.
    os.utime(path, (0, 0))
    shutil.copy(path, tmp_path / "b.tif")
    assert read_input(tmp_path / "b.tif").sha256 == read_input(path).sha256
    large = tmp_path / "large.tif"
    with large.open("wb") as stream:
        stream.truncate(65 << 20)
    seen = {read_input(large).sha256}
    for place in (0, (65 << 20) - 1):
        with large.open("r+b") as stream:
            stream.seek(place)
            stream.write(b"x")
        seen.add(read_input(large).sha256)
    with large.open("ab") as stream:
        stream.write(b"x")
    seen.add(read_input(large).sha256)
    assert len(seen) == 4


def test_all_files_of_a_slide_count(tmp_path):
    (tmp_path / "s").mkdir()
    (tmp_path / "s.mrxs").write_bytes(b"main")
    (tmp_path / "s" / "Data0000.dat").write_bytes(b"pixels")
    first = read_input(tmp_path / "s.mrxs")
    assert first.files == 2 and first.bytes == 10
    (tmp_path / "links").mkdir()
    link = tmp_path / "links" / "other.mrxs"
    link.symlink_to(tmp_path / "s.mrxs")
    linked = read_input(link)
    assert (linked.sha256, linked.files) == (first.sha256, 2)
    (tmp_path / "s" / "Data0000.dat").write_bytes(b"PIXELS")
    assert read_input(tmp_path / "s.mrxs").sha256 != first.sha256
    assert read_input(link).sha256 != first.sha256 and not is_unchanged(link, linked)
    (tmp_path / "t.vms").write_text("[Virtual]\nImageFile=t.jpg\nImageFile(1,0)=u.jpg\nNo=absent\n")
    for name in ("t.jpg", "u.jpg", "other.jpg"):
        (tmp_path / name).write_bytes(b"x")
    assert [file.name for file in files_of(tmp_path / "t.vms")] == ["t.vms", "t.jpg", "u.jpg"]


def test_all_files_of_a_dicom_series_count():
    default = Path(__file__).resolve().parents[3] / "shared" / "cases"
    folder = Path(os.environ.get("SEGMITOS_CASES", default)) / "dicom_glob"
    if not folder.is_dir():
        pytest.skip(f"no {folder} (set SEGMITOS_CASES)")
    files = sorted(file for file in folder.rglob("*.dcm"))
    assert list(files_of(files[0])) == [file for file in files if file.parent == files[0].parent]


@pytest.fixture(scope="module")
def toy(tmp_path_factory):
    return str(write_toy(tmp_path_factory.mktemp("toy") / "toy.onnx"))


def fields(folder: Path, seed: int) -> list[int]:
    """Three fields whose files have the same names and sizes in every folder."""
    folder.mkdir(parents=True)
    rng = np.random.default_rng(seed)
    for name in ("01", "02", "03"):
        Image.fromarray(draw_field(rng, size=96)[0]).save(folder / f"{name}.bmp")
    return [path.stat().st_size for path in sorted(folder.iterdir())]


def counts(out: Path) -> dict[str, int]:
    with (out / "cohort.csv").open(newline="", encoding="utf-8") as stream:
        return {row["path"]: int(row["count"]) for row in csv.DictReader(stream)}


def test_folders_whose_files_share_names_and_sizes_are_told_apart(toy, tmp_path):
    sizes = [fields(tmp_path / name, seed) for seed, name in enumerate("abc")]
    assert sizes[0] == sizes[1] == sizes[2]
    expected = {}
    for name in "abc":
        detect_many(tmp_path / name, tmp_path / f"out-{name}", mpp=0.25, model=toy)
        expected |= counts(tmp_path / f"out-{name}")
    assert len(set(expected.values())) > 1
    for _ in range(2):
        for name in "abc":
            detect_many(tmp_path / name, tmp_path / "one by one", mpp=0.25, model=toy)
        detect_many([tmp_path / name for name in "abc"], tmp_path / "at once", mpp=0.25, model=toy)
    assert counts(tmp_path / "one by one") == counts(tmp_path / "at once") == expected


def test_moved_renamed_and_replaced_inputs_are_right_each_time(toy, tmp_path):
    fields(tmp_path / "in", 0)
    first, second = tmp_path / "in" / "01.bmp", tmp_path / "in" / "02.bmp"
    out = tmp_path / "out"
    told = {}

    def again(*paths: Path) -> list[tuple[str, str]]:
        outcomes = detect_many(paths, out, mpp=0.25, model=toy)
        for outcome in outcomes:
            summary = json.loads((out / outcome.name / "summary.json").read_text())
            assert summary["count"] == told.setdefault(outcome.path.read_bytes(), summary["count"])
        return [(outcome.name, outcome.status) for outcome in outcomes]

    assert again(first, second) == [("01", "done"), ("02", "done")]
    second.write_bytes(first.read_bytes())
    assert again(first, second) == [("01", "skipped"), ("02", "done")]
    moved = tmp_path / "elsewhere" / "01.bmp"
    moved.parent.mkdir()
    first.rename(moved)
    assert again(moved) == [("01", "done")]
    assert again(moved) == [("01", "skipped")]
    renamed = moved.with_name("04.bmp")
    moved.rename(renamed)
    assert again(renamed) == [("04", "done")]


def test_saved_detections_are_found_by_what_they_were_made_of(toy, tmp_path):
    for name in "ab":
        fields(tmp_path / name, ord(name))
    images = [tmp_path / name / "01.bmp" for name in "ab"]
    detect_many(images, tmp_path / "out", mpp=0.25, model=toy)
    found = find_results(tmp_path / "out", images)
    for image in images:
        record = found[image].record()
        assert record.input.path == str(image)
    moved = tmp_path / "moved.bmp"
    images[0].rename(moved)
    images[1].write_bytes(bytes(10))
    found = find_results(tmp_path / "out", [moved, images[1]])
    assert found[moved].record().input.path == str(images[0])
    assert found[images[1]] is None


def test_python_and_the_command_line_take_every_setting_with_its_default():
    parameters = inspect.signature(detect_many).parameters
    with detect.make_context("detect", ["a.png"]) as context:
        options = context.params
    for field in dataclasses.fields(JobSettings):
        # The side of a tile is a setting of `detect` alone.
        if field.name != "tile_px":
            assert parameters[field.name].default == field.default, field.name
            assert options[field.name] == field.default, field.name

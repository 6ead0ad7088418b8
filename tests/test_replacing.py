"""Nothing but what this program wrote is replaced; every verb that reads images warns of them."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import tifffile

from segmitos.cli import main
from segmitos.cohort.atomic_folder import OutputFolder, repair_results, results_in
from tests.factories.synthetic_fields import draw_field, write_cases
from tests.factories.toy_models import write_toy

RECIPE = """
pretrained = false
crop_px = 64
batch = 2
epochs = 1
steps_per_epoch = 1
mine_at = []
precision = "32-true"
"""
WARNED = "the file says 0.25 um/px (TIFF resolution), 0.3 was given; 0.25 is used"


@pytest.fixture(scope="module")
def toy(tmp_path_factory: pytest.TempPathFactory) -> str:
    return str(write_toy(tmp_path_factory.mktemp("toy") / "toy.segmitos"))


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """A `points` data set of TIFFs of 0.25 um/px, which `mpp.txt` says to be 0.3."""
    folder = tmp_path / "data"
    folder.mkdir()
    for seed, case in enumerate(write_cases(folder, slides=2, fields=1)):
        pixels, mitoses, _ = draw_field(np.random.default_rng(seed))
        case.image.unlink()
        options = {"resolution": (4e4, 4e4), "resolutionunit": 3, "photometric": "rgb"}
        tifffile.imwrite(case.image.with_suffix(".tif"), pixels, metadata=None, **options)
        rows = "".join(f"{x},{y}\n" for x, y in mitoses)
        case.image.with_suffix(".csv").write_text(f"x,y\n{rows}")
    (folder / "mpp.txt").write_text("0,3\n")
    (tmp_path / "tiny.toml").write_text(RECIPE)
    return folder


def calls(name: str, data: Path, toy: str, out: Path) -> list[str]:
    points, tiny = f"points:{data}", str(data.parent / "tiny.toml")
    training = ["--recipe", tiny, "--accelerator", "cpu", "--threads", "1", "-o", str(out)]
    return {
        "describe": ["dataset", "describe", points],
        "evaluate": ["evaluate", points, "-m", toy, "-o", str(out)],
        "tune": ["evaluate", points, "-m", toy, "-o", str(out), "--tune"],
        "train": ["train", points, *training],
        "crossval": ["crossval", points, *training, "--folds", "2"],
    }[name]


@pytest.mark.slow
@pytest.mark.parametrize("name", ["describe", "evaluate", "tune", "train", "crossval"])
def test_every_verb_that_reads_images_says_where_scales_differ(data, toy, capsys, name) -> None:
    main(calls(name, data, toy, data.parent / "out"))
    said = capsys.readouterr()
    assert WARNED in said.out + said.err
    # Of each image once, however many folds there are.
    if name != "describe":
        assert (said.out + said.err).count(WARNED) == 2
    if name == "evaluate":
        content = json.loads((data.parent / "out" / "evaluation.json").read_text())
        assert [WARNED in warning for warning in content["warnings"]] == [True, True]
        page = (data.parent / "out" / "evaluation.html").read_text()
        assert page.count('class="warn"') == 2


def test_saved_detections_are_scored_with_their_warnings(data, toy, capsys) -> None:
    out = str(data.parent / "out")
    assert main(["detect", str(data), "-m", toy, "--mpp", "0.3", "-o", out, "--threads=1"]) == 0
    capsys.readouterr()
    assert main(["evaluate", f"points:{data}", "--detections", out]) == 0
    assert capsys.readouterr().err.count(WARNED) == 2


def test_an_evaluation_says_which_model_and_whether_it_knows_the_data_set(
    data, tmp_path, capsys
) -> None:
    model = str(write_toy(tmp_path / "toy.segmitos", datasets=("data", "other")))
    out = tmp_path / "out"
    assert main(calls("evaluate", data, model, out)) == 0
    content = json.loads((out / "evaluation.json").read_text())
    (about,) = content["models"]
    assert about["name"] == "toy" and about["datasets"] == ["data", "other"]
    told = "model toy was trained on data of this name, data: F is too high"
    assert told in content["warnings"][-1] and told in capsys.readouterr().err
    page = (out / "evaluation.html").read_text()
    assert f"Model: toy, SHA-256 {about['sha256'][:12]}." in page and told in page
    assert "the bar is 10 um" in page

    assert main(calls("tune", data, model, tmp_path / "tuned")) == 0
    assert told in capsys.readouterr().err
    assert told in (tmp_path / "tuned" / "thresholds.json").read_text()

    results = tmp_path / "results"
    detect = ["detect", str(data), "-m", model, "--mpp", "0.3", "-o", str(results), "--threads=1"]
    assert main(detect) == 0
    capsys.readouterr()
    assert main(["evaluate", f"points:{data}", "--detections", str(results), "--json"]) == 0
    said = capsys.readouterr()
    assert json.loads(said.out)["models"] == [about] and told in said.err


def test_slides_that_a_page_leaves_out_are_told(data, toy, capsys, monkeypatch) -> None:
    out = data.parent / "out"
    assert main(calls("evaluate", data, toy, out)) == 0
    assert "more slides" not in (out / "evaluation.html").read_text()
    monkeypatch.setattr("segmitos.commands.evaluate._MAX_ROWS", 1)
    assert main(calls("evaluate", data, toy, out)) == 0
    assert "1 more slides are in evaluation.json" in (out / "evaluation.html").read_text()


def test_saved_detections_of_another_page_are_not_scored(data, toy, capsys) -> None:
    for table in sorted(data.glob("*.csv")):
        image = table.with_suffix(".tif")
        pixels = tifffile.imread(image)
        with tifffile.TiffWriter(image) as file:
            file.write(pixels, photometric="rgb", metadata=None)
            file.write(pixels[:90, :80], photometric="rgb", metadata=None)
    out = str(data.parent / "out")
    call = ["detect", str(data), "-m", toy, "--mpp", "0.25", "-o", out, "--threads=1"]
    assert main([*call, "--page", "2"]) == 0
    capsys.readouterr()
    assert main(["evaluate", f"points:{data}", "--detections", out]) == 1
    assert "is of 80 x 90 px: another page of the file" in capsys.readouterr().err


def test_saved_detections_of_regions_are_scored_with_a_warning(data, toy, capsys) -> None:
    out, roi = str(data.parent / "out"), data.parent / "roi.geojson"
    square = [[0, 0], [200, 0], [200, 200], [0, 200], [0, 0]]
    roi.write_text(json.dumps({"type": "Polygon", "coordinates": [square]}))
    call = ["detect", str(data), "-m", toy, "--roi", str(roi), "-o", out, "--threads=1"]
    assert main(call) == 0
    capsys.readouterr()
    assert main(["evaluate", f"points:{data}", "--detections", out]) == 0
    assert capsys.readouterr().err.count("mitoses outside of them count as missed") == 2


@pytest.mark.parametrize(
    ("name", "file"),
    [
        ("evaluate", "evaluation.json"),
        ("evaluate", "cases.csv"),
        ("tune", "thresholds.json"),
        ("train", "recipe.json"),
        ("train", "history.csv"),
        ("train", "out.segmitos"),
        ("crossval", "crossval.json"),
    ],
)
def test_a_file_of_somebody_else_stays(data, toy, capsys, name, file) -> None:
    out = data.parent / "out"
    out.mkdir()
    (out / file).write_text('{"mine": 1}')
    assert main(calls(name, data, toy, out)) == 1
    error = capsys.readouterr().err
    assert f"{out / file} " in error and "stays as it is" in error and error.count("\n") == 1
    assert [path.name for path in out.iterdir()] == [file]


@pytest.mark.slow
@pytest.mark.parametrize("name", ["evaluate", "tune", "train", "crossval"])
def test_the_same_command_again_is_at_home(data, toy, name) -> None:
    assert main(calls(name, data, toy, data.parent / "out")) == 0
    assert main(calls(name, data, toy, data.parent / "out")) == 0
    if name == "train":
        again = [*calls(name, data, toy, data.parent / "out"), "--restart"]
        assert main(again) == 0


def test_convert_replaces_a_file_only_if_asked(tmp_path, capsys) -> None:
    (tmp_path / "a.csv").write_text("x,y\n1,2\n")
    (tmp_path / "b.csv").write_text("my labels")
    arguments = ["convert", str(tmp_path / "a.csv"), str(tmp_path / "b.csv")]
    assert main(arguments) == 1
    assert "replace it with --overwrite" in capsys.readouterr().err
    assert (tmp_path / "b.csv").read_text() == "my labels"
    assert main([*arguments, "--overwrite"]) == 0
    assert (tmp_path / "b.csv").read_text().startswith("x_px,y_px")
    source = str(tmp_path / "a.csv")
    assert main(["convert", source, source, "--overwrite"]) == 2


def test_a_sheet_does_not_replace_pictures_and_tables_of_others(data, capsys) -> None:
    mine = data.parent / "mine.png"
    for path in (mine, mine.with_suffix(".csv")):
        path.write_bytes(b"mine")
        assert main(["dataset", "describe", f"points:{data}", "--sheet", str(mine)]) == 1
        assert "stays as it is" in capsys.readouterr().err
        assert path.read_bytes() == b"mine"
        path.unlink()
        mine.with_suffix(".csv").unlink(missing_ok=True)
    for _ in range(2):
        main(["dataset", "describe", f"points:{data}", "--sheet", str(mine)])
        assert "stays as it is" not in capsys.readouterr().err


def test_a_converted_data_set_that_was_edited_stays(data, capsys) -> None:
    out = data.parent / "points"
    arguments = ["dataset", "convert", f"points:{data}", "-o", str(out)]
    assert main(arguments) == main(arguments) == 0
    table = next(out.rglob("*.csv"))
    table.write_text("x,y\n1,1\n")
    assert main(arguments) == 1
    assert f"{table} is there already and differs" in capsys.readouterr().err
    assert table.read_text() == "x,y\n1,1\n"


def test_models_replace_models_alone_and_never_their_source(toy, tmp_path, capsys) -> None:
    source = shutil.copy(toy, tmp_path / "a.segmitos")
    assert main(["model", "combine", str(source), "-o", str(source)]) == 2
    assert "is the input itself" in capsys.readouterr().err
    (tmp_path / "b.segmitos").write_text("notes")
    assert main(["model", "combine", str(source), "-o", str(tmp_path / "b.segmitos")]) == 1
    assert (tmp_path / "b.segmitos").read_text() == "notes"


def test_a_result_that_a_kill_left_half_replaced_comes_back(data, toy) -> None:
    out = data.parent / "out"
    main(["detect", str(data), "-m", toy, "-o", str(out), "--threads=1"])
    name = results_in(out)[0].name
    for verb in (["report", str(out)], ["recount", str(out), "--hotspot-area-mm2", "0.01"]):
        (out / name).rename(out / f".{name}.old")
        assert main(verb) == 0
        assert not OutputFolder(out, name).changed_files()
    (out / ".mine.old").mkdir()
    repair_results(out)
    assert (out / ".mine.old").is_dir()


def test_a_corrected_file_is_not_written_over(data, toy, capsys) -> None:
    out = data.parent / "out"
    main(["detect", str(data), "-m", toy, "-o", str(out), "--threads=1"])
    result = results_in(out)[0].path
    edited = shutil.copy(result / "detections.geojson", result / "reviewed.geojson")
    before = Path(edited).read_bytes()
    assert main(["recount", str(result), "--with", str(edited)]) == 2
    assert "would be written over" in capsys.readouterr().err
    assert Path(edited).read_bytes() == before
    Path(edited).write_text('{"type": "FeatureCollection", "features": []}')
    corrected = str(result / "detections.geojson")
    assert main(["recount", str(result), "--with", corrected]) == 1
    assert "was not written by SegMitos" in capsys.readouterr().err


def test_images_of_kinds_that_are_not_read_are_counted_and_named(data, toy, capsys) -> None:
    for name in ("a.gif", "b.webp", "c.HEIC", "d.gif"):
        (data / name).write_bytes(b"GIF89a")
    out = ["-m", toy, "-o", str(data.parent / "out"), "--threads=1"]
    assert main(["detect", str(data), *out]) == 0
    told = f"passed over 4 images of kinds that are not read: {data / 'a.gif'}, {data / 'b.webp'}"
    assert told in capsys.readouterr().err
    assert main(["detect", str(data / "*.gif"), *out]) == 1
    assert "no image matches this pattern; passed over 2 images" in capsys.readouterr().err
    (data / "b.csv").write_text("x,y\n")
    assert main(["dataset", "describe", f"points:{data}"]) == 1
    assert "b.webp: .webp is not read; convert it to PNG or TIFF" in capsys.readouterr().out

"""The command line as users run it: whole jobs, wrong input, kills, full disks."""

from __future__ import annotations

import csv
import json
import os
import random
import shutil
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from scipy.optimize import linear_sum_assignment

import segmitos
from segmitos.cli import app, main
from segmitos.commands.train import describe_split
from segmitos.detection.model_file import read_model_file
from segmitos.io.datasets import load_dataset
from tests.factories.synthetic_fields import draw_field, write_cases
from tests.factories.toy_models import write_toy, write_toy_verified

SOURCE = str(Path(segmitos.__file__).parents[1])


@pytest.fixture(scope="module")
def toy(tmp_path_factory):
    return str(write_toy(tmp_path_factory.mktemp("toy") / "toy.segmitos"))


@pytest.fixture(scope="module")
def clicks(tmp_path_factory):
    """A `points` data set: six fields of three slides, a table of clicks each."""
    folder = tmp_path_factory.mktemp("clicks")
    for case in write_cases(folder):
        lines = ["x,y,label"]
        lines += [f"{x},{y},mitosis" for x, y in case.mitoses_xy]
        lines += [f"{x},{y},non-mitosis" for x, y in case.hard_negatives_xy]
        case.image.with_suffix(".csv").write_text("\n".join(lines) + "\n")
    return folder


@pytest.fixture
def field(tmp_path):
    path = tmp_path / "field.png"
    Image.fromarray(draw_field(np.random.default_rng(3), size=160)[0]).save(path)
    return path


def command(*arguments: object) -> list[str]:
    return [sys.executable, "-m", "segmitos", *(str(argument) for argument in arguments)]


def environment() -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": SOURCE}


def run_process(*arguments: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        command(*arguments), env=environment(), capture_output=True, text=True, check=False
    )


def files(folder: Path) -> dict[str, bytes]:
    """What a run left, but for run.json and the page that say when and where it ran."""
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and path.name not in ("run.json", "cohort.html")
    }


def complaint(capsys: pytest.CaptureFixture[str]) -> str:
    """The one line on standard error; anything more is a failure."""
    lines = capsys.readouterr().err.strip().splitlines()
    assert len(lines) == 1, lines
    assert "Traceback" not in lines[0]
    return lines[0]


# Whole jobs


def test_from_clicks_to_detections(clicks, tmp_path, capsys):
    """Train, export, tune, export, evaluate, detect: the README's path, on a tiny set."""
    (tmp_path / "tiny.toml").write_text(
        "pretrained = false\ncrop_px = 64\nbatch = 2\nepochs = 1\nsteps_per_epoch = 2\n"
        'mine_at = []\nprecision = "32-true"\n'
    )
    data, run = f"points:{clicks}", tmp_path / "run"
    first, last = tmp_path / "first.segmitos", tmp_path / "last.segmitos"
    recipe = ["--recipe", str(tmp_path / "tiny.toml"), "--mpp", "0.25", "--threads", "1"]
    train = ["train", data, "-o", str(run), "--accelerator", "cpu", *recipe]
    assert main([*train, "--validation", "S2"]) == 0
    assert main(["model", "export", str(run), "-o", str(first)]) == 0
    tune = ["evaluate", data, "--mpp", "0.25", "--cases", "S2", "-m", str(first), "--tune"]
    assert main([*tune, "-o", str(tmp_path / "tuned")]) == 0
    thresholds = tmp_path / "tuned" / "thresholds.json"
    exported = ["model", "export", str(run), "-o", str(last), "--thresholds", str(thresholds)]
    assert main([*exported, "--name", "mine"]) == 0
    out = tmp_path / "out"
    assert main(["detect", str(clicks), "-m", str(last), "--mpp", "0.25", "-o", str(out)]) == 0
    summary = json.loads((out / "S0_0" / "summary.json").read_text())
    tuned = json.loads(thresholds.read_text())
    chosen = tuned["thresholds"]
    assert summary["model"]["name"] == "mine"
    assert tuned["model"]["sha256"] == read_model_file(first).sha256
    own = run / "thresholds.json"
    if own.exists():
        assert json.loads(own.read_text())["model"] == read_model_file(run / "run.segmitos").about
    changed = tuned | {"model": tuned["model"] | {"maps_sha256": "0" * 64}}
    thresholds.write_text(json.dumps(changed))
    capsys.readouterr()
    assert main([*exported, "--name", "other"]) == 2
    assert "tuned with another model, 'first'; make this one" in capsys.readouterr().err
    assert read_model_file(last).spec.name == "mine"
    assert {key: summary["thresholds"][key] for key in chosen} == chosen
    capsys.readouterr()


def test_a_model_with_a_verifier_is_not_given_otsus_threshold(clicks, tmp_path):
    model = write_toy_verified(tmp_path / "verified.segmitos")
    tune = ["evaluate", f"points:{clicks}", "--mpp", "0.25", "-m", str(model), "--tune"]
    assert main([*tune, "-o", str(tmp_path / "tuned")]) == 0
    tuned = json.loads((tmp_path / "tuned" / "thresholds.json").read_text())
    assert [value for value, _ in tuned["curves"]["threshold"]][-1] == 0.8
    assert tuned["model"] == read_model_file(model).about


def test_a_second_run_skips_and_overwrite_does_not(toy, field, tmp_path, capsys):
    detect = ["detect", str(field), "-m", toy, "--mpp", "0.25", "-o", str(tmp_path / "out")]
    report = tmp_path / "out" / "field" / "report.html"
    assert main(detect) == 0
    assert {path.name for path in report.parent.iterdir()} >= {
        "detections.geojson",
        "detections.csv",
        "summary.json",
        "run.json",
        "report.html",
    }
    capsys.readouterr()
    before = report.stat().st_mtime_ns
    assert main(detect) == 0 and "finished before" in capsys.readouterr().out
    assert report.stat().st_mtime_ns == before
    assert main([*detect, "--overwrite"]) == 0
    assert report.stat().st_mtime_ns != before


def test_json_is_all_there_is_on_standard_output(toy, field, clicks, tmp_path, capsys):
    detect = ["detect", str(field), "-m", toy, "--mpp", "0.25", "-o", str(tmp_path / "out")]
    score = ["evaluate", f"points:{clicks}", "--mpp", "0.25", "-m", toy]
    describe = ["dataset", "describe", str(clicks), "--mpp", "0.25"]
    for arguments in (detect, score, ["dataset", "list"], describe):
        assert main([*arguments, "--json"]) == 0
        json.loads(capsys.readouterr().out)


def test_evaluate_agrees_with_a_scorer_that_shares_no_code(toy, clicks, tmp_path, capsys):
    out = tmp_path / "out"
    assert main(["detect", str(clicks), "-m", toy, "--mpp", "0.25", "-o", str(out)]) == 0
    tp = found = wanted = 0
    for table in sorted(clicks.glob("*.csv")):
        with table.open(newline="") as stream:
            rows = [row for row in csv.DictReader(stream) if row["label"] == "mitosis"]
        truth = np.array([(float(row["x"]), float(row["y"])) for row in rows]) * 0.25
        with (out / table.stem / "detections.csv").open(newline="") as stream:
            seen = np.array([(float(r["x_um"]), float(r["y_um"])) for r in csv.DictReader(stream)])
        found, wanted = found + len(seen), wanted + len(truth)
        if len(seen):
            gaps = np.hypot(*(seen[:, None] - truth[None]).transpose(2, 0, 1))
            pairs = linear_sum_assignment(np.where(gaps <= 7.5, gaps, 1e6))
            tp += int((gaps[pairs] <= 7.5).sum())
    assert 0 < tp < found + wanted
    capsys.readouterr()
    score = ["evaluate", f"points:{clicks}", "--mpp", "0.25", "-m", toy, "--json"]
    assert main(score) == 0
    pooled = json.loads(capsys.readouterr().out)["pooled"]
    assert pooled["f_score"] == pytest.approx(2 * tp / (found + wanted), abs=5e-4)
    assert (pooled["tp"], pooled["fp"], pooled["fn"]) == (tp, found - tp, wanted - tp)


def test_figures_of_crops_are_told_to_say_little_of_precision(toy, field, tmp_path, capsys):
    cut = tmp_path / "cut"
    cut.mkdir()
    shutil.copy(field, cut / "a.png")
    (cut / "crops.csv").write_text("file,dataset,slide,x_px,y_px,label\na.png,d,s,96,96,mitosis\n")
    told = "1 of 1 images are crops that were cut round a mitosis"
    for more in ([], ["--tune", "-o", str(tmp_path / "tuned")]):
        assert main(["evaluate", f"crops:{cut}", "-m", toy, "--json", *more]) == 0
        said = capsys.readouterr()
        assert told in said.err and told in json.loads(said.out)["warnings"][0]
    cases = load_dataset(f"crops:{cut}")
    assert told in describe_split([], cases)


def test_help_is_quick_and_names_every_verb():
    code = (
        "import sys; from segmitos.cli import main; code = main(['--help']); "
        "heavy = {'numpy', 'torch', 'onnxruntime', 'scipy', 'PIL', 'rich', 'pandas'}; "
        "print('LOADED', sorted(heavy & set(sys.modules)), code)"
    )
    ran = subprocess.run(
        [sys.executable, "-c", code], env=environment(), capture_output=True, text=True, check=True
    )
    assert "LOADED [] 0" in ran.stdout
    for verb in app.commands:
        assert f" {verb} " in ran.stdout
    for words in (["detect"], ["dataset", "describe"]):
        shown = run_process(*words, "--help")
        assert shown.returncode == 0 and "Example" in shown.stdout


def test_a_reader_that_has_seen_enough_is_no_error():
    ran = subprocess.run(
        f"{' '.join(command('dataset', 'list'))} | head -n 1",
        shell=True,
        env=environment(),
        capture_output=True,
        text=True,
        check=True,
    )
    assert ran.stdout and not ran.stderr


def test_detection_loads_no_torch(toy, field, tmp_path):
    code = (
        "import sys; from segmitos.cli import main; "
        f"code = main(['detect', {str(field)!r}, '-m', {toy!r}, '--mpp', '0.25', "
        f"'-o', {str(tmp_path / 'out')!r}]); print('torch' in sys.modules, code)"
    )
    ran = subprocess.run(
        [sys.executable, "-c", code], env=environment(), capture_output=True, text=True, check=True
    )
    assert ran.stdout.strip().splitlines()[-1] == "False 0"


# Wrong input


def spoil(kind: str, folder: Path, good: Path) -> Path:
    """Make one wrong input."""
    path = folder / {"tiff": "cut.tif", "jpeg": "cut.jpg"}.get(kind, f"{kind}.png")
    image = Image.open(good).convert("RGB")
    if kind == "empty":
        path.write_bytes(b"")
    elif kind == "text":
        path.write_text("x,y\n1,2\n")
    elif kind in ("jpeg", "tiff"):
        image.save(path)
        path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    elif kind == "dot":
        Image.new("RGB", (1, 1), (200, 100, 200)).save(path)
    return path


@pytest.mark.parametrize("kind", ["missing", "empty", "text", "jpeg", "tiff"])
def test_a_bad_image_is_named_and_the_others_are_done(kind, toy, field, tmp_path, capsys):
    bad = spoil(kind, tmp_path, field)
    out = tmp_path / "out"
    code = main(["detect", str(bad), str(field), "-m", toy, "--mpp", "0.25", "-o", str(out)])
    told = capsys.readouterr()
    assert code == 1
    assert bad.name in told.out + told.err and "Traceback" not in told.out + told.err
    assert (out / "field" / "summary.json").exists()
    assert not (out / bad.stem).exists()
    with (out / "failures.csv").open(newline="") as stream:
        assert [Path(row["path"]).name for row in csv.DictReader(stream)] == [bad.name]


def test_an_image_of_one_pixel_has_no_mitosis(toy, field, tmp_path, capsys):
    dot = spoil("dot", tmp_path, field)
    out = tmp_path / "out"
    assert main(["detect", str(dot), "-m", toy, "--mpp", "0.25", "-o", str(out)]) == 0
    assert json.loads((out / "dot" / "summary.json").read_text())["count"] == 0
    capsys.readouterr()


def test_an_unknown_scale_is_refused_with_the_remedy(toy, field, tmp_path, capsys):
    assert main(["detect", str(field), "-m", toy, "-o", str(tmp_path / "out")]) == 1
    told = capsys.readouterr()
    assert "--mpp 0.25" in told.out + told.err and "field.png" in told.out + told.err


@pytest.mark.parametrize("mpp", ["0", "-1", "1e9", "nan", "inf", "many"])
def test_an_impossible_scale_is_refused(mpp, toy, field, tmp_path, capsys):
    arguments = ["detect", str(field), "-m", toy, f"--mpp={mpp}", "-o", str(tmp_path / "out")]
    assert main(arguments) in (1, 2)
    told = capsys.readouterr()
    assert mpp.strip("-") in (told.out + told.err).lower().replace("1000000000.0", "1e9")
    assert "Traceback" not in told.err
    assert not (tmp_path / "out" / "field").exists()


@pytest.mark.parametrize(
    ("table", "named"),
    [
        ("x,y\n10,ten\n", "ten"),
        ("x,y\n10,nan\n", "nan"),
        ("a,b\n1,2\n", "x"),
        ("x,y,label\n1,2,perhaps\n", "perhaps"),
    ],
)
def test_a_bad_table_of_points_is_one_line(table, named, toy, field, capsys):
    field.with_suffix(".csv").write_text(table)
    assert main(["evaluate", f"points:{field.parent}", "--mpp", "0.25", "-m", toy]) == 1
    line = complaint(capsys)
    assert "field.csv" in line and named in line


def test_points_outside_the_image_are_pointed_out(field, capsys):
    field.with_suffix(".csv").write_text("x,y\n10,10\n5000,10\n")
    main(["dataset", "describe", f"points:{field.parent}", "--mpp", "0.25"])
    told = capsys.readouterr()
    assert "field" in told.out + told.err and "5000" in told.out + told.err
    assert "outside" in told.out + told.err


def test_polygons_where_points_are_wanted(field, toy, capsys):
    square = [[[0, 0], [9, 0], [9, 9], [0, 9], [0, 0]]]
    feature = {
        "type": "Feature",
        "geometry": {"type": "Polygon", "coordinates": square},
        "properties": {"classification": {"name": "Mitotic figure"}},
    }
    content = {"type": "FeatureCollection", "features": [feature]}
    field.with_suffix(".geojson").write_text(json.dumps(content))
    assert main(["evaluate", f"points:{field.parent}", "--mpp", "0.25", "-m", toy]) == 1
    line = complaint(capsys)
    assert "field.geojson" in line and "Polygon" in line


@pytest.mark.parametrize("content", [b"", b"not a model", None])
def test_a_file_that_is_no_model(content, field, tmp_path, capsys):
    path = tmp_path / "wrong.segmitos"
    if content is not None:
        path.write_bytes(content)
    arguments = ["detect", str(field), "-m", str(path), "--mpp", "0.25"]
    assert main([*arguments, "-o", str(tmp_path / "out")]) == 1
    assert "wrong.segmitos" in complaint(capsys)
    assert not (tmp_path / "out" / "field").exists()


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        (["detect", "FIELD", "--mpp", "0.25", "--device", "abacus"], "abacus"),
        (["detect", "FIELD", "--mpp", "0.25", "--device", "cuda"], "cuda"),
        (["detect", "FIELD", "--mpp", "0.25", "--min-score", "2"], "2"),
        (["detect", "FIELD", "--mpp", "0.25", "--threshold", "high"], "high"),
        (["detect", "FIELD", "--mpp", "0.25", "--workers", "0"], "0"),
        (["detect", "FIELD", "--mpp", "0.25", "--threads", "-1"], "-1"),
        (["detect", "FIELD", "--mpp", "0.25", "--hotspot-shape", "star"], "star"),
        (["detect", "FIELD", "--mpp", "0.25", "--roi", "absent.geojson"], "absent.geojson"),
        (["detect", "FIELD", "--mpp", "0.25", "--qupath", "cell"], "cell"),
        (["evaluate", "absent-format:.", "--mpp", "0.25"], "absent-format"),
        (["evaluate", "points:absent", "--mpp", "0.25"], "absent"),
        (["evaluate", "CLICKS", "--mpp", "0.25", "--rule", "golden"], "golden"),
        (["evaluate", "CLICKS", "--mpp", "0.25", "--cases", "S9"], "S9"),
        (["evaluate", "CLICKS", "--mpp", "0.25", "--detections", "absent"], "absent"),
        (["train", "CLICKS", "--mpp", "0.25", "-o", "OUT", "--recipe", "absent.toml"], "absent"),
        (["train", "CLICKS", "--mpp", "0.25", "-o", "OUT", "--validation", "S7"], "S7"),
        (["train", "CLICKS", "--mpp", "0.25", "-o", "OUT", "--epochs", "0"], "epochs"),
        (["model", "export", "absent", "-o", "OUT.segmitos"], "absent"),
        (["model", "export", "CLICKS", "-o", "OUT.txt"], ".segmitos"),
        (["report", "absent"], "absent"),
        (["demo", "absent.png"], "absent.png"),
        (["detekt", "FIELD"], "detekt"),
        (["detect", "FIELD", "--mpp", "0.25", "-o", "x" * 300], "File name too long"),
        (["detect", "FIELD", "--mpp", "0.25", "-o", ""], "empty"),
        (["detect", "FIELD", "--mpp", "0.25", "-m", "x" * 300], "File name too long"),
        (["report", "x" * 300], "File name too long"),
        (["evaluate", "points:" + "x" * 300, "--mpp", "0.25"], "does not exist"),
        (["detect", "FIELD", "--speed", "9"], "--speed"),
        (["detect", "FIELD", "--workers", "two"], "'two'"),
        (["convert", "absent.csv", "OUT.json"], "absent.csv"),
        (["dataset", "describe", "mitos14:absent"], "absent"),
        (["dataset", "convert", "CLICKS", "-o", "FIELD"], "field.png"),
    ],
)
def test_what_cannot_be_done_is_one_line(
    arguments, named, field, clicks, toy, tmp_path, monkeypatch, capsys
):
    monkeypatch.chdir(tmp_path)
    stands = {"FIELD": str(field), "CLICKS": f"points:{clicks}", "OUT": str(tmp_path / "o")}
    given = [stands.get(argument, argument) for argument in arguments]
    code = main(given)
    told = capsys.readouterr()
    assert code in (1, 2)
    lines = [line for line in told.err.splitlines() if named in line]
    assert lines or named in told.out, told
    assert "Traceback" not in told.err
    assert not list(tmp_path.glob("o*/*"))


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can mount a small file system")
def test_a_full_disk(toy, field, tmp_path, capsys):
    small = tmp_path / "small"
    small.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=32k", "tmpfs", str(small)]
    if subprocess.run(mount, check=False, capture_output=True).returncode:
        pytest.skip("no small file system can be mounted here")
    try:
        code = main(["detect", str(field), "-m", toy, "--mpp", "0.25", "-o", str(small)])
        told = capsys.readouterr()
        assert code == 1 and "No space left on device" in told.out + told.err
        assert not (small / "field").exists()
    finally:
        subprocess.run(["umount", str(small)], check=True)


def test_an_output_folder_that_cannot_be_written(toy, field, tmp_path, capsys):
    """Under a file nothing can be written, whoever asks; root ignores permissions."""
    blocked = field / "out"
    assert main(["detect", str(field), "-m", toy, "--mpp", "0.25", "-o", str(blocked)]) == 1
    assert str(blocked) in complaint(capsys)
    if os.geteuid() == 0:
        return
    locked = tmp_path / "locked"
    locked.mkdir(mode=0o500)
    assert main(["detect", str(field), "-m", toy, "--mpp", "0.25", "-o", str(locked)]) == 1
    assert str(locked) in complaint(capsys)


# Kills


@pytest.mark.slow
def test_killed_ten_times_a_rerun_completes(toy, tmp_path):
    folder, whole, out = tmp_path / "in", tmp_path / "whole", tmp_path / "out"
    folder.mkdir()
    rng = np.random.default_rng(0)
    for index in range(8):
        image = draw_field(rng, size=160)[0]
        Image.fromarray(image).save(folder / f"f{index}.png")
    detect = ["detect", folder, "-m", toy, "--mpp", "0.25", "--threads", "1", "-o"]
    began = time.monotonic()
    assert run_process(*detect, whole).returncode == 0
    lasts = time.monotonic() - began
    expected = files(whole)
    inside = {name.split("/")[1] for name in expected if "/" in name}
    moments = random.Random(5)
    for _ in range(10):
        process = subprocess.Popen(
            command(*detect, out),
            env=environment(),
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        time.sleep(moments.uniform(0.3, 1.0) * lasts)
        process.kill()
        process.wait()
        for done in out.glob("f*"):
            assert {path.name for path in done.iterdir()} - {"run.json"} == inside
        if out.exists() and moments.random() < 0.5:
            # Something to do is left for the next one.
            for done in list(out.glob("f*"))[:2]:
                shutil.rmtree(done)
    assert run_process(*detect, out).returncode == 0
    assert files(out) == expected

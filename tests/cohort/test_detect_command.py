"""`segmitos detect` as users run it: statuses, tables, shards, streams, what may be replaced."""

from __future__ import annotations

import csv
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

import segmitos
from segmitos import detect_many
from segmitos.cli import main
from segmitos.cohort import job
from segmitos.cohort.identity import RESULT_FORMAT
from segmitos.cohort.tables import write_tables
from tests.factories.dicom import save_dicom
from tests.factories.synthetic_fields import draw_field
from tests.factories.toy_models import write_toy

SOURCE = str(Path(segmitos.__file__).parents[1])


@pytest.fixture(scope="module")
def toy(tmp_path_factory):
    return str(write_toy(tmp_path_factory.mktemp("toy") / "toy.onnx"))


@pytest.fixture
def fields(tmp_path):
    folder = tmp_path / "in"
    folder.mkdir()
    rng = np.random.default_rng(0)
    for name in "abcd":
        Image.fromarray(draw_field(rng, size=96)[0]).save(folder / f"{name}.png")
    return folder


def rows(path: Path) -> list[dict[str, str]]:
    with path.open(newline="", encoding="utf-8") as stream:
        return list(csv.DictReader(stream))


def start(*arguments: object, **options: Any) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "segmitos", *map(str, arguments)],
        env={**os.environ, "PYTHONPATH": SOURCE, **options.pop("env", {})},
        text=True,
        stderr=subprocess.PIPE,
        **{"stdout": subprocess.PIPE, **options},
    )


# Statuses


def test_no_tissue_is_a_status_of_its_own(toy, fields, tmp_path, capsys):
    Image.new("RGB", (96, 96), (0, 0, 0)).save(fields / "black.png")
    out = tmp_path / "out"
    detect = ["detect", str(fields), "-m", toy, "--mpp", "0.25", "-o", str(out)]
    assert main(detect) == 3
    told = capsys.readouterr().out
    assert "black: no tissue found, nothing counted" in told and "1 without tissue" in told
    status = {row["name"]: row["status"] for row in rows(out / "cohort.csv")}
    assert status["black"] == "no tissue" and status["a"] == "done"
    assert "no tissue" in (out / "cohort.html").read_text()
    (fields / "e.png").write_bytes(b"no image")
    assert main(detect) == 1
    capsys.readouterr()


def test_a_warning_is_said_in_every_output(toy, fields, tmp_path, capsys):
    """The scale of a file that is not that of --mpp: the file's is used, and both are named."""
    image = Image.open(fields / "a.png")
    image.save(fields / "a.tif", resolution=40000, resolution_unit=3)
    out = tmp_path / "out"
    detect = ["detect", str(fields / "a.tif"), "-m", toy, "--mpp", "0.5", "-o", str(out)]
    for _ in range(2):
        assert main(detect) == 0
        told = capsys.readouterr()
        assert "segmitos: warning: a: " in told.err and "1 with a warning" in told.out
    (row,) = rows(out / "cohort.csv")
    summary = json.loads((out / "a" / "summary.json").read_text())
    assert row["status"] == "warning"
    assert row["warnings"] == "; ".join(summary["warnings"]) and "0.5" in row["warnings"]
    assert summary["warnings"][0].split()[0] in (out / "a" / "report.html").read_text()


def test_the_log_has_a_line_an_event_and_quiet_says_nothing(toy, fields, tmp_path, capsys):
    log = tmp_path / "logs" / "run.jsonl"
    (fields / "e.png").write_bytes(b"no image")
    detect = ["detect", str(fields), "-m", toy, "--mpp", "0.25", "-o", str(tmp_path / "out")]
    assert main([*detect, "--quiet", "--log", str(log)]) == 1
    told = capsys.readouterr()
    assert told.out == "" and told.err.count("\n") == 1 and "e.png" in told.err
    events = [json.loads(line) for line in log.read_text().splitlines()]
    assert [event["event"] for event in events] == ["start", *["input"] * 5, "end"]
    assert [event["status"] for event in events[1:-1]] == [*["done"] * 4, "failed"]
    assert main([*detect, "--verbose", "--log", str(log)]) == 1
    told = capsys.readouterr()
    assert "model toy" in told.err and "px of 0.25 um" in told.err
    assert len(log.read_text().splitlines()) == 14
    image = fields / "e.png"
    assert main([*detect, "--log", str(image)]) == 1
    assert f"{image} is no log of segmitos, and stays as it is" in capsys.readouterr().err
    assert image.read_bytes() == b"no image"
    assert main([*detect, "--verbose", "--quiet"]) == 2
    assert "do not go together" in capsys.readouterr().err


# Inputs and tables


def test_a_result_of_another_version_is_told_and_made_again(
    toy, fields, tmp_path, capsys, monkeypatch
):
    out = tmp_path / "out"
    detect = ["detect", str(fields / "a.png"), "-m", toy, "--mpp", "0.25", "-o", str(out)]
    with monkeypatch.context() as older:
        older.setattr(job, "RESULT_FORMAT", RESULT_FORMAT - 1)
        assert main(detect) == 0
    capsys.readouterr()
    write_tables(out)
    (row,) = rows(out / "cohort.csv")
    assert row["status"] == "failed"
    assert row["cause"] == f"{out / 'a'} is of another version of segmitos; run detect again"
    assert main(detect) == 0
    assert "finished before" not in capsys.readouterr().out
    (row,) = rows(out / "cohort.csv")
    assert row["status"] == "done"
    assert main(detect) == 0
    assert "finished before" in capsys.readouterr().out


def test_a_table_gives_scale_regions_and_name(toy, fields, tmp_path):
    ring = [[0, 0], [40, 0], [40, 96], [0, 96], [0, 0]]
    (fields / "roi.geojson").write_text(json.dumps({"type": "Polygon", "coordinates": [ring]}))
    table = fields / "table.csv"
    table.write_text("path;mpp;roi;name\na.png;0,25;;first\nb.png;0,5;roi.geojson;\n")
    out = tmp_path / "out"
    outcomes = detect_many(table, out, model=toy, hotspot_area_mm2=0.01)
    assert [(one.name, one.summary["mpp"]) for one in outcomes] == [("first", 0.25), ("b", 0.5)]
    assert outcomes[1].summary["tissue_area_mm2"] < 0.6 * 96 * 96 * 0.25e-6
    assert [one.status for one in detect_many(table, out, model=toy, hotspot_area_mm2=0.01)] == [
        "skipped",
        "skipped",
    ]
    (fields / "roi.geojson").write_text(
        json.dumps({"type": "Polygon", "coordinates": [[[0, 0], [80, 0], [80, 96], [0, 0]]]})
    )
    again = detect_many(table, out, model=toy, hotspot_area_mm2=0.01)
    assert again[0].status == "skipped" and again[1].status in ("done", "warning")


def test_shards_make_one_cohort(toy, fields, tmp_path):
    seen = []
    for number in (1, 2, 3):
        outcomes = detect_many(fields, tmp_path / "out", mpp=0.25, model=toy, shard=(number, 3))
        seen += [outcome.name for outcome in outcomes]
    assert sorted(seen) == list("abcd")
    assert [row["name"] for row in rows(tmp_path / "out" / "cohort.csv")] == list("abcd")


@pytest.mark.parametrize("shard", ["0/3", "4/3", "1", "a/b", "1/0"])
def test_a_shard_that_cannot_be_is_refused(shard, toy, fields, tmp_path, capsys):
    detect = ["detect", str(fields), "-m", toy, "--mpp", "0.25", "-o", str(tmp_path / "out")]
    assert main([*detect, "--shard", shard]) == 2
    assert shard in capsys.readouterr().err


def test_progress_is_told_input_by_input(toy, fields, tmp_path):
    told = []
    detect_many(
        fields,
        tmp_path / "out",
        mpp=0.25,
        model=toy,
        on_progress=lambda done, total, outcome: told.append((done, total, outcome.name)),
    )
    assert told == [(number + 1, 4, name) for number, name in enumerate("abcd")]


def test_no_cell_is_a_formula(toy, fields, tmp_path):
    (fields / "a.png").rename(fields / "=cmd.png")
    (fields / "b.png").write_bytes(b"no image")
    (fields / "b.png").rename(fields / "@b.png")
    detect_many(fields, tmp_path / "out", mpp=0.25, model=toy)
    for table in ("cohort.csv", "failures.csv"):
        for row in rows(tmp_path / "out" / table):
            assert not any(
                cell.startswith(("=", "+", "-", "@", "\t", "\r")) for cell in row.values()
            )
    assert {row["name"] for row in rows(tmp_path / "out" / "cohort.csv")} >= {"'=cmd", "'@b"}


def test_two_results_of_one_name_are_refused(toy, fields, tmp_path, capsys):
    rows = [f"{fields / path},{name}" for path, name in (("a.png", "A"), ("b.png", "a"))]
    (tmp_path / "table.csv").write_text("\n".join(["path,name", *rows]) + "\n")
    call = ["detect", str(tmp_path / "table.csv"), "-m", toy, "--mpp=0.25", "-o"]
    assert main([*call, str(tmp_path / "out")]) == 1
    error = capsys.readouterr().err
    assert "the name 'A' is that of another result" in error and "give it another name" in error


def test_a_name_that_another_result_has_is_refused_each_time(toy, fields, tmp_path, capsys):
    out = tmp_path / "out"
    assert main(["detect", str(fields / "a.png"), "-m", toy, "--mpp=0.25", "-o", str(out)]) == 0
    (tmp_path / "table.csv").write_text(f"path,name\n{fields / 'b.png'},a\n")
    call = ["detect", str(tmp_path / "table.csv"), "-m", toy, "--mpp=0.25", "-o", str(out)]
    for _ in range(2):
        capsys.readouterr()
        assert main(call) == 1
        error = capsys.readouterr().err
        place = f"{out / 'a'} holds the result of {fields / 'a.png'}; give another name"
        assert f"{fields / 'b.png'}: {place}" in error
        assert [row["status"] for row in rows(out / "cohort.csv")] == ["done", "failed"]


def test_dicom_slides_whose_folders_share_a_name(toy, tmp_path):
    image = draw_field(np.random.default_rng(3), 96)[0]
    for number, case in enumerate(("p1", "p2"), start=1):
        (tmp_path / case / "dicom").mkdir(parents=True)
        save_dicom(tmp_path / case / "dicom" / "level.dcm", image, series=f"1.2.{number}")
    cases, settings = [tmp_path / "p1", tmp_path / "p2"], {"model": toy, "hotspot_area_mm2": 0.01}
    together = detect_many(cases, tmp_path / "together", **settings)
    assert len({one.name for one in together if one.status != "failed"}) == 2
    for case in cases:
        detect_many(case, tmp_path / "out", **settings)
    again = detect_many(cases, tmp_path / "out", **settings)
    assert [one.status for one in again] == ["skipped", "skipped"]
    assert again[0].name == "dicom" and again[1].name.startswith("dicom-")


def test_parquet_has_the_table(toy, fields, tmp_path):
    pandas = pytest.importorskip("pandas")
    pytest.importorskip("pyarrow")
    (fields / "e.png").write_bytes(b"no image")
    detect_many(fields, tmp_path / "out", mpp=0.25, model=toy)
    table = pandas.read_parquet(tmp_path / "out" / "cohort.parquet")
    text = rows(tmp_path / "out" / "cohort.csv")
    assert list(table["name"]) == [row["name"] for row in text]
    assert list(table["count"].dropna().astype(int)) == [
        int(r["count"]) for r in text if r["count"]
    ]


# Saved files


@pytest.mark.parametrize("damage", ["semicolons", "empty", "count", "key", "run", "detections"])
def test_saved_files_that_were_changed_are_made_again(damage, toy, fields, tmp_path, capsys):
    out = tmp_path / "out"
    detect = ["detect", str(fields), "-m", toy, "--mpp", "0.25", "-o", str(out)]
    assert main(detect) == 0
    before = {path: path.read_bytes() for path in out.rglob("*.csv")} | {
        path: path.read_bytes() for path in out.rglob("summary.json")
    }
    summary = out / "a" / "summary.json"
    content = json.loads(summary.read_text())
    if damage == "semicolons":
        path = out / "cohort.csv"
        path.write_text("\ufeff" + path.read_text().replace(",", ";"))
    elif damage == "empty":
        (out / "cohort.csv").write_text("")
    elif damage == "count":
        summary.write_text(json.dumps({**content, "count": 999}))
    elif damage == "key":
        summary.write_text(json.dumps({k: v for k, v in content.items() if k != "count"}))
    elif damage == "run":
        (out / "a" / "run.json").write_text('{"program": "segmitos"')
    else:
        (out / "a" / "detections.csv").write_text("")
    if damage in ("count", "key", "run"):
        assert main(["report", str(out)]) == 1
        assert capsys.readouterr().err.count("\n") == 1
        assert {row["name"]: row["status"] for row in rows(out / "cohort.csv")}["a"] == "failed"
    assert main(detect) == 0
    assert {path: path.read_bytes() for path in before} == before
    assert "999" not in (out / "cohort.csv").read_text()
    capsys.readouterr()


@pytest.mark.parametrize("name", ["cohort.csv", "failures.csv", "cohort.html"])
def test_a_table_of_somebody_else_stays(name, toy, fields, tmp_path, capsys):
    out = tmp_path / "out"
    out.mkdir()
    (out / name).write_text("patient,age\n1,50\n")
    detect = ["detect", str(fields), "-m", toy, "--mpp", "0.25", "-o", str(out)]
    assert main(detect) == 1
    assert name in capsys.readouterr().err
    assert (out / name).read_text() == "patient,age\n1,50\n" and os.listdir(out) == [name]


def test_results_are_not_written_among_the_inputs(toy, fields, monkeypatch, capsys):
    monkeypatch.chdir(fields)
    before = sorted(fields.rglob("*"))
    for out in (".", str(fields), ""):
        assert main(["detect", "a.png", "-m", toy, "--mpp", "0.25", "-o", out]) == 2
        assert capsys.readouterr().err.count("\n") == 1
    assert sorted(fields.rglob("*")) == before


@pytest.mark.parametrize("kind", ["folder", "file"])
def test_what_stands_where_a_result_would_go_stays(kind, toy, fields, tmp_path, capsys):
    out = tmp_path / "out"
    out.mkdir()
    if kind == "folder":
        (out / "a").mkdir()
        (out / "a" / "Slidedat.ini").write_text("pixels")
    else:
        (out / "a").write_text("mine")
    detect = ["detect", str(fields), "-m", toy, "--mpp", "0.25", "-o", str(out)]
    assert main(detect) == 1
    told = capsys.readouterr()
    assert str(out / "a") in told.err and "3 of 4 done" in told.out
    kept = out / "a" / "Slidedat.ini" if kind == "folder" else out / "a"
    assert kept.read_text() in ("pixels", "mine")


# Streams and signals


@pytest.mark.slow
def test_a_name_that_is_not_utf_8_is_worked_on(toy, fields, tmp_path):
    strange = os.fsencode(fields) + b"/caf\xe9 \xf0\x9f\x94\xac.png"
    os.rename(fields / "a.png", strange)
    process = start(
        "detect", fields, "-m", toy, "--mpp", "0.25", "-o", tmp_path / "out", "--log",
        tmp_path / "log", env={"PYTHONIOENCODING": "ascii"},
    )  # fmt: skip
    out, errors = process.communicate()
    assert process.returncode == 0 and not errors, errors
    assert "4 of 4 done" in out
    assert [row["status"] for row in rows(tmp_path / "out" / "cohort.csv")] == ["done"] * 4
    assert main(["report", str(tmp_path / "out")]) == 0


@pytest.mark.slow
@pytest.mark.parametrize("how", ["closed", "full"])
def test_the_work_goes_on_without_an_output(how, toy, fields, tmp_path):
    target = ">&-" if how == "closed" else ">/dev/full"
    command = (
        f"exec {sys.executable} -m segmitos detect {fields} -m {toy} --mpp 0.25 -o {tmp_path}/out "
        f"--threads 1 {target}"
    )
    ran = subprocess.run(
        command,
        shell=True,
        env={**os.environ, "PYTHONPATH": SOURCE},
        stderr=subprocess.PIPE,
        text=True,
        check=False,
    )
    assert len(rows(tmp_path / "out" / "cohort.csv")) == 4
    if how == "closed":
        assert (ran.returncode, ran.stderr) == (0, "")
    else:
        assert ran.returncode == 1 and ran.stderr.count("\n") == 1 and "No space" in ran.stderr


@pytest.mark.slow
def test_a_deleted_working_folder_is_one_line_or_no_matter(toy, fields, tmp_path):
    script = (
        f"import os, tempfile; os.chdir(tempfile.mkdtemp()); os.rmdir(os.getcwd());"
        f"from segmitos.cli import main; import sys;"
        f"print(main(['detect', 'a.png', '-m', {toy!r}, '--mpp', '0.25', '-o', 'out']));"
        f"print(main(['detect', {str(fields)!r}, '-m', {toy!r}, '--mpp', '0.25', '-o', "
        f"{str(tmp_path / 'out')!r}]))"
    )
    ran = subprocess.run(
        [sys.executable, "-c", script],
        env={**os.environ, "PYTHONPATH": SOURCE},
        capture_output=True,
        text=True,
        check=False,
    )
    assert [line for line in ran.stdout.splitlines() if line.isdigit()] == ["1", "0"]
    assert ran.stderr.count("\n") == 1 and "working folder has been deleted" in ran.stderr
    assert len(rows(tmp_path / "out" / "cohort.csv")) == 4


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_an_interrupt_is_one_line_and_leaves_the_tables(number, code, toy, fields, tmp_path):
    for index in range(60):
        (fields / f"copy{index}.png").write_bytes((fields / "a.png").read_bytes())
    out = tmp_path / "out"
    process = start("detect", fields, "-m", toy, "--mpp", "0.25", "-o", out, "--threads", "1")
    while not (out / "c").exists() and process.poll() is None:
        time.sleep(0.01)
    process.send_signal(number)
    _, errors = process.communicate()
    assert process.returncode == code
    assert errors.strip().splitlines()[-1] == (
        "segmitos: interrupted; run the same command again to go on"
    )
    assert "Traceback" not in errors
    done = {path.parent.name for path in out.glob("*/run.json")}
    assert 3 <= len(done) < 64
    assert {row["name"] for row in rows(out / "cohort.csv")} == done


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="reads /proc")
def test_an_interrupt_is_blocked_in_every_worker_from_its_start(toy, fields, tmp_path):
    where = ("-m", toy, "-o", tmp_path / "out")
    process = start("detect", fields, "--mpp", "0.25", *where, "--workers", "2")
    blocked: dict[str, int] = {}
    while process.poll() is None:
        for folder in Path("/proc").glob("[0-9]*"):
            try:
                status = (folder / "status").read_text()
                is_worker = "spawn_main" in (folder / "cmdline").read_text()
            except OSError:
                continue
            if is_worker and f"PPid:\t{process.pid}\n" in status:
                mask = next(line for line in status.splitlines() if line.startswith("SigBlk"))
                blocked[folder.name] = int(mask.split()[1], 16)
        time.sleep(0.005)
    process.communicate()
    assert process.returncode == 0 and len(blocked) >= 2
    assert all(mask >> (signal.SIGINT - 1) & 1 for mask in blocked.values())


def test_a_fault_of_ours_in_any_verb_is_a_line_and_a_file(tmp_path, monkeypatch, capsys):
    from segmitos.commands.convert import convert

    def broken(**given: object) -> int:
        raise LookupError("nowhere")

    monkeypatch.setattr(convert, "callback", broken)
    monkeypatch.chdir(tmp_path)
    assert main(["convert", "a.csv", "b.json"]) == 1
    error = capsys.readouterr().err
    assert error.count("\n") == 1 and "LookupError: nowhere" in error and "errors.log" in error
    text = (tmp_path / "errors.log").read_text()
    assert "Traceback" in text and "in broken" in text and "convert a.csv b.json" in text


@pytest.mark.slow
def test_a_job_array_of_which_one_is_killed_makes_one_right_table(tmp_path):
    from tests.cohort.job_array import run_array

    assert not run_array(tmp_path, inputs=40, processes=4)


@pytest.mark.slow
def test_kills_at_random_moments_lose_nothing(tmp_path):
    from tests.cohort.kills import run_kills

    tally = run_kills(tmp_path, kills=15, seed=7)
    assert not [problem for problem in tally.problems if "children were there" not in problem]

"""Many inputs: failures by name, resume, the same bytes however the work is spread."""

from __future__ import annotations

import contextlib
import csv
import dataclasses
import errno
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from segmitos.cohort import job as job_module
from segmitos.cohort.finished_results import rebuild_reports
from segmitos.cohort.run import run
from segmitos.cohort.settings import JobSettings
from segmitos.errors import InputError, OutputError, UsageError
from segmitos.io.error_log import OUT_OF_MEMORY
from tests.factories.synthetic_fields import draw_field
from tests.factories.toy_models import write_toy


@pytest.fixture(scope="module")
def images(tmp_path_factory):
    folder = tmp_path_factory.mktemp("images")
    rng = np.random.default_rng(0)
    for name in ("a", "b", "c", "d", "e", "f"):
        Image.fromarray(draw_field(rng, size=160)[0]).save(folder / f"{name}.png")
    return folder


@pytest.fixture(scope="module")
def settings(tmp_path_factory):
    model = write_toy(tmp_path_factory.mktemp("toy") / "toy.segmitos")
    return JobSettings(model=str(model), device="cpu", threads=1, mpp=0.25)


@pytest.fixture(scope="module")
def serial(images, settings, tmp_path_factory):
    out = tmp_path_factory.mktemp("serial")
    assert {outcome.status for outcome in run([images], out, settings)} == {"done"}
    return contents(out)


def contents(out: Path) -> dict[str, bytes]:
    """All files but run.json, which says when and where."""
    return {
        str(path.relative_to(out)): path.read_bytes()
        for path in sorted(out.rglob("*"))
        if path.is_file() and path.name not in ("run.json", "cohort.html", "cohort.parquet")
    }


def rows(path: Path) -> list[dict[str, str]]:
    with path.open(newline="", encoding="utf-8") as stream:
        return list(csv.DictReader(stream))


def test_a_folder_gives_a_result_each_and_a_table(serial, images):
    assert {name.split("/")[0] for name in serial if "/" in name} == set("abcdef")
    table = list(csv.DictReader(serial["cohort.csv"].decode().splitlines()))
    assert [row["name"] for row in table] == list("abcdef")
    for row in table:
        summary = json.loads(serial[f"{row['name']}/summary.json"])
        found = serial[f"{row['name']}/detections.csv"].decode().splitlines()
        assert int(row["count"]) == summary["count"] == len(found) - 1 > 0
        points = json.loads(serial[f"{row['name']}/detections.geojson"])["features"]
        assert sum(p["geometry"]["type"] == "Point" for p in points) == summary["count"]
    assert "failures.csv" not in serial


def test_two_processes_give_the_same_bytes(serial, images, settings, tmp_path):
    told = []
    outcomes = run(
        [images], tmp_path, settings, workers=2, on_outcome=lambda o: told.append(o.name)
    )
    assert contents(tmp_path) == serial
    assert [o.name for o in outcomes] == list("abcdef") == sorted(told)


def test_one_failure_is_named_and_stops_nothing(images, settings, tmp_path):
    folder = tmp_path / "in"
    shutil.copytree(images, folder)
    (folder / "b.png").write_bytes(b"this is text")
    (folder / "c.png").write_bytes((images / "c.png").read_bytes()[:3000])
    (folder / "d.png").write_bytes(b"")
    (folder / "z.svs").mkdir()
    inputs = [tmp_path / "absent.png", folder]
    outcomes = run(inputs, tmp_path / "out", settings)
    status = {outcome.path.name: outcome.status for outcome in outcomes}
    failed = ["absent.png", "b.png", "c.png", "d.png", "z.svs"]
    assert [name for name in status if status[name] == "failed"] == failed
    causes = rows(tmp_path / "out" / "failures.csv")
    assert [Path(row["path"]).name for row in causes] == failed
    assert all(Path(row["path"]).name in row["cause"] for row in causes)
    assert not any("\n" in row["cause"] for row in causes)
    assert not any((tmp_path / "out" / name).exists() for name in ("b", "c", "d", "z"))
    table = rows(tmp_path / "out" / "cohort.csv")
    assert [row["status"] for row in table] == [
        "failed" if Path(row["path"]).name in failed else "done" for row in table
    ]
    # What is mended goes from the failures; the others stay there.
    shutil.copy(images / "b.png", folder / "b.png")
    again = run([folder / "b.png", folder / "a.png"], tmp_path / "out", settings)
    assert [outcome.status for outcome in again] == ["done", "skipped"]
    assert [Path(row["path"]).name for row in rows(tmp_path / "out" / "failures.csv")] == [
        name for name in failed if name != "b.png"
    ]
    (folder / "z.svs").rmdir()
    for name in failed:
        source = tmp_path if name == "absent.png" else folder
        shutil.copy(images / "b.png", source / name.replace("svs", "png"))
    shutil.copy(images / "b.png", folder / "z.svs")
    run([*inputs, folder / "z.svs"], tmp_path / "out", settings)
    assert not (tmp_path / "out" / "failures.csv").exists()
    assert not (tmp_path / "out" / "failures").exists()


def test_the_same_results_are_skipped_and_others_are_done_again(images, settings, tmp_path):
    source = tmp_path / "a.png"
    shutil.copy(images / "a.png", source)
    out = tmp_path / "out"

    def again(changed: JobSettings = settings):
        (outcome,) = run([source], out, changed)
        return outcome.status, outcome.message

    assert again() == ("done", "")
    first = (out / "a" / "run.json").read_bytes()
    assert again()[0] == "skipped" and (out / "a" / "run.json").read_bytes() == first
    strict = JobSettings(model=settings.model, device="cpu", threads=1, mpp=0.25, min_score=0.9)
    assert again(strict) == ("done", "counted again: another min_score")
    assert again(strict)[0] == "skipped"
    threads = JobSettings(model=settings.model, device="cpu", threads=2, mpp=0.25, min_score=0.9)
    assert again(threads)[0] == "skipped"
    model = write_toy(tmp_path / "other.segmitos", smoothing_sigma_um=0.5)
    other = JobSettings(model=str(model), device="cpu", threads=1, mpp=0.25, min_score=0.9)
    assert again(other) == ("done", "done again: another model")
    (out / "a" / "detections.csv").unlink()
    assert again(other) == ("done", "done again: detections.csv missing or changed")
    source.write_bytes((images / "b.png").read_bytes())
    assert again(other) == ("done", "done again: another input")


def test_a_changed_region_file_of_the_same_name_is_noticed(images, settings, tmp_path):
    roi = tmp_path / "roi.geojson"

    def limited(right: int) -> str:
        ring = [[0, 0], [right, 0], [right, 160], [0, 160], [0, 0]]
        roi.write_text(json.dumps({"type": "Polygon", "coordinates": [ring]}))
        own = dataclasses.replace(settings, roi=roi)
        (outcome,) = run([images / "a.png"], tmp_path / "out", own)
        return outcome.status

    assert [limited(160), limited(160), limited(80)] == ["done", "skipped", "done"]


def test_the_result_of_another_file_is_not_replaced(images, settings, tmp_path):
    for folder, name in (("x", "a"), ("y", "b")):
        (tmp_path / folder).mkdir()
        shutil.copy(images / f"{name}.png", tmp_path / folder / "s.png")
    out = tmp_path / "out"
    assert run([tmp_path / "x" / "s.png"], out, settings)[0].status == "done"
    before = contents(out / "s")
    (outcome,) = run([tmp_path / "y" / "s.png"], out, settings)
    assert outcome.status == "done" and outcome.name.startswith("s-")
    assert contents(out / "s") == before
    # Each finds its own again, whatever is given along with it.
    both = run([tmp_path / "x", tmp_path / "y"], out, settings)
    assert [(o.name, o.status) for o in both] == [("s", "skipped"), (outcome.name, "skipped")]
    assert len(rows(out / "cohort.csv")) == 2
    apart = run([tmp_path / "x", tmp_path / "y"], tmp_path / "apart", settings)
    assert [o.name for o in apart] == ["x__s", "y__s"]


def test_the_same_file_by_two_names_is_done_once(images, settings, tmp_path):
    twice = [images / "a.png", images / ".." / images.name / "a.png", images / "a.png"]
    assert len(run(twice, tmp_path, settings)) == 1


def test_bad_calls_are_refused_before_any_work(images, settings, tmp_path):
    with pytest.raises(InputError, match="absent"):
        run([tmp_path / "absent"], tmp_path / "out", settings)
    with pytest.raises(UsageError, match="--workers 0"):
        run([images], tmp_path / "out", settings, workers=0)
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError, match="file"):
        run([images], tmp_path / "file", settings)
    with pytest.raises(OutputError, match="file"):
        run([images], tmp_path / "file" / "below", settings)


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_a_folder_without_permission_is_refused(images, settings, tmp_path):
    tmp_path.chmod(0o500)
    with pytest.raises(OutputError, match="Permission denied"):
        run([images], tmp_path, settings)


def test_a_fault_of_ours_is_kept_whole_and_fails_one_input(images, settings, tmp_path):
    ran = subprocess.run(
        [sys.executable, "-c", BROKEN, str(images), str(tmp_path / "out"), settings.model],
        env={**os.environ, "PYTHONPATH": str(Path(job_module.__file__).parents[2])},
        capture_output=True,
        text=True,
        check=False,
    )
    assert ran.returncode == 0 and not ran.stderr, ran.stderr
    outcomes = dict(line.split(" ", 1) for line in ran.stdout.splitlines())
    assert [outcomes[name].split()[0] for name in "abcdef"] == ["done", "failed", *["done"] * 4]
    log = tmp_path / "out" / "errors.log"
    assert str(log) in outcomes["b"] and "KeyError: 'StripOffsets'" in outcomes["b"]
    text = log.read_text()
    assert "b.png" in text and "Traceback (most recent call last)" in text
    assert 'raise KeyError("StripOffsets")' in text or "in stumbling" in text


BROKEN = """
import sys, types
from pathlib import Path
from segmitos.cohort import job
from segmitos.cohort.settings import JobSettings
from segmitos.cohort.run import run

real = job.detect_slide

def stumbling(slide, *args, **options):
    if slide.path.name == "b.png":
        raise KeyError("StripOffsets")
    return real(slide, *args, **options)

job.detect_slide = stumbling
images, out, model = sys.argv[1:]
settings = JobSettings(model=model, device="cpu", threads=1, mpp=0.25)
for outcome in run([images], Path(out), settings, workers=1):
    print(outcome.name, outcome.status, outcome.message, flush=True)
"""

COMMAND = """
import sys
from segmitos.cohort.run import run
from segmitos.cohort.settings import JobSettings

if __name__ == "__main__":
    images, out, model, workers = sys.argv[1:]
    settings = JobSettings(model=model, device="cpu", threads=1, mpp=0.25)
    outcomes = run([images], __import__("pathlib").Path(out), settings, workers=int(workers))
    for outcome in outcomes:
        print(outcome.name, outcome.status, outcome.message, flush=True)
"""


def start(images, out, settings, workers, tmp_path):
    script = tmp_path / "command.py"
    script.write_text(COMMAND)
    source = str(Path(job_module.__file__).parents[2])
    return subprocess.Popen(
        [sys.executable, str(script), str(images), str(out), settings.model, str(workers)],
        env={**os.environ, "PYTHONPATH": source},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


@pytest.mark.slow
@pytest.mark.parametrize("workers", [1, 2])
def test_killed_at_random_moments_a_rerun_completes(serial, images, settings, tmp_path, workers):
    rng, out = random.Random(workers), tmp_path / "out"
    for _ in range(3):
        process = start(images, out, settings, workers, tmp_path)
        time.sleep(rng.uniform(0.3, 1.6))
        process.kill()
        process.communicate()
        for folder in out.glob("[a-f]"):
            assert {f"{folder.name}/{file.name}" for file in folder.iterdir()} - {
                f"{folder.name}/run.json"
            } == {name for name in serial if name.startswith(f"{folder.name}/")}
    assert {outcome.status for outcome in run([images], out, settings)} <= {"done", "skipped"}
    assert contents(out) == serial


@pytest.mark.slow
def test_a_worker_killed_in_its_work_costs_nothing(serial, images, settings, tmp_path):
    process = start(images, tmp_path / "out", settings, 2, tmp_path)
    tasks = Path(f"/proc/{process.pid}/task")
    if not list(tasks.glob("*/children")):
        process.communicate()
        pytest.skip("the children of a process cannot be listed here")
    # Each of the two feeders starts its worker; the one to die has a result or is about to.
    workers: list[int] = []
    while process.poll() is None and not (workers and list((tmp_path / "out").glob("[a-f]"))):
        listed = " ".join(path.read_text() for path in tasks.glob("*/children")).split()
        commands = {child: Path(f"/proc/{child}/cmdline").read_bytes() for child in listed}
        workers = [int(child) for child, command in commands.items() if b"spawn_main" in command]
        time.sleep(0.01)
    os.kill(workers[0], signal.SIGKILL)
    printed, _ = process.communicate(timeout=60)
    # Killed after its result was in place and before it said so, a job is found done.
    assert process.returncode == 0 and printed.count(" done ") + printed.count(" skipped ") == 6
    assert contents(tmp_path / "out") == serial


def test_a_disk_that_fills_up_is_one_clear_line_each(serial, images, settings, tmp_path):
    small = tmp_path / "small"
    small.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=512k", "tmpfs", str(small)], check=False
    )
    if mounted.returncode:
        pytest.skip("no small file system can be mounted here")
    try:
        (small / "filler").write_bytes(bytes(200_000))
        outcomes = []
        # The page of all results is the last to be written, and may not find room either.
        with contextlib.suppress(OutputError):
            run([images], small, settings, on_outcome=outcomes.append)
        failed = [outcome for outcome in outcomes if outcome.status == "failed"]
        assert failed and all("No space left on device" in o.message for o in failed)
        assert not list(small.glob(".*"))
        # A disk that is really full may not even take the table of failures.
        if (small / "failures.csv").exists():
            assert len(rows(small / "failures.csv")) == len(failed)
        with (small / "rest").open("wb", buffering=0) as stream, pytest.raises(OSError, match="No"):
            while True:
                stream.write(bytes(1000))
        with pytest.raises(OutputError, match="No space left on device"):
            run([images], small, settings)
        assert not list(small.glob(".*"))
        (small / "filler").unlink()
        (small / "rest").unlink()
        subprocess.run(["mount", "-o", "remount,size=64m", str(small)], check=True)
        outcomes = run([images], small, settings)
        assert {outcome.status for outcome in outcomes} <= {"done", "skipped"}
        assert contents(small) == serial
    finally:
        subprocess.run(["umount", str(small)], check=True)


def test_a_copied_result_and_one_without_its_record_are_told_in_the_table(
    images, settings, tmp_path
):
    out = tmp_path / "out"
    run([images / "a.png", images / "b.png"], out, settings)
    shutil.copytree(out / "a", out / "a copy")
    (out / "b" / "run.json").unlink()
    paths, problems = rebuild_reports(out)
    assert out / "b" / "report.html" not in paths and "run.json is damaged" in problems[0]
    table = {row["name"]: row for row in rows(out / "cohort.csv")}
    assert set(table) == {"a", "a copy", "b"}
    assert table["b"]["status"] == "failed" and "run detect again" in table["b"]["cause"]
    for name, other in (("a", "a copy"), ("a copy", "a")):
        assert table[name]["status"] == "warning"
        assert f"the same input as {other}: counted more than once" in table[name]["warnings"]
    # What is done again is the result, not its copy.
    again = dataclasses.replace(settings, overwrite=True)
    assert [outcome.name for outcome in run([images / "a.png"], out, again)] == ["a"]


def test_a_parquet_library_that_cannot_be_loaded_costs_that_table_alone(
    images, settings, tmp_path, monkeypatch
):
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    out = tmp_path / "out"
    outcomes = run([images / "a.png", images / "b.png"], out, settings)
    assert {outcome.status for outcome in outcomes} == {"done"}
    assert len(rows(out / "cohort.csv")) == 2 and not (out / "cohort.parquet").exists()


@pytest.mark.parametrize(
    "error",
    [MemoryError(), RuntimeError("can't allocate memory"), OSError(errno.ENOMEM, "no memory")],
)
def test_too_little_memory_is_no_fault_of_ours(images, settings, tmp_path, monkeypatch, error):
    def fail(*args, **options):
        raise error

    monkeypatch.setattr(job_module, "detect_slide", fail)
    (outcome,) = run([images / "a.png"], tmp_path / "out", settings)
    assert outcome.status == "failed" and outcome.message.endswith(OUT_OF_MEMORY)
    assert not (tmp_path / "out" / "errors.log").exists()

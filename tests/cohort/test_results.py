"""The output folder: named without collisions, whole or absent, skipped only where it is right."""

from __future__ import annotations

import itertools
import os
from pathlib import Path

import pytest

from segmitos.cohort import results
from segmitos.cohort.results import ALWAYS, finished, output_names, place, recover
from segmitos.errors import OutputError

FILES = dict.fromkeys(ALWAYS, b"{}")


@pytest.mark.parametrize(
    ("paths", "names"),
    [
        (["a.png", "b.tif"], ["a", "b"]),
        (["x/a.png", "y/a.png"], ["x__a", "y__a"]),
        (["x/a.png", "y/a.png", "x/b.png"], ["x__a", "y__a", "b"]),
        (["x/a.png", "x/a.jpg"], ["a_png", "a_jpg"]),
        (["x/A.png", "y/a.png"], ["x__A", "y__a"]),
        (["a/f.tif", "b/../a/g.tif"], ["f", "g"]),
        (["cohort.csv.png", "b.png"], ["cohort_csv_png", "b"]),
        ([], []),
    ],
)
def test_names(paths, names):
    assert output_names([Path(path) for path in paths]) == names


def test_no_two_inputs_share_a_name_whatever_they_are_called():
    folders, stems = ("", "a/", "a__b/", "a_b/"), ("c", "C", "a__c", "b__c", "c.png", "c_png")
    paths = [
        Path(f"{folder}{stem}.{kind}")
        for folder, stem, kind in itertools.product(folders, stems, ("png", "jpg"))
    ]
    names = output_names(paths)
    assert len({name.casefold() for name in names}) == len(paths)
    assert not any("/" in name or name in ("cohort.csv", "failures.csv") for name in names)
    assert output_names(paths[::-1]) == names[::-1]


def test_a_folder_is_replaced_whole(tmp_path):
    place(tmp_path, "a", {**FILES, "gallery.jpg": b"old"})
    place(tmp_path, "a", FILES)
    assert sorted(entry.name for entry in (tmp_path / "a").iterdir()) == sorted(ALWAYS)
    assert [entry.name for entry in tmp_path.iterdir()] == ["a"]


@pytest.mark.parametrize("at", range(12))
def test_a_kill_between_any_two_steps_leaves_the_old_or_the_new(tmp_path, monkeypatch, at):
    class Killed(BaseException):
        pass

    steps = itertools.count()

    def dying(real):
        def step(*args, **options):
            if next(steps) == at:
                raise Killed
            return real(*args, **options)

        return step

    old, new = {**FILES, "report.html": b"old"}, {**FILES, "report.html": b"new"}
    place(tmp_path, "a", old)
    monkeypatch.setattr(os, "replace", dying(os.replace))
    monkeypatch.setattr(os, "fsync", dying(os.fsync))
    monkeypatch.setattr(results.shutil, "rmtree", dying(results.shutil.rmtree))
    killed = False
    try:
        place(tmp_path, "a", new)
    except Killed:
        killed = True
    monkeypatch.undo()
    recover(tmp_path, "a")
    assert [entry.name for entry in tmp_path.iterdir()] == ["a"]
    assert sorted(entry.name for entry in (tmp_path / "a").iterdir()) == sorted(ALWAYS)
    content = (tmp_path / "a" / "report.html").read_bytes()
    # Five files are synced, two folders renamed, one removed, one folder synced.
    assert content == (b"old" if at < 7 else b"new") and killed == (at < 9)


def test_what_another_process_is_writing_is_left_alone(tmp_path):
    mine = tmp_path / f".a.partial-{results.platform.node().replace('-', '_')}-1-abc"
    other = tmp_path / ".a.partial-elsewhere-12-abc"
    dead = tmp_path / f".a.partial-{results.platform.node().replace('-', '_')}-999999999-abc"
    namesake = tmp_path / ".ab.partial-elsewhere-12-abc"
    for folder in (mine, other, dead, namesake):
        folder.mkdir()
    os.utime(namesake, (0, 0))
    recover(tmp_path, "a")
    assert mine.exists() and other.exists() and namesake.exists() and not dead.exists()
    os.utime(other, (0, 0))
    recover(tmp_path, "a")
    assert not other.exists()


def test_a_name_full_of_wildcards_recovers_only_itself(tmp_path):
    (tmp_path / ".b.partial-elsewhere-1-a").mkdir()
    os.utime(tmp_path / ".b.partial-elsewhere-1-a", (0, 0))
    recover(tmp_path, "[a-c]*")
    assert (tmp_path / ".b.partial-elsewhere-1-a").exists()


def test_two_processes_that_finish_the_same_input_both_succeed(tmp_path, monkeypatch):
    real, raced = os.replace, []

    def replace(source, target):
        if not raced and Path(target) == tmp_path / "a":
            raced.append(1)
            place(tmp_path, "a", {**FILES, "report.html": b"theirs"})
        real(source, target)

    monkeypatch.setattr(os, "replace", replace)
    place(tmp_path, "a", {**FILES, "report.html": b"ours"})
    assert raced and (tmp_path / "a" / "report.html").read_bytes() == b"ours"
    assert [entry.name for entry in tmp_path.iterdir()] == ["a"]


def test_finished_means_whole_and_of_the_same_settings(tmp_path):
    place(tmp_path, "a", {**FILES, "summary.json": b'{"model": 1, "count": 3}'})
    assert finished(tmp_path / "a", {"model": 1}) == {"model": 1, "count": 3}
    assert finished(tmp_path / "a", {"model": 2}) is None
    (tmp_path / "a" / "report.html").unlink()
    assert finished(tmp_path / "a", {"model": 1}) is None
    (tmp_path / "a" / "summary.json").write_text("{")
    assert finished(tmp_path / "a", {}) is None


def test_a_disk_that_fills_up_leaves_the_old_result_and_says_so(tmp_path, monkeypatch):
    place(tmp_path, "a", FILES)

    def full(handle):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OutputError, match=r"cannot write .*a: No space left on device"):
        place(tmp_path, "a", FILES)
    assert [entry.name for entry in tmp_path.iterdir()] == ["a"]
    assert finished(tmp_path / "a", {}) == {}

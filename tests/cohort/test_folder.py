"""The output folder: named without collisions, whole or absent, skipped only where it is right."""

from __future__ import annotations

import errno
import itertools
import os
import shutil
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from segmitos.cohort.atomic_folder import ALWAYS, NameTakenError, OutputFolder
from segmitos.cohort.failures import Failure, clear_failure, record_failure
from segmitos.cohort.identity import Identity, InputRecord
from segmitos.cohort.names import RESERVED, output_names
from segmitos.errors import OutputError
from segmitos.io.files import partial_path, remove_stale_partials, write_text
from segmitos.io.outputs import RUN

FILES = {name: b'{"program": "segmitos"}' for name in ALWAYS if name != RUN}
SUMMARY = {"program": "segmitos"}
SOURCE = InputRecord("/in/a.png", "0" * 64, 1, 1, "2026-01-01T00:00:00.0Z")
IDENTITY = Identity(2, SOURCE.path, SOURCE.sha256, "1" * 64, {"mpp": 0.25})


def place(out, name, files, identity=IDENTITY):
    return OutputFolder(out, name).commit(files, identity, SOURCE, {})


def recover(out, name):
    OutputFolder(out, name).repair()


def dead_process() -> int:
    gone = subprocess.Popen([sys.executable, "-c", ""])
    gone.wait()
    return gone.pid


def host() -> str:
    return partial_path(Path("a")).name.partition(".partial-")[2].partition("-")[0]


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
    assert not any("/" in name or name in RESERVED for name in names)
    assert output_names(paths[::-1]) == names[::-1]


@pytest.mark.parametrize("name", RESERVED)
def test_no_input_is_named_like_a_table(name):
    (found,) = output_names([Path(f"/in/{name}.png")])
    assert found != name


@pytest.mark.parametrize(
    "stem",
    ["x" * 251, "\N{MICRO SIGN}" * 120, os.fsdecode(b"caf\xe9"), "two\nlines", ".hidden", "tab\t"],
)
def test_a_name_that_a_disk_or_table_cannot_hold_is_made_one(stem, tmp_path):
    (name,) = output_names([tmp_path / f"{stem}.png"])
    assert len(name.encode("utf-8")) <= 120 and name.isprintable() and not name.startswith(".")
    (other,) = output_names([tmp_path / "other" / f"{stem}.png"])
    assert name != other
    place(tmp_path, name, FILES)
    assert OutputFolder(tmp_path, name).finished(IDENTITY) == SUMMARY


def test_joined_paths_that_are_too_long_are_shortened(tmp_path):
    deep = Path(*["d" * 100] * 3)
    names = output_names([tmp_path / "x" / deep / "a.png", tmp_path / "y" / deep / "a.png"])
    assert len(set(names)) == 2 and all(len(name) <= 120 for name in names)


def test_what_a_user_added_to_a_result_survives_its_replacement(tmp_path):
    place(tmp_path, "a", {**FILES, "gallery.jpg": b"old"})
    (tmp_path / "a" / "notes.txt").write_text("mine")
    place(tmp_path, "a", FILES)
    assert sorted(os.listdir(tmp_path / "a")) == sorted([*ALWAYS, "notes.txt"])
    assert (tmp_path / "a" / "notes.txt").read_text() == "mine"


@pytest.mark.parametrize("kind", ["folder", "file", "link", "run.json of another program"])
def test_what_this_program_did_not_write_stays(kind, tmp_path):
    place_, inside = tmp_path / "a", tmp_path / "a" / "Slidedat.ini"
    if kind == "file":
        place_.write_text("mine")
    elif kind == "link":
        place(tmp_path, "elsewhere", FILES)
        place_.symlink_to(tmp_path / "elsewhere")
    else:
        place_.mkdir()
        inside.write_text("pixels")
    if kind.startswith("run.json"):
        (place_ / RUN).write_text('{"input": "theirs"}')
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises(OutputError, match=r"a is a (folder|file) that SegMitos did not write"):
        place(tmp_path, "a", FILES)
    assert sorted(tmp_path.rglob("*")) == before


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
    monkeypatch.setattr(shutil, "rmtree", dying(shutil.rmtree))
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
    # Five files are synced, two folders renamed, one removed, one synced, the partial looked for.
    assert content == (b"old" if at < 7 else b"new") and killed == (at < 10)


def test_what_others_are_writing_is_left_alone_and_what_the_dead_left_goes(tmp_path):
    gone = dead_process()
    stay = [
        f".a.partial-{host()}-1-0123abcd",
        ".a.partial-elsewhere-12-0123abcd",
        f".a.csv.partial-{host()}-1-0123abcd",
        ".a.partial-mine-1",
        ".notes",
    ]
    go = [f".a.partial-{host()}-{gone}-0123abcd", f".[b]*.partial-{host()}-{gone}-0123abcd"]
    for name in (*stay, *go):
        (tmp_path / name).mkdir()
    (tmp_path / f".c.csv.partial-{host()}-{gone}-0123abcd").write_text("half")
    remove_stale_partials(tmp_path)
    assert sorted(os.listdir(tmp_path)) == sorted(stay)
    os.utime(tmp_path / stay[1], (0, 0))
    remove_stale_partials(tmp_path)
    assert sorted(os.listdir(tmp_path)) == sorted({*stay} - {stay[1]})


def test_every_write_sweeps_its_folder(tmp_path):
    (tmp_path / f".other.json.partial-{host()}-{dead_process()}-0123abcd").write_text("half")
    write_text(tmp_path / "a.csv", "whole")
    assert os.listdir(tmp_path) == ["a.csv"]


def test_a_process_with_the_number_of_a_dead_one_sweeps_what_that_left(tmp_path):
    mine, left = partial_path(tmp_path / "a"), f".a.partial-{host()}-{os.getpid()}-0123abcd"
    mine.mkdir()
    (tmp_path / left).mkdir()
    remove_stale_partials(tmp_path)
    assert os.listdir(tmp_path) == [mine.name]


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


def test_finished_means_whole_and_of_the_same_identity(tmp_path):
    place(tmp_path, "a", {**FILES, "summary.json": b'{"count": 3}'})
    result = OutputFolder(tmp_path, "a")
    assert result.finished(IDENTITY) == {"count": 3}
    for change in (
        {"path": "/in/b.png"},
        {"input": "2" * 64},
        {"model": "2" * 64},
        {"settings": {"mpp": 0.5}},
        {"format": 1},
    ):
        other = Identity(
            **{**{f: getattr(IDENTITY, f) for f in IDENTITY.__struct_fields__}, **change}
        )
        assert result.finished(other) is None


@pytest.mark.parametrize("name", ALWAYS)
@pytest.mark.parametrize("damage", ["emptied", "edited", "gone", "not UTF-8", "other JSON"])
def test_a_result_that_was_changed_is_not_finished(name, damage, tmp_path):
    place(tmp_path, "a", {**FILES, "summary.json": b'{"program": "segmitos"}'})
    path = tmp_path / "a" / name
    if damage == "gone":
        path.unlink()
    else:
        content = path.read_bytes()
        changed = {"emptied": b"", "not UTF-8": b"\xff\xfe{", "other JSON": b"[1, NaN]"}
        edited = content.replace(b'"1', b'"2') if name == RUN else content + b" "
        path.write_bytes(changed.get(damage, edited))
    result = OutputFolder(tmp_path, "a")
    assert result.finished(IDENTITY) is None
    if name != "summary.json":
        place(tmp_path, "a", FILES)
        assert result.finished(IDENTITY) == SUMMARY


def test_an_update_is_part_of_the_result(tmp_path):
    place(tmp_path, "a", FILES)
    result = OutputFolder(tmp_path, "a")
    result.update({"report.html": b"new", "more.csv": b"x"})
    assert result.finished(IDENTITY) == SUMMARY and not result.changed_files()
    assert (result.path / "report.html").read_bytes() == b"new"


def test_a_disk_that_fills_up_leaves_the_old_result_and_says_so(tmp_path, monkeypatch):
    place(tmp_path, "a", FILES)

    def full(handle):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OutputError, match=r"cannot write .*a: No space left on device"):
        place(tmp_path, "a", FILES)
    assert [entry.name for entry in tmp_path.iterdir()] == ["a"]
    assert OutputFolder(tmp_path, "a").finished(IDENTITY) == SUMMARY


OTHER = InputRecord("/in/other/a.png", "3" * 64, 1, 1, "2026-01-01T00:00:00.0Z")
OTHERS = Identity(2, OTHER.path, OTHER.sha256, "1" * 64, {"mpp": 0.25})


def test_two_inputs_of_one_name_that_finish_together_never_replace_each_other(
    tmp_path, monkeypatch
):
    real, raced = os.replace, []

    def replace(source, target):
        if not raced and Path(target) == tmp_path / "a":
            raced.append(1)
            OutputFolder(tmp_path, "a").commit(FILES, OTHERS, OTHER, {})
        real(source, target)

    monkeypatch.setattr(os, "replace", replace)
    with pytest.raises(NameTakenError, match=r"a holds the result of /in/other/a\.png"):
        place(tmp_path, "a", FILES)
    assert raced and OutputFolder(tmp_path, "a").finished(OTHERS) == SUMMARY
    assert [entry.name for entry in tmp_path.iterdir()] == ["a"]


def test_any_number_that_finish_the_same_input_at_once_succeed_and_lose_no_notes(tmp_path):
    place(tmp_path, "a", FILES)
    (tmp_path / "a" / "notes.txt").write_text("mine")

    def work(number):
        for _ in range(10):
            folder = OutputFolder(tmp_path, "a")
            folder.repair()
            folder.commit(FILES, IDENTITY, SOURCE, {"process": number})

    with ThreadPoolExecutor(4) as pool:
        assert list(pool.map(work, range(4))) == [None] * 4
    recover(tmp_path, "a")
    assert [entry.name for entry in tmp_path.iterdir()] == ["a"]
    assert OutputFolder(tmp_path, "a").finished(IDENTITY) == SUMMARY


def test_a_result_that_may_not_be_removed_is_refused_before_anything_is_moved(
    tmp_path, monkeypatch
):
    place(tmp_path, "a", FILES)
    monkeypatch.setattr(os, "access", lambda path, mode: False)
    with pytest.raises(OutputError, match=r"cannot replace .*a: no permission"):
        place(tmp_path, "a", FILES)
    assert [entry.name for entry in tmp_path.iterdir()] == ["a"]
    assert OutputFolder(tmp_path, "a").finished(IDENTITY) == SUMMARY


def test_a_failure_whose_record_must_stay_is_not_forgotten(tmp_path, monkeypatch):
    record_failure(tmp_path, Failure("segmitos", "a", "/in/a.png", "out of memory"))

    def refuse(self, missing_ok=False):
        raise PermissionError(errno.EACCES, "Permission denied")

    monkeypatch.setattr(Path, "unlink", refuse)
    with pytest.raises(OutputError, match=r"cannot remove .*failures.*: Permission denied"):
        clear_failure(tmp_path, "/in/a.png")
    monkeypatch.undo()
    clear_failure(tmp_path, "/in/a.png")
    assert not list(tmp_path.iterdir())

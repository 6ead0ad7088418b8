"""Half-written files: whose they are, and when nobody is at them any more."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from segmitos.errors import OutputError
from segmitos.io.files import is_abandoned, new_folder, partial_path, remove_file, write_files


@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="there is no /proc here")
def test_what_a_dead_process_that_nobody_buried_was_at_is_abandoned(tmp_path):
    child = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    ours = partial_path(tmp_path / "x")
    partial = ours.with_name(ours.name.replace(f"-{os.getpid()}-", f"-{child.pid}-"))
    partial.mkdir()
    assert not is_abandoned(partial)
    child.kill()
    while "Z" not in Path(f"/proc/{child.pid}/stat").read_text().rpartition(")")[2]:
        time.sleep(0.01)
    assert is_abandoned(partial)
    child.communicate()
    assert is_abandoned(partial)


def test_what_a_process_left_long_ago_is_abandoned_though_its_number_is_taken(tmp_path):
    partial = tmp_path / f".x.partial-{partial_path(tmp_path / 'x').name.split('-')[1]}-1-00000000"
    partial.mkdir()
    assert not is_abandoned(partial)
    os.utime(partial, (0, 0))
    assert is_abandoned(partial)


def test_a_new_folder_appears_whole_or_not_at_all(tmp_path):
    with pytest.raises(RuntimeError), new_folder(tmp_path / "out") as aside:
        (aside / "half.txt").write_text("half")
        raise RuntimeError
    assert not list(tmp_path.iterdir())
    (tmp_path / "out").mkdir()
    with new_folder(tmp_path / "out") as aside:
        (aside / "whole.txt").write_text("whole")
        assert not list((tmp_path / "out").iterdir())
    assert (tmp_path / "out" / "whole.txt").read_text() == "whole"
    with pytest.raises(OutputError, match="out is not empty"), new_folder(tmp_path / "out"):
        pass
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


def test_a_new_folder_that_a_dead_process_was_building_is_swept(tmp_path):
    told = [sys.executable, "-c", "import os; print(os.getpid())"]
    dead = subprocess.run(told, capture_output=True, check=True)
    left = partial_path(tmp_path / "out")
    left = left.with_name(left.name.replace(f"-{os.getpid()}-", f"-{int(dead.stdout)}-"))
    left.mkdir()
    with new_folder(tmp_path / "out"):
        assert not left.exists()


def test_what_cannot_be_removed_is_named_and_what_is_not_there_need_not_be(tmp_path, monkeypatch):
    def refuse(path, missing_ok=False):
        raise OSError(errno.EROFS, "Read-only file system")

    (tmp_path / "a").write_text("a")
    monkeypatch.setattr("pathlib.Path.unlink", refuse)
    remove_file(tmp_path / "b")
    with pytest.raises(OutputError, match=r"cannot remove .*/a: Read-only file system"):
        remove_file(tmp_path / "a")


def test_files_that_belong_together_appear_in_order_or_not_at_all(tmp_path, monkeypatch):
    write_files(tmp_path, {"a": b"1", "b": b"2"})
    with pytest.raises(OutputError, match="c: "):
        (tmp_path / "c").mkdir()
        write_files(tmp_path, {"c": b"3", "a": b"3", "b": b"3"})
    assert ((tmp_path / "a").read_bytes(), (tmp_path / "b").read_bytes()) == (b"1", b"2")
    renamed = []
    real = os.replace
    monkeypatch.setattr("os.replace", lambda *one: (renamed.append(one[1].name), real(*one)))
    write_files(tmp_path, {"b": b"4", "a": b"4"})
    assert renamed == ["b", "a"]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a", "b", "c"]


def test_files_are_for_whom_the_user_makes_files(tmp_path):
    for mask in (0o077, 0o002):
        before = os.umask(mask)
        try:
            write_files(tmp_path, {"a.csv": b"x"})
        finally:
            os.umask(before)
        assert (tmp_path / "a.csv").stat().st_mode & 0o777 == 0o666 & ~mask


def test_what_another_container_of_this_name_is_writing_is_left_alone(tmp_path, monkeypatch):
    monkeypatch.setattr(os, "readlink", lambda path: "pid:[12345]")
    theirs = partial_path(tmp_path / "x")
    monkeypatch.undo()
    told = [sys.executable, "-c", "import os; print(os.getpid())"]
    dead = subprocess.run(told, capture_output=True, check=True)
    theirs = theirs.with_name(theirs.name.replace(f"-{os.getpid()}-", f"-{int(dead.stdout)}-"))
    theirs.mkdir()
    assert not is_abandoned(theirs)

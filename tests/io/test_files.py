"""Files that are whole or absent, whatever was killed before."""

import subprocess
import sys

from segmitos.io.files import _host, write_text


def test_what_a_killed_process_left_is_removed_and_no_other_is(tmp_path):
    gone = subprocess.Popen([sys.executable, "-c", ""])
    gone.wait()
    left = tmp_path / f".a.csv.{_host()}-{gone.pid}-x"
    others = [
        f".a.csv.{_host()}-1-x",
        ".a.csv.elsewhere-99999999-x",
        f".b.csv.{_host()}-{gone.pid}-x",
    ]
    for name in (left.name, *others):
        (tmp_path / name).write_text("half")
    write_text(tmp_path / "a.csv", "whole")
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted([*others, "a.csv"])

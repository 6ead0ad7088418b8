"""What a killed process left half-written."""

import subprocess
import sys

from segmitos.cohort.results import recover
from segmitos.io.files import partial_path, write_text


def test_what_a_killed_process_left_is_removed_and_no_other_is(tmp_path):
    gone = subprocess.Popen([sys.executable, "-c", ""])
    gone.wait()
    host = partial_path(tmp_path / "a.csv").name.partition(".partial-")[2].partition("-")[0]
    left = f".a.csv.partial-{host}-{gone.pid}-x"
    others = [
        f".a.csv.partial-{host}-1-x",
        ".a.csv.partial-elsewhere-99999999-x",
        f".b.csv.partial-{host}-{gone.pid}-x",
    ]
    for name in (left, *others):
        (tmp_path / name).write_text("half")
    recover(tmp_path, "a.csv")
    write_text(tmp_path / "a.csv", "whole")
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted([*others, "a.csv"])
    assert (tmp_path / "a.csv").read_text() == "whole"

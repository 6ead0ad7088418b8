"""A job array: several processes do shares of one list into one folder, and one of them is killed.

    PYTHONPATH=src python -m tests.cohort.job_array --inputs 1000 --processes 4

The table must be right whenever a process has ended: a row for each result there is, with the
count that a detection by itself gives; and whole once the killed share has been done again.
"""

from __future__ import annotations

import argparse
import csv
import os
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
from PIL import Image

import segmitos
from tests.factories.synthetic_fields import draw_field
from tests.factories.toy_models import write_toy

SOURCE = str(Path(segmitos.__file__).parents[1])


def make_inputs(folder: Path, count: int) -> dict[str, int]:
    """Draw small fields in folders that share names; return the count of each by path."""
    rng = np.random.default_rng(0)
    model = segmitos.Model.load(write_toy(folder / "toy.segmitos"), device="cpu", threads=1)
    counts = {}
    for index in range(count):
        path = folder / "in" / f"slide{index % 10}" / f"{index // 10:03d}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        image = draw_field(rng, size=64, mitoses=int(rng.integers(0, 5)))[0]
        Image.fromarray(image).save(path, compress_level=1)
        counts[str(path)] = len(segmitos.detect(image, mpp=0.25, model=model))
    return counts


def start(folder: Path, number: int, processes: int) -> subprocess.Popen[str]:
    arguments = ["detect", str(folder / "in"), "-o", str(folder / "out"), "--quiet"]
    arguments += ["-m", str(folder / "toy.segmitos"), "--mpp", "0.25", "--threads", "1"]
    return subprocess.Popen(
        [sys.executable, "-m", "segmitos", *arguments, "--shard", f"{number}/{processes}"],
        env={**os.environ, "PYTHONPATH": SOURCE},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def check_table(folder: Path, counts: dict[str, int], when: str) -> tuple[int, list[str]]:
    """Compare the table with the results there are; return its rows and what is wrong."""
    with (folder / "out" / "cohort.csv").open(newline="", encoding="utf-8") as stream:
        rows = list(csv.DictReader(stream))
    problems = []
    there = {path.parent.name for path in (folder / "out").glob("*/run.json")}
    if sorted(row["name"] for row in rows) != sorted(there):
        problems.append(f"{when}: {len(rows)} rows of {len(there)} results")
    wrong = [row["path"] for row in rows if int(row["count"]) != counts[row["path"]]]
    if wrong:
        problems.append(f"{when}: wrong counts of {wrong[:5]}")
    return len(rows), problems


def run_array(folder: Path, inputs: int, processes: int) -> list[str]:
    """Run the array, kill one process in its work, finish; return what was wrong."""
    counts = make_inputs(folder, inputs)
    began = time.monotonic()
    running = [start(folder, number + 1, processes) for number in range(processes)]
    while len(list((folder / "out").glob("*/run.json"))) < inputs // 3:
        if any(process.poll() is not None for process in running):
            return [f"a process ended early: {running[0].communicate()}"]
        time.sleep(0.05)
    running[1].send_signal(signal.SIGKILL)
    running[1].communicate()
    problems = []
    for number, process in enumerate(running):
        _, errors = process.communicate()
        if number != 1 and (process.returncode not in (0, 3) or errors):
            problems.append(f"share {number + 1}: exit code {process.returncode}: {errors[-300:]}")
    rows, wrong = check_table(folder, counts, "with one process killed")
    problems += wrong
    print(f"one of {processes} killed: {rows} rows after {time.monotonic() - began:.0f} s")
    again = start(folder, 2, processes)
    _, errors = again.communicate()
    if again.returncode not in (0, 3) or errors:
        problems.append(f"again: exit code {again.returncode}: {errors[-300:]}")
    rows, wrong = check_table(folder, counts, "at the end")
    problems += wrong
    if rows != inputs:
        problems.append(f"at the end {rows} rows of {inputs} inputs")
    left = [path.name for path in (folder / "out").glob(".*")]
    if left:
        problems.append(f"left over: {left[:5]}")
    print(f"its share done again: {rows} rows, all counts right: {not wrong}")
    return problems


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--inputs", type=int, default=1000)
    parser.add_argument("--processes", type=int, default=4)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        problems = run_array(Path(folder), given.inputs, given.processes)
    for problem in problems:
        print(problem)
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main())

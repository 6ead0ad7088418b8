"""Kills at random moments over detect, report, convert and evaluate; nothing may be lost or left.

    PYTHONPATH=src python -m tests.cohort.kills --kills 200

Every run is ended by SIGINT, SIGTERM or SIGKILL. What is there afterwards must be whole, and when
all is done again, the same as of a run that nobody killed. After SIGINT and SIGTERM the processes
are gone within two seconds, the last line says what to do, and the tables agree with the folders.
"""

from __future__ import annotations

import argparse
import csv
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from PIL import Image

import segmitos
from segmitos.cohort.folder import results_in
from tests.factories.synthetic_fields import draw_field, write_cases
from tests.factories.toy_models import write_toy

SOURCE = str(Path(segmitos.__file__).parents[1])
SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGKILL)
NOT_COMPARED = ("run.json", "cohort.html", "cohort.parquet", "evaluation.html")
GONE_WITHIN_S = 2.0


@dataclass
class Tally:
    """What the kills did."""

    kills: int = 0
    too_late: int = 0
    before_start: int = 0
    slowest_s: float = 0.0
    slowest_parent_s: float = 0.0
    problems: list[str] = field(default_factory=list)


def make_inputs(folder: Path) -> Path:
    """Draw fields, a data set with clicks, a file to convert; return the toy model."""
    (folder / "in").mkdir(parents=True)
    rng = np.random.default_rng(0)
    for index in range(6):
        Image.fromarray(draw_field(rng, size=160)[0]).save(folder / "in" / f"f{index}.png")
    (folder / "clicks").mkdir()
    for case in write_cases(folder / "clicks"):
        lines = ["x,y,label", *(f"{x},{y},mitosis" for x, y in case.mitoses_xy)]
        case.image.with_suffix(".csv").write_text("\n".join(lines) + "\n")
    rows = "\n".join(f"{index},{index % 977},mitosis" for index in range(20000))
    (folder / "points.csv").write_text(f"x,y,label\n{rows}\n")
    return write_toy(folder / "toy.segmitos")


def commands(folder: Path, out: Path) -> dict[str, list[str]]:
    """The calls to kill, by name; each writes below `out`."""
    model = ["-m", str(folder / "toy.segmitos"), "--mpp", "0.25", "--threads", "1"]
    detect = ["detect", str(folder / "in"), *model, "-o", str(out / "detect")]
    return {
        "detect": detect,
        "detect --workers 2": [*detect, "--workers", "2"],
        "report": ["report", str(out / "report")],
        "convert": [
            "convert",
            str(folder / "points.csv"),
            str(out / "convert.geojson"),
            "--mpp",
            "0.25",
        ],
        "evaluate": ["evaluate", f"points:{folder / 'clicks'}", *model, "-o", str(out / "scores")],
    }


def start(arguments: list[str]) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "segmitos", *arguments],
        env={**os.environ, "PYTHONPATH": SOURCE},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )


def members(session: int) -> list[int]:
    """The living processes of a session."""
    found = []
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = stat.read_text().rpartition(")")[2].split()
        except OSError:
            continue
        if int(fields[3]) == session and fields[0] not in "ZX":
            try:
                command = (stat.parent / "cmdline").read_bytes()
            except OSError:
                continue
            # Python's own helper, which does nothing and ends with its parent.
            if b"resource_tracker" not in command:
                found.append(int(stat.parent.name))
    return found


def contents(out: Path) -> dict[str, bytes]:
    """All that is compared below a folder, hidden files too."""
    return {
        str(path.relative_to(out)): path.read_bytes()
        for path in sorted(out.rglob("*"))
        if path.is_file() and path.name not in NOT_COMPARED
    }


def kill_one(
    name: str, arguments: list[str], out: Path, wait: float, number: int, to: Tally
) -> None:
    """Start a call, end it after a while, and look at what is left."""
    process = start(arguments)
    time.sleep(wait)
    if process.poll() is not None:
        to.too_late += 1
        process.communicate()
        return
    sent = time.monotonic()
    # As a terminal does it: Ctrl-C goes to all of them, other signals to the one.
    if number == signal.SIGINT:
        os.killpg(process.pid, number)
    else:
        os.kill(process.pid, number)
    while set(members(process.pid)) - {process.pid} and time.monotonic() - sent < 20:
        time.sleep(0.02)
    took = time.monotonic() - sent
    _, errors = process.communicate()
    to.slowest_parent_s = max(to.slowest_parent_s, time.monotonic() - sent)
    to.kills += 1
    to.slowest_s = max(to.slowest_s, took)
    label = f"{name}, {signal.Signals(number).name} after {wait:.2f} s"
    if took > GONE_WITHIN_S:
        to.problems.append(f"{label}: its children were there for {took:.1f} s")
    if number != signal.SIGKILL and process.returncode in (-number, 1) and "segmitos" not in errors:
        # Python itself was starting; no line of the program has run.
        to.before_start += 1
    elif number != signal.SIGKILL:
        lines = errors.strip().splitlines()
        if "Traceback" in errors or "Exception ignored" in errors:
            to.problems.append(f"{label}: {errors[-600:]}")
        if process.returncode == 128 + number and "run the same command again" not in lines[-1]:
            to.problems.append(f"{label}: says {lines[-1:]}")
        if process.returncode not in (128 + number, 0):
            to.problems.append(f"{label}: exit code {process.returncode}: {lines[-1:]}")
    tables = name.startswith("detect") and process.returncode == 128 + number
    look_at(label, out, tables and number != signal.SIGKILL, to)


def look_at(label: str, out: Path, tables: bool, to: Tally) -> None:
    """Check that every result is whole, and that the tables say what is there."""
    for parent in (out / "detect", out / "report"):
        if not parent.is_dir():
            continue
        results = results_in(parent)
        for result in results:
            if changed := [one for one in result.changed_files() if one != "report.html"]:
                to.problems.append(f"{label}: {result.path} lacks {changed}")
        table = parent / "cohort.csv"
        if parent.name == "detect" and tables and results:
            rows = list(csv.DictReader(table.read_text().splitlines())) if table.exists() else []
            # Ended while it was still starting, a run leaves the tables as they are.
            if rows and not {row["name"] for row in rows} <= {one.name for one in results}:
                to.problems.append(f"{label}: the table has {[row['name'] for row in rows]}")


def run_kills(folder: Path, kills: int, seed: int = 0) -> Tally:
    """Kill that many calls and finish each; return what went wrong."""
    rng, tally = random.Random(seed), Tally()
    make_inputs(folder)
    whole, out = folder / "whole", folder / "out"
    lasts = {}
    for name, arguments in commands(folder, whole).items():
        if name == "report":
            shutil.copytree(whole / "detect", whole / "report")
            shutil.copytree(whole / "detect", out / "report")
        process = start(arguments)
        began = time.monotonic()
        _, errors = process.communicate()
        lasts[name] = time.monotonic() - began
        assert process.returncode == 0, errors
    names = list(lasts)
    for index in range(kills):
        name = names[index % len(names)]
        number = SIGNALS[index // len(names) % len(SIGNALS)]
        wait = rng.uniform(0.0, lasts[name])
        kill_one(name, commands(folder, out)[name], out, wait, number, tally)
        if name.startswith("detect") and rng.random() < 0.5:
            for done in list((out / "detect").glob("f*"))[:3]:
                shutil.rmtree(done)
            (out / "detect" / "cohort.csv").unlink(missing_ok=True)
    for arguments in commands(folder, out).values():
        process = start(arguments)
        _, errors = process.communicate()
        if process.returncode:
            tally.problems.append(f"at the end: {errors[-300:]}")
    expected, found = contents(whole), contents(out)
    differ = sorted(name for name in {*expected, *found} if expected.get(name) != found.get(name))
    if differ:
        tally.problems.append(f"at the end other or more files: {differ[:10]}")
    return tally


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kills", type=int, default=200)
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        tally = run_kills(Path(folder), given.kills, given.seed)
    print(
        f"{tally.kills} kills, {tally.too_late} came too late, {tally.before_start} before the "
        f"program's first line; children gone within {tally.slowest_s:.2f} s, "
        f"all within {tally.slowest_parent_s:.2f} s"
    )
    for problem in tally.problems:
        print(problem)
    return 1 if tally.problems else 0


if __name__ == "__main__":
    sys.exit(main())

"""Kills at random moments over every verb that writes; nothing may be lost, doubled or left.

    PYTHONPATH=src python -m tests.cohort.kills --kills 200

Every run is ended by SIGINT, SIGTERM or SIGKILL. What is there afterwards must be whole, and when
all is done again, the same as of a run that nobody killed. After SIGINT and SIGTERM the processes
are gone within two seconds, the last line says what to do, and the tables agree with the folders.
"""

from __future__ import annotations

import argparse
import csv
import math
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from PIL import Image

import segmitos
from segmitos.cohort.atomic_folder import results_in
from segmitos.errors import ModelError
from segmitos.training.checkpoint import STATE, load_checkpoint
from tests.factories.synthetic_fields import draw_field, write_cases
from tests.factories.toy_models import write_toy

SOURCE = str(Path(segmitos.__file__).parents[1])
SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGKILL)
NOT_COMPARED = ("run.json", "cohort.html", "cohort.parquet", "evaluation.html", "training.html")
BEFORE_SIGNALS = ("__init__.py", "__main__.py", "_version.py", "interrupts.py")
GONE_WITHIN_S = 2.0
STEPS = 24
RECIPE = f"""
pretrained = false
crop_px = 64
batch = 2
epochs = 4
steps_per_epoch = {STEPS // 4}
mine_at = [0.5]
precision = "32-true"
"""


@dataclass
class Tally:
    """What the kills did."""

    kills: int = 0
    too_late: int = 0
    before_start: int = 0
    by_verb: dict[str, int] = field(default_factory=dict)
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
    (folder / "tiny.toml").write_text(RECIPE)
    return write_toy(folder / "toy.segmitos")


def commands(folder: Path, out: Path) -> dict[str, list[str]]:
    """The calls to kill, by name; each writes below `out`."""
    model = ["-m", str(folder / "toy.segmitos"), "--mpp", "0.25", "--threads", "1"]
    detect = ["detect", str(folder / "in"), *model, "-o", str(out / "detect")]
    clicks, points = f"points:{folder / 'clicks'}", str(folder / "points.csv")
    train = ["train", clicks, "--recipe", str(folder / "tiny.toml"), "--validation", "auto"]
    train += ["--mpp", "0.25", "--accelerator", "cpu", "--threads", "1"]
    return {
        "detect": detect,
        "detect --workers 2": [*detect, "--workers", "2"],
        "report": ["report", str(out / "report")],
        "recount": ["recount", str(out / "recount"), "--hotspot-area-mm2", "0.01"],
        "convert": ["convert", points, str(out / "convert.geojson"), "--mpp=0.25", "--overwrite"],
        "evaluate": ["evaluate", clicks, *model, "-o", str(out / "scores")],
        "train": [*train, "-o", str(out / "run")],
        "train --restart": [*train, "-o", str(out / "again" / "run"), "--restart"],
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


def answers(errors: str) -> bool:
    """Whether the program had come so far that it answers signals.

    Before that Python itself was starting, or read the few files that set the handlers.
    """
    files = re.findall(r'File ".*?/segmitos/(.+?)"', errors)
    return bool(set(files) - set(BEFORE_SIGNALS)) or (not files and "segmitos" in errors)


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
    to.by_verb[name] = to.by_verb.get(name, 0) + 1
    to.slowest_s = max(to.slowest_s, took)
    label = f"{name}, {signal.Signals(number).name} after {wait:.2f} s"
    if took > GONE_WITHIN_S:
        to.problems.append(f"{label}: its children were there for {took:.1f} s")
    if number != signal.SIGKILL and process.returncode in (-number, 1) and not answers(errors):
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
    """Check that results and checkpoints are whole, and that the tables say what is there."""
    for run in (out / "run", out / "again" / "run"):
        if (run / STATE).exists():
            try:
                step = load_checkpoint(run)[1].step
            except ModelError as error:
                to.problems.append(f"{label}: {error}")
                continue
            if not 0 <= step <= STEPS:
                to.problems.append(f"{label}: step {step} of {STEPS}")
    for parent in (out / "detect", out / "report", out / "recount"):
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


def make_work(name: str, whole: Path, out: Path) -> None:
    """Take away part of what a call has done, so that the next has something to do."""
    if name.startswith("detect"):
        for done in list((out / "detect").glob("f*"))[:3]:
            shutil.rmtree(done)
        (out / "detect" / "cohort.csv").unlink(missing_ok=True)
    elif name == "recount":
        shutil.rmtree(out / name)
        shutil.copytree(whole / "detect", out / name)
    elif name == "train":
        shutil.rmtree(out / "run", ignore_errors=True)


def run_kills(
    folder: Path, kills: int, seed: int = 0, verbs: Sequence[str] = (), minutes: float = math.inf
) -> Tally:
    """Kill that many calls and finish each; return what went wrong.

    Args:
        folder: to work in.
        kills: that reach a call while it runs.
        seed: of the moments.
        verbs: only these of `commands`; empty: all.
        minutes: after which no more calls are started to be killed.
    """
    rng, tally, last_s = random.Random(seed), Tally(), time.monotonic() + 60 * minutes
    make_inputs(folder)
    whole, out = folder / "whole", folder / "out"
    lasts = {}
    for name, arguments in commands(folder, whole).items():
        if name in ("report", "recount"):
            shutil.copytree(whole / "detect", whole / name)
            shutil.copytree(whole / "detect", out / name)
        process = start(arguments)
        began = time.monotonic()
        _, errors = process.communicate()
        lasts[name] = time.monotonic() - began
        assert process.returncode == 0, errors
    names = [name for name in lasts if not verbs or name in verbs]
    for index in range(2 * kills):
        if tally.kills == kills or time.monotonic() > last_s:
            break
        name = names[index % len(names)]
        number = SIGNALS[index // len(names) % len(SIGNALS)]
        wait = rng.uniform(0.0, lasts[name])
        kill_one(name, commands(folder, out)[name], out, wait, number, tally)
        if rng.random() < 0.5:
            make_work(name, whole, out)
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
    parser.add_argument("--minutes", type=float, default=math.inf, help="at most, but for the end")
    parser.add_argument("--verb", action="append", default=[], help="only this one of `commands`")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        tally = run_kills(Path(folder), given.kills, given.seed, given.verb, given.minutes)
    print(
        f"{tally.kills} kills ({', '.join(f'{n} {verb}' for verb, n in tally.by_verb.items())}), "
        f"{tally.too_late} came too late, {tally.before_start} before the "
        f"program's first line; children gone within {tally.slowest_s:.2f} s, "
        f"all within {tally.slowest_parent_s:.2f} s"
    )
    for problem in tally.problems:
        print(problem)
    return 1 if tally.problems else 0


if __name__ == "__main__":
    sys.exit(main())

"""A training that is asked to stop saves first, says where, and goes on from there."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from segmitos.training.checkpoint import load_state
from tests.factories.synthetic_fields import write_cases

SOURCE = Path(__file__).parents[2] / "src"
RECIPE = """
pretrained = false
crop_px = 64
batch = 2
epochs = 2
steps_per_epoch = {steps}
mine_at = []
precision = "32-true"
"""


def start(folder: Path, *more: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "segmitos", "train", f"points:{folder}", "--mpp", "0.25"]
    command += ["--recipe", str(folder / "r.toml"), "-o", str(folder / "run"), "--threads", "1"]
    return subprocess.Popen(
        [*command, "--accelerator", "cpu", *more],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": str(SOURCE)},
    )


@pytest.fixture
def clicks(tmp_path):
    for case in write_cases(tmp_path):
        rows = [f"{x},{y}" for x, y in case.mitoses_xy]
        case.image.with_suffix(".csv").write_text("\n".join(["x,y", *rows]) + "\n")
    return tmp_path


@pytest.mark.slow
@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_saves_and_the_same_command_goes_on(clicks, number, code):
    (clicks / "r.toml").write_text(RECIPE.format(steps=2000))
    process = start(clicks)
    # A plan on standard error says that steps are being taken.
    line = process.stderr.readline()
    while "steps," not in line and line:
        line = process.stderr.readline()
    assert re.search(r"4000 steps, [\d.]+ s each as measured here", line), line
    time.sleep(2)
    process.send_signal(number)
    _, error = process.communicate(timeout=60)
    assert process.returncode == code, error
    assert "Traceback" not in error
    step = load_state(clicks / "run").step
    assert f"stopped and saved at step {step} of 4000" in error and 0 < step < 4000
    again = start(clicks)
    line = again.stderr.readline()
    while "resumes" not in line and line:
        line = again.stderr.readline()
    assert line.startswith(f"resumes after step {step}: {4000 - step} steps"), line
    again.kill()
    again.communicate()

"""Nothing leaves the machine: no packet, no look-up, no file beside the results."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import segmitos
from tests.factories.synthetic_fields import draw_field
from tests.factories.toy_models import write_toy

SOURCE = Path(segmitos.__file__).parent
TINY = """
pretrained = false
crop_px = 64
batch = 2
epochs = 1
steps_per_epoch = 2
mine_at = []
precision = "32-true"
"""
INTERNET = re.compile(r"sa_family=AF_INET6?\b")


@pytest.fixture(scope="module")
def clicks(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("private")
    (folder / "clicks").mkdir()
    for index in range(2):
        pixels, mitoses, _ = draw_field(np.random.default_rng(index), size=192)
        Image.fromarray(pixels).save(folder / "clicks" / f"S{index}_0.png")
        rows = "".join(f"{x},{y}\n" for x, y in mitoses)
        (folder / "clicks" / f"S{index}_0.csv").write_text(f"x,y\n{rows}")
    write_toy(folder / "toy.segmitos")
    (folder / "tiny.toml").write_text(TINY)
    return folder


VERBS = {
    "detect": "detect clicks -m toy.segmitos --mpp 0.25 --device cpu -o out --workers 2",
    "openvino": "detect clicks -m toy.segmitos --mpp 0.25 --device openvino -o out-openvino",
    "evaluate": "evaluate points:clicks -m toy.segmitos --mpp 0.25 -o scores",
    "report": "report out",
    "train": "train points:clicks --recipe tiny.toml --mpp 0.25 -o run --accelerator cpu",
}


def run(folder: Path, verb: str, home: str, *before: str) -> subprocess.CompletedProcess[str]:
    if verb == "report" and not (folder / "out").is_dir():
        run(folder, "detect", home)
    environment = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(("ORT_", "XDG_", "MPLCONFIG", "HOME"))
    }
    command = [*before, sys.executable, "-m", "segmitos", *VERBS[verb].split()]
    return subprocess.run(
        command,
        cwd=folder,
        env={**environment, "HOME": home, "PYTHONPATH": str(SOURCE.parent)},
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
    )


def tracer(log: Path) -> tuple[str, ...]:
    if shutil.which("strace") is None:
        pytest.skip("strace is not installed, so that the network cannot be watched")
    calls = "trace=connect,sendto,sendmsg,sendmmsg"
    command = ("strace", "-f", "-qq", "-e", calls, "-o", str(log))
    if subprocess.run([*command, "true"], check=False, capture_output=True).returncode:
        pytest.skip("strace may not watch processes here")
    return command


def asks_outside(log: Path) -> list[str]:
    return [line for line in log.read_text().splitlines() if INTERNET.search(line)]


def test_a_look_up_and_a_packet_are_seen(tmp_path):
    """The watcher itself: what would be a fault is told as one."""
    log = tmp_path / "log"
    code = "import socket; socket.socket(2, 2).sendto(b'x', ('127.0.0.1', 9))"
    subprocess.run([*tracer(log), sys.executable, "-c", code], check=True)
    assert asks_outside(log)


@pytest.mark.slow
@pytest.mark.parametrize("verb", list(VERBS))
def test_no_packet_and_no_look_up(clicks, tmp_path, verb):
    if verb == "openvino":
        pytest.importorskip("openvino")
    log = tmp_path / "log"
    home = tmp_path / "home"
    home.mkdir()
    done = run(clicks, verb, str(home), *tracer(log))
    assert done.returncode == 0, done.stderr
    assert not asks_outside(log)
    kept = [path for path in home.rglob("*") if path.is_file()]
    assert not [
        path for path in kept if re.search("onnx|microsoft|telemetry|intel", str(path), re.I)
    ]


@pytest.mark.slow
@pytest.mark.parametrize("verb", [verb for verb in VERBS if verb != "train"])
def test_a_home_that_cannot_be_written_is_no_matter(clicks, verb):
    if verb == "openvino":
        pytest.importorskip("openvino")
    done = run(clicks, verb, "/proc")
    assert done.returncode == 0, done.stderr
    assert not re.search("warn|cache|config|telemetry", done.stderr, re.I), done.stderr


def test_one_file_imports_the_runtimes():
    """Who else did would start their telemetry before it is switched off."""
    pattern = re.compile(r"^\s*(import|from) (onnxruntime|openvino)\b", re.M)
    found = [
        path.relative_to(SOURCE).as_posix()
        for path in SOURCE.rglob("*.py")
        if pattern.search(path.read_text(encoding="utf-8"))
    ]
    assert found == ["detection/runtimes.py"]

"""The benchmark: every row is there, figures are consistent, what is missing is said in a line."""

from __future__ import annotations

import importlib.util
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from factories.bench_pieces import die, hold
from factories.toy_models import write_toy
from segmitos.cli import main
from segmitos.commands import measuring
from segmitos.commands.bench import table
from segmitos.commands.measuring import Timing, alone, time_decoding, time_slide, write_slide
from segmitos.errors import SegMitosError
from segmitos.io.slide import Slide

ROOT = Path(__file__).parents[1]


@pytest.fixture(scope="module")
def toy(tmp_path_factory):
    return write_toy(tmp_path_factory.mktemp("toy") / "toy.onnx")


def load_speed():
    spec = importlib.util.spec_from_file_location("speed", ROOT / "benchmarks" / "speed.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_command_gives_field_slide_and_machine(toy, capsys):
    assert main(["bench", "-m", str(toy), "--size", "64", "--repeats", "1", "--json"]) == 0
    result = json.loads(capsys.readouterr().out)
    assert "threads used" in result["machine"] and "onnxruntime" in result["machine"]
    parts = result["parts"]
    for name in ("network, ONNX Runtime", "detection, ONNX Runtime", "decoding alone"):
        assert parts[name]["seconds"] > 0 and parts[name]["mpx_per_s"] > 0
    # A slide of four fields a side is read whole, and a process needs some memory at least.
    decoding = parts["decoding alone"]
    assert decoding["seconds"] * decoding["mpx_per_s"] == pytest.approx(256**2 / 1e6)
    assert 10 < decoding["peak_memory_mb"] < 2000


def test_the_slide_is_tissue_of_known_scale_and_size(tmp_path):
    path = tmp_path / "slide.tif"
    write_slide(path, 700)
    with Slide.open(path) as slide:
        assert (slide.width, slide.height, slide.mpp) == (700, 700, 0.25)
        pixels = slide.read(0, 0, 700, 700)
    assert pixels.mean() < 220 and pixels.std() > 10
    assert time_decoding(str(path), 2)[1] == pytest.approx(0.49)


def test_the_rate_of_a_slide_counts_tissue_alone(tmp_path, toy):
    path = tmp_path / "slide.tif"
    write_slide(path, 512)
    _, megapixels = time_slide(str(toy), str(path), "cpu", 1)
    assert megapixels == pytest.approx(512**2 / 1e6, rel=0.02)


def test_peak_memory_is_that_of_the_piece_alone():
    here = np.ones(300_000_000, np.uint8)
    small, large = alone(hold, 10), alone(hold, 210)
    assert here[-1] and small.peak_mb < 250
    assert large.peak_mb - small.peak_mb == pytest.approx(200, abs=40)


def test_a_piece_thatdies_is_named():
    with pytest.raises(SegMitosError, match="die: its process died"):
        alone(die)


def test_ratios_are_of_time_per_pixel():
    text = table("t", {"a": Timing(1.0, 2.0, 10.0), "b": Timing(4.0, 2.0), "c": Timing(4.0, 4.0)})
    rows = [line.split(" | ") for line in text.splitlines()[2:]]
    assert [row[3] for row in rows] == ["1.00", "4.00", "2.00"]


def test_the_machine_is_stated():
    line = measuring.machine_line(3)
    assert "3 threads used" in line and "Python" in line


def test_missing_networks_are_a_line_not_an_error(monkeypatch, capsys):
    speed = load_speed()
    monkeypatch.setattr(speed, "find_spec", lambda name: None if name == "monai" else object())
    assert list(speed.rivals().values()) == ["fcn32s"]
    printed = capsys.readouterr().out.strip()
    assert "MONAI is not installed" in printed and printed.count("\n") == 0


def test_arithmetic_is_counted_as_by_hand(monkeypatch):
    nn = pytest.importorskip("torch").nn
    speed = load_speed()
    layers = nn.Sequential(nn.Conv2d(3, 8, 3, 2, 1), nn.Conv2d(8, 8, 5, padding=2, groups=8))
    up = nn.ConvTranspose2d(8, 4, 4, 2, 1)
    monkeypatch.setattr(speed, "_torch_network", lambda name: nn.Sequential(layers, up))
    per_px = 3 * 9 * 8 / 4 + 25 * 8 / 4 + 16 * 4 * 8 / 4
    assert speed.gflop_per_field("any", 100) == pytest.approx(2 * per_px * 100**2 / 1e9)


def test_the_other_networks_run():
    pytest.importorskip("monai")
    code = (
        "import sys; sys.path.insert(0, 'benchmarks'); import speed; "
        "print(min(speed.time_torch(name, 1, 64, 1)[0] for name in ('unet', 'hovernet')))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=240
    )
    assert done.returncode == 0, done.stderr
    assert float(done.stdout) > 0

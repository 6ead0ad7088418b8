"""The benchmark: every row is there, figures are consistent, what is missing is said in a line."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from benchmarks import field_speed, timing
from benchmarks.field_speed import measure, table
from benchmarks.timing import Timing, run_isolated, time_decoding, time_slide, write_tissue
from segmitos.errors import SegMitosError
from segmitos.io.slide import Slide
from tests.factories.bench_pieces import die, hold
from tests.factories.toy_models import write_toy

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def toy(tmp_path_factory):
    return write_toy(tmp_path_factory.mktemp("toy") / "toy.segmitos")


@pytest.mark.slow
def test_a_field_and_a_slide_are_timed_on_every_device(toy):
    field, slide = measure(toy, 64, 1, 1)
    for row in (*field.values(), *slide.values()):
        assert row.seconds > 0 and row.mpx_per_s > 0
    assert {"network, ONNX Runtime", "the whole command, cold"} <= set(field)
    # A slide of four fields a side is read whole, and a process needs some memory at least.
    decoding = slide["decoding alone"]
    assert decoding.megapixels == pytest.approx(256**2 / 1e6)
    assert 10 < decoding.peak_mb < 2000


def test_the_slide_is_tissue_of_known_scale_and_size(tmp_path):
    path = tmp_path / "slide.tif"
    write_tissue(path, 700)
    with Slide.open(path) as slide:
        assert (slide.width, slide.height, slide.mpp) == (700, 700, 0.25)
        pixels = slide.read(0, 0, 700, 700)
    assert pixels.mean() < 220 and pixels.std() > 10
    assert time_decoding(str(path), 2)[1] == pytest.approx(0.49)


def test_the_rate_of_a_slide_counts_tissue_alone(tmp_path, toy):
    path = tmp_path / "slide.tif"
    write_tissue(path, 512)
    _, megapixels = time_slide(str(toy), str(path), "cpu", 1)
    assert megapixels == pytest.approx(512**2 / 1e6, rel=0.02)


@pytest.mark.slow
def test_peak_memory_is_that_of_the_piece_alone():
    here = np.ones(300_000_000, np.uint8)
    small, large = run_isolated(hold, 10), run_isolated(hold, 210)
    assert here[-1] and small.peak_mb < 250
    assert large.peak_mb - small.peak_mb == pytest.approx(200, abs=40)


def test_a_piece_that_dies_is_named():
    with pytest.raises(SegMitosError, match="die: its process died"):
        run_isolated(die)


def test_ratios_are_of_time_per_pixel():
    text = table("t", {"a": Timing(1.0, 2.0, 10.0), "b": Timing(4.0, 2.0), "c": Timing(4.0, 4.0)})
    rows = [line.split(" | ") for line in text.splitlines()[2:]]
    assert [row[3] for row in rows] == ["1.00", "4.00", "2.00"]


def test_the_machine_is_stated():
    line = timing.machine_line(3)
    assert "3 threads used" in line and "Python" in line


def test_missing_networks_are_a_line_not_an_error(monkeypatch, capsys):
    monkeypatch.setattr(
        field_speed, "find_spec", lambda name: None if name == "monai" else object()
    )
    assert list(field_speed.rivals().values()) == ["fcn32s"]
    printed = capsys.readouterr().out.strip()
    assert "MONAI is not installed" in printed and printed.count("\n") == 0


def test_arithmetic_is_counted_as_by_hand(monkeypatch):
    nn = pytest.importorskip("torch").nn
    layers = nn.Sequential(nn.Conv2d(3, 8, 3, 2, 1), nn.Conv2d(8, 8, 5, padding=2, groups=8))
    up = nn.ConvTranspose2d(8, 4, 4, 2, 1)
    monkeypatch.setattr(field_speed, "_torch_network", lambda name: nn.Sequential(layers, up))
    per_px = 3 * 9 * 8 / 4 + 25 * 8 / 4 + 16 * 4 * 8 / 4
    assert field_speed.gflop_per_field("any", 100) == pytest.approx(2 * per_px * 100**2 / 1e9)


@pytest.mark.slow
def test_the_other_networks_run():
    pytest.importorskip("monai")
    code = (
        "from benchmarks import field_speed as speed; "
        "print(min(speed.time_torch(name, 1, 64, 1)[0] for name in ('unet', 'hovernet')))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=240
    )
    assert done.returncode == 0, done.stderr
    assert float(done.stdout) > 0

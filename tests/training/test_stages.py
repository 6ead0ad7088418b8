"""The paper's three stages as a user trains them: 16s begins where 32s ended, 8s where 16s did."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from PIL import Image

from segmitos.cli import main
from segmitos.training.checkpoint import load_checkpoint
from segmitos.training.networks.registry import build_network
from tests.factories.synthetic_fields import write_cases

RECIPE = """
network = "fcn{stride}s-slim"
pretrained = false
weights = "{weights}"
crop_px = 64
batch = 2
epochs = 1
steps_per_epoch = 2
optimizer = "sgd"
momentum = 0.99
learning_rate = {rate}
weight_decay = 0.0
warmup_steps = 0
schedule = "constant"
reduction = "sum"
gradient_clip = 0.0
ema = 0.0
mine_at = []
precision = "32-true"

[sampling]
shift_px = 10
"""


@pytest.fixture(scope="module")
def clicks(tmp_path_factory):
    folder = tmp_path_factory.mktemp("clicks")
    for case in write_cases(folder):
        rows = [f"{x},{y}" for x, y in case.mitoses_xy]
        case.image.with_suffix(".csv").write_text("\n".join(["x,y", *rows]) + "\n")
    return folder


def stage(clicks, folder, stride: int, weights: str, rate: str) -> None:
    recipe = folder / f"{stride}.toml"
    recipe.write_text(RECIPE.format(stride=stride, weights=weights, rate=rate))
    run = folder / f"fcn{stride}s"
    given = [f"points:{clicks}", "--mpp", "0.25", "--recipe", str(recipe), "-o", str(run)]
    assert main(["train", *given, "--threads", "1", "--accelerator", "cpu"]) == 0


def logits(run, stride: int) -> torch.Tensor:
    network = build_network(f"fcn{stride}s-slim", pretrained=False)
    network.load_state_dict(load_checkpoint(run)[0]["ema"])
    image = torch.from_numpy(np.random.default_rng(0).integers(0, 256, (1, 3, 96, 70))).float()
    with torch.inference_mode():
        return network.eval()(image)


@pytest.mark.slow
def test_each_stage_begins_where_the_one_before_ended(clicks, tmp_path, monkeypatch):
    """A rate too small to change a float32 weight leaves the start of a stage as its end."""
    monkeypatch.chdir(tmp_path)
    stage(clicks, tmp_path, 32, "", "1e-6")
    stage(clicks, tmp_path, 16, "run:fcn32s", "1e-30")
    stage(clicks, tmp_path, 8, "run:fcn16s", "1e-30")
    first = logits(tmp_path / "fcn32s", 32)
    assert first.std() > 1e-5
    for stride in (16, 8):
        torch.testing.assert_close(
            logits(tmp_path / f"fcn{stride}s", stride), first, rtol=0, atol=1e-6
        )


@pytest.mark.slow
def test_a_trained_stage_changes_and_detects(clicks, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    stage(clicks, tmp_path, 32, "", "1e-6")
    stage(clicks, tmp_path, 16, "run:fcn32s", "1e-7")
    assert not torch.equal(logits(tmp_path / "fcn16s", 16), logits(tmp_path / "fcn32s", 32))
    assert main(["model", "export", "fcn16s", "-o", "fcn16s.segmitos"]) == 0
    image = sorted(clicks.glob("*.png"))[0]
    given = ["detect", str(image), "--mpp", "0.25", "-m", "fcn16s.segmitos", "-o", "found"]
    assert main([*given, "--device", "cpu", "--threads", "1"]) == 0
    summary = json.loads((tmp_path / "found" / image.stem / "summary.json").read_text())
    assert summary["model"]["name"]
    with Image.open(image) as opened:
        assert (summary["width_px"], summary["height_px"]) == opened.size


@pytest.mark.slow
def test_a_training_that_diverges_says_so(clicks, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    recipe = tmp_path / "32.toml"
    text = RECIPE.format(stride=32, weights="", rate="1e30")
    recipe.write_text(text.replace("steps_per_epoch = 2", "steps_per_epoch = 4"))
    given = [f"points:{clicks}", "--mpp", "0.25", "--recipe", str(recipe), "-o", "run"]
    assert main(["train", *given, "--threads", "1"]) == 1
    assert "diverged" in capsys.readouterr().err


def test_a_stage_without_the_one_before_says_so(clicks, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    recipe = tmp_path / "16.toml"
    recipe.write_text(RECIPE.format(stride=16, weights="run:fcn32s", rate="1e-5"))
    given = [f"points:{clicks}", "--mpp", "0.25", "--recipe", str(recipe), "-o", "run"]
    assert main(["train", *given, "--threads", "1"]) == 1
    error = capsys.readouterr().err
    assert "fcn32s" in error and len(error.strip().splitlines()) == 1
    assert not (tmp_path / "run" / "checkpoint.json").exists()

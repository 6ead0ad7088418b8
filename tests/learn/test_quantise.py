"""The integer version of a model: close to the float one, runs anywhere, refuses nonsense."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import onnx.numpy_helper
import pytest
from PIL import Image

from segmitos.cli import main
from segmitos.detect.model import WHOLE_MODEL, Model, is_shipped
from segmitos.errors import ModelError
from synthetic_fields import draw_field


@pytest.fixture(scope="module")
def quantised(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("quantise")
    (folder / "data").mkdir()
    for name in ("S0_0", "S1_0"):
        pixels, mitoses, _ = draw_field(np.random.default_rng(len(name)), size=320)
        Image.fromarray(pixels).save(folder / "data" / f"{name}.png")
        rows = "".join(f"{x},{y}\n" for x, y in mitoses)
        (folder / "data" / f"{name}.csv").write_text(f"x,y\n{rows}")
    out = folder / "small.onnx"
    code = main(["quantise", f"points:{folder / 'data'}", "--mpp", "0.25", "-o", str(out)])
    assert code == 0
    return out


def test_it_is_small_and_close_to_the_float_one(quantised):
    assert quantised.stat().st_size < WHOLE_MODEL.stat().st_size / 2
    spec = Model.load(quantised).spec
    assert spec.name == "lite-int8"
    assert spec.thresholds == Model.load(WHOLE_MODEL).spec.thresholds
    rng = np.random.default_rng(0)
    image = np.kron(rng.integers(90, 240, (1, 32, 32, 3)), np.ones((1, 8, 8, 1))).astype(np.uint8)
    change = np.abs(Model.load(quantised).predict(image) - Model.load(WHOLE_MODEL).predict(image))
    assert 0 < change.mean() < 0.02


def test_its_layers_are_integers_but_for_the_head(quantised):
    kinds = [node.op_type for node in onnx.load(quantised).graph.node]
    assert kinds.count("DequantizeLinear") > 100
    weights = [t for t in onnx.load(quantised).graph.initializer if t.data_type == 3]
    # Seven bits: CPUs without VNNI must not overflow.
    values = [onnx.numpy_helper.to_array(tensor).astype(int) for tensor in weights]
    assert 32 < max(np.abs(value).max() for value in values if value.ndim == 4) <= 64


def test_an_integer_model_is_not_quantised_again(quantised, tmp_path, capsys):
    data = quantised.parent / "data"
    out = tmp_path / "again.onnx"
    given = ["quantise", f"points:{data}", "--mpp", "0.25", "-o", str(out)]
    for model, why in ((str(quantised), "integers already"), ("lite", "a first look")):
        assert main([*given, "-m", model]) == 1
        assert why in capsys.readouterr().err
    assert main([*given, "--threads", "0"]) == 2
    assert "--threads" in capsys.readouterr().err
    assert not out.exists()


def test_shipped_models_go_by_name(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert is_shipped(Path("lite-whole")) and not is_shipped(Path("nothing"))
    assert Model.load(Path("lite-float")).spec.name == "lite-float"
    with pytest.raises(ModelError, match=r"lite-int8: .*lite, lite-float, lite-whole"):
        Model.load(Path("lite-int8"))
    Path("lite").write_text("a file of that name comes first")
    assert not is_shipped(Path("lite"))

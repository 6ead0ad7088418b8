"""The integer version of a model: close to the float one, runs anywhere, refuses nonsense."""

from __future__ import annotations

from pathlib import Path

import msgspec
import numpy as np
import onnx
import onnx.numpy_helper
import pytest
import torch
from PIL import Image

from experiments.laboratories.graphs import verifier_graph
from segmitos.cli import main
from segmitos.detection.model import DEFAULT_MODEL, Model
from segmitos.detection.model_file import read_model_file, write_model_file
from segmitos.detection.runtimes import open_onnxruntime
from segmitos.detection.verify import log_odds
from segmitos.errors import UsageError
from segmitos.io.datasets import load_dataset
from segmitos.training import quantize as quantize_module
from segmitos.training.audit import AuditOptions, audit_labels
from segmitos.training.combine import combine
from segmitos.training.export import export_network
from segmitos.training.networks.lite import LiteNetwork
from segmitos.training.networks.proposal import ProposalNetwork
from segmitos.training.networks.verifier import VerifierNetwork
from segmitos.training.quantize import quantize_verifier
from segmitos.training.train import train
from segmitos.training.verifier_head import VerifierHead
from tests.factories.synthetic_fields import draw_field
from tests.factories.toy_models import SPEC


def normalized(kind, seed):
    """Return a network of random weights whose layers are normalized to drawn fields."""
    torch.manual_seed(seed)
    network = kind()
    torch.nn.init.normal_(network.head.weight, std=0.5)
    torch.nn.init.zeros_(network.head.bias)
    for module in network.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.momentum = 1.0
    fields = [draw_field(np.random.default_rng(seed), size=128)[0] for seed in range(4)]
    with torch.no_grad():
        network.train()(torch.from_numpy(np.stack(fields)).permute(0, 3, 1, 2).float())
    return network


@pytest.fixture(scope="module")
def in_floats(tmp_path_factory) -> Path:
    """A random network whose layers are normalized, with probabilities on both sides of a half."""
    network = normalized(LiteNetwork, 0)
    path = tmp_path_factory.mktemp("floats") / "first.segmitos"
    export_network(network, SPEC, path)
    return path


@pytest.fixture(scope="module")
def quantized(tmp_path_factory, in_floats) -> Path:
    folder = tmp_path_factory.mktemp("quantize")
    (folder / "data").mkdir()
    for name in ("S0_0", "S1_0"):
        pixels, mitoses, _ = draw_field(np.random.default_rng(len(name)), size=320)
        Image.fromarray(pixels).save(folder / "data" / f"{name}.png")
        rows = "".join(f"{x},{y}\n" for x, y in mitoses)
        (folder / "data" / f"{name}.csv").write_text(f"x,y\n{rows}")
    out = folder / "small.segmitos"
    code = main(
        [
            "model",
            "quantize",
            f"points:{folder / 'data'}",
            "--mpp",
            "0.25",
            "-m",
            str(in_floats),
            "-o",
            str(out),
        ]
    )
    assert code == 0
    return out


@pytest.mark.slow
def test_it_is_small_and_close_to_the_float_one(quantized, in_floats):
    assert quantized.stat().st_size < 0.4 * in_floats.stat().st_size
    spec = Model.load(quantized).spec
    assert (spec.name, spec.thresholds) == (f"{SPEC.name}-int8", SPEC.thresholds)
    rng = np.random.default_rng(0)
    image = np.kron(rng.integers(90, 240, (1, 32, 32, 3)), np.ones((1, 8, 8, 1))).astype(np.uint8)
    expected = Model.load(in_floats).predict(image)
    assert expected.std() > 0.1
    change = np.abs(Model.load(quantized).predict(image) - expected)
    assert 0 < change.mean() < 0.05


@pytest.mark.slow
def test_its_layers_are_integers_but_for_the_head(quantized):
    graph = onnx.load_from_string(read_model_file(quantized).networks[0]).graph
    kinds = [node.op_type for node in graph.node]
    assert kinds.count("DequantizeLinear") > 100
    weights = [t for t in graph.initializer if t.data_type == 3]
    # Seven bits: CPUs without VNNI must not overflow.
    values = [onnx.numpy_helper.to_array(tensor).astype(int) for tensor in weights]
    assert 32 < max(np.abs(value).max() for value in values if value.ndim == 4) <= 64


@pytest.mark.slow
def test_an_integer_model_is_not_quantized_again(quantized, tmp_path, capsys):
    data = quantized.parent / "data"
    out = tmp_path / "again.segmitos"
    given = ["model", "quantize", f"points:{data}", "--mpp", "0.25", "-o", str(out)]
    for model in (str(quantized), "lite"):
        assert main([*given, "-m", model]) == 1
        assert "is quantized already" in capsys.readouterr().err
    assert main([*given, "--threads", "0"]) == 2
    assert "--threads" in capsys.readouterr().err
    assert not out.exists()


@pytest.mark.slow
def test_a_proposal_network_is_made_integers_with_the_networks(quantized, in_floats, tmp_path):
    network = normalized(ProposalNetwork, 1)
    alone, behind, out = (tmp_path / f"{name}.segmitos" for name in ("alone", "behind", "out"))
    spec = msgspec.structs.replace(SPEC, name="proposal", mpp=0.5, stride=8, context_px=24)
    export_network(network, spec, alone)
    combine([in_floats], behind, alone, patch_px=224, margin_px=80, grid_px=16)
    cases = load_dataset(f"points:{quantized.parent / 'data'}", mpp=0.25)
    quantize_module.quantize(behind, cases, out)
    before, after = read_model_file(behind), read_model_file(out)
    assert all(b"QuantizeLinear" in graph for graph in (after.proposal, *after.networks))
    assert after.spec.context_px == before.spec.context_px
    assert after.spec.cascade == before.spec.cascade
    image = draw_field(np.random.default_rng(5), size=320)[0][None]
    expected, got = (
        open_onnxruntime(file.proposal, "it", "cpu", 1)[0](image) for file in (before, after)
    )
    assert expected.std() > 0.05
    assert 0 < np.abs(got - expected).mean() < 0.05


@pytest.mark.slow
def test_behind_a_proposal_network_in_floats_integers_stay_as_they_are(quantized, tmp_path):
    alone, behind, out = (tmp_path / f"{name}.segmitos" for name in ("alone", "behind", "out"))
    spec = msgspec.structs.replace(SPEC, name="proposal", mpp=0.5, stride=8, context_px=24)
    export_network(normalized(ProposalNetwork, 1), spec, alone)
    combine([quantized], behind, alone, patch_px=224, margin_px=80, grid_px=16, name="a-int8")
    file = read_model_file(behind)
    scored = msgspec.structs.replace(file.spec, validation={"f_score": 0.5, "data": "two slides"})
    write_model_file(behind, scored, file.graphs)
    cases = load_dataset(f"points:{quantized.parent / 'data'}", mpp=0.25)
    quantize_module.quantize(behind, cases, out)
    after = read_model_file(out)
    assert after.networks == file.networks and b"QuantizeLinear" in after.proposal
    assert after.spec.name == "a-int8"
    assert after.spec.validation["data"] == "two slides, before it was quantized"


@pytest.mark.slow
@pytest.mark.parametrize("moved", [0.5, -0.8])
def test_what_rounding_moves_all_logits_by_is_taken_back(
    quantized, in_floats, tmp_path, monkeypatch, moved
):
    """In the place of rounding, the head's bias is moved: the result must be as it was before."""

    def biased(graph, crops, folder, kept):
        model = onnx.load_from_string(graph)
        quantize_module._move_head(model, moved)
        return model

    monkeypatch.setattr(quantize_module, "_quantize_static", biased)
    cases = load_dataset(f"points:{quantized.parent / 'data'}", mpp=0.25)
    result = quantize_module.quantize(in_floats, cases, tmp_path / "back.segmitos")
    assert result.shift == pytest.approx(moved, abs=1e-3)
    assert max(result.difference) < 1e-3


def test_a_verifier_in_integers_is_close_and_its_last_layers_stay(monkeypatch):
    torch.manual_seed(0)
    networks = [VerifierNetwork(64), VerifierNetwork(128)]
    rng = np.random.default_rng(0)
    shades = rng.integers(60, 250, (48, 10, 10, 3))
    patches = np.kron(shades, np.ones((1, 8, 8, 1))).astype(np.uint8)
    for network in networks:
        torch.nn.init.normal_(network.head.weight, std=0.2)
        for module in network.modules():
            if isinstance(module, torch.nn.BatchNorm1d | torch.nn.BatchNorm2d):
                module.momentum = 1.0
        with torch.no_grad():
            network.train()(torch.from_numpy(patches).permute(0, 3, 1, 2).float())
    graph = verifier_graph(networks)
    content = quantize_verifier(graph, patches)
    assert len(content) < 0.4 * len(graph)

    def logits(graph: bytes) -> np.ndarray:
        network, _ = open_onnxruntime(graph, "graph", "cpu", 1, 1)
        return log_odds(network(patches).astype(np.float64))

    expected = logits(graph)
    change = logits(content) - expected
    assert expected.std() > 0.3
    assert abs(change.mean()) < 1e-3  # rounding moves no score on the whole
    assert change.any() and np.corrcoef(logits(content), expected)[0, 1] > 0.9
    model = onnx.load_from_string(content)
    constants = {constant.name for constant in model.graph.initializer}
    kept = [node for node in model.graph.node if node.op_type == "Gemm" or "/pool" in node.name]
    assert len(kept) == 6 and all(node.input[1] in constants for node in kept)
    assert VerifierHead(content, "graph").count == 2  # can still be adapted
    # What is taken back is what rounding did: without it, the mean moves.
    monkeypatch.setattr(quantize_module, "_add_to_constant", lambda *_: None)
    moved = (logits(quantize_verifier(graph, patches)) - expected).mean()
    assert abs(moved) > 10 * abs(change.mean())


@pytest.mark.parametrize("threads", [0, -1, 513])
def test_threads_that_cannot_be_are_refused_wherever_networks_learn(threads, tmp_path):
    for work in (
        lambda: quantize_module.quantize(DEFAULT_MODEL, [], tmp_path / "int8.segmitos", threads),
        lambda: train([], tmp_path / "run", threads=threads),
        lambda: audit_labels([], AuditOptions(), threads=threads),
    ):
        with pytest.raises(UsageError, match=f"^{threads} threads: from 1 to 512"):
            work()
    assert not list(tmp_path.iterdir())

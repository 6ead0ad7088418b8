"""A graph that sees patches whole says what the one that sees them in halves says."""

from __future__ import annotations

import io
import warnings

import numpy as np
import onnx
import pytest
import torch

from segmitos.detection.model import DEFAULT_MODEL
from segmitos.detection.model_file import read_model_file
from segmitos.detection.runtimes import open_onnxruntime
from segmitos.training.export import network_to_onnx
from segmitos.training.halves import without_halves
from segmitos.training.networks.lite import LiteNetwork
from segmitos.training.quantize import _quantize_network


def convolutions(graph: bytes) -> int:
    return sum(node.op_type == "Conv" for node in onnx.load_from_string(graph).graph.node)


@pytest.fixture(scope="module")
def halved() -> bytes:
    torch.manual_seed(0)
    return network_to_onnx(LiteNetwork())


@pytest.mark.parametrize(("height", "width"), [(192, 192), (96, 64), (32, 32)])
def test_the_whole_says_what_the_halves_say(halved, height, width):
    images = np.random.default_rng(height).integers(0, 256, (2, height, width, 3), np.uint8)
    whole = without_halves(halved)
    assert convolutions(whole) < convolutions(halved)
    one, other = (open_onnxruntime(graph, "it", "cpu", 1)[0](images) for graph in (halved, whole))
    assert np.ptp(one) > 0
    np.testing.assert_allclose(one, other, atol=1e-5)


def test_in_integers_the_whole_says_nearly_what_the_halves_say(halved):
    crops = [
        np.random.default_rng(seed).integers(0, 256, (1, 256, 256, 3), np.uint8)
        for seed in range(2)
    ]
    network = open_onnxruntime(halved, "it", "cpu", 1)[0]
    integers = _quantize_network(halved, network, crops, 1)[0]
    whole = without_halves(integers)
    assert convolutions(whole) < convolutions(integers)
    one, other = (
        open_onnxruntime(graph, "it", "cpu", 1)[0](crops[0]) for graph in (integers, whole)
    )
    assert np.abs(one - other).max() < 0.25 * np.ptp(one)


def test_the_default_model_sees_patches_whole():
    for graph in read_model_file(DEFAULT_MODEL).networks:
        assert convolutions(without_halves(graph)) == convolutions(graph)


def test_a_graph_without_halves_stays_as_it_is(halved):
    whole = without_halves(halved)
    assert without_halves(whole) is whole


def test_what_else_cuts_and_joins_stays_as_it_is():
    """A crop of rows, and channels that change places: no halves."""

    class Other(torch.nn.Module):
        def forward(self, image: torch.Tensor) -> torch.Tensor:
            x = image[:, :, 2:-2].relu()
            return torch.cat([x[:, 2:3], x[:, :2]], dim=1).relu()

    class Folded(torch.nn.Module):
        def forward(self, image: torch.Tensor) -> torch.Tensor:
            x = image[:, :, 4:].relu()
            return torch.cat([x[:, :, 8:], x[:, :, :8]], dim=2)

    for network in (Other(), Folded()):
        buffer = io.BytesIO()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            torch.onnx.export(network, (torch.zeros(1, 3, 32, 32),), buffer, dynamo=False)
        graph = buffer.getvalue()
        assert without_halves(graph) is graph

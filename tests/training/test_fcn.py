"""The paper's networks: aligned to the pixel, any size, a stage begins where the last one ended."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F

from segmitos.detection.runtimes import import_onnxruntime
from segmitos.errors import ModelError, UsageError
from segmitos.training.export import network_to_onnx
from segmitos.training.networks.fcn import FCN, BilinearUpsampling
from segmitos.training.networks.registry import build_network

WIDTH = 1 / 32


def random_fcn(output_stride: int, seed: int = 0) -> FCN:
    torch.manual_seed(seed)
    network = FCN(output_stride, WIDTH).eval()
    for name, value in network.named_parameters():
        if name.startswith("score"):
            nn.init.normal_(value, std=0.3)
    return network


def image_of(height: int, width: int) -> torch.Tensor:
    rng = np.random.default_rng(1)
    return torch.from_numpy(rng.integers(0, 256, (1, 3, height, width))).float()


@pytest.mark.parametrize("stride", [8, 16, 32])
def test_upsampling_is_bilinear_interpolation_to_the_border(stride):
    coarse = torch.randn(2, 2, 4, 5, generator=torch.Generator().manual_seed(3))
    expected = F.interpolate(coarse, scale_factor=stride, mode="bilinear", align_corners=False)
    assert torch.allclose(BilinearUpsampling(2, stride)(coarse), expected, atol=1e-5)


@pytest.mark.parametrize("stride", [8, 16, 32])
@pytest.mark.parametrize("size", [(64, 96), (50, 77), (33, 31), (1, 1)])
def test_output_has_the_size_of_the_input(stride, size):
    with torch.inference_mode():
        assert random_fcn(stride)(image_of(*size)).shape == (1, 2, *size)


@pytest.mark.parametrize("stride", [8, 16, 32])
def test_output_is_aligned_with_the_input(stride):
    """A mirrored image gives a mirrored map, once the filters are mirrored too: no half pixel."""
    network = random_fcn(stride)
    mirrored = random_fcn(stride)
    for module in mirrored.modules():
        if isinstance(module, nn.Conv2d):
            module.weight.data = module.weight.data.flip(2, 3)
    image = image_of(96, 64)
    with torch.inference_mode():
        straight = network(image)
        turned = mirrored(image.flip(2, 3)).flip(2, 3)
    assert float(straight.std()) > 1e-3
    assert torch.allclose(straight, turned, atol=1e-3 * float(straight.std()))


def test_context_reaches_every_pixel_that_matters():
    network = random_fcn(8).double()
    near = torch.zeros(1, 3, 544, 544, dtype=torch.float64, requires_grad=True)
    network(near + 100)[0, 1, 272, 272].backward()
    assert near.grad is not None
    rows, columns = torch.nonzero(near.grad[0].abs().sum(0), as_tuple=True)
    reach = max(
        int(torch.stack([(rows - 272).abs(), (columns - 272).abs()]).max()),
        1,
    )
    assert 150 < reach <= FCN.context_px


@pytest.mark.parametrize(("before", "after"), [(32, 16), (16, 8), (32, 8)])
def test_a_stage_begins_where_the_last_one_ended(before, after):
    earlier = random_fcn(before)
    later = FCN(after, WIDTH).eval()
    later.load_state_dict(earlier.state_dict(), strict=False)
    image = image_of(70, 90)
    with torch.inference_mode():
        assert torch.equal(earlier(image), later(image))


def test_skips_change_the_output_once_they_are_trained():
    network = random_fcn(8)
    image = image_of(64, 64)
    with torch.inference_mode():
        whole = network(image)
        assert network.score_pool3 is not None
        nn.init.zeros_(network.score_pool3.weight)
        nn.init.zeros_(network.score_pool3.bias)
        assert not torch.allclose(whole, network(image))


def test_the_skips_learn_from_their_zero_start():
    network = FCN(8, WIDTH)
    for name, value in network.named_parameters():
        if name.startswith("score_fr"):
            nn.init.normal_(value, std=0.3)
    network(image_of(64, 64))[0, 1].sum().backward()
    for skip in (network.score_pool4, network.score_pool3):
        assert skip is not None and float(skip.weight.grad.abs().sum()) > 0


def test_exported_graph_takes_raw_bytes_and_agrees():
    network = random_fcn(8)
    pixels = np.random.default_rng(5).integers(0, 256, (1, 96, 64, 3)).astype(np.uint8)
    session = import_onnxruntime().InferenceSession(
        network_to_onnx(network), providers=["CPUExecutionProvider"]
    )
    got = session.run(None, {"image": pixels})[0]
    with torch.inference_mode():
        logits = network(torch.from_numpy(pixels).permute(0, 3, 1, 2).float())
    expected = torch.softmax(logits, 1)[:, 1].numpy()
    assert got.shape == (1, 96, 64)
    assert np.abs(got - expected).max() < 1e-4


def test_bad_requests_give_one_clear_line():
    with pytest.raises(UsageError, match="output stride 4"):
        FCN(4)
    with pytest.raises(ModelError, match=r"fcn8s has no weights of its own.*vgg16:FILE"):
        build_network("fcn8s", pretrained=True)

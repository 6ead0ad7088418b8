"""The `proposal` network: finds cheaply where a mitosis may be.

Five plain convolutions at half the resolution, 0.6 GFLOP per megapixel of the full one, a
twentieth of `lite`. It sees 12 um around, enough to tell a dark, compact nucleus from the rest, and
answers once per 4 um. It is trained as any network is, with the concentric loss; set low, its
threshold lets next to every mitosis through and leaves out nearly all else.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from segmitos.training.networks.lite import IMAGE_MEAN, IMAGE_STD

_WIDTHS = (16, 32, 48, 48, 48)
_STRIDES = (2, 2, 2, 1, 1)


class _Layer(nn.Module):
    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.convolution = nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False)
        self.norm = nn.BatchNorm2d(outputs)

    def forward(self, x_BCHW: Tensor) -> Tensor:
        return F.relu(self.norm(self.convolution(x_BCHW)))


class ProposalNetwork(nn.Module):
    """Image (N, 3, H, W) on 0..255, H and W multiples of 8 -> logits (N, 1, H / 8, W / 8)."""

    stride = 8
    context_px = 24
    mean: Tensor
    std: Tensor

    def __init__(self) -> None:
        super().__init__()
        inputs = (3, *_WIDTHS)
        self.layers = nn.Sequential(
            *(
                _Layer(before, after, stride)
                for before, after, stride in zip(inputs, _WIDTHS, _STRIDES, strict=False)
            )
        )
        self.head = nn.Conv2d(_WIDTHS[-1], 1, 1)
        nn.init.normal_(self.head.weight, std=0.01)
        assert self.head.bias is not None
        nn.init.constant_(self.head.bias, -3.0)
        self.register_buffer("mean", torch.tensor(IMAGE_MEAN).view(1, 3, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(IMAGE_STD).view(1, 3, 1, 1), persistent=False)

    def forward(self, image_BCHW: Tensor) -> Tensor:
        logits: Tensor = self.head(self.layers((image_BCHW - self.mean) / self.std))
        return logits

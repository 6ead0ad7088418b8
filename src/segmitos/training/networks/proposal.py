"""The `proposal` network: finds cheaply where a mitosis may be.

Five plain convolutions at half the resolution, 0.6 GFLOP per megapixel of the full one, a
twentieth of `lite`. It sees 12 um around, enough to tell a dark, compact nucleus from the rest, and
answers once per 4 um. It is trained as any network is, with the concentric loss; set low, its
threshold lets next to every mitosis through and leaves out nearly all else.
"""

from __future__ import annotations

from collections import OrderedDict

from torch import Tensor, nn

from segmitos.training.networks.lite import mitosis_head, scaled

_WIDTHS = (16, 32, 48, 48, 48)
_STRIDES = (2, 2, 2, 1, 1)


def _layer(inputs: int, outputs: int, stride: int) -> nn.Module:
    parts: dict[str, nn.Module] = {
        "convolution": nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False),
        "norm": nn.BatchNorm2d(outputs),
        "relu": nn.ReLU(),
    }
    return nn.Sequential(OrderedDict(parts))


class ProposalNetwork(nn.Module):
    """Image (N, 3, H, W) on 0..255, H and W multiples of 8 -> logits (N, 1, H / 8, W / 8)."""

    stride = 8
    context_px = 24

    def __init__(self) -> None:
        super().__init__()
        inputs = (3, *_WIDTHS)
        self.layers = nn.Sequential(
            *(
                _layer(before, after, stride)
                for before, after, stride in zip(inputs, _WIDTHS, _STRIDES, strict=False)
            )
        )
        self.head = mitosis_head(_WIDTHS[-1])

    def forward(self, image_BCHW: Tensor) -> Tensor:
        logits: Tensor = self.head(self.layers(scaled(image_BCHW)))
        return logits

"""The `lite` network: EfficientNet-Lite0 down to stride 16, a feature pyramid up to stride 4.

EfficientNet-Lite0 (Liu 2020; Tan and Le 2019 without squeeze-excitation and with ReLU6) is cut
after its fifth stage: a mitosis is about 60 px wide at 0.25 um/px, so the stride-32 stages, which
hold three quarters of the weights, see little that stride 16 does not, and cost context at the
borders of tiles.
The pyramid is that of Lin et al. 2017, with depthwise-separable smoothing to stay fast on a CPU.

`lite-half` is the same for images of 0.5 um/px, cut one stage earlier. At half the resolution a
whole field costs a quarter, so that nothing has to be left out and no patch border is seen; a
mitosis is 20 to 30 px wide there. It is made for recall: what it finds is judged by a verifier.
"""

from __future__ import annotations

from collections import OrderedDict

import torch
from torch import Tensor, nn
from torch.nn import functional as F

# (expansion, channels out, blocks, kernel, stride) of the first five stages.
_STAGES = (
    (1, 16, 1, 3, 1),
    (6, 24, 2, 3, 2),
    (6, 40, 2, 5, 2),
    (6, 80, 3, 3, 2),
    (6, 112, 3, 5, 1),
)


def scaled(image_BCHW: Tensor) -> Tensor:
    """Return an image on the 0..255 scale as the encoder's ImageNet weights were trained."""
    return (image_BCHW - 127.0) / 128.0


def mitosis_head(width: int) -> nn.Conv2d:
    """Return the last convolution, to one logit of a mitosis."""
    head = nn.Conv2d(width, 1, 1)
    nn.init.normal_(head.weight, std=0.01)
    # Mitoses are rare: start from a low probability, so that the first steps are calm.
    assert head.bias is not None
    nn.init.constant_(head.bias, -3.0)
    return head


class _Block(nn.Module):
    """Inverted residual: expand, depthwise, project; names follow the published weights."""

    def __init__(self, inputs: int, outputs: int, expansion: int, kernel: int, stride: int) -> None:
        super().__init__()
        hidden = inputs * expansion
        self.expands = expansion != 1
        if self.expands:
            self._expand_conv = nn.Conv2d(inputs, hidden, 1, bias=False)
            self._bn0 = nn.BatchNorm2d(hidden, eps=1e-3, momentum=0.01)
        self._depthwise_conv = nn.Conv2d(
            hidden, hidden, kernel, stride, kernel // 2, groups=hidden, bias=False
        )
        self._bn1 = nn.BatchNorm2d(hidden, eps=1e-3, momentum=0.01)
        self._project_conv = nn.Conv2d(hidden, outputs, 1, bias=False)
        self._bn2 = nn.BatchNorm2d(outputs, eps=1e-3, momentum=0.01)
        self.skips = stride == 1 and inputs == outputs
        # On a CPU the bfloat16 backward pass of strided or 5x5 depthwise convolutions is five to
        # ten times slower than the float32 one; everything else gains from bfloat16.
        self.keeps_float32 = stride > 1 or kernel > 3

    def _depthwise(self, x_BCHW: Tensor) -> Tensor:
        if self.keeps_float32 and x_BCHW.device.type == "cpu" and x_BCHW.dtype == torch.bfloat16:
            with torch.autocast("cpu", enabled=False):
                y: Tensor = self._depthwise_conv(x_BCHW.float())
            return y.to(x_BCHW.dtype)
        out: Tensor = self._depthwise_conv(x_BCHW)
        return out

    def forward(self, x_BCHW: Tensor) -> Tensor:
        y = x_BCHW
        if self.expands:
            y = F.relu6(self._bn0(self._expand_conv(y)))
        y = F.relu6(self._bn1(self._depthwise(y)))
        y = self._bn2(self._project_conv(y))
        result: Tensor = y + x_BCHW if self.skips else y
        return result


def _smooth(channels: int) -> nn.Module:
    """Depthwise 3x3 then pointwise, with batch normalization: the pyramid's smoothing."""
    parts: dict[str, nn.Module] = {
        "depthwise": nn.Conv2d(channels, channels, 3, padding=1, groups=channels, bias=False),
        "pointwise": nn.Conv2d(channels, channels, 1, bias=False),
        "norm": nn.BatchNorm2d(channels),
        "relu": nn.ReLU(),
    }
    return nn.Sequential(OrderedDict(parts))


# More than half the receptive field at stride 4 (8 px), and a multiple of the strides.
_OVERLAP_PX = 32


class LiteNetwork(nn.Module):
    """EfficientNet-Lite0 to stride 16 with a feature pyramid; one logit per 4 x 4 px.

    Takes (N, 3, H, W) RGB on the 0..255 scale, H and W multiples of 16, and returns logits of
    shape (N, 1, H / 4, W / 4).
    """

    stride = 4
    # Half the receptive field is 197 px, but its rim weighs next to nothing: what lies beyond 144
    # px moves the default model's probabilities by up to 1e-5 on real fields, 1e-4 on drawn ones.
    context_px = 144
    halves = False
    """Whether upper and lower half are brought to stride 4 one after the other: the same map in
    half the memory, most of which those first layers take."""

    def __init__(self) -> None:
        super().__init__()
        self._conv_stem = nn.Conv2d(3, 32, 3, 2, 1, bias=False)
        self._bn0 = nn.BatchNorm2d(32, eps=1e-3, momentum=0.01)
        blocks: list[nn.Module] = []
        channels = 32
        for expansion, outputs, count, kernel, stride in _STAGES:
            for index in range(count):
                step = stride if index == 0 else 1
                blocks.append(_Block(channels, outputs, expansion, kernel, step))
                channels = outputs
        self._blocks = nn.ModuleList(blocks)
        self._add_pyramid((2, 4, 10), (24, 40, 112), 64)

    def _add_pyramid(self, taps: tuple[int, ...], channels: tuple[int, ...], width: int) -> None:
        """Set the blocks after which strides 4, 8 and 16 are taken, and what is made of them."""
        self._taps = taps
        self.lateral4, self.lateral8, self.lateral16 = (
            nn.Conv2d(inputs, width, 1) for inputs in channels
        )
        self.smooth8, self.smooth4, self.refine4 = (_smooth(width) for _ in range(3))
        self.dropout = nn.Dropout2d(0.1)
        self.head = mitosis_head(width)

    def features(self, x_BCHW: Tensor) -> list[Tensor]:
        """Encoder maps at strides 4, 8 and 16."""
        x = self._to_stride_4_in_halves(x_BCHW) if self.halves else self._to_stride_4(x_BCHW)
        maps = [x]
        for index in range(self._taps[0] + 1, self._taps[-1] + 1):
            x = self._blocks[index](x)
            if index in self._taps:
                maps.append(x)
        return maps

    def _to_stride_4(self, x_BCHW: Tensor) -> Tensor:
        x: Tensor = F.relu6(self._bn0(self._conv_stem(x_BCHW)))
        for block in self._blocks[: self._taps[0] + 1]:
            x = block(x)
        return x

    def _to_stride_4_in_halves(self, x_BCHW: Tensor) -> Tensor:
        middle = (x_BCHW.shape[2] + 32) // 64 * 32
        upper = self._to_stride_4(x_BCHW[:, :, : middle + _OVERLAP_PX])
        lower = self._to_stride_4(x_BCHW[:, :, middle - _OVERLAP_PX :])
        return torch.cat([upper[:, :, : middle // 4], lower[:, :, _OVERLAP_PX // 4 :]], dim=2)

    def forward(self, image_BCHW: Tensor) -> Tensor:
        at4, at8, at16 = self.features(scaled(image_BCHW))
        top = F.interpolate(self.lateral16(at16), scale_factor=2.0, mode="nearest")
        top = self.smooth8(self.lateral8(at8) + top)
        top = F.interpolate(top, scale_factor=2.0, mode="nearest")
        top = self.smooth4(self.lateral4(at4) + top)
        logits: Tensor = self.head(self.dropout(self.refine4(top)))
        return logits


class LiteHalfNetwork(LiteNetwork):
    """`lite` without its last stage, and with a narrower pyramid."""

    # Half the receptive field is 92 px.
    context_px = 96

    def __init__(self) -> None:
        super().__init__()
        self._blocks = self._blocks[:8]
        self._add_pyramid((2, 4, 7), (24, 40, 80), 48)

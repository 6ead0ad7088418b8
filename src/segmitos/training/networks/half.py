"""The `lite-half` network: `lite` for images of 0.5 um/px, cut one stage earlier.

At half the resolution a whole field costs a quarter, so that nothing has to be left out and no
patch border is seen; a mitosis is 20 to 30 px wide there. Two stages fewer than EfficientNet-Lite0
halve the context once more. It is made for recall: what it finds is judged by a verifier.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from segmitos.training.networks.lite import IMAGE_MEAN, IMAGE_STD, LiteNetwork, _Smooth

_CHANNELS = (24, 40, 80)


class LiteHalfNetwork(nn.Module):
    """Image (N, 3, H, W) on 0..255, H and W multiples of 16 -> logits (N, 1, H / 4, W / 4)."""

    stride = 4
    # Half the receptive field is 92 px.
    context_px = 96
    mean: Tensor
    std: Tensor

    def __init__(self, width: int = 48) -> None:
        super().__init__()
        encoder = LiteNetwork()
        self._conv_stem, self._bn0 = encoder._conv_stem, encoder._bn0
        self._taps = encoder._taps[1:4]
        self._blocks = encoder._blocks[: self._taps[-1] + 1]
        self.lateral4, self.lateral8, self.lateral16 = (
            nn.Conv2d(channels, width, 1) for channels in _CHANNELS
        )
        self.smooth8, self.smooth4, self.refine4 = (_Smooth(width) for _ in range(3))
        self.dropout = nn.Dropout2d(0.1)
        self.head = nn.Conv2d(width, 1, 1)
        nn.init.normal_(self.head.weight, std=0.01)
        assert self.head.bias is not None
        nn.init.constant_(self.head.bias, -3.0)
        self.register_buffer("mean", torch.tensor(IMAGE_MEAN).view(1, 3, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(IMAGE_STD).view(1, 3, 1, 1), persistent=False)

    def forward(self, image_BCHW: Tensor) -> Tensor:
        x = F.relu6(self._bn0(self._conv_stem((image_BCHW - self.mean) / self.std)))
        maps: list[Tensor] = []
        for index, block in enumerate(self._blocks):
            x = block(x)
            if index in self._taps:
                maps.append(x)
        at4, at8, at16 = maps
        top = F.interpolate(self.lateral16(at16), scale_factor=2.0, mode="nearest")
        top = self.smooth8(self.lateral8(at8) + top)
        top = F.interpolate(top, scale_factor=2.0, mode="nearest")
        top = self.smooth4(self.lateral4(at4) + top)
        logits: Tensor = self.head(self.dropout(self.refine4(top)))
        return logits

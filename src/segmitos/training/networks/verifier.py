"""The verifier: one score for the nucleus in the middle of a patch.

A proposal network at 0.5 um/px sees a whole field and must be cheap. The verifier sees only its
proposals, 20 um across, and may be strong: the encoder of `lite` to stride 16, pooled at strides 8
and 16 by weights for each position (so that the nucleus in the middle counts, not its neighbor) and
by the maximum.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from segmitos.training.networks.lite import LiteNetwork, scaled

PATCH_PX = 80
"""Side of a patch at 0.25 um/px."""
_CHANNELS_8, _CHANNELS_16 = 40, 112


class VerifierNetwork(nn.Module):
    """Patches (N, 3, 80, 80) RGB on the 0..255 scale -> logits (N,).

    Args:
        input_px: side that patches are interpolated to, a multiple of 16.
    """

    def __init__(self, input_px: int = 64) -> None:
        super().__init__()
        self.encoder = LiteNetwork()
        self.input_px = input_px
        side_8, side_16 = input_px // 8, input_px // 16
        self.pool8 = nn.Conv2d(_CHANNELS_8, _CHANNELS_8, side_8, groups=_CHANNELS_8, bias=False)
        self.pool16 = nn.Conv2d(
            _CHANNELS_16, _CHANNELS_16, side_16, groups=_CHANNELS_16, bias=False
        )
        # Averages, to begin with.
        nn.init.constant_(self.pool8.weight, 1 / side_8**2)
        nn.init.constant_(self.pool16.weight, 1 / side_16**2)
        features = 2 * (_CHANNELS_8 + _CHANNELS_16)
        self.norm = nn.BatchNorm1d(features)
        self.dropout = nn.Dropout(0.3)
        self.head = nn.Linear(features, 1)
        nn.init.normal_(self.head.weight, std=0.01)

    def pooled(self, patch_BCHW: Tensor) -> Tensor:
        """Return the normalized features (N, F) that the head joins."""
        size = (self.input_px, self.input_px)
        x = F.interpolate(patch_BCHW, size, mode="bilinear", align_corners=False)
        _, at8, at16 = self.encoder.features(scaled(x))
        features = [
            self.pool16(at16).flatten(1),
            at16.amax((2, 3)),
            self.pool8(at8).flatten(1),
            at8.amax((2, 3)),
        ]
        normalized: Tensor = self.norm(torch.cat(features, 1))
        return normalized

    def forward(self, patch_BCHW: Tensor) -> Tensor:
        logits: Tensor = self.head(self.dropout(self.pooled(patch_BCHW)))
        return logits[:, 0]


def restore_verifier(weights: Mapping[str, Tensor]) -> VerifierNetwork:
    """Return the network, in evaluation mode, that weights are of, whatever its input's side."""
    network = VerifierNetwork(8 * weights["pool8.weight"].shape[-1])
    network.load_state_dict(weights)
    return network.eval()

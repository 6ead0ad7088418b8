"""Probability maps of whole images from a network in training: for mining and validation."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

# Sides are padded to a multiple of this, which every network's strides divide.
_MULTIPLE = 32


@torch.inference_mode()
def probability_map(network: nn.Module, image: NDArray[np.uint8]) -> NDArray[np.float32]:
    """Run a network over one image as a whole.

    Args:
        network: takes (1, 3, H, W) on 0..255, gives logits (1, 1 or 2, H / s, W / s).
        image: (h, w, 3) uint8 at the network's scale.

    Returns:
        (ceil(h / s), ceil(w / s)) float32 probabilities of mitosis.
    """
    height, width = image.shape[:2]
    padded = np.full(
        (-(-height // _MULTIPLE) * _MULTIPLE, -(-width // _MULTIPLE) * _MULTIPLE, 3), 255, np.uint8
    )
    padded[:height, :width] = image
    device = next(network.parameters()).device
    tensor = torch.from_numpy(padded).to(device)[None].permute(0, 3, 1, 2).float()
    tensor = tensor.contiguous(memory_format=torch.channels_last)
    was_training = network.training
    network.eval()
    with torch.autocast(device.type, torch.bfloat16):
        logits = network(tensor).float()
    network.train(was_training)
    stride = padded.shape[0] // logits.shape[2]
    logit = logits[0, 0] if logits.shape[1] == 1 else logits[0, 1] - logits[0, 0]
    probability: NDArray[np.float32] = torch.sigmoid(logit).cpu().numpy()
    return probability[: -(-height // stride), : -(-width // stride)]

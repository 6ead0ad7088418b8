"""Images into a network in training, and its probability maps of whole ones."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from segmitos.io.geometry import pad_to_multiple
from segmitos.training.networks import mitosis_logit

# Sides are padded to a multiple of this, which every network's strides divide.
_MULTIPLE = 32

Predictor = Callable[[NDArray[np.uint8]], NDArray[np.float32]]


def to_network(images: Tensor, device: torch.device) -> Tensor:
    """Return images (n, h, w, 3) uint8 as a network takes them: (n, 3, h, w) float, 0..255."""
    image_BCHW = images.to(device).permute(0, 3, 1, 2).float()
    return image_BCHW.contiguous(memory_format=torch.channels_last)


def predictor(network: nn.Module) -> Predictor:
    """Return a function from an image (h, w, 3) uint8 to its map of probabilities.

    The map is float32, (ceil(h / s), ceil(w / s)). On a CPU the network is exported in memory and
    run by ONNX Runtime, three times faster there than torch and the same as in detection.
    """
    on_cpu = next(network.parameters()).device.type == "cpu"
    run = _on_cpu(network) if on_cpu else _torch(network)

    def predict(image: NDArray[np.uint8]) -> NDArray[np.float32]:
        height, width = image.shape[:2]
        padded = pad_to_multiple(image, _MULTIPLE)
        probability = run(padded)
        stride = padded.shape[0] // probability.shape[0]
        return probability[: -(-height // stride), : -(-width // stride)]

    return predict


def _on_cpu(network: nn.Module) -> Predictor:
    from segmitos.detection.runtimes import open_onnxruntime
    from segmitos.training.export import network_to_onnx

    content = network_to_onnx(network)
    run = open_onnxruntime(content, "the network", "cpu", torch.get_num_threads())[0]
    return lambda padded: run(padded[None])[0]


def _torch(network: nn.Module) -> Predictor:
    device = next(network.parameters()).device

    @torch.inference_mode()
    def run(padded: NDArray[np.uint8]) -> NDArray[np.float32]:
        tensor = to_network(torch.from_numpy(padded)[None], device)
        was_training = network.training
        network.eval()
        with torch.autocast(device.type, torch.bfloat16):
            logits = network(tensor).float()
        network.train(was_training)
        probability: NDArray[np.float32] = torch.sigmoid(mitosis_logit(logits)[0]).cpu().numpy()
        return probability

    return run

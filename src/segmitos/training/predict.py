"""Probability maps of whole images from a network in training: for mining and validation."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

# Sides are padded to a multiple of this, which every network's strides divide.
_MULTIPLE = 32

Predictor = Callable[[NDArray[np.uint8]], NDArray[np.float32]]


def predictor(network: nn.Module) -> Predictor:
    """Return a function from an image (h, w, 3) uint8 to its map of probabilities.

    The map is float32, (ceil(h / s), ceil(w / s)). On a CPU the network is exported in memory and
    run by ONNX Runtime, three times faster there than torch and the same as in detection.
    """
    on_cpu = next(network.parameters()).device.type == "cpu"
    return padding(_on_cpu(network) if on_cpu else _torch(network))


def padding(run: Predictor) -> Predictor:
    """Return a function that grows images with white to sides that `run` takes."""

    def predict(image: NDArray[np.uint8]) -> NDArray[np.float32]:
        height, width = image.shape[:2]
        rows, columns = (-(-side // _MULTIPLE) * _MULTIPLE for side in (height, width))
        padded = np.full((rows, columns, 3), 255, np.uint8)
        padded[:height, :width] = image
        probability = run(padded)
        stride = rows // probability.shape[0]
        return probability[: -(-height // stride), : -(-width // stride)]

    return predict


def _on_cpu(network: nn.Module) -> Predictor:
    import onnxruntime

    from segmitos.training.export import network_to_onnx

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    session = onnxruntime.InferenceSession(
        network_to_onnx(network), options, providers=["CPUExecutionProvider"]
    )

    def run(padded: NDArray[np.uint8]) -> NDArray[np.float32]:
        result: NDArray[np.float32] = session.run(None, {"image": padded[None]})[0][0]
        return result

    return run


def _torch(network: nn.Module) -> Predictor:
    device = next(network.parameters()).device

    @torch.inference_mode()
    def run(padded: NDArray[np.uint8]) -> NDArray[np.float32]:
        tensor = torch.from_numpy(padded).to(device)[None].permute(0, 3, 1, 2).float()
        tensor = tensor.contiguous(memory_format=torch.channels_last)
        was_training = network.training
        network.eval()
        with torch.autocast(device.type, torch.bfloat16):
            logits = network(tensor).float()
        network.train(was_training)
        logit = logits[0, 0] if logits.shape[1] == 1 else logits[0, 1] - logits[0, 0]
        probability: NDArray[np.float32] = torch.sigmoid(logit).cpu().numpy()
        return probability

    return run

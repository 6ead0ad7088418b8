"""Verifiers as one ONNX graph, in int8 as the model file holds them."""

from __future__ import annotations

import io
import warnings
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from experiments.laboratories.data import MPP, LabImage
from experiments.laboratories.pools import learns
from segmitos.training.networks.verifier import PATCH_PX
from segmitos.training.nuclei import find_dark_nuclei
from segmitos.training.patches import read_patch
from segmitos.training.quantize import quantize_verifier

_IMAGES, _MITOSES, _NUCLEI = 12, 2, 4
"""Of each laboratory, and of each of these images, to calibrate on."""


class _MeanVerifier(nn.Module):
    """Bytes (N, PATCH_PX, PATCH_PX, 3) -> probabilities (N,): of the mean logit."""

    def __init__(self, networks: Sequence[nn.Module]) -> None:
        super().__init__()
        self.networks = nn.ModuleList(networks)

    def forward(self, image: Tensor) -> Tensor:
        pixels = image.permute(0, 3, 1, 2).float()
        logits = [network(pixels) for network in self.networks]
        return torch.sigmoid(torch.stack(logits).mean(0))


def verifier_graph(networks: Sequence[nn.Module]) -> bytes:
    """Return the graph of verifiers whose logits are averaged."""
    # Any, since the exporter takes files as well as the paths that its annotation names.
    buffer: Any = io.BytesIO()
    patch = torch.zeros(2, PATCH_PX, PATCH_PX, 3, dtype=torch.uint8)
    with warnings.catch_warnings():
        # The script-based exporter is the one that needs no further packages.
        warnings.simplefilter("ignore")
        torch.onnx.export(
            _MeanVerifier(networks).eval(),
            (patch,),
            buffer,
            input_names=["image"],
            output_names=["probability"],
            dynamic_axes={"image": {0: "N"}, "probability": {0: "n"}},
            opset_version=17,
            dynamo=False,
        )
    return buffer.getvalue()


def int8_graph(networks: Sequence[nn.Module], patches: NDArray[np.uint8]) -> bytes:
    """Return the graph in int8, calibrated on patches (n, PATCH_PX, PATCH_PX, 3)."""
    return quantize_verifier(verifier_graph(networks), patches)


def calibration_patches(images: Sequence[LabImage], fold: int | None) -> NDArray[np.uint8]:
    """Return patches of mitoses and of other nuclei of every laboratory that a fold learns from."""
    by_laboratory: dict[str, list[LabImage]] = {}
    for image in images:
        if learns(image, fold):
            by_laboratory.setdefault(image.laboratory, []).append(image)
    patches: list[NDArray[np.uint8]] = []
    for own in by_laboratory.values():
        for image in own[:: max(1, len(own) // _IMAGES)]:
            pixels = image.matched()
            nuclei = find_dark_nuclei(pixels, MPP)
            others = nuclei[:: max(1, len(nuclei) // _NUCLEI)][:_NUCLEI]
            xy = np.concatenate([image.source.mitoses_xy[:_MITOSES], others])
            patches.extend(read_patch(pixels, x, y, PATCH_PX)[0] for x, y in xy)
    return np.stack(patches)

"""Verifiers as one ONNX graph."""

from __future__ import annotations

import io
import warnings
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from segmitos.training.networks.verifier import PATCH_PX, VerifierNetwork


class _MeanVerifier(nn.Module):
    """Bytes (N, PATCH_PX, PATCH_PX, 3) -> probabilities (N,): of the mean logit."""

    def __init__(self, networks: Sequence[VerifierNetwork]) -> None:
        super().__init__()
        self.networks = nn.ModuleList(networks)

    def forward(self, image: Tensor) -> Tensor:
        pixels = image.permute(0, 3, 1, 2).float()
        logits = [network(pixels) for network in self.networks]
        return torch.sigmoid(torch.stack(logits).mean(0))


def verifier_graph(networks: Sequence[VerifierNetwork]) -> bytes:
    """Return the graph of verifiers whose logits are averaged."""
    buffer = io.BytesIO()
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

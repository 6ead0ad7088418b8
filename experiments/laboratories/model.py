"""Writes the networks, the rule and the thresholds as the built-in model file."""

from __future__ import annotations

import io
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import msgspec
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from experiments.laboratories.candidates import CASCADE, SETTINGS
from experiments.laboratories.data import BACKGROUND, FIELDS
from experiments.laboratories.protocol import Rule
from segmitos.detection.model_file import (
    PROPOSAL,
    VERIFIER,
    ModelFile,
    network_entry,
    write_model_file,
)
from segmitos.detection.postprocess import FLOOR, Thresholds
from segmitos.detection.spec import cascade_context
from segmitos.detection.verify import REACH_PX
from segmitos.training.combine import store_half_precision
from segmitos.training.networks.lite import LiteHalfNetwork
from segmitos.training.networks.verifier import PATCH_PX, VerifierNetwork

DESCRIPTION = (
    "EfficientNet-Lite0 cut after its fourth stage at 0.5 um per pixel proposes; networks of the "
    "`lite` recipe, averaged, make the map in patches; verifiers (EfficientNet-Lite0 to stride 16) "
    "judge its candidates on patches of 20 um"
)
LOGIT_SHIFT = 2.0
"""Taken from the proposals' logits: learnt on patches full of mitoses, they are too sure."""
LICENSE = "research use only: trained on data under CC BY-NC-ND and challenge terms"


class _HalvedMap(nn.Module):
    """Bytes (N, H, W, 3) at 0.25 um/px -> probabilities (N, H / 8, W / 8)."""

    def __init__(self, network: LiteHalfNetwork) -> None:
        super().__init__()
        self.network = network

    def forward(self, image: Tensor) -> Tensor:
        half = F.avg_pool2d(image.permute(0, 3, 1, 2).float(), 2)
        return torch.sigmoid(self.network(half)[:, 0] - LOGIT_SHIFT)


class _MeanVerifier(nn.Module):
    """Bytes (N, PATCH_PX, PATCH_PX, 3) -> probabilities (N,): of the mean logit."""

    def __init__(self, networks: Sequence[VerifierNetwork]) -> None:
        super().__init__()
        self.networks = nn.ModuleList(networks)

    def forward(self, image: Tensor) -> Tensor:
        pixels = image.permute(0, 3, 1, 2).float()
        logits = [network(pixels) for network in self.networks]
        return torch.sigmoid(torch.stack(logits).mean(0))


def proposal_graph(network: LiteHalfNetwork) -> bytes:
    """Return the graph of a proposal network, which takes images at 0.25 um/px."""
    image = torch.zeros(1, 64, 96, 3, dtype=torch.uint8)
    return _graph(_HalvedMap(network), image, {0: "N", 1: "H", 2: "W"})


def write_model(
    path: Path,
    networks: ModelFile,
    proposals: LiteHalfNetwork,
    verifiers: Sequence[VerifierNetwork],
    rule: Rule,
    threshold: float,
    validation: dict[str, Any],
) -> None:
    """Write the model file.

    Args:
        path: of the `.segmitos` file.
        networks: that make the map; their file's domain check and origin are kept.
        proposals: choose what the networks see.
        verifiers: their logits are averaged.
        rule: joins the map and the verifiers.
        threshold: least joined score of a detection.
        validation: counts by laboratory left out.
    """
    spec = msgspec.structs.replace(
        networks.spec,
        name="lite",
        context_px=cascade_context(CASCADE, 2 * LiteHalfNetwork.context_px) + REACH_PX,
        # Done before candidates are sought: what the verifier leaves is not smoothed again.
        smoothing_sigma_um=0.0,
        thresholds=Thresholds(FLOOR, 0.0, threshold),
        datasets=("background", "crops", *sorted(FIELDS)),
        laboratories=(*FIELDS, "MIDOG 2021 (three scanners)", "TUPAC16", *BACKGROUND),
        license=LICENSE,
        description=DESCRIPTION,
        validation=validation,
        cascade=CASCADE,
        verifier=msgspec.structs.replace(SETTINGS, **vars(rule)),
    )
    patch = torch.zeros(2, PATCH_PX, PATCH_PX, 3, dtype=torch.uint8)
    graphs = {network_entry(number): graph for number, graph in enumerate(networks.networks)}
    graphs[PROPOSAL] = store_half_precision(proposal_graph(proposals))
    graphs[VERIFIER] = store_half_precision(_graph(_MeanVerifier(verifiers), patch, {0: "N"}))
    write_model_file(path, spec, graphs)


def _graph(network: nn.Module, example: Tensor, axes: dict[int, str]) -> bytes:
    buffer = io.BytesIO()
    output = {axis: name.lower() for axis, name in axes.items()}
    with warnings.catch_warnings():
        # The script-based exporter is the one that needs no further packages.
        warnings.simplefilter("ignore")
        torch.onnx.export(
            network.eval(),
            (example,),
            buffer,
            input_names=["image"],
            output_names=["probability"],
            dynamic_axes={"image": axes, "probability": output},
            opset_version=17,
            dynamo=False,
        )
    return buffer.getvalue()

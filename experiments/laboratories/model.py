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

from experiments.laboratories.candidates import LOGIT_SHIFT, SETTINGS, STRIDE_PX
from experiments.laboratories.data import BACKGROUND, FIELDS, MPP, TARGET
from experiments.laboratories.protocol import Rule
from segmitos.detection.domain import DomainReference
from segmitos.detection.model_file import VERIFIER, network_entry, write_model_file
from segmitos.detection.postprocess import FLOOR, Thresholds
from segmitos.detection.spec import ModelSpec
from segmitos.detection.verify import REACH_PX
from segmitos.training.networks.half import LiteHalfNetwork
from segmitos.training.networks.verifier import PATCH_PX, VerifierNetwork

DESCRIPTION = (
    "EfficientNet-Lite0 cut after its fourth stage at 0.5 um per pixel, random concentric labels; "
    "its candidates judged by verifiers (EfficientNet-Lite0 to stride 16) on patches of 20 um"
)
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


def write_model(
    path: Path,
    proposals: LiteHalfNetwork,
    verifiers: Sequence[VerifierNetwork],
    rule: Rule,
    threshold: float,
    validation: dict[str, Any] | None = None,
    commit: str = "",
    domain: DomainReference | None = None,
) -> None:
    """Write the model file.

    Args:
        path: of the `.segmitos` file.
        proposals: gives the map.
        verifiers: their logits are averaged.
        rule: joins both.
        threshold: least joined score of a detection.
        validation: counts by laboratory left out.
        commit: of the training code.
        domain: how the training laboratories look (`experiments.domain`).
    """
    spec = ModelSpec(
        name="lite",
        mpp=MPP,
        stride=STRIDE_PX,
        # Of the map, and the maxima round a candidate.
        context_px=2 * LiteHalfNetwork.context_px + REACH_PX,
        # Done before candidates are sought: what the verifier leaves is not smoothed again.
        smoothing_sigma_um=0.0,
        thresholds=Thresholds(FLOOR, 0.0, threshold),
        stain=TARGET,
        labels={"kind": "random", "radius_range_um": [2.5, 4.25], "outer_factor_range": [1.5, 2.5]},
        datasets=("crops", *sorted((*FIELDS, *BACKGROUND))),
        laboratories=(*FIELDS, "MIDOG 2021 (three scanners)", "TUPAC16", *BACKGROUND),
        training_commit=commit,
        license=LICENSE,
        intended_use="research use only; not for diagnosis",
        description=DESCRIPTION,
        validation=validation or {},
        domain=domain,
        verifier=msgspec.structs.replace(SETTINGS, **vars(rule)),
    )
    image = torch.zeros(1, 64, 96, 3, dtype=torch.uint8)
    patch = torch.zeros(2, PATCH_PX, PATCH_PX, 3, dtype=torch.uint8)
    graphs = {
        network_entry(0): _graph(_HalvedMap(proposals), image, {0: "N", 1: "H", 2: "W"}),
        VERIFIER: _graph(_MeanVerifier(verifiers), patch, {0: "N"}),
    }
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

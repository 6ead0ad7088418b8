"""Training of `lite-half`: parts of 32 um, four to a sample, concentric labels, unsure ignored.

Crops of other laboratories are 32 um wide, with a mitosis in the middle. Cut alike and set together
by fours, crops and fields look the same, and no border tells where a part came from.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional as F

from experiments.laboratories.data import TARGET, LabImage
from segmitos.detection.stain import Stain
from segmitos.training.concentric import IGNORED, concentric_label
from segmitos.training.networks.lite import LiteHalfNetwork
from segmitos.training.networks.registry import encoded
from segmitos.training.patches import augmented_patches, draw_transforms
from segmitos.training.verify import Pool, divided, drawn_by_score

MPP = 0.5
PART_PX = 64
_POSITIVE_PARTS, _NEGATIVE_PARTS = 20, 36
_UNSURE_UM = 7.0
_SHIFT_PX, _CROP_SHIFT_PX = 26, 12
# Radii of disc and ring as in the paper's random label, in um and as a factor.
_RADIUS_UM, _RING_FACTOR = (2.5, 4.25), (1.5, 2.5)
_POSITIVE_WEIGHT = 3.0
_STRIDE = LiteHalfNetwork.stride
# A part's own nucleus answers within so much of its place.
_OWN_PX = 10.0


def train_proposals(
    images: Sequence[LabImage],
    pools: Mapping[str, Pool],
    stains: Sequence[Stain],
    steps: int,
    seed: int = 0,
    learning_rate: float = 1.5e-3,
    on_step: Callable[[int, float], None] = lambda step, loss: None,
) -> LiteHalfNetwork:
    """Train a network that marks every mitosis, and the nuclei most like one.

    Args:
        images: at 0.25 um/px; halved here.
        pools: points by laboratory.
        stains: to move parts towards.
        steps: of 14 samples of 64 um.
        seed: of everything random.
        learning_rate: the highest of a half cosine.
        on_step: told of each step and its loss.
    """
    torch.manual_seed(seed)
    network = encoded(LiteHalfNetwork)
    network = network.to(memory_format=torch.channels_last)
    network.train()
    groups = [
        {"params": [p for p in network.parameters() if p.ndim > 1], "weight_decay": 0.02},
        {"params": [p for p in network.parameters() if p.ndim <= 1], "weight_decay": 0.0},
    ]
    optimizer = torch.optim.AdamW(groups, learning_rate)
    average = {name: value.detach().clone() for name, value in network.state_dict().items()}
    halves = [halved(image.source.image) for image in images]
    for step in range(steps):
        torch.manual_seed(seed * 1_000_003 + step)
        rng = np.random.default_rng((seed, step))
        parts, origin = _draw(pools, step, rng)
        pixels, labels, middles = _samples(images, halves, parts, stains, rng)
        decay = 0.01 + 0.99 * 0.5 * (1 + math.cos(math.pi * step / steps))
        for group in optimizer.param_groups:
            group["lr"] = learning_rate * min(1.0, (step + 1) / 100) * decay
        logits = network(_by_fours(pixels).contiguous(memory_format=torch.channels_last))
        loss = _loss(logits[:, 0], _by_fours(labels))
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        nn.utils.clip_grad_norm_(network.parameters(), 2.0)
        optimizer.step()
        _remember(pools, origin, torch.sigmoid(logits.detach()[:, 0]), labels, middles)
        _average(average, network, min(0.997, (1 + step) / (10 + step)))
        on_step(step + 1, float(loss.detach()))
    network.load_state_dict(average)
    return network.eval()


def halved(image: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Average 2 x 2 pixels, as the model's graph does."""
    rows, columns = image.shape[0] // 2, image.shape[1] // 2
    blocks = image[: rows * 2, : columns * 2].reshape(rows, 2, columns, 2, 3)
    result: NDArray[np.uint8] = ((blocks.sum((1, 3), dtype=np.uint16) + 2) // 4).astype(np.uint8)
    return result


def _half(points_xy: NDArray[np.float64]) -> NDArray[np.float64]:
    return (points_xy + 0.5) / 2 - 0.5


Origin = list[tuple[str, int] | None]


def _draw(
    pools: Mapping[str, Pool], step: int, rng: np.random.Generator
) -> tuple[NDArray[np.float64], Origin]:
    """Return parts (n, 3): image, x, y at 0.25 um/px; in any order, so that all kinds meet."""
    rows: list[NDArray[np.float64]] = []
    origin: Origin = []
    named = [name for name in sorted(pools) if len(pools[name].positives)]
    shares = [pools[name].positive_share for name in named]
    for name, count in zip(named, divided(_POSITIVE_PARTS, shares), strict=True):
        members = pools[name].positives
        rows.extend(members[rng.integers(len(members), size=count)])
        origin.extend([None] * count)
    named = [name for name in sorted(pools) if len(pools[name].negatives)]
    shares = [pools[name].negative_share for name in named]
    for name, count in zip(named, divided(_NEGATIVE_PARTS, shares), strict=True):
        hard = round(0.7 * count) if step > 300 else 0
        chosen = drawn_by_score(pools[name], hard, count - hard, rng)
        rows.extend(pools[name].negatives[chosen])
        origin.extend((name, int(which)) for which in chosen)
    order = rng.permutation(len(rows))
    return np.array(rows)[order], [origin[index] for index in order]


def _samples(
    images: Sequence[LabImage],
    halves: Sequence[NDArray[np.uint8]],
    parts: NDArray[np.float64],
    stains: Sequence[Stain],
    rng: np.random.Generator,
) -> tuple[Tensor, Tensor, NDArray[np.float64]]:
    """Return pixels (n, 3, 64, 64), labels (n, 16, 16), and each part's place in its pixels."""
    chosen = [images[int(index)] for index in parts[:, 0]]
    is_crop = np.array([image.source.centered for image in chosen])
    reach = np.where(is_crop, _CROP_SHIFT_PX, _SHIFT_PX)[:, None]
    places = _half(parts[:, 1:])
    centers = places + rng.uniform(-1, 1, places.shape) * reach
    matrices = draw_transforms(len(parts), rng, right_angles=is_crop)
    used = [halves[int(index)] for index in parts[:, 0]]
    pixels = augmented_patches(
        used,
        [image.source.stain for image in chosen],
        centers,
        matrices,
        stains,
        TARGET,
        rng,
        side_px=PART_PX,
        false_borders=False,
    )
    radius = rng.uniform(*_RADIUS_UM, len(parts)) / MPP
    ring = radius * rng.uniform(*_RING_FACTOR, len(parts))
    labels = [
        _label(image, half.shape, center, matrix, inner, outer)
        for image, half, center, matrix, inner, outer in zip(
            chosen, used, centers, matrices, radius, ring, strict=True
        )
    ]
    inverse = np.linalg.inv(matrices)
    middles = np.einsum("nij,nj->ni", inverse, places - centers) + (PART_PX - 1) / 2
    return pixels, torch.from_numpy(np.stack(labels)), middles


def _label(
    image: LabImage,
    shape: tuple[int, ...],
    center: NDArray[np.float64],
    matrix: NDArray[np.float32],
    inner_px: float,
    outer_px: float,
) -> NDArray[np.uint8]:
    """Draw discs, rings and unsure cells; what lies outside of the image is ignored."""
    inverse = np.linalg.inv(matrix)
    zoom = float(np.sqrt(abs(np.linalg.det(inverse))))

    def moved(points_xy: NDArray[np.float64]) -> NDArray[np.float64]:
        return (_half(points_xy) - center) @ inverse.T + (PART_PX - 1) / 2

    size = (PART_PX // _STRIDE, PART_PX // _STRIDE)
    mitoses, unsure = moved(image.source.mitoses_xy), moved(image.unsure_xy)
    reach = np.full(len(unsure), _UNSURE_UM / MPP * zoom)
    ignored = concentric_label(unsure, reach, reach, size, _STRIDE) == 1
    inner = np.full(len(mitoses), inner_px * zoom)
    outer = np.full(len(mitoses), outer_px * zoom)
    label = concentric_label(mitoses, inner, outer, size, _STRIDE)
    label[ignored & (label == 0)] = IGNORED
    steps = np.arange(size[0]) * _STRIDE + (_STRIDE - 1) / 2 - (PART_PX - 1) / 2
    offsets = np.stack(np.meshgrid(steps, steps), axis=-1)
    there = offsets @ matrix.T.astype(np.float64) + center
    height, width = shape[:2]
    outside = (there < -0.5).any(-1) | (there > np.array([width, height]) - 0.5).any(-1)
    label[outside] = IGNORED
    return label


def _by_fours(parts: Tensor) -> Tensor:
    """Set four parts together to one sample."""
    count = len(parts) // 4
    a, b, c, d = (parts[index * count : (index + 1) * count] for index in range(4))
    return torch.cat([torch.cat([a, b], -1), torch.cat([c, d], -1)], -2)


def _loss(logits: Tensor, label: Tensor) -> Tensor:
    """Binary entropy over what is not ignored; mitoses count more, for recall."""
    losses = F.binary_cross_entropy_with_logits(
        logits,
        (label == 1).float(),
        reduction="none",
        pos_weight=torch.tensor(_POSITIVE_WEIGHT),
    )
    counts = label != IGNORED
    return (losses * counts).sum() / counts.sum().clamp(min=1)


def _remember(
    pools: Mapping[str, Pool],
    origin: Origin,
    probability: Tensor,
    labels: Tensor,
    middles: NDArray[np.float64],
) -> None:
    """Keep the highest probability at each negative, for the next draws."""
    side = PART_PX // _STRIDE
    rows = [probability[:, row : row + side] for row in (0, side)]
    parts = torch.cat([row[:, :, column : column + side] for row in rows for column in (0, side)])
    steps = torch.arange(side) * _STRIDE + (_STRIDE - 1) / 2
    down, across = torch.meshgrid(steps, steps, indexing="ij")
    for index, place in enumerate(origin):
        if place is not None:
            x, y = middles[index]
            near = (across - x) ** 2 + (down - y) ** 2 < _OWN_PX**2
            own = parts[index] * (near & (labels[index] == 0))
            pools[place[0]].scores[place[1]] = float(own.max())


@torch.no_grad()
def _average(average: dict[str, Tensor], network: nn.Module, decay: float) -> None:
    for name, value in network.state_dict().items():
        if value.dtype.is_floating_point:
            average[name].lerp_(value, 1 - decay)
        else:
            average[name].copy_(value)

"""A sliding-window patch classifier in the manner of IDSIA (Ciresan et al. 2013).

A small convolutional network of alternating convolution and max-pooling tells whether a patch of
24 um is centered on a mitosis (within 2.5 um; patches whose center is 2.5 to 6 um away do not
count). At a field every patch of a grid is cut out and classified by itself, nothing shared between
neighbors: that is what the method costs. As IDSIA did, the network trained first shows which
background is hard, and training goes on with it.

Against the original: inputs of 96 px instead of 101, fewer layers, batch normalization, one network
instead of several, no averaging over rotations, and a grid instead of every pixel.
"""

from __future__ import annotations

import io
import warnings
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import ndimage
from scipy.spatial import cKDTree
from torch import nn
from torch.nn import functional as F

from segmitos.detection.runtimes import import_onnxruntime
from segmitos.training.concentric import IGNORED, LabelRecipe
from segmitos.training.recipe import Recipe, Sampling
from segmitos.training.sampling import CropSampler, TrainingImage

PATCH_PX = 96
STRIDE_PX = 12
MINING_STRIDE_PX = 16
BATCH = 256
SIGMA_UM = 2.0
APART_UM = 7.5
STEPS = 600
_KNOWN_UM = 8.0


def recipe(seed: int, steps: int = STEPS) -> Recipe:
    """The recipe's part that draws patches: the same crops and augmentation as for `lite`."""
    return Recipe(
        crop_px=PATCH_PX,
        batch=64,
        epochs=1,
        steps_per_epoch=steps,
        learning_rate=2e-3,
        seed=seed,
        labels=LabelRecipe("concentric", radius_um=2.5, outer_um=6.0),
        sampling=Sampling(
            mitosis=0.15,
            centered=0.2,
            hard_negative=0.15,
            mined=0.25,
            background=0.25,
            shift_px=8,
        ),
    )


class PatchNetwork(nn.Module):
    """Takes (N, 3, 96, 96) RGB on 0..255, returns logits (N,)."""

    def __init__(self, channels: tuple[int, ...] = (16, 24, 32, 48)) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        inputs = 3
        for index, outputs in enumerate(channels):
            kernel, stride, padding = (4, 2, 1) if index == 0 else (3, 1, 1)
            layers += [
                nn.Conv2d(inputs, outputs, kernel, stride, padding, bias=False),
                nn.BatchNorm2d(outputs),
                nn.ReLU(inplace=True),
                nn.MaxPool2d(2),
            ]
            inputs = outputs
        self.features = nn.Sequential(*layers)
        self.classify = nn.Sequential(
            nn.Flatten(),
            nn.Linear(inputs * 9, 128),
            nn.ReLU(inplace=True),
            nn.Dropout(0.5),
            nn.Linear(128, 1),
        )

    def forward(self, x_BCHW: torch.Tensor) -> torch.Tensor:
        logits: torch.Tensor = self.classify(self.features(x_BCHW / 127.5 - 1))[:, 0]
        return logits


def train_window(
    sources: Sequence[TrainingImage],
    mined_in: Sequence[TrainingImage],
    seed: int,
    steps: int = STEPS,
) -> PatchNetwork:
    """Train on sources; halfway, add to `mined_in` (some of them) what is wrongly found there."""
    chosen = recipe(seed, steps)
    torch.manual_seed(seed)
    network = PatchNetwork().to(memory_format=torch.channels_last)
    optimizer = torch.optim.AdamW(network.parameters(), chosen.learning_rate, weight_decay=0.01)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, chosen.learning_rate, steps)
    sampler = CropSampler(sources, chosen, 1)
    middle = PATCH_PX // 2
    for step in range(steps):
        if step == steps // 2:
            mine_window(network, mined_in, chosen.mpp)
            sampler.update()
        samples = [sampler.sample(step, index) for index in range(chosen.batch)]
        target = torch.tensor([int(label[middle, middle]) for _, label in samples])
        images = torch.from_numpy(np.stack([image for image, _ in samples]))
        network.train()
        logits = network(_to_network(images))
        known = target != IGNORED
        loss = F.binary_cross_entropy_with_logits(logits[known], (target[known] == 1).float())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
        if step % 100 == 99:
            print(f"window: step {step + 1}, loss {float(loss.detach()):.3f}", flush=True)
    return network.eval()


def _to_network(images_BHWC: torch.Tensor) -> torch.Tensor:
    return images_BHWC.permute(0, 3, 1, 2).float().contiguous(memory_format=torch.channels_last)


def mine_window(network: PatchNetwork, sources: Sequence[TrainingImage], mpp: float) -> None:
    run = session(onnx_of(network), torch.get_num_threads())
    for source in sources:
        found = maxima(window_map(run, source.image, MINING_STRIDE_PX), MINING_STRIDE_PX, 0.3, mpp)
        known = source.mitoses_xy
        if len(known) and len(found):
            found = found[cKDTree(known).query(found[:, :2])[0] > _KNOWN_UM / mpp]
        source.mined_xy = found[:, :2]


class _Patches(nn.Module):
    def __init__(self, network: PatchNetwork) -> None:
        super().__init__()
        self.network = network

    def forward(self, x_BHWC: torch.Tensor) -> torch.Tensor:
        return torch.sigmoid(self.network(x_BHWC.permute(0, 3, 1, 2).float()))


def onnx_of(network: PatchNetwork) -> bytes:
    """The network with bytes in and probabilities out, for the runtime that `lite` has."""
    # Any, since the exporter takes files as well as the paths that its annotation names.
    file: Any = io.BytesIO()
    example = torch.zeros(2, PATCH_PX, PATCH_PX, 3, dtype=torch.uint8)
    axes = {"image": {0: "patches"}, "probability": {0: "patches"}}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.onnx.export(
            _Patches(network.eval()),
            (example,),
            file,
            input_names=["image"],
            output_names=["probability"],
            dynamic_axes=axes,
            dynamo=False,
        )
    return file.getvalue()


def session(content: bytes, threads: int) -> Any:
    onnxruntime = import_onnxruntime()
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    return onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])


def window_map(run: Any, image: NDArray[np.uint8], stride: int = STRIDE_PX) -> NDArray[np.float32]:
    """Probability of the patch round every cell's center, (ceil(h / stride), ceil(w / stride))."""
    rows, columns = -(-image.shape[0] // stride), -(-image.shape[1] // stride)
    before = PATCH_PX // 2 - stride // 2
    padded = np.pad(
        image,
        (
            (before, rows * stride - image.shape[0] + PATCH_PX - before),
            (before, columns * stride - image.shape[1] + PATCH_PX - before),
            (0, 0),
        ),
        mode="reflect",
    )
    result = np.empty(rows * columns, np.float32)
    for first in range(0, len(result), BATCH):
        places = range(first, min(first + BATCH, len(result)))
        corners = [(place // columns * stride, place % columns * stride) for place in places]
        patches = np.stack(
            [padded[top : top + PATCH_PX, left : left + PATCH_PX] for top, left in corners]
        )
        result[first : first + len(patches)] = run.run(None, {"image": patches})[0]
    return result.reshape(rows, columns)


def maxima(
    probability: NDArray[np.float32], stride: int, above: float, mpp: float
) -> NDArray[np.float64]:
    """Maxima of the smoothed map, (n, 3) of x, y in pixels and score, the best within 7.5 um."""
    even = ndimage.gaussian_filter(probability, SIGMA_UM / (mpp * stride))
    highest = ndimage.maximum_filter(even, 3, mode="nearest")
    rows, columns = np.nonzero((even >= highest) & (even > above))
    offset = (stride - 1) / 2
    places = (columns * stride + offset, rows * stride + offset, even[rows, columns])
    return best_apart(np.stack(places, axis=1).astype(float), APART_UM / mpp)


def best_apart(scored: NDArray[np.float64], distance_px: float) -> NDArray[np.float64]:
    """Of points nearer to each other than a distance, keep the one of the best score."""
    kept: list[NDArray[np.float64]] = []
    for point in scored[np.argsort(-scored[:, 2], kind="stable")]:
        if all(np.hypot(*(point[:2] - other[:2])) > distance_px for other in kept):
            kept.append(point)
    return np.array(kept).reshape(-1, 3)

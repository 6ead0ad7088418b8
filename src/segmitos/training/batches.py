"""Batches drawn ahead of the steps that use them, and the time that a step takes here."""

from __future__ import annotations

import copy
import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor

import numpy as np
import torch
from lightning_fabric import Fabric
from torch import Tensor, nn

from segmitos.training.concentric import concentric_loss
from segmitos.training.predict import to_network
from segmitos.training.recipe import Recipe
from segmitos.training.sampling import CropSampler

Batch = tuple[Tensor, Tensor]
# One step that does not count, and those whose mean does.
_MEASURED_STEPS = 3


class Batches:
    """Draws this process's part of each batch, the next one while the last one is used.

    A batch is a function of the step alone, so that drawing ahead changes nothing.
    """

    def __init__(self, sampler: CropSampler, recipe: Recipe, rank: int = 0, ranks: int = 1) -> None:
        self._sampler = sampler
        # Every rank takes every n-th sample.
        self._indices = range(rank, recipe.batch, ranks)
        self._pool = ThreadPoolExecutor(1)
        self._ahead: tuple[int, Future[Batch]] | None = None

    def __enter__(self) -> Batches:
        return self

    def __exit__(self, *_: object) -> None:
        self._pool.shutdown(cancel_futures=True)

    def take(self, step: int, next_too: bool = True) -> Batch:
        """Return images (n, h, w, 3) uint8 and labels (n, h / s, w / s) uint8 of a step.

        Args:
            step: counted from 0.
            next_too: whether to begin with the next one; not where mining comes between.
        """
        if self._ahead is not None and self._ahead[0] == step:
            batch = self._ahead[1].result()
        else:
            self.forget()
            batch = self._draw(step)
        self._ahead = (step + 1, self._pool.submit(self._draw, step + 1)) if next_too else None
        return batch

    def forget(self) -> None:
        """Drop what was drawn ahead, before the sampler changes."""
        if self._ahead is not None:
            self._ahead[1].result()
            self._ahead = None

    def _draw(self, step: int) -> Batch:
        samples = (self._sampler.sample(step, index) for index in self._indices)
        images, labels = (torch.from_numpy(np.stack(part)) for part in zip(*samples, strict=True))
        return images, labels


def seconds_per_step(
    network: nn.Module,
    batches: Batches,
    recipe: Recipe,
    fabric: Fabric,
    step: int,
    check: Callable[[], None] = lambda: None,
) -> float:
    """Time steps of a training, batches included, on a copy of its network."""
    trial = copy.deepcopy(network)
    seconds = []
    for turn in range(_MEASURED_STEPS):
        began = time.perf_counter()
        images, labels = batches.take(step + turn)
        with fabric.autocast():
            logits = trial(to_network(images, fabric.device))
        loss = concentric_loss(logits, labels.to(fabric.device), recipe.reduction, recipe.focal)
        loss.backward()  # type: ignore[no-untyped-call]
        if fabric.device.type == "cuda":
            torch.cuda.synchronize()
        seconds.append(time.perf_counter() - began)
        check()
    return float(np.mean(seconds[1:]))

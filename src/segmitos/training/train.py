"""The training loop, read top to bottom: sources -> crops -> concentric loss -> EMA weights.

Everything random in a step is a function of (seed, step), so a run that is killed and resumed ends
with the same weights as one that was not, on the same machine with the same number of threads.
"""

from __future__ import annotations

import dataclasses
import math
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, cast

import numpy as np
import torch
from lightning_fabric import Fabric
from torch import Tensor, nn

from segmitos.errors import UsageError
from segmitos.io.datasets import Case
from segmitos.io.files import write_json, write_text
from segmitos.training.checkpoint import (
    load_checkpoint,
    optimizer_tensors,
    restore_optimizer,
    save_checkpoint,
)
from segmitos.training.concentric import concentric_loss
from segmitos.training.mining import mine
from segmitos.training.networks.registry import build_network
from segmitos.training.provenance import provenance
from segmitos.training.recipe import Recipe
from segmitos.training.sampling import CropSampler, TrainingImage, load_training_images
from segmitos.training.validate import Validation, validate
from segmitos.training.weights import load_run, load_weights

Event = Literal["loaded", "step", "mined", "epoch", "done"]
OnEvent = Callable[[Event, dict[str, Any]], None]


@dataclass
class _Run:
    """What a training holds while it runs."""

    fabric: Fabric
    network: nn.Module
    wrapped: Any
    optimizer: torch.optim.Optimizer
    ema: dict[str, Tensor]
    sampler: CropSampler
    held_out: list[TrainingImage]
    history: list[dict[str, Any]]
    step: int = 0


def train(
    cases: Sequence[Case],
    recipe: Recipe,
    folder: Path,
    validation_cases: Sequence[Case] = (),
    start_from: Path | None = None,
    resume: bool = True,
    on_event: OnEvent = lambda event, content: None,
    accelerator: str = "auto",
    devices: int = 1,
    threads: int | None = None,
) -> Path:
    """Train a network on cases and leave its checkpoints in a folder.

    Args:
        cases: to train on; split them from the validation cases by slide.
        recipe: every choice of the experiment.
        folder: of the run; a run found in it is resumed.
        validation_cases: scored after every `recipe.validate_every` epochs; may be empty.
        start_from: folder of a finished run whose weights to begin with.
        resume: False refuses to go on with a run that is there.
        on_event: told of what happens, for progress.
        accelerator: as in Lightning Fabric: auto, cpu, cuda.
        devices: processes or GPUs to train on.
        threads: of the CPU; None leaves torch's own choice.

    Returns:
        The folder, which holds checkpoint.json, its tensors, recipe.json, provenance.json and
        history.json.

    Raises:
        UsageError: if the folder holds a run of another recipe, or slides overlap.
        DataError, InputError: for cases that cannot be used.
        UsageError: if the loss leaves the finite numbers; the last checkpoint stays.
    """
    _check_split(cases, validation_cases)
    if threads is not None:
        torch.set_num_threads(threads)
    precision = usable_precision(recipe.precision, accelerator)
    fabric = Fabric(accelerator=accelerator, devices=devices, precision=cast(Any, precision))
    if devices > 1:
        fabric.launch()
    sources = load_training_images(cases, recipe.mpp)
    held_out = load_training_images(validation_cases, recipe.mpp)
    on_event("loaded", {"cases": len(cases), "steps": recipe.steps})
    resumes = (folder / "checkpoint.json").exists()
    run = _begin(fabric, recipe, sources, held_out, start_from, fresh=not resumes)
    if resumes:
        if not resume:
            raise UsageError(f"{folder} holds a run already; resume it or name another folder")
        _resume(run, recipe, folder)
    else:
        _write_start(folder, recipe, cases, validation_cases)
    mine_steps = {max(1, round(share * recipe.steps)) for share in recipe.mine_at}
    with ThreadPoolExecutor(1) as ahead:
        batch = ahead.submit(_batch, run.sampler, recipe, run.step, fabric)
        while run.step < recipe.steps:
            images, labels = batch.result()
            last_of_epoch = (run.step + 1) % recipe.steps_per_epoch == 0
            mines = run.step + 1 in mine_steps
            if not mines and run.step + 1 < recipe.steps:
                batch = ahead.submit(_batch, run.sampler, recipe, run.step + 1, fabric)
            loss = _one_step(run, recipe, images, labels)
            if not math.isfinite(loss):
                raise UsageError(
                    f"training diverged at step {run.step + 1} (loss {loss}); lower the recipe's "
                    f"learning_rate = {recipe.learning_rate:g}"
                )
            run.step += 1
            on_event("step", {"step": run.step, "loss": loss})
            if mines:
                found = _mine_with_ema(run, recipe)
                on_event("mined", {"step": run.step, "places": found})
                if run.step < recipe.steps:
                    batch = ahead.submit(_batch, run.sampler, recipe, run.step, fabric)
            if last_of_epoch:
                _end_of_epoch(run, recipe, loss, on_event)
            if last_of_epoch or mines:
                _save(run, recipe, folder)
    on_event("done", {"step": run.step})
    return folder


def usable_precision(wanted: str, accelerator: str) -> str:
    """Return the precision that `auto` stands for on this machine; any other as it is."""
    if wanted != "auto":
        return wanted
    if accelerator != "cpu" and torch.cuda.is_available():
        return "bf16-mixed" if torch.cuda.is_bf16_supported() else "16-mixed"
    able = torch.cpu.get_capabilities()
    return "bf16-mixed" if able.get("amx_bf16") or able.get("avx512_bf16") else "32-true"


def _check_split(cases: Sequence[Case], validation_cases: Sequence[Case]) -> None:
    if not cases:
        raise UsageError("no case to train on; check --data, --cases and --exclude")
    shared = {case.slide for case in cases} & {case.slide for case in validation_cases}
    if shared:
        raise UsageError(
            f"slide {sorted(shared)[0]} is in both training and validation; split by slide "
            "(frames of one slide show the same tissue)"
        )


def _begin(
    fabric: Fabric,
    recipe: Recipe,
    sources: Sequence[TrainingImage],
    held_out: list[TrainingImage],
    start_from: Path | None,
    fresh: bool,
) -> _Run:
    torch.manual_seed(recipe.seed)
    given = start_from is not None or bool(recipe.weights)
    network = build_network(recipe.network, recipe.pretrained and not given)
    if start_from is not None:
        load_run(network, start_from)
    elif recipe.weights and fresh:
        # A resumed run has its own weights; their source need not be there any more.
        load_weights(network, recipe.weights)
    network = network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    network.train()
    optimizer = _optimizer(network, recipe)
    wrapped, wrapped_optimizer = fabric.setup(network, optimizer)
    ema = {name: value.detach().clone() for name, value in network.state_dict().items()}
    sampler = CropSampler(sources, recipe, cast(int, network.stride))
    return _Run(fabric, network, wrapped, cast(Any, wrapped_optimizer), ema, sampler, held_out, [])


def _optimizer(network: nn.Module, recipe: Recipe) -> torch.optim.Optimizer:
    """Weights decay; biases and normalization do not.

    Momentum: Caffe keeps v <- m v + rate * gradient and torch v <- m v + gradient, step rate * v.
    At a constant rate they are the same, so the paper's rates hold here as printed, for the summed
    loss. The mean over N pixels that count takes rates N times as large (500 x 500 px: 1e-10
    becomes 2.5e-5); at momentum 0.99 a step then adds up to a hundred times that.
    """
    learns = [value for value in network.parameters() if value.requires_grad]
    decayed = [value for value in learns if value.ndim > 1]
    free = [value for value in learns if value.ndim <= 1]
    groups = [
        {"params": decayed, "weight_decay": recipe.weight_decay, "rate": 1.0},
        {"params": free, "weight_decay": 0.0, "rate": recipe.bias_rate},
    ]
    if recipe.optimizer == "sgd":
        return torch.optim.SGD(groups, recipe.learning_rate, recipe.momentum)
    return torch.optim.AdamW(groups, recipe.learning_rate)


def _batch(
    sampler: CropSampler, recipe: Recipe, step: int, fabric: Fabric
) -> tuple[Tensor, Tensor]:
    """Draw this process's part of a batch: every rank takes every n-th sample."""
    indices = range(fabric.global_rank, recipe.batch, fabric.world_size)
    samples = [sampler.sample(step, index) for index in indices]
    images = torch.from_numpy(np.stack([sample.image for sample in samples]))
    labels = torch.from_numpy(np.stack([sample.label for sample in samples]))
    return images, labels


def learning_rate(recipe: Recipe, step: int) -> float:
    """Linear warm-up, then the recipe's schedule, at an optimizer step (0 is the first)."""
    warm = min(1.0, (step + 1) / max(1, recipe.warmup_steps))
    if recipe.schedule == "constant":
        return recipe.learning_rate * warm
    share = step / max(1, recipe.steps)
    return recipe.learning_rate * warm * (0.01 + 0.99 * 0.5 * (1 + math.cos(math.pi * share)))


def _one_step(run: _Run, recipe: Recipe, images: Tensor, labels: Tensor) -> float:
    # Dropout draws from torch's generator; tie it to the step for exact resumption.
    torch.manual_seed(recipe.seed * 1_000_003 + run.step)
    device = run.fabric.device
    image_BCHW = images.to(device).permute(0, 3, 1, 2).float()
    image_BCHW = image_BCHW.contiguous(memory_format=torch.channels_last)
    for group in run.optimizer.param_groups:
        group["lr"] = learning_rate(recipe, run.step) * group["rate"]
    logits = run.wrapped(image_BCHW)
    loss = concentric_loss(logits, labels.to(device), recipe.reduction, recipe.focal)
    run.optimizer.zero_grad(set_to_none=True)
    run.fabric.backward(loss)
    if recipe.gradient_clip > 0:
        run.fabric.clip_gradients(run.wrapped, run.optimizer, max_norm=recipe.gradient_clip)
    run.optimizer.step()
    _update_ema(run, recipe)
    return float(loss.detach())


@torch.no_grad()
def _update_ema(run: _Run, recipe: Recipe) -> None:
    """Average weights exponentially, faster at the start when they are still far."""
    decay = min(recipe.ema, (1 + run.step) / (10 + run.step))
    for name, value in run.network.state_dict().items():
        average = run.ema[name]
        if average.dtype.is_floating_point:
            average.lerp_(value.to(average.dtype), 1 - decay)
        else:
            average.copy_(value)


def ema_network(run_network: nn.Module, ema: dict[str, Tensor], recipe: Recipe) -> nn.Module:
    """Build a copy of the network that holds the averaged weights."""
    network = build_network(recipe.network, pretrained=False)
    network.load_state_dict(ema)
    device = next(run_network.parameters()).device
    result: nn.Module = network.to(device=device, memory_format=torch.channels_last)  # type: ignore[call-overload]
    return result.eval()


def _mine_with_ema(run: _Run, recipe: Recipe) -> int:
    network = ema_network(run.network, run.ema, recipe)
    found = mine(network, run.sampler.sources, recipe, run.sampler.stride)
    run.sampler.update()
    return found


def _end_of_epoch(run: _Run, recipe: Recipe, loss: float, on_event: OnEvent) -> None:
    epoch = run.step // recipe.steps_per_epoch
    entry: dict[str, Any] = {"epoch": epoch, "step": run.step, "loss": loss}
    due = epoch % recipe.validate_every == 0 or run.step == recipe.steps
    if run.held_out and due:
        network = ema_network(run.network, run.ema, recipe)
        result: Validation = validate(network, run.held_out, recipe)
        entry |= {
            "f_score": result.f_score,
            "precision": result.precision,
            "recall": result.recall,
            "min_score": result.min_score,
        }
    run.history.append(entry)
    on_event("epoch", entry)


def _save(run: _Run, recipe: Recipe, folder: Path) -> None:
    if run.fabric.global_rank:
        return
    sources, stain = run.sampler.sources, run.sampler.target
    mined = {s.name: s.mined_xy.tolist() for s in sources if len(s.mined_xy)}
    ignored = {s.name: s.ignored_xy.tolist() for s in sources if len(s.ignored_xy)}
    save_checkpoint(
        folder,
        {
            "network": run.network.state_dict(),
            "ema": run.ema,
            "optimizer": optimizer_tensors(run.optimizer),
        },
        {
            "step": run.step,
            "recipe": recipe.to_dict(),
            "mined": mined,
            "ignored": ignored,
            "stain": None if stain is None else dataclasses.asdict(stain),
            "history": run.history,
        },
    )
    write_json(folder / "history.json", run.history)


def _resume(run: _Run, recipe: Recipe, folder: Path) -> None:
    groups, state = load_checkpoint(folder)
    if Recipe.from_dict(state["recipe"], str(folder)) != recipe:
        raise UsageError(
            f"{folder} holds a run of another recipe; give the same recipe to resume it, or "
            "name another folder"
        )
    run.network.load_state_dict(groups["network"])
    run.ema = groups["ema"]
    restore_optimizer(run.optimizer, groups.get("optimizer", {}))
    run.step = int(state["step"])
    run.history = list(state["history"])
    for source in run.sampler.sources:
        for kind in ("mined", "ignored"):
            points = state[kind].get(source.name, [])
            setattr(source, f"{kind}_xy", np.asarray(points, float).reshape(-1, 2))
    run.sampler.update()


def _write_start(
    folder: Path, recipe: Recipe, cases: Sequence[Case], validation_cases: Sequence[Case]
) -> None:
    write_json(folder / "recipe.json", recipe.to_dict())
    content = provenance(cases, validation_cases)
    write_json(folder / "provenance.json", content)
    started = time.strftime("%Y-%m-%dT%H:%M:%S%z")
    write_text(folder / "started.txt", started + "\n")

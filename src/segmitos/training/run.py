"""A training run: what it holds while it runs, and how it is begun, saved and taken up again."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Literal, cast

import numpy as np
import torch
from lightning_fabric import Fabric
from torch import nn
from torch.optim.swa_utils import AveragedModel

from segmitos.detection.model_file import SUFFIX, is_model_file
from segmitos.errors import ModelError, OutputError, UsageError
from segmitos.io.datasets import Case
from segmitos.io.files import remove_file
from segmitos.io.outputs import check_file, check_folder, is_own_json, is_result_folder
from segmitos.training.budget import Costs, Pace
from segmitos.training.checkpoint import (
    HISTORY,
    PAGE,
    PROVENANCE,
    RECIPE_FILE,
    STATE,
    THRESHOLDS,
    TrainingState,
    load_checkpoint,
    optimizer_tensors,
    restore_optimizer,
    save_checkpoint,
)
from segmitos.training.history import write_history
from segmitos.training.identity import IDENTITY, RunIdentity
from segmitos.training.networks.registry import build_network
from segmitos.training.optimizer import averaged, make_optimizer
from segmitos.training.recipe import Recipe
from segmitos.training.sampling import CropSampler, TrainingImage, load_training_images
from segmitos.training.validate import Example
from segmitos.training.weights import load_run, load_weights

Event = Literal["loaded", "started", "step", "mined", "fitted", "epoch", "stopped", "done"]
OnEvent = Callable[[Event, dict[str, Any]], None]
Existing = Literal["resume", "refuse", "restart"]


@dataclasses.dataclass
class TrainingRun:
    """What a training holds while it runs."""

    fabric: Fabric
    recipe: Recipe
    folder: Path
    network: nn.Module
    wrapped: Any
    optimizer: torch.optim.Optimizer
    average: AveragedModel
    sampler: CropSampler
    held_out: list[TrainingImage]
    tell: OnEvent
    identity: RunIdentity
    step: int = 0
    losses: list[float] = dataclasses.field(default_factory=list)
    mined_at: list[int] = dataclasses.field(default_factory=list)
    history: list[dict[str, float | int]] = dataclasses.field(default_factory=list)
    examples: Sequence[Example] = ()
    pace: Pace = dataclasses.field(default_factory=Pace)
    costs: Costs = dataclasses.field(default_factory=Costs)

    @property
    def mine_steps(self) -> set[int]:
        """Numbers of steps after which false positives are mined."""
        steps = self.recipe.steps
        return {max(1, round(fraction * steps)) for fraction in self.recipe.mine_at}


def usable_precision(wanted: str, accelerator: str) -> str:
    """Return the precision that `auto` stands for on this machine; any other as it is."""
    if wanted != "auto":
        return wanted
    if accelerator != "cpu" and torch.cuda.is_available():
        return "bf16-mixed" if torch.cuda.is_bf16_supported() else "16-mixed"
    able = torch.cpu.get_capabilities()
    return "bf16-mixed" if able.get("amx_bf16") or able.get("avx512_bf16") else "32-true"


def make_fabric(recipe: Recipe, accelerator: str, devices: int) -> Fabric:
    """Return what runs the steps.

    Raises:
        UsageError: where this machine has no such accelerator, or there are more devices than crops
            in a batch.
    """
    if devices > recipe.batch:
        raise UsageError(
            f"devices {devices} are more than the recipe's batch = {recipe.batch}, of which each "
            f"takes a part: give --devices {recipe.batch}"
        )
    lacks_cuda = accelerator == "cuda" and not torch.cuda.is_available()
    if lacks_cuda or (accelerator == "mps" and not torch.backends.mps.is_available()):
        raise UsageError(
            f"accelerator {accelerator}: PyTorch finds none on this machine; give --accelerator cpu"
        )
    precision = cast(Any, usable_precision(recipe.precision, accelerator))
    try:
        fabric = Fabric(accelerator=accelerator, devices=devices, precision=precision)
    except (RuntimeError, ValueError, TypeError) as error:
        raise UsageError(
            f"cannot train on accelerator {accelerator}, devices {devices}: {error}"
        ) from error
    if devices > 1:
        fabric.launch()
    return fabric


def is_first_process() -> bool:
    """Tell whether this process writes the files of a run: of several devices that of the first."""
    spread = torch.distributed.is_available() and torch.distributed.is_initialized()
    return not spread or torch.distributed.get_rank() == 0


def check_place(folder: Path) -> None:
    """Refuse to train where a result is, or files that are no run's have the names of a run's.

    Raises:
        OutputError: naming the folder or one of them.
    """
    if is_result_folder(folder):
        raise OutputError(f"{folder} holds a result of detect; choose another folder with -o")
    if not is_own_json(folder / STATE, ("step", "tensors")):
        check_folder(
            folder,
            (STATE, RECIPE_FILE, PROVENANCE, HISTORY, PAGE, THRESHOLDS),
            IDENTITY,
            ("recipe", "training", "validation"),
        )
    model = folder / f"{folder.resolve().name}{SUFFIX}"
    check_file(model, is_own=is_model_file)


def remove_run(folder: Path) -> None:
    """Take away the checkpoint of a run; what else it wrote is written over."""
    remove_file(folder / STATE)
    for path in folder.glob("checkpoint-*.safetensors"):
        remove_file(path)


def begin_run(
    fabric: Fabric,
    recipe: Recipe,
    folder: Path,
    cases: Sequence[Case],
    validation_cases: Sequence[Case],
    identity: RunIdentity,
) -> TrainingRun:
    """Load the images and build an untrained network for them."""
    images = load_training_images(cases, recipe.mpp)
    held_out = load_training_images(validation_cases, recipe.mpp)
    torch.manual_seed(recipe.seed)
    given = bool(identity.start_from or recipe.weights)
    network = build_network(recipe.network, recipe.pretrained and not given)
    network = network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    network.train()
    sampler = CropSampler(images, recipe, cast(int, network.stride))
    optimizer = make_optimizer(network, recipe)
    wrapped, wrapped_optimizer = fabric.setup(network, optimizer)
    return TrainingRun(
        fabric=fabric,
        recipe=recipe,
        folder=folder,
        network=network,
        wrapped=wrapped,
        optimizer=cast(Any, wrapped_optimizer),
        average=averaged(network, recipe),
        sampler=sampler,
        held_out=held_out,
        tell=lambda event, content: None,
        identity=identity,
    )


def fill_weights(run: TrainingRun, start_from: Path | None, resumes: bool) -> None:
    """Load the weights to start from; a resumed run has its own, and needs their source no more."""
    if resumes:
        return
    if start_from is not None:
        load_run(run.network, start_from)
    elif run.recipe.weights:
        load_weights(run.network, run.recipe.weights)
    run.average.module.load_state_dict(run.network.state_dict())


def write_run_history(run: TrainingRun) -> None:
    """Write history.csv and training.html."""
    if run.fabric.global_rank == 0:
        write_history(
            run.folder,
            run.history,
            title=f"Training of {run.folder.name}",
            steps=run.recipe.steps,
            examples=run.examples,
            running=run.step < run.recipe.steps,
            validated=bool(run.held_out),
        )


def save_run(run: TrainingRun) -> None:
    """Write a checkpoint."""
    if run.fabric.global_rank:
        return
    images, stain = run.sampler.sources, run.sampler.target
    save_checkpoint(
        run.folder,
        {
            "network": run.network.state_dict(),
            "ema": run.average.module.state_dict(),
            "optimizer": optimizer_tensors(run.optimizer),
        },
        TrainingState(
            step=run.step,
            recipe=run.recipe.to_dict(),
            identity=run.identity.digest,
            mined_at=run.mined_at,
            mined={i.name: i.mined_xy.tolist() for i in images if len(i.mined_xy)},
            ignored={i.name: i.ignored_xy.tolist() for i in images if len(i.ignored_xy)},
            stain=None if stain is None else dataclasses.asdict(stain),
            losses=tuple(run.losses),
            history=run.history,
            # Without a budget no time is kept: the same training leaves the same bytes.
            spent_s=0.0 if run.identity.time_budget_s is None else run.pace.spent_s,
        ),
    )


def restore_run(run: TrainingRun) -> None:
    """Take up a run at its checkpoint. Raises ModelError if it is damaged or does not fit."""
    groups, state = load_checkpoint(run.folder)
    try:
        run.network.load_state_dict(groups.get("network", {}))
        run.average.module.load_state_dict(groups.get("ema", {}))
        restore_optimizer(run.optimizer, groups.get("optimizer", {}))
    except (RuntimeError, ValueError, KeyError) as error:
        reason = str(error).splitlines()[0]
        raise ModelError(f"damaged checkpoint {run.folder / state.tensors}: {reason}") from error
    run.average.n_averaged.fill_(state.step)
    run.step = state.step
    run.pace = Pace(state.spent_s)
    run.losses, run.mined_at = list(state.losses), list(state.mined_at)
    run.history = [dict(entry) for entry in state.history]
    for image in run.sampler.sources:
        for kind in ("mined", "ignored"):
            points = getattr(state, kind).get(image.name, [])
            setattr(image, f"{kind}_xy", np.asarray(points, float).reshape(-1, 2))
    run.sampler.update()

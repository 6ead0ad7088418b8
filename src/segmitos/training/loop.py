"""The training loop, read top to bottom: images -> crops -> concentric loss -> averaged weights.

Everything random in a step is a function of (seed, step), so a run that is killed and resumed ends
with the same weights as one that was not, on the same machine with the same number of threads.
"""

from __future__ import annotations

import math
import os
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

import numpy as np
import torch

from segmitos.detection.model import checked_threads
from segmitos.errors import OutputError, TrainingError, UsageError
from segmitos.io.datasets import Case
from segmitos.io.error_log import lacks_memory
from segmitos.io.files import write_bytes, write_json
from segmitos.io.text import reason_of
from segmitos.training.adapt import RECIPE, is_model
from segmitos.training.batches import Batches, seconds_per_step
from segmitos.training.budget import Pace, estimated_costs, fit_rest, fit_to_budget
from segmitos.training.checkpoint import PROVENANCE, RECIPE_FILE, STATE
from segmitos.training.concentric import concentric_loss
from segmitos.training.identity import (
    IDENTITY,
    RunIdentity,
    check_split,
    check_unseen,
    resume_recipe,
)
from segmitos.training.mining import mine
from segmitos.training.optimizer import learning_rate, set_learning_rate
from segmitos.training.predict import to_network
from segmitos.training.provenance import provenance
from segmitos.training.recipe import Recipe, load_recipe
from segmitos.training.run import (
    Existing,
    OnEvent,
    TrainingRun,
    begin_run,
    check_place,
    fill_weights,
    make_fabric,
    remove_run,
    restore_run,
    save_run,
    write_run_history,
)
from segmitos.training.sampling import warnings_of
from segmitos.training.stopping import StopRequestedError, stop_requests
from segmitos.training.validate import validate
from segmitos.training.weights import run_of_weights

# A checkpoint is written at least this often, and takes at most a fiftieth of the time.
_SAVE_EVERY_S = 60.0
_SAVE_FRACTION = 0.02


def run_training(
    cases: Sequence[Case],
    folder: Path,
    recipe: Recipe | Path | str,
    validation_cases: Sequence[Case],
    *,
    start_from: Path | str | None,
    existing: Existing,
    time_budget_s: float | None,
    on_event: OnEvent,
    accelerator: str,
    devices: int,
    threads: int | None,
) -> None:
    """Train, and leave checkpoints in a folder; see `training.train.train`, which calls this."""
    pace = Pace()
    if isinstance(recipe, Recipe):
        chosen = Recipe.from_dict(recipe.to_dict())
    else:
        chosen = load_recipe(recipe)
    threads = checked_threads(threads)
    check_split(cases, validation_cases)
    if existing == "restart" or not (folder / STATE).exists():
        check_place(folder)
    with _run_folder(folder):
        if threads is not None:
            torch.set_num_threads(threads)
        start = None if start_from is None else _start_folder(start_from)
        identity = RunIdentity.of(cases, validation_cases, chosen, start, time_budget_s)
        if (origin := start or run_of_weights(chosen.weights)) is not None:
            held_out = {name: one["image"] for name, one in identity.validation.items()}
            check_unseen(origin, held_out, validation_cases)
        if existing == "restart":
            remove_run(folder)
        elif existing == "refuse" and (folder / STATE).exists():
            raise UsageError(f"{folder} holds a run already; resume it or name another folder")
        saved_recipe = resume_recipe(folder, identity)
        fabric = make_fabric(chosen, accelerator, devices)
        run = begin_run(fabric, saved_recipe or chosen, folder, cases, validation_cases, identity)
        run.tell = on_event if fabric.global_rank == 0 else lambda event, content: None
        run.pace = pace
        warnings = warnings_of([*run.sampler.sources, *run.held_out])
        counts = {"cases": len(cases), "validation": len(validation_cases)}
        run.tell("loaded", {**counts, "warnings": warnings})
        fill_weights(run, start, resumes=saved_recipe is not None)
        if saved_recipe is not None:
            restore_run(run)
        with (
            stop_requests() as check,
            Batches(run.sampler, run.recipe, fabric.global_rank, fabric.world_size) as batches,
        ):
            try:
                _start(run, batches, check, cases, validation_cases, saved_recipe is None)
                _take_steps(run, batches, check)
            except StopRequestedError as stopped:
                raise stopped.end() from None
            except (MemoryError, RuntimeError) as error:
                if not lacks_memory(error):
                    raise
                raise TrainingError(
                    f"out of memory after step {run.step}; lower batch = {run.recipe.batch} or "
                    f"crop_px = {run.recipe.crop_px} of the recipe"
                ) from error
        run.tell("done", {"step": run.step})


@contextmanager
def _run_folder(folder: Path) -> Iterator[None]:
    """Make the folder, and take it away again, its new parents too, if it stays empty.

    Fails before the work, not after it, where nothing could be written.
    """
    new = [path for path in (folder, *folder.parents) if not path.exists()]
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        reason = "it is a file" if folder.is_file() else reason_of(error)
        raise OutputError(f"cannot make the folder {folder}: {reason}") from error
    if not os.access(folder, os.W_OK | os.X_OK):
        raise OutputError(f"cannot write to the folder {folder}: no permission")
    try:
        yield
    finally:
        # `rmdir` refuses a folder that holds a file.
        with suppress(OSError):
            for path in new:
                path.rmdir()


def _start_folder(start_from: Path | str) -> Path:
    if is_model(start_from):
        raise UsageError(
            f"--start-from {start_from}: of a model file only the last layer can be trained: "
            f"--recipe {RECIPE}; other recipes start from the folder of a run"
        )
    return Path(start_from)


def _start(
    run: TrainingRun,
    batches: Batches,
    check: Callable[[], None],
    cases: Sequence[Case],
    validation_cases: Sequence[Case],
    is_new: bool,
) -> None:
    """Measure the speed, choose the number of steps by it, write what the run is, and say so."""
    speed = 0.0
    if run.step < run.recipe.steps:
        args = run.network, batches, run.recipe, run.fabric, run.step, check
        speed = seconds_per_step(*args)
    run.costs = estimated_costs(run.recipe, speed, run.sampler.sources, run.held_out)
    budget = run.identity.time_budget_s
    if is_new:
        if budget is not None:
            fitted = fit_to_budget(run.recipe, budget, run.costs, run.pace.spent_s)
            # One process decides for all of them, here and after each epoch.
            run.recipe = run.fabric.broadcast(fitted)
        if run.fabric.global_rank == 0:
            write_bytes(run.folder / IDENTITY, run.identity.to_json())
            write_json(run.folder / RECIPE_FILE, run.recipe.to_dict())
            write_json(run.folder / PROVENANCE, provenance(cases, validation_cases))
        write_run_history(run)
    steps = run.recipe.steps
    run.tell(
        "started",
        {"step": run.step, "steps": steps, "seconds_per_step": speed, "batch": run.recipe.batch},
    )


def _fit_rest_to_budget(run: TrainingRun) -> None:
    """Choose the number of epochs again by the time budget, at the end of one."""
    budget, before = run.identity.time_budget_s, run.recipe.steps
    if budget is None or run.step == before:
        return
    run.costs = run.pace.costs(run.costs)
    epochs = run.step // run.recipe.steps_per_epoch
    given = run.identity.recipe
    max_steps = given["epochs"] * given["steps_per_epoch"]
    fitted = fit_rest(run.recipe, budget, run.pace.spent_s, epochs, run.costs, max_steps)
    run.recipe = run.fabric.broadcast(fitted)
    if run.recipe.steps != before:
        run.tell("fitted", {"step": run.step, "steps": run.recipe.steps, "before": before})


def _take_steps(run: TrainingRun, batches: Batches, check: Callable[[], None]) -> None:
    """Train to the end; what is due between steps is done between them, however the run began."""
    saved, cost = time.monotonic(), 0.0
    try:
        while True:
            done = _mine_if_due(run, batches, check) | _end_epoch_if_due(run, check)
            overdue = time.monotonic() - saved > max(_SAVE_EVERY_S, cost / _SAVE_FRACTION)
            if done or overdue:
                began = time.monotonic()
                save_run(run)
                saved = time.monotonic()
                cost = saved - began
            if run.step >= run.recipe.steps:
                return
            check()
            with run.pace.part("step"):
                _one_step(run, batches)
    except StopRequestedError:
        save_run(run)
        run.tell("stopped", {"step": run.step, "steps": run.recipe.steps})
        raise


def _one_step(run: TrainingRun, batches: Batches) -> None:
    recipe, after = run.recipe, run.step + 1
    images, labels = batches.take(run.step, after < recipe.steps and after not in run.mine_steps)
    # Dropout draws from torch's generator; tie it to the step for exact resumption.
    torch.manual_seed(recipe.seed * 1_000_003 + run.step)
    set_learning_rate(run.optimizer, recipe, run.step)
    device = run.fabric.device
    logits = run.wrapped(to_network(images, device))
    loss = concentric_loss(logits, labels.to(device), recipe.reduction, recipe.focal)
    run.optimizer.zero_grad(set_to_none=True)
    # Devices average their gradients: of a sum over all of them too.
    devices = run.fabric.world_size if recipe.reduction == "sum" else 1
    run.fabric.backward(loss * devices)
    if recipe.gradient_clip > 0:
        run.fabric.clip_gradients(run.wrapped, run.optimizer, max_norm=recipe.gradient_clip)
    run.optimizer.step()
    value = float(loss.detach())
    if not math.isfinite(value):
        raise TrainingError(
            f"training diverged at step {after} (loss {value}); lower the recipe's "
            f"learning_rate = {recipe.learning_rate:g}"
        )
    run.average.update_parameters(run.network)
    run.step = after
    run.losses.append(value)
    run.tell("step", {"step": run.step, "loss": value})


def _mine_if_due(run: TrainingRun, batches: Batches, check: Callable[[], None]) -> bool:
    mined = max(run.mined_at, default=0)
    # A time budget may put the next round at a step that is over.
    if not any(mined < step <= run.step for step in run.mine_steps):
        return False
    batches.forget()
    sources, stride = run.sampler.sources, run.sampler.stride
    with run.pace.part("mining"):
        found = mine(run.average.module, sources, run.recipe, stride, check)
    run.sampler.update()
    run.mined_at.append(run.step)
    run.tell("mined", {"step": run.step, "places": found})
    return True


def _end_epoch_if_due(run: TrainingRun, check: Callable[[], None]) -> bool:
    epoch, rest = divmod(run.step, run.recipe.steps_per_epoch)
    if rest or len(run.history) >= epoch:
        return False
    entry: dict[str, float | int] = {
        "epoch": epoch,
        "step": run.step,
        "loss": float(np.mean(run.losses)),
        "learning_rate": learning_rate(run.recipe, run.step - 1),
    }
    _fit_rest_to_budget(run)
    due = epoch % run.recipe.validate_every == 0 or run.step == run.recipe.steps
    if run.held_out and due:
        target = run.sampler.target if run.recipe.augmentation.changes_stain else None
        with run.pace.part("validation"):
            figures, run.examples = validate(
                run.average.module, run.held_out, run.recipe, target, check
            )
        entry |= figures
    run.history.append(entry)
    run.losses = []
    write_run_history(run)
    run.tell("epoch", dict(entry))
    return True

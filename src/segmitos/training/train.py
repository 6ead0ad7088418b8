"""`segmitos.train`, which can be named and read about where torch is not installed."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from segmitos.io.arguments import path_of
from segmitos.io.datasets import Case
from segmitos.training.packages import require_training
from segmitos.training.recipe import DEFAULT, Recipe

if TYPE_CHECKING:
    from segmitos.training.run import Existing, OnEvent


def train(
    cases: Sequence[Case],
    folder: Path | str,
    recipe: Recipe | Path | str = DEFAULT,
    validation_cases: Sequence[Case] = (),
    *,
    start_from: Path | str | None = None,
    existing: Existing = "resume",
    time_budget_s: float | None = None,
    on_event: OnEvent = lambda event, content: None,
    accelerator: str = "auto",
    devices: int = 1,
    threads: int | None = None,
) -> Path:
    """Train a network on cases and leave its checkpoints in a folder.

    Ctrl-C and SIGTERM save the run before they end it; the same call goes on from there.

    Args:
        cases: to train on; split them from the validation cases by slide.
        folder: of the run.
        recipe: every choice of the experiment; a packaged one by name, or the path of a TOML file.
        validation_cases: scored after every `recipe.validate_every` epochs; may be empty.
        start_from: folder of a run whose weights to begin with.
        existing: what to do with a run that is in the folder: `resume` it, `refuse`, or `restart`
            from nothing. Only the same run is resumed: same recipe, data, split and start.
        time_budget_s: take fewer steps than the recipe's, so many as fit into this time by their
            speed here, measured again at the end of each epoch; None takes all.
        on_event: told of what happens, for progress.
        accelerator: auto, cpu, cuda or mps.
        devices: processes or GPUs to train on.
        threads: of the CPU; None leaves torch's own choice.

    Returns:
        The folder, which holds checkpoint.json and its tensors, identity.json, recipe.json,
        provenance.json, history.csv and training.html.

    Raises:
        UsageError: if packages for training are missing, the folder holds another run, slides
            overlap, the run started from has learned from validation cases, or there cannot be so
            many threads.
        OutputError: if the folder cannot be written to, or holds other files of these names.
        DataError, InputError: for cases or a recipe that cannot be used.
        TrainingError: if the loss leaves the finite numbers, or memory is too small for a step;
            the last checkpoint stays.
    """
    require_training()
    from segmitos.training.loop import run_training

    folder = path_of(folder, "folder")
    run_training(
        list(cases),
        folder,
        recipe,
        list(validation_cases),
        start_from=start_from,
        existing=existing,
        time_budget_s=time_budget_s,
        on_event=on_event,
        accelerator=accelerator,
        devices=devices,
        threads=threads,
    )
    return folder

"""`segmitos train`."""

from __future__ import annotations

from collections.abc import Sequence
from fnmatch import fnmatch
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

from segmitos.commands.training_progress import TrainingProgress
from segmitos.errors import DataError, UsageError

if TYPE_CHECKING:
    from segmitos.io.datasets import Case

AUTO = "auto"


def require_training() -> None:
    needed = {
        "torch": "torch",
        "lightning_fabric": "lightning-fabric",
        "safetensors": "safetensors",
    }
    missing = [name for module, name in needed.items() if find_spec(module) is None]
    if missing:
        raise UsageError(
            f"training needs {', '.join(missing)}, which is not installed: pip install '.[train]'"
        )


def run_train(
    data: Sequence[str],
    out: Path,
    recipe: str,
    validation: Sequence[str] | None,
    cases: Sequence[str] | None,
    exclude: Sequence[str] | None,
    mpp: float | None,
    override_mpp: bool,
    start_from: str | None,
    epochs: int | None,
    seed: int | None,
    time_budget: float | None,
    accelerator: str,
    devices: int,
    threads: int | None,
    no_resume: bool,
    restart: bool,
) -> int:
    """Train, and leave a tuned model file with its score."""
    require_training()
    from segmitos.detection.model import available_threads
    from segmitos.io.datasets import load_dataset
    from segmitos.training.finish import finish
    from segmitos.training.recipe import load_recipe
    from segmitos.training.train import train

    if no_resume and restart:
        raise UsageError("--no-resume and --restart exclude each other")
    chosen = load_recipe(recipe, epochs=epochs, seed=seed)
    every = load_dataset(data, cases or (), exclude or (), mpp, override_mpp)
    training, held_out = split(every, validation or ())
    print(describe_split(training, held_out), flush=True)
    with TrainingProgress() as progress:
        train(
            training,
            out,
            chosen,
            held_out,
            start_from=start_from,
            existing="restart" if restart else "refuse" if no_resume else "resume",
            time_budget_s=time_budget,
            on_event=progress,
            accelerator=accelerator,
            devices=devices,
            threads=threads or available_threads(),
        )
    print(finish(out, held_out, threads).text())
    return 0


def split(cases: Sequence[Case], patterns: Sequence[str]) -> tuple[list[Case], list[Case]]:
    """Return the cases to train on and those to validate on.

    Args:
        cases: all of them.
        patterns: slides or cases to validate on; `auto` holds slides out by
            `evaluation.folds.hold_out`.

    Raises:
        DataError: for a pattern that names nothing, or fewer than two slides for `auto`.
    """
    from segmitos.evaluation.folds import hold_out

    kept: set[str] = set()
    for pattern in patterns:
        if pattern == AUTO:
            kept |= {case.name for case in hold_out(cases)}
            continue
        named = {c.name for c in cases if fnmatch(c.slide, pattern) or fnmatch(c.name, pattern)}
        if not named:
            slides = sorted({case.slide for case in cases})
            shown = ", ".join(slides[:12]) + (" ..." if len(slides) > 12 else "")
            raise DataError(f"--validation {pattern} names no slide or case; slides: {shown}")
        kept |= named
    training = [case for case in cases if case.name not in kept]
    return training, [case for case in cases if case.name in kept]


def describe_split(training: Sequence[Case], held_out: Sequence[Case]) -> str:
    """Say what is trained on and what validates, with a warning where nothing does."""
    lines = [f"training on {_described(training)}"]
    if held_out:
        slides = sorted({case.slide for case in held_out})
        shown = ", ".join(slides[:6]) + (" ..." if len(slides) > 6 else "")
        lines.append(f"validating on {_described(held_out)}: {shown}")
    else:
        lines.append(
            "warning: no validation slides, so that what the network is worth stays unknown and "
            "its thresholds are not tuned; give --validation SLIDE, or --validation auto"
        )
    return "\n".join(lines)


def _described(cases: Sequence[Case]) -> str:
    slides = len({case.slide for case in cases})
    mitoses = sum(len(case.mitoses_xy) for case in cases)
    return f"{len(cases)} images of {slides} slides, {mitoses} mitoses"

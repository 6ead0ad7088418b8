"""`segmitos train`."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click

from segmitos.commands.progress import Bar, TrainingProgress, in_words, print_warnings
from segmitos.errors import DataError, UsageError
from segmitos.io.text import listed
from segmitos.options import (
    DataSets,
    FilePath,
    Several,
    data_options,
    several,
    threads_option,
)
from segmitos.training.packages import require_training

if TYPE_CHECKING:
    from segmitos.io.datasets import Case

AUTO = "auto"


def seconds_of(
    context: click.Context, parameter: click.Parameter, value: str | None
) -> float | None:
    """Read a time such as 45s, 30m or 2h, as seconds."""
    if value is None:
        return None
    found = re.fullmatch(r"(\d{1,6}(?:\.\d{1,6})?)([smh])", value.strip())
    if found is None or float(found[1]) == 0:
        message = f"{value!r} is not a time such as 45s, 30m or 2h"
        raise click.BadParameter(message, context, parameter)
    return float(found[1]) * {"s": 1.0, "m": 60.0, "h": 3600.0}[found[2]]


accelerator_option = click.option(
    "--accelerator",
    type=click.Choice(["auto", "cpu", "cuda", "mps"]),
    default="auto",
    show_default=True,
    help="What to train on.",
)
recipe_option = click.option(
    "--recipe",
    default="lite",
    show_default=True,
    help="Packaged recipe by name, such as paper/mitos14-random, or a TOML file.",
)


@click.command()
@data_options
@click.option(
    "-o",
    "--out",
    type=FilePath,
    required=True,
    help="Folder of the run; the same run is resumed if it is there.",
)
@recipe_option
@click.option(
    "--validation",
    cls=Several,
    multiple=True,
    callback=several,
    help="Slides or cases to validate on, kept from training; patterns allowed. 'auto' holds out "
    "slides with about a fifth of the mitoses.",
)
@click.option(
    "--start-from",
    help="Folder of a run whose weights to start from, of the same network; with --recipe adapt "
    "builtin:lite or a model file.",
)
@click.option("--epochs", type=click.IntRange(1, 1_000_000), help="Instead of the recipe's.")
@click.option("--seed", type=click.IntRange(0, 2**31 - 1), help="Instead of the recipe's.")
@click.option(
    "--time-budget",
    metavar="TIME",
    callback=seconds_of,
    help="Take so many steps, at most the recipe's, as fit into this time here: 45s, 30m, 2h.",
)
@accelerator_option
@click.option(
    "--devices",
    type=click.IntRange(1, 1024),
    default=1,
    show_default=True,
    help="Processes or GPUs.",
)
@threads_option
@click.option("--no-resume", is_flag=True, help="Refuse to go on with a run that is there.")
@click.option("--restart", is_flag=True, help="Train from nothing where a run is there.")
def train(
    data: DataSets,
    out: Path,
    recipe: str,
    validation: Sequence[str] | None,
    start_from: str | None,
    epochs: int | None,
    seed: int | None,
    time_budget: float | None,
    accelerator: str,
    devices: int,
    threads: int | None,
    no_resume: bool,
    restart: bool,
) -> None:
    """Train a detector from clicks on mitoses, tune it, and write its model file.

    Example: segmitos train mitos14:DIR --validation H03 -o runs/first
    """
    require_training()
    from segmitos.detection.model import available_threads
    from segmitos.training.finish import finish
    from segmitos.training.recipe import load_recipe
    from segmitos.training.run import is_first_process
    from segmitos.training.train import train

    if no_resume and restart:
        raise UsageError("--no-resume and --restart exclude each other")
    adapts = recipe == "adapt"
    if adapts:
        _check_adapt(
            start_from,
            epochs=epochs is not None,
            seed=seed is not None,
            time_budget=time_budget is not None,
            accelerator=accelerator not in ("auto", "cpu"),
            devices=devices != 1,
            no_resume=no_resume,
        )
    else:
        chosen = load_recipe(recipe, epochs=epochs, seed=seed)
    cases = data.load()
    print_warnings(data.left_out())
    training, held_out = split(cases, validation or ())
    if adapts:
        assert start_from is not None
        _adapt(training, held_out, out, start_from, restart, threads)
        return
    left_out = len(cases) - len(training) - len(held_out)
    print(describe_split(training, held_out, left_out), flush=True)
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
    # The others do not wait for the last checkpoint: their model could be of an earlier one.
    if is_first_process():
        print(finish(out, held_out, threads).text())


def _check_adapt(start_from: str | None, **unused: bool) -> None:
    """Refuse options that mean nothing to `adapt`, where they are given. Raises UsageError."""
    if start_from is None:
        raise UsageError("--recipe adapt needs a model to adapt: --start-from builtin:lite")
    for name, is_given in unused.items():
        if is_given:
            raise UsageError(f"--{name.replace('_', '-')} does not go with --recipe adapt")


def _adapt(
    training: Sequence[Case],
    held_out: Sequence[Case],
    out: Path,
    start_from: str,
    restart: bool,
    threads: int | None,
) -> None:
    from segmitos.training.adapt import adapt

    lines = [f"adapting {start_from} to {_described(training)}", *_seen_before(training, held_out)]
    print("\n".join(lines), flush=True)
    with Bar("finding candidates", len(training) + len(held_out)) as bar:
        adapted = adapt(
            training,
            out,
            start_from,
            held_out,
            restart=restart,
            threads=threads,
            advance=bar.advance,
        )
    print(adapted.text())


def split(cases: Sequence[Case], patterns: Sequence[str]) -> tuple[list[Case], list[Case]]:
    """Return the cases to train on and those to validate on.

    Args:
        cases: all of them.
        patterns: slides or cases to validate on; `auto` holds slides out by
            `evaluation.folds.hold_out`. Crops of their patients are left out of both.

    Raises:
        DataError: for a pattern that names nothing, or fewer than two slides for `auto`.
    """
    from segmitos.evaluation.folds import hold_out
    from segmitos.io.datasets.load import matches

    kept: set[str] = set()
    for pattern in patterns:
        if pattern == AUTO:
            kept |= {case.name for case in hold_out(cases)}
            continue
        named = {case.name for case in cases if matches(case, pattern)}
        if not named:
            slides = sorted({case.slide for case in cases})
            raise DataError(
                f"--validation {pattern} names no slide or case; slides: {listed(slides, 12)}"
            )
        kept |= named
    held_out = [case for case in cases if case.name in kept]
    fields_of = {case.group for case in held_out if not case.centered_crop}
    training = [
        case
        for case in cases
        if case.name not in kept and not (case.centered_crop and case.group in fields_of)
    ]
    return training, held_out


def describe_split(training: Sequence[Case], held_out: Sequence[Case], left_out: int = 0) -> str:
    """Say what is trained on and what validates, with a warning where nothing does."""
    from segmitos.evaluation.scoring import warnings_of_crops

    lines = [f"training on {_described(training)}"]
    if held_out:
        slides = sorted({case.slide for case in held_out})
        lines.append(f"validating on {_described(held_out)}: {listed(slides, 6)}")
        if left_out:
            crops = in_words(left_out, "crop")
            lines.append(f"left out of both: {crops} of the patients that validate")
        lines += [f"warning: in validation, {warning}" for warning in warnings_of_crops(held_out)]
    else:
        lines.append(
            "warning: no validation slides, so that what the network is worth stays unknown and "
            "its thresholds are not tuned; give --validation SLIDE, or --validation auto"
        )
    return "\n".join([*lines, *_seen_before(training, held_out)])


def _seen_before(training: Sequence[Case], held_out: Sequence[Case]) -> list[str]:
    """Warn of slides that validate, another scan of whose patient is trained on."""
    trained = {case.group: case.slide for case in training}
    seen = sorted({(c.slide, trained[c.group]) for c in held_out if c.group in trained})
    if not seen:
        return []
    slide, other = seen[0]
    more = f" (and {len(seen) - 1} more)" if len(seen) > 1 else ""
    return [
        f"warning: {slide} is of the same patient as {other}, which is trained on{more}: its cells "
        "are seen in training, and the score will be too high; --exclude the other scan"
    ]


def _described(cases: Sequence[Case]) -> str:
    counts = {
        "image": len(cases),
        "slide": len({case.slide for case in cases}),
        "mitosis": sum(len(case.mitoses_xy) for case in cases),
    }
    images, slides, mitoses = (in_words(number, noun) for noun, number in counts.items())
    return f"{images} of {slides}, {mitoses}"

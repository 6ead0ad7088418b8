"""The verbs that train: once, and for cross-validation."""

from __future__ import annotations

import re
from typing import Any

import click

from segmitos.options import (
    FilePath,
    Several,
    cases_option,
    data_argument,
    exclude_option,
    json_option,
    mpp_option,
    several,
    threads_option,
)


class Duration(click.ParamType[float]):
    """A time such as 45s, 30m or 2h, as seconds."""

    name = "time"

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> float:
        if isinstance(value, float):
            return value
        found = re.fullmatch(r"(\d{1,6}(?:\.\d{1,6})?)([smh])", str(value).strip())
        if found is None or float(found[1]) == 0:
            self.fail(f"{value!r} is not a time such as 45s, 30m or 2h", param, ctx)
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
@data_argument
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
@cases_option
@exclude_option
@mpp_option
@click.option(
    "--start-from", help="Folder of a run whose weights to start from, of the same network."
)
@click.option("--epochs", type=click.IntRange(1, 1_000_000), help="Instead of the recipe's.")
@click.option("--seed", type=click.IntRange(0, 2**31 - 1), help="Instead of the recipe's.")
@click.option(
    "--time-budget",
    type=Duration(),
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
def train(**given: Any) -> int:
    """Train a detector from clicks on mitoses, tune it, and write its model file.

    Example: segmitos train mitos14:DIR --validation H03 -o runs/first
    """
    from segmitos.commands.train import run_train

    return run_train(**given)


@click.command()
@data_argument
@click.option(
    "-o", "--out", type=FilePath, required=True, help="Folder; folds that are done there are kept."
)
@click.option(
    "--by",
    type=click.Choice(["slide", "laboratory"]),
    default="slide",
    show_default=True,
    help="What a fold holds out; each laboratory is one.",
)
@click.option(
    "--folds", type=click.IntRange(2, 1000), help="How many, by slide; default: 5 or fewer."
)
@click.option(
    "--seeds",
    cls=Several,
    type=click.IntRange(0, 2**31 - 1),
    multiple=True,
    help="Seeds; each fold is trained once with each. Default: 0.",
)
@click.option(
    "--only",
    cls=Several,
    multiple=True,
    callback=several,
    help="Fold to do now, such as fold-1; others are taken as they are. For job arrays.",
)
@recipe_option
@click.option("--epochs", type=click.IntRange(1, 1_000_000), help="Instead of the recipe's.")
@cases_option
@exclude_option
@mpp_option
@accelerator_option
@threads_option
@json_option
def crossval(**given: Any) -> int:
    """Cross-validate a recipe: score every slide, or laboratory, by networks that never saw it.

    Example: segmitos crossval mitos14:DIR --folds 3 -o runs/crossval
    """
    from segmitos.commands.crossval import run_crossval

    return run_crossval(**given)

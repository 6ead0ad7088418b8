"""The verb that trains."""

from __future__ import annotations

from typing import Any

import click

from segmitos.options import (
    FilePath,
    cases_option,
    data_argument,
    exclude_option,
    mpp_option,
    several,
    threads_option,
)


@click.command()
@data_argument
@click.option(
    "-o", "--out", type=FilePath, required=True, help="Folder of the run; resumed if there."
)
@click.option(
    "--recipe",
    default="lite",
    show_default=True,
    help="Packaged recipe by name, such as paper/mitos14-random, or a TOML file.",
)
@click.option(
    "--validation",
    multiple=True,
    callback=several,
    help="Slides or cases to validate on, kept from training.",
)
@cases_option
@exclude_option
@mpp_option
@click.option("--start-from", type=FilePath, help="Folder of a finished run to start from.")
@click.option("--epochs", type=int, help="Instead of the recipe's.")
@click.option("--seed", type=int, help="Instead of the recipe's.")
@click.option("--accelerator", default="auto", show_default=True, help="auto, cpu or cuda.")
@click.option("--devices", type=int, default=1, show_default=True, help="Processes or GPUs.")
@threads_option
@click.option("--restart", is_flag=True, help="Refuse to resume a run that is there.")
def train(**given: Any) -> int:
    """Train a detector from clicks on mitoses.

    Example: segmitos train mitos14:DIR --validation H03 -o runs/first
    """
    from segmitos.commands.train import run_train

    return run_train(**given)

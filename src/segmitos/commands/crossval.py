"""`segmitos crossval`: what a recipe is worth on slides or laboratories that it never saw."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import click

from segmitos.commands.progress import TrainingProgress, print_warnings
from segmitos.commands.train import accelerator_option, recipe_option
from segmitos.options import (
    DataSets,
    FilePath,
    Several,
    data_options,
    json_option,
    print_json,
    several,
    threads_option,
)
from segmitos.training.packages import require_training


@click.command()
@data_options
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
@accelerator_option
@threads_option
@json_option
def crossval(
    data: DataSets,
    out: Path,
    seeds: Sequence[int],
    only: Sequence[str] | None,
    recipe: str,
    epochs: int | None,
    threads: int | None,
    json_out: bool,
    **given: Any,
) -> None:
    """Cross-validate a recipe: score every slide, or laboratory, by networks that never saw it.

    Example: segmitos crossval mitos14:DIR --folds 3 -o runs/crossval
    """
    require_training()
    from segmitos.detection.model import available_threads
    from segmitos.training.crossval import RESULT, cross_validate, table_lines
    from segmitos.training.recipe import load_recipe

    said: set[str] = set()

    def on_fold(fold: str, seed: int) -> TrainingProgress:
        print(f"{fold}, seed {seed}:", file=sys.stderr, flush=True)
        return TrainingProgress(said)

    cases = data.load()
    print_warnings(data.left_out())
    result = cross_validate(
        cases,
        out,
        load_recipe(recipe, epochs=epochs),
        seeds=seeds or (0,),
        only=only or (),
        on_fold=on_fold,
        threads=threads or available_threads(),
        **given,
    )
    if json_out:
        print_json(result)
        return
    chosen = ", ".join(f"{key} {value}" for key, value in result["thresholds"].items())
    print("\n".join(table_lines(result)))
    print(f"common thresholds: {chosen}")
    print(f"written: {out / RESULT}", file=sys.stderr)

"""`segmitos crossval`: what a recipe is worth on slides or laboratories that it never saw."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

from segmitos.commands.train import require_training
from segmitos.commands.training_progress import TrainingProgress


def run_crossval(
    data: Sequence[str],
    out: Path,
    by: Literal["slide", "laboratory"],
    folds: int | None,
    seeds: Sequence[int],
    only: Sequence[str] | None,
    recipe: str,
    epochs: int | None,
    cases: Sequence[str] | None,
    exclude: Sequence[str] | None,
    mpp: float | None,
    override_mpp: bool,
    accelerator: str,
    threads: int | None,
    json_out: bool,
) -> int:
    """Train and test each fold, write crossval.json, print the table."""
    require_training()
    import json

    from segmitos.detection.model import available_threads
    from segmitos.io.datasets import load_dataset
    from segmitos.training.crossval import RESULT, cross_validate, table_lines
    from segmitos.training.recipe import load_recipe

    def on_fold(fold: str, seed: int) -> TrainingProgress:
        print(f"{fold}, seed {seed}:", file=sys.stderr, flush=True)
        return TrainingProgress()

    result = cross_validate(
        load_dataset(data, cases or (), exclude or (), mpp, override_mpp),
        out,
        load_recipe(recipe, epochs=epochs),
        by,
        folds,
        seeds or (0,),
        only or (),
        on_fold,
        accelerator,
        threads or available_threads(),
    )
    if json_out:
        print(json.dumps(result, indent=2, sort_keys=True))
        return 0
    chosen = ", ".join(f"{key} {value}" for key, value in result["thresholds"].items())
    print("\n".join(table_lines(result)))
    print(f"common thresholds: {chosen}")
    print(f"written: {out / RESULT}", file=sys.stderr)
    return 0

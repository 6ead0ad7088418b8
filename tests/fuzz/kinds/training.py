"""What training reads: recipes, checkpoints, thresholds."""

from __future__ import annotations

import json
from pathlib import Path

from segmitos.evaluation.tuning import read_thresholds

from ..kind import Kind


def _make_recipe(folder: Path) -> list[Path]:
    import segmitos

    recipes = Path(segmitos.__file__).parent / "recipes"
    source = next(path for path in sorted(recipes.rglob("*.toml")) if path.stem == "lite")
    (folder / "recipe.toml").write_bytes(source.read_bytes())
    return [folder / "recipe.toml"]


def _read_recipe(folder: Path) -> object:
    from segmitos.training.recipe import load_recipe

    load_recipe(folder / "recipe.toml")
    return None


def _make_checkpoint(folder: Path) -> list[Path]:
    import torch

    from segmitos.training.checkpoint import TrainingState, save_checkpoint
    from segmitos.training.recipe import load_recipe

    recipe = load_recipe("lite")
    fields = {"recipe": recipe if _takes_recipe(TrainingState) else recipe.to_dict()}
    state = _made(TrainingState, fields)
    save_checkpoint(folder, {"network": {"weight": torch.zeros(3, 2)}}, state)
    return sorted(path for path in folder.iterdir() if path.is_file())


def _takes_recipe(kind: type) -> bool:
    return kind.__annotations__.get("recipe") == "Recipe"


def _made(kind: type, fields: dict[str, object]) -> object:
    """Make a state with plain values for what it needs."""
    import msgspec

    for field in msgspec.structs.fields(kind):
        if field.required and field.name not in fields:
            plain = {int: 1, float: 0.5, str: "x", dict: {}, list: [], tuple: ()}
            origin = getattr(field.type, "__origin__", field.type)
            origin = getattr(origin, "__origin__", origin)
            fields[field.name] = plain.get(origin)
    return msgspec.convert(
        {name: value for name, value in fields.items() if value is not None}, kind, strict=False
    )


def _read_checkpoint(folder: Path) -> object:
    from segmitos.training.checkpoint import load_checkpoint

    load_checkpoint(folder)
    return None


def _make_thresholds(folder: Path) -> list[Path]:
    content = {
        "thresholds": {"threshold": 0.5, "min_area_um2": 4.0, "min_score": 0.6},
        "validation": {"f_score": 0.7, "data": "x"},
    }
    (folder / "thresholds.json").write_text(json.dumps(content))
    return [folder / "thresholds.json"]


KINDS = [
    Kind("recipe", _make_recipe, _read_recipe, 150),
    Kind("checkpoint", _make_checkpoint, _read_checkpoint, 100),
    Kind(
        "thresholds",
        _make_thresholds,
        lambda folder: read_thresholds(folder / "thresholds.json") and None,
        100,
    ),
]
